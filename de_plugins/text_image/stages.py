"""Staged training as data: which losses count, how the clocks are drawn and what holds still, one value a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from de_core import JointProcess
from de_core.errors import DiffuseError
from de_core.times import TimePolicy, default_times
from de_core.train import Source, Trainer, TrainResult
from de_plugins.text_image.mmdit import MMDiT

__all__ = ["Stage", "single_stage", "three_stages", "train_stages"]


@attrs.frozen
class Stage:
    """One stretch of training.

    Args:
        name: of its directory and its lines of the curve.
        share: of the whole budget, above 0.
        weights: of the modalities' losses; 0 leaves one out.
        times: how the clocks are drawn.
        frozen: parts of the network that hold still, as ``MMDiT.freeze`` takes them.
        batch_size: rows a step; None is the run's.
    """

    name: str
    share: float
    weights: Mapping[str, float] = attrs.field(factory=dict)
    times: TimePolicy = attrs.field(factory=default_times)
    frozen: tuple[str, ...] = ()
    batch_size: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.share > 0:
            raise DiffuseError(f"stage '{self.name}': expected a share above 0, got {self.share}")
        if self.weights and not any(self.weights.values()):
            raise DiffuseError(f"stage '{self.name}': every loss has weight 0, nothing would be trained")


def three_stages(
    image: str,
    text: str,
    *,
    weights: Mapping[str, float],
    shares: Sequence[float] = (0.64, 0.21, 0.15),
    times: TimePolicy | None = None,
) -> tuple[Stage, ...]:
    """The authors' three: the picture's loss alone, with text at random times; then the text's, with what is shared
    and the picture's part held still; then everything.

    Args:
        image, text: the modalities' names.
        weights: of the two losses where they count.
        shares: of the budget; the default is theirs, 600, 200 and 140 thousand steps.
        times: of all stages.
    """
    times = times or default_times()
    first, second, third = shares
    return (
        Stage("image", first, {**weights, text: 0.0}, times),
        Stage("text", second, {**weights, image: 0.0}, times, ("joint", image)),
        Stage("all", third, dict(weights), times),
    )


def single_stage(weights: Mapping[str, float], times: TimePolicy | None = None) -> tuple[Stage, ...]:
    """Everything at once."""
    return (Stage("all", 1.0, dict(weights), times or default_times()),)


def train_stages(
    joint: JointProcess,
    model: MMDiT,
    source: Source,
    stages: Sequence[Stage],
    *,
    steps: int | None = None,
    minutes: float | None = None,
    out: str | Path | None = None,
    on_stage: Callable[[Stage], None] | None = None,
    **settings: Any,
) -> TrainResult:
    """Train stage after stage, each from the averaged weights of the one before and with its own warm-up and decay.

    With ``out`` each stage keeps its curve and checkpoint in ``out/NAME``; a run that was cut off goes on from the last
    one: whole stages are not trained again.

    Args:
        joint, model, source, stages: what is trained on what.
        steps, minutes: the budget of all stages; each has its share.
        out: a directory, or None.
        on_stage: called before each stage.
        settings: of ``Trainer``.

    Raises:
        DiffuseError: a stage that trains nothing, two of one name, no budget.
    """
    names = [stage.name for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise DiffuseError(f"stages: expected at least one, each of its own name, got {names}")
    whole, result, curve = sum(stage.share for stage in stages), None, []
    taken, spent, until = 0, 0.0, 0.0
    for stage in stages:
        for name in {*stage.weights} - {*joint.modalities}:
            raise DiffuseError(f"stage '{stage.name}': no modality '{name}'; there are {', '.join(joint.modalities)}")
        model.freeze(stage.frozen)
        begin, until = until, until + stage.share / whole
        place = None if out is None else Path(out) / stage.name
        own: dict[str, Any] = {**settings, **({} if stage.batch_size is None else {"batch_size": stage.batch_size})}
        trainer = Trainer(
            joint,
            model,
            steps=None if steps is None else max(1, round(steps * until) - round(steps * begin)),
            minutes=None if minutes is None else minutes * (until - begin),
            weights=stage.weights,
            times=stage.times,
            out=place,
            **own,
        )
        if place is not None and (place / "checkpoint").is_dir():
            trainer.resume(place / "checkpoint")
        if on_stage is not None:
            on_stage(stage)
        result = trainer.fit(source)
        curve += [{**line, "stage": stage.name, "step": taken + line["step"]} for line in result.curve]
        taken, spent = taken + result.steps, spent + result.seconds
        model.load_state_dict(result.model.state_dict())
        if result.interrupted:
            break
    model.freeze(())
    assert result is not None
    return TrainResult(model.eval(), taken, spent, curve, result.interrupted)
