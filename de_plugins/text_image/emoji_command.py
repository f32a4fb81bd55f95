"""``diffuse emoji``: learn 1,911 named pictures and draw them by name."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from de_core import JointProcess, NoisyGuidance, get_modality
from de_core.artifact import atomic_write, save_artifact
from de_core.engine import quick_precision
from de_core.errors import DiffuseError
from de_plugins.text_image.clocks import asked_clocks
from de_plugins.text_image.data.captions import Captioner
from de_plugins.text_image.data.emoji import SIDE, EmojiSet, EmojiSource, load_emoji
from de_plugins.text_image.data.images import to_unit
from de_plugins.text_image.gallery import Grid, write_gallery
from de_plugins.text_image.mmdit import SIZES, MMDiT
from de_plugins.text_image.stages import single_stage, train_stages

__all__ = ["Command", "features", "ranks"]

LENGTH, WORDS = 16, 2048
PATCH = 8  # a quarter of the picture's tokens of 4: more steps in the same time
# more of the rows than in scenes where a name is given: a picture for a name is what is asked
CLOCKS = asked_clocks(picture=0.60, caption=0.20, apart=0.10, alone=0.10)
_NEAREST = 5
_COPY = 0.05  # mean absolute difference of pixels in [-1, 1] below which a picture is called a copy


class Command:
    """The arguments and the work of ``diffuse emoji``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        about = "unpacked emoji-datasource-google: `npm pack emoji-datasource-google@16.0.0 && tar xzf *.tgz`"
        parser.add_argument("package", metavar="PACKAGE", help=about)
        parser.add_argument("--out", default="emoji-out", metavar="DIR", help="where to write (default: emoji-out)")
        parser.add_argument("--minutes", type=float, default=20.0, metavar="M", help="of training (default: 20)")
        parser.add_argument("--size", default="nano", choices=list(SIZES), help="of the network (default: nano)")
        parser.add_argument("--batch", type=int, default=64, metavar="N", help="pictures a step (default: 64)")
        parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default: 0.003)")
        parser.add_argument("--rows", type=int, default=50, metavar="N", help="names asked for (default: 50)")
        parser.add_argument("--seed", type=int, default=0, metavar="S")
        parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        for name in ("minutes", "batch", "lr", "rows"):
            if not getattr(args, name) > 0:
                raise DiffuseError(f"--{name}: expected a number above 0, got {getattr(args, name)}")
        out = Path(args.out)
        if out.is_file():
            raise DiffuseError(f"--out: expected a directory at {out}, got a file")
        emoji = load_emoji(args.package)
        captioner = Captioner.train(emoji.captions, vocabulary=WORDS, length=LENGTH)
        joint = emoji_process(captioner)
        torch.manual_seed(args.seed)  # the network's first weights: torch's initialisers know no other source
        model = MMDiT(joint, args.size, patch=PATCH, pictures={"image": to_unit(emoji.own)})
        result = train_stages(
            joint,
            model,
            EmojiSource(emoji, captioner),
            single_stage({"image": 1.0, "caption": 8.0}, CLOCKS),
            minutes=args.minutes,
            batch_size=min(args.batch, len(emoji)),
            lr=args.lr,
            seed=args.seed,
            weight_decay=0.01,
            precision=quick_precision(),
            orthogonal=model.orthogonal,
        )
        print(f"trained {result.steps:,} steps in {result.seconds:.0f} s", file=sys.stderr, flush=True)
        metrics, grids = measured(joint, model, emoji, captioner, min(args.rows, len(emoji)), args.seed)
        metrics |= {
            "parameters": sum(model.parameter_counts().values()),
            "training_steps": result.steps,
            "training_seconds": result.seconds,
        }
        config = {"kind": "emoji", "joint": joint.config(), "network": model.settings}
        files = {"tokenizer.json": captioner.text()}
        save_artifact(out / "model", config, model.state_dict(), files=files)
        atomic_write(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
        lead = (
            "One network learned the pictures and their names. Green: the emoji that was asked for is among the five "
            f"nearest of all {len(emoji):,}. Pictures: Noto Emoji, Apache 2."
        )
        page = write_gallery(out / "index.html", "Emoji", lead, grids, {"What was measured": shown})
        text = "\n".join(f"{k:<26}{v}" for k, v in shown.items())
        print(json.dumps(metrics) if args.json else f"{text}\n\nlook at {page}")
        return 0


def emoji_process(captioner: Captioner) -> JointProcess:
    """Image: gaussian. Caption: masked tokens."""
    return JointProcess(
        {
            "image": get_modality("gaussian")((3, SIDE, SIDE)),
            "caption": get_modality("masked")((LENGTH,), num_classes=captioner.vocabulary),
        }
    )


def features(images: Tensor) -> Tensor:
    """(n, 3, 32, 32) in [-1, 1] -> (n, 320): colours of an 8 × 8 grid, and at each place how much the picture changes.

    The same for every model and every run; nothing in it is learned.
    """
    images = images.clamp(-1, 1)
    colour = functional.avg_pool2d(images, 4)
    grey = images.mean(1, keepdim=True)
    change = torch.cat(
        [
            functional.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1)),
            functional.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1)),
        ],
        1,
    )
    edges = functional.avg_pool2d(change, 4)
    return torch.cat([colour.flatten(1), 2 * edges.flatten(1)], 1)


