"""``diffuse claims``: what is claimed of the method, measured on scenes, as JSON, a figure and a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.text_image.claims.arms import COMPARISONS, compare_arms
from de_plugins.text_image.claims.figures import arms_figure, guidance_figure
from de_plugins.text_image.claims.guidance import guidance_grid
from de_plugins.text_image.gallery import Grid, write_gallery
from de_plugins.text_image.mmdit import SIZES
from de_plugins.text_image.scenes.metrics import Asker
from de_plugins.text_image.scenes.training import CHOICES, SceneRun, load_scenes

__all__ = ["Command"]

_GUIDANCE = "Noisy guidance trades accuracy against variety better than classifier-free guidance"


class Command:
    """The arguments and the work of ``diffuse claims``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        about = "guidance: of a trained model; stages, times, objective: train two ways and compare"
        parser.add_argument("claim", choices=["guidance", *COMPARISONS], help=about)
        parser.add_argument("--out", default="claims-out", metavar="DIR", help="where to write (default: claims-out)")
        parser.add_argument("--seed", type=int, default=0, metavar="S")
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        asked = parser.add_argument_group("guidance")
        asked.add_argument("--model", metavar="DIR", help="a model of `diffuse scenes`")
        asked.add_argument("--captions", type=int, default=100, metavar="N", help="asked (default: 100)")
        asked.add_argument("--draws", type=int, default=6, metavar="K", help="pictures of each (default: 6)")
        asked.add_argument("--weights", default="1.5,2,3,4", metavar="W,...", help="default: 1.5,2,3,4")
        asked.add_argument("--sigmas", default="0.3,0.5,0.7", metavar="S,...", help="default: 0.3,0.5,0.7")
        about = "where it is guided (default: 0:1,0.3:0.8)"
        asked.add_argument("--intervals", default="0:1,0.3:0.8", metavar="A:B,...", help=about)
        trained = parser.add_argument_group("stages, times, objective")
        trained.add_argument("--minutes", type=float, metavar="M", help="of each training (default: 10)")
        trained.add_argument("--steps", type=int, metavar="N", help="of each training, in place of minutes")
        trained.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each way (default: 3)")
        trained.add_argument("--rows", type=int, default=500, metavar="N", help="asked of each kind (default: 500)")
        trained.add_argument("--size", default="nano", choices=list(SIZES), help="of the network (default: nano)")
        trained.add_argument("--digits", default="sklearn", choices=list(CHOICES["digits"]))
        trained.add_argument("--batch", type=int, default=64, metavar="N", help="scenes a step (default: 64)")
        trained.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate (default: 0.0015)")

    def run(self, args: argparse.Namespace) -> int:
        for name in ("minutes", "steps", "batch", "lr", "captions", "draws", "seeds", "rows"):
            value = getattr(args, name)
            if value is not None and not value > 0:
                raise DiffuseError(f"--{name}: expected a number above 0, got {value}")
        out = Path(args.out)
        if out.is_file():
            raise DiffuseError(f"--out: expected a directory at {out}, got a file")
        found, grids, figure = _guidance(args) if args.claim == "guidance" else _training(args, out)
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / f"{args.claim}.json", json.dumps(found, indent=1) + "\n")
        atomic_write(out / f"{args.claim}.png", figure)
        told = _told(found)
        lead = f"{found['claim']}: {found['verdict']}."
        page = write_gallery(
            out / f"{args.claim}.html", "Claims", lead, grids, {"In numbers": told}, {"The measurement": figure}
        )
        text = "\n".join(f"{name:<34}{value}" for name, value in told.items())
        print(json.dumps(found) if args.json else f"{lead}\n\n{text}\n\nlook at {page}")
        return 0


def say(text: str) -> None:
    """A line of news on stderr."""
    print(text, file=sys.stderr, flush=True)


def _numbers(name: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise DiffuseError(f"--{name}: expected numbers with commas between, got {text!r}") from None
    return found


def _guidance(args: argparse.Namespace) -> tuple[dict[str, Any], list[Grid], bytes]:
    if args.model is None:
        raise DiffuseError("--model: expected a model of `diffuse scenes`, got none")
    pairs = [_numbers("intervals", pair.replace(":", ",")) for pair in args.intervals.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise DiffuseError(f"--intervals: expected A:B with commas between, got {args.intervals!r}")
    kind, model = load_scenes(Path(args.model))
    data = kind.data()
    found, grids = guidance_grid(
        Asker(kind.process(), model, data, kind.judge(data), seed=args.seed),
        captions=args.captions,
        draws=args.draws,
        weights=_numbers("weights", args.weights),
        sigmas=_numbers("sigmas", args.sigmas),
        intervals=[(a, b) for a, b in pairs],
        say=say,
    )
    found = {"claim": _GUIDANCE, "verdict": found["noisy_over_classifier_free"]["verdict"], **found}
    return found, grids, guidance_figure(found)


def _training(args: argparse.Namespace, out: Path) -> tuple[dict[str, Any], list[Grid], bytes]:
    if args.minutes is None and args.steps is None:
        args.minutes = 10.0
    run = SceneRun(digits=args.digits, size=args.size, batch_size=args.batch, lr=args.lr, seed=args.seed)
    budget = {"minutes": args.minutes, "steps": args.steps, "seeds": args.seeds, "rows": args.rows}
    found, grids = compare_arms(COMPARISONS[args.claim], run, out / args.claim, **budget, say=say)
    return found, grids, arms_figure(found)


def _told(found: Mapping[str, Any]) -> dict[str, str]:
    """What the page and the terminal show of a result."""
    if "differences" in found:
        return {name: _with_error(gap["difference"], gap["stderr"]) for name, gap in found["differences"].items()}
    best = found["noisy_over_classifier_free"]
    told = {"variety at equal accuracy, noisy less classifier-free": _with_error(best["gap"], best["stderr"])}
    for cell in found["cells"]:
        name = f"{cell['guidance']}, w {cell['weight']:g}"
        name += "" if cell["sigma"] is None else f", sigma {cell['sigma']:g}, t in {tuple(cell['interval'])}"
        told[name] = f"right {cell['accuracy']:.3f}, variety {cell['variety']:.3f}, Fréchet {cell['frechet']:.3f}"
    return told


def _with_error(value: float | None, error: float | None) -> str:
    return "not known" if value is None else f"{value:+.4f}" + ("" if error is None else f" ± {error:.4f}")
