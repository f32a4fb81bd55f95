"""``diffuse demo``: train one model over four state spaces on real digits and show what it generates."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from de_core import Cascaded, ClassifierFreeGuidance, Given, JointProcess, NoisyGuidance
from de_core.artifact import atomic_write, save_artifact
from de_core.errors import DiffuseError
from de_core.times import Faces
from de_core.train import Trainer, TrainResult
from de_plugins.text_image.digits.captions import Captions
from de_plugins.text_image.digits.data import DigitsData, load_digits_joint
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.digits.metrics import MEANINGS, measure
from de_plugins.text_image.digits.model import DigitsNet, DigitsSource, digits_process
from de_plugins.text_image.digits.page import Section, write_page
from de_plugins.text_image.digits.sections import (
    caption_section,
    guidance_section,
    image_section,
    inpainting_section,
    joint_section,
    noisy_caption_section,
)
from de_plugins.text_image.mmdit import MMDiT

__all__ = ["Command", "Sampler", "train"]

_WEIGHTS = {"image": 1.0, "caption": 2.0, "label": 6.0, "ink": 1.0}  # brings the four gradients to one scale
_NOISE = 0.4  # the level of the noisy caption: each word is hidden with this probability
_DRAWS = 4  # of captions and labels for each held-out picture
_ROWS = 2000  # a share of .98 is known to .31 points at one standard error
_STEPS = {"image": 64, "caption": 64, "label": 16, "ink": 32}

_FROM_CAPTION = ("label", "image", "ink")
State = dict[str, Tensor]
NETWORKS = {  # and the decay of its weights, beside one peak rate
    "mlp": (lambda joint, pictures: DigitsNet(pictures), 0.3),
    "mmdit": (lambda joint, pictures: MMDiT(joint, "tiny", patch=4, pictures={"image": pictures}), 0.1),
}


class Command:
    """The arguments and the work of ``diffuse demo``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out", default="demo-out", metavar="DIR", help="where to write (default: demo-out)")
        parser.add_argument("--minutes", type=float, default=2.0, metavar="M", help="of training (default: 2)")
        parser.add_argument(
            "--network", default="mlp", choices=list(NETWORKS), help="a gated MLP or a transformer (default: mlp)"
        )
        parser.add_argument("--seed", type=int, default=0, metavar="S")
        parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        started = time.perf_counter()
        if not args.minutes > 0:
            raise DiffuseError(f"--minutes: expected a number above 0, got {args.minutes}")
        out = Path(args.out)
        if out.exists() and not out.is_dir():
            raise DiffuseError(f"--out: expected a directory at {out}, got a file")
        data = load_digits_joint()
        captions, judge = Captions.fit(data.train.image), Judge.fit(data)
        say(f"{len(data.train)} digits to learn from, {len(data.held_out)} held out")
        say(f"the judge reads {judge.accuracy:.1%} of the held-out digits")
        joint, result = train(data, captions, minutes=args.minutes, seed=args.seed, network=args.network)
        say(f"trained {result.steps} steps in {result.seconds:.0f} s; sampling")
        show = Sampler(joint, result.model, data, captions, judge, args.seed)
        metrics, sections = show.measured()
        sections += [show.inpainting(), show.guidance()]
        parameters = sum(p.numel() for p in result.model.parameters())
        metrics |= {"seconds": time.perf_counter() - started, "parameters": parameters}
        curve: dict[str, list[float]] = {"step": [line["step"] for line in result.curve]}
        for name in joint.modalities:
            curve[name] = [line["terms"][name] for line in result.curve]
        page = write_page(out, sections, curve, metrics)
        atomic_write(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        config = {
            "kind": "digits-demo",
            "joint": joint.config(),
            "network": result.model.settings,
            "parameters": parameters,
            "seconds": result.seconds,
        }
        lines = "".join(json.dumps(line) + "\n" for line in result.curve)
        save_artifact(out / "model", config, result.model.state_dict(), files={"curve.jsonl": lines})
        if args.json:
            print(json.dumps(metrics))
        else:
            print(_summary(metrics))
            print(f"\nlook at {page}")
        return 0


def say(text: str) -> None:
    """A line of news on stderr."""
    print(text, file=sys.stderr, flush=True)


def train(
    data: DigitsData,
    captions: Captions,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    network: str = "mlp",
) -> tuple[JointProcess, TrainResult]:
    """The demo's model, trained on the training part. Ctrl-C ends the training and keeps what there is."""
    joint = digits_process()
    torch.manual_seed(seed)  # the network's first weights: torch's initialisers know no other source
    build, decay = NETWORKS[network]
    model = build(joint, data.train.image)
    trainer = Trainer(
        joint,
        model,
        minutes=minutes,
        steps=steps,
        batch_size=512,
        lr=4e-3,
        weight_decay=decay,
        orthogonal=getattr(model, "orthogonal", ()),
        weights=_WEIGHTS,
        times=Faces(share=0.5, ends=0.8),  # half of the rows have something given: most of what is asked lies there
        seed=seed,
    )
    return joint, trainer.fit(DigitsSource(data.train, captions))


@attrs.frozen(eq=False)
class Sampler:
    """What the trained model is asked, and how well it answers."""

    joint: JointProcess
    model: torch.nn.Module
    data: DigitsData
    captions: Captions
    judge: Judge
    seed: int

    def sample(self, n: int, order: Sequence[str], *, lag: float = 1.0, key: int = 0, **kwargs: object) -> State:
        """Samples of the modalities in ``order``, each ``lag`` of a run behind the one before: what is told in a few
        words first, then what has to agree with it. The picture by ancestral steps, whose fresh noise mends what the
        other modalities change; the caption by systematic ones, which seldom draw two words at once."""
        return self.joint.sample(
            self.model,
            n,
            rng=self.seed * 1000 + key,
            steps=_STEPS,
            path=Cascaded(order, lag),
            methods={"image": "ancestral", "caption": "systematic"},
            **kwargs,  # type: ignore[arg-type] # given and guidance, passed on as they are
        )

    def measured(self) -> tuple[dict[str, float], list[Section]]:
        """The numbers of ``metrics.json``, and the sections of the page that show their samples."""
        requested = torch.arange(_ROWS) % 10
        asked = self.captions.draw(requested, rng=self.seed + 5)
        noisy = self.joint.modalities["caption"].perturb(asked, _NOISE, rng=self.seed + 9).xt
        joint = self.sample(_ROWS, ("caption", "label", "image", "ink"), lag=0.3, key=1)
        from_caption = self.sample(_ROWS, _FROM_CAPTION, key=2, given={"caption": asked})
        from_noisy = self.sample(_ROWS, _FROM_CAPTION, key=3, given={"caption": Given(noisy, level=_NOISE)})
        held_out = self.data.held_out
        shown = held_out.image.repeat(_DRAWS, 1, 1, 1)
        from_image = self.sample(len(shown), ("label", "caption", "ink"), key=4, given={"image": shown})
        metrics = measure(
            self.judge,
            self.captions,
            self.data,
            joint=joint,
            from_caption=from_caption,
            from_noisy_caption=from_noisy,
            requested=requested,
            from_image=from_image,
            rng=self.seed,
        )
        sections = [
            joint_section(_first(joint, 24), self.judge),
            caption_section(_first(from_caption, 20), requested[:20], self.judge),
            noisy_caption_section(_first(from_noisy, 20), requested[:20], self.judge),
            image_section(_first(from_image, 20), held_out.label[:20]),
        ]
        return metrics, sections

    def inpainting(self, rows: int = 8, draws: int = 5) -> Section:
        """Held-out pictures completed from their upper half."""
        known = torch.zeros(1, 8, 8, dtype=torch.bool)
        known[:, :4] = True
        original = self.data.held_out.image[:rows]
        given = {"image": Given(original.repeat_interleave(draws, 0), known=known)}
        sample = self.sample(rows * draws, ("image",), lag=0.0, key=6, given=given)["image"]
        return inpainting_section(original, known, sample.reshape(rows, draws, 1, 8, 8))

    def guidance(self) -> Section:
        """The same captions without guidance, with classifier-free and with noisy guidance."""
        requested = torch.arange(1, 10)
        asked = self.captions.draw(requested, rng=self.seed + 7)
        kinds = {
            "none": None,
            "classifier-free": ClassifierFreeGuidance(2.0),
            "noisy": NoisyGuidance(2.0, sigma=0.5),
        }
        samples = {
            name: self.sample(len(requested), _FROM_CAPTION, key=8, given={"caption": asked}, guidance=kind)
            for name, kind in kinds.items()
        }
        return guidance_section(samples, requested, self.judge)


def _first(sample: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    return {name: x[:n] for name, x in sample.items()}


def _summary(metrics: dict[str, float]) -> str:
    width = max(len(key) for key in metrics)
    lines = []
    for key, value in metrics.items():
        meaning = MEANINGS.get(key)
        target = "" if meaning is None or meaning.target is None else f"   (target {meaning.target:g})"
        lines.append(f"{key:<{width}}  {value:.4g}{target}" if isinstance(value, float) else f"{key:<{width}}  {value}")
    return "\n".join(lines)