def ranks(images: Tensor, wanted: Tensor, emoji: EmojiSet) -> Tensor:
    """How many emoji are nearer to each picture than the wanted one, (n,) int64; an emoji is as near as the nearest of
    its skin tones."""
    far = torch.cdist(features(images), features(to_unit(emoji.pictures)))
    owner = torch.repeat_interleave(torch.arange(len(emoji)), emoji.count)
    nearest = torch.full((len(images), len(emoji)), torch.inf).scatter_reduce(
        1, owner.expand(len(images), -1), far, "amin"
    )
    return (nearest < nearest.gather(1, wanted[:, None])).sum(1)


def measured(
    joint: JointProcess, model: MMDiT, emoji: EmojiSet, captioner: Captioner, rows: int, seed: int
) -> tuple[dict[str, Any], list[Grid]]:
    """Pictures for names, without guidance and with; names for pictures; both at once."""
    model = model.eval()
    wanted = torch.randperm(len(emoji), generator=torch.Generator().manual_seed(seed + 1))[:rows]
    names = [emoji.names[k] for k in wanted.tolist()]
    tokens = captioner.encode([emoji.captions[k] for k in wanted.tolist()]).tokens
    methods = {"image": "ancestral", "caption": "systematic"}
    moved = torch.roll(to_unit(emoji.own[wanted]), (1, 1), (2, 3))  # what the feature space makes of a real picture
    metrics: dict[str, Any] = {
        "rows": rows,
        "emoji": len(emoji),
        "by_chance": min(1.0, _NEAREST / len(emoji)),
        "real_moved_by_a_pixel": float((ranks(moved, wanted, emoji) < _NEAREST).double().mean()),
    }
    grids = []
    every = to_unit(emoji.pictures).flatten(1)
    for kind, guidance in {"": None, "_guided": NoisyGuidance(2.0, sigma=0.7)}.items():
        began = time.perf_counter()
        images = joint.sample(
            model, rows, rng=seed, given={"caption": tokens}, steps=100, methods=methods, guidance=guidance
        )["image"]
        near = ranks(images, wanted, emoji)
        metrics[f"among_five_nearest{kind}"] = float((near < _NEAREST).double().mean())
        metrics[f"nearest{kind}"] = float((near < 1).double().mean())
        apart = torch.cdist(images.flatten(1).clamp(-1, 1), every, p=1).amin(1) / every.shape[1]
        metrics[f"copies{kind}"] = int((apart < _COPY).sum())
        metrics[f"sampling_seconds{kind}"] = time.perf_counter() - began
        title = f"A picture for a name{', guided' * bool(kind)}"
        grids.append(Grid(title, "The name was given.", images, names, (near < _NEAREST).tolist(), 10))
    grids.append(Grid("The emoji themselves", "What was asked for.", to_unit(emoji.own[wanted]), names, (), 10))
    own = to_unit(emoji.own[wanted])
    said = captioner.decode(
        joint.sample(model, rows, rng=seed + 2, given={"image": own}, steps=50, methods=methods)["caption"]
    )
    right = [text == emoji.captions[k] for text, k in zip(said, wanted.tolist(), strict=True)]
    metrics["name_given_picture"] = sum(right) / rows
    grids.append(Grid("A name for a picture", "The picture was given.", own, said, right, 10))
    both = joint.sample(model, 20, rng=seed + 3, steps=100, methods=methods)
    grids.append(Grid("Both at once", "Nothing was given.", both["image"], captioner.decode(both["caption"]), (), 10))
    return metrics, grids
