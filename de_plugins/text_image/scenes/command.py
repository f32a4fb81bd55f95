"""``diffuse scenes``: learn pictures of coloured digits and the sentences that tell of them, and show what came of
it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from de_core import ClassifierFreeGuidance, NoisyGuidance, Sequential
from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.text_image.gallery import Grid, write_gallery
from de_plugins.text_image.mmdit import SIZES
from de_plugins.text_image.scenes.kinds import Kind, kind_of
from de_plugins.text_image.scenes.metrics import Asker, Parts
from de_plugins.text_image.scenes.training import CHOICES, SceneRun, load_scenes

__all__ = ["Command"]

_GUIDED = 2.0  # weight of the noisy guidance that the summary shows
_SIGMA = 0.7


class Command:
    """The arguments and the work of ``diffuse scenes``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--out", default="scenes-out", metavar="DIR", help="where to write (default: scenes-out)")
        parser.add_argument("--minutes", type=float, default=45.0, metavar="M", help="of training (default: 45)")
        parser.add_argument("--size", default="nano", choices=list(SIZES), help="of the network (default: nano)")
        about = "8×8 digits of scikit-learn, or 28×28 ones of MNIST (default: sklearn)"
        parser.add_argument("--digits", default="sklearn", choices=list(CHOICES["digits"]), help=about)
        for name, default in (
            ("stages", "one"),
            ("times", "decoupled"),
            ("objective", "simple"),
            ("precision", "auto"),
        ):
            about = f"of training (default: {default})"
            parser.add_argument(f"--{name}", default=default, choices=list(CHOICES[name]), help=about)
        parser.add_argument("--batch", type=int, default=64, metavar="N", help="scenes a step (default: 64)")
        parser.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate (default: 0.0015)")
        parser.add_argument("--rows", type=int, default=500, metavar="N", help="asked of each kind (default: 500)")
        parser.add_argument("--seed", type=int, default=0, metavar="S")
        parser.add_argument("--model", metavar="DIR", help="show this one, trained before, in place of training one")
        parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        for name in ("minutes", "batch", "lr", "rows"):
            if not getattr(args, name) > 0:
                raise DiffuseError(f"--{name}: expected a number above 0, got {getattr(args, name)}")
        out = Path(args.out)
        if out.exists() and not out.is_dir():
            raise DiffuseError(f"--out: expected a directory at {out}, got a file")
        kind, model = load_scenes(Path(args.model)) if args.model else (kind_of(args.digits), None)
        out.mkdir(parents=True, exist_ok=True)
        data = kind.data()
        judge = kind.judge(data)
        one, two = judge.accuracy
        say(f"the judge reads {one:.1%} of scenes of one held-out digit right, {two:.1%} of two")
        facts = {}
        if model is None:
            model, facts = _trained(args, kind, data, out)
        began = time.perf_counter()
        metrics, grids = measured(Asker(kind.process(), model, data, judge, seed=args.seed), args.rows)
        metrics |= {
            "judge_one": one,
            "judge_two": two,
            "parameters": sum(p.numel() for p in model.parameters()),
            "measuring_seconds": time.perf_counter() - began,
            **facts,
        }
        atomic_write(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in metrics.items()}
        lead = (
            "One network without a text encoder drew the pictures from the captions, the captions from the pictures, "
            "and both from nothing. What is asked for was never seen in training: neither the combination of digit, "
            "colour and place nor, where a picture is given, the hand. Green: the judge agrees."
        )
        page = write_gallery(out / "index.html", "Scenes", lead, grids, {"What was measured": shown})
        text = "\n".join(f"{k:<42}{v}" for k, v in shown.items())
        print(json.dumps(metrics) if args.json else f"{text}\n\nlook at {page}")
        return 0


def say(text: str) -> None:
    """A line of news on stderr."""
    print(text, file=sys.stderr, flush=True)


def _trained(args: argparse.Namespace, kind: Kind, data: Parts, out: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    chosen = {name: getattr(args, name) for name in CHOICES}
    run = SceneRun(**chosen, size=args.size, batch_size=args.batch, lr=args.lr, seed=args.seed)
    counts = kind.network(data.train, args.size, args.seed).parameter_counts()
    say(f"{sum(counts.values()):,} parameters: {', '.join(f'{part} {n:,}' for part, n in counts.items())}")
    result = run.train(data.train, out, minutes=args.minutes, on_stage=lambda stage: say(f"stage '{stage.name}'"))
    say(f"trained {result.steps:,} steps in {result.seconds:.0f} s")
    return result.model, {"training_steps": result.steps, "training_seconds": result.seconds}


def measured(asker: Asker, rows: int) -> tuple[dict[str, Any], list[Grid]]:
    """All numbers of ``metrics.json``, and the page's pictures."""
    metrics: dict[str, Any] = {"rows": rows}
    grids = []
    kinds = {
        "": None,
        "_guided": NoisyGuidance(_GUIDED, sigma=_SIGMA),
        "_classifier_free": ClassifierFreeGuidance(_GUIDED),
    }
    for count, word in ((1, "one"), (2, "two")):
        for kind, guidance in kinds.items():
            texts, images, right = asker.pictures(rows, count, guidance=guidance)
            metrics[f"image_given_caption_{word}{kind}"] = sum(right) / rows
            say(f"picture for a caption, {word} object{'s' * (count > 1)}{kind}: {sum(right) / rows:.3f}")
            if kind != "_classifier_free":
                title = f"A picture for a caption, {word} object{'s' * (count > 1)}{', guided' * bool(kind)}"
                grids.append(_grid(title, "The caption was given.", texts, images, right))
        texts, images, right = asker.captions(rows, count)
        metrics[f"caption_given_image_{word}"] = sum(right) / rows
        say(f"caption for a picture, {word}: {sum(right) / rows:.3f}")
        grids.append(_grid(f"A caption for a picture, {word}", "The picture was given.", texts, images, right))
    _, _, right = asker.both(rows)
    metrics["joint_synchronous"] = sum(right) / rows
    texts, images, right = asker.both(rows, path=Sequential(("caption", "image")))
    metrics |= {"joint": sum(right) / rows, **asker.distance(images)}
    say(f"both: {metrics['joint']:.3f}, and {metrics['joint_synchronous']:.3f} where they come from noise together")
    grids.insert(0, _grid("Both", "Nothing was given: a caption, then its picture.", texts, images, right))
    texts, known, drawn = asker.inpainted(8)
    grids.append(
        Grid(
            "The rest of a picture",
            "The left third and the caption were given.",
            torch.cat([known, drawn]),
            [*texts, *texts],
        )
    )
    starts, texts, right = asker.completed(min(rows, 200))
    metrics["caption_completed"] = sum(right) / len(right)
    whole = [f"{start} … → {text}" for start, text in zip(starts, texts, strict=True)]
    shown = asker.shown(min(rows, 200), 1)[1]
    grids.append(_grid("The rest of a caption", "The picture and five words were given.", whole, shown, right, 8))
    grids.append(asker.trajectory())
    metrics["caption_bound_nats_per_word"] = asker.caption_bound(min(rows, 128))
    return metrics, grids


def _grid(title: str, text: str, texts: list[str], images: torch.Tensor, right: list[bool], n: int = 16) -> Grid:
    return Grid(title, text, images[:n], texts[:n], right[:n])
