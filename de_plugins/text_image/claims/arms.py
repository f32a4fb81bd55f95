"""Two ways to train, at equal cost, with several seeds each: what comes of them, and whether the difference is more
than chance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.text_image.gallery import Grid
from de_plugins.text_image.scenes.kinds import kind_of
from de_plugins.text_image.scenes.metrics import Asker
from de_plugins.text_image.scenes.training import SceneRun, load_scenes

__all__ = ["COMPARISONS", "SHARES", "Comparison", "compare_arms", "difference"]

SHARES = (
    "image_given_caption_one",
    "image_given_caption_two",
    "caption_given_image_one",
    "caption_given_image_two",
    "joint",
)
_SHOWN = 16


@attrs.frozen
class Comparison:
    """A claim about training.

    Attributes:
        claim: in words, of the first arm against the second.
        arms: name -> the settings of ``SceneRun`` that differ.
    """

    claim: str
    arms: Mapping[str, Mapping[str, str]]


COMPARISONS = {
    "stages": Comparison(
        "Training in three stages is better than training everything at once, in the same time",
        {"three stages": {"stages": "three"}, "one stage": {"stages": "one"}},
    ),
    "times": Comparison(
        "Clocks of their own make the model better at any task than one clock for all",
        {"decoupled": {"times": "decoupled"}, "tied": {"times": "tied"}},
    ),
    "objective": Comparison(
        "The weights of the authors' code are better than those of the bound",
        {"paper-text-image": {"objective": "paper-text-image"}, "elbo": {"objective": "elbo"}},
    ),
}


def compare_arms(
    comparison: Comparison,
    run: SceneRun,
    out: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seeds: int,
    rows: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], list[Grid]]:
    """Train and measure every arm with every seed, in turn.

    Each leaves its model and numbers in ``out/ARM/SEED``; where they are there already, of the same settings, they are
    taken, and a training that was cut off goes on.

    Args:
        comparison: what differs. run: what does not; its seed is the first.
        minutes, steps: of each training.
        seeds: trainings of each arm.
        rows: asked of each kind.
        say: told of every training.

    Returns:
        "arms": name -> the numbers of each seed; "differences": of the first arm less the second, as ``difference``
        says, and of "all", the mean of the five shares of right answers; "verdict" on the claim by "all". And pictures.

    Raises:
        DiffuseError: a number of seeds or rows below 1, no budget, or an arm on disk that is of other settings.
    """
    for name, value in (("seeds", seeds), ("rows", rows)):
        if value < 1:
            raise DiffuseError(f"{name}: expected at least 1, got {value}")
    if (minutes is None) == (steps is None):
        raise DiffuseError(f"budget: expected minutes or steps, got {minutes} minutes and {steps} steps")
    kind = kind_of(run.digits)
    data = kind.data()
    judge = kind.judge(data)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in comparison.arms}
    grids: list[Grid] = []
    for seed in range(run.seed, run.seed + seeds):
        for name, change in comparison.arms.items():
            mine = attrs.evolve(run, seed=seed, **change)
            place = out / name.replace(" ", "-") / str(seed)
            wanted = {"run": attrs.asdict(mine), "minutes": minutes, "steps": steps, "rows": rows}
            numbers = _kept(place, wanted)
            if numbers is None:
                result = mine.train(data.train, place, minutes=minutes, steps=steps)
                if result.interrupted:
                    raise DiffuseError(f"'{name}', seed {seed}: the training was interrupted; the same call goes on")
                model = result.model.eval()
                numbers = _measured(Asker(kind.process(), model, data, judge), rows)
                numbers |= {"training_steps": result.steps, "training_seconds": round(result.seconds, 1)}
                atomic_write(place / "metrics.json", json.dumps({**wanted, "numbers": numbers}, indent=1) + "\n")
            found[name].append(numbers)
            say(f"{name}, seed {seed}: " + ", ".join(f"{key} {numbers[key]:.3f}" for key in SHARES))
            if seed == run.seed:
                asker = Asker(kind.process(), load_scenes(place / "model")[1], data, judge)
                texts, images, right = asker.pictures(_SHOWN, 2)
                grids.append(Grid(f"Two objects: {name}", "The caption was given.", images, texts, right))
    first, second = found.values()
    names = [*SHARES, "all", "caption_bound_nats_per_word", "frechet"]
    differences = {name: difference(_column(first, name), _column(second, name), rows) for name in names}
    result = {
        "claim": comparison.claim,
        "minutes": minutes,
        "steps": steps,
        "rows": rows,
        "arms": found,
        "differences": differences,
        "verdict": verdict(differences["all"]),
    }
    return result, grids


def difference(first: Sequence[float], second: Sequence[float], rows: int) -> dict[str, float | None]:
    """The mean of the first less that of the second, and its standard error.

    With two seeds and more an arm, from their spread; with one, of shares, from the binomial law: the mean of five
    shares is no less certain than one of them. Of what is no share and has one seed it is None.
    """
    a, b = (torch.tensor(list(x), dtype=torch.float64) for x in (first, second))
    gap = float(a.mean() - b.mean())
    if len(a) > 1:
        return {"difference": gap, "stderr": math.sqrt(float(a.var() / len(a) + b.var() / len(b)))}
    shares = [float(x) for x in (a[0], b[0])]
    if not all(0 <= p <= 1 for p in shares):
        return {"difference": gap, "stderr": None}
    return {"difference": gap, "stderr": math.sqrt(sum(p * (1 - p) for p in shares) / rows)}


def verdict(found: Mapping[str, float | None]) -> str:
    """ "holds", "does not hold", or "undecided" within two standard errors."""
    gap, stderr = found["difference"], found["stderr"]
    if gap is None or stderr is None or abs(gap) <= 2 * stderr:
        return "undecided"
    return "holds" if gap > 0 else "does not hold"


def _column(numbers: Sequence[Mapping[str, float]], name: str) -> list[float]:
    if name == "all":
        return [sum(line[share] for share in SHARES) / len(SHARES) for line in numbers]
    return [line[name] for line in numbers]


def _kept(place: Path, wanted: Mapping[str, Any]) -> dict[str, float] | None:
    """The numbers of an arm that was measured before."""
    file = place / "metrics.json"
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    for name, value in wanted.items():
        if kept.get(name) != value:
            raise DiffuseError(f"{place}: expected a model of {name} = {value}, there is one of {kept.get(name)}")
    return kept["numbers"]


def _measured(asker: Asker, rows: int) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for count, word in ((1, "one"), (2, "two")):
        for name, ask in (("image_given_caption", asker.pictures), ("caption_given_image", asker.captions)):
            numbers[f"{name}_{word}"] = sum(ask(rows, count)[2]) / rows
    _, images, right = asker.both(rows)
    numbers |= {"joint": sum(right) / rows, **asker.distance(images)}
    return numbers | {"caption_bound_nats_per_word": asker.caption_bound(min(rows, 128))}
