"""Who is sampled, who is given, and when each moves: checked in full before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.guidance import NoisyGuidance
from de_core.modality import expand
from de_core.paths import Path, Steps, Synchronous

if TYPE_CHECKING:
    from de_core.joint import JointProcess

__all__ = ["Given", "Plan", "Round", "make_plan"]


@attrs.frozen(eq=False)
class Given:
    """A modality, or part of one, held while the others are sampled.

    Args:
        value: the state *at* its level, (n, *event): clean at level 0, already noisy above.
        level: its clock, in [0, 1]. With ``known`` and an elementwise clock also one an element, (*element) or (n,
            *element): an element above 0 is held until the clock of the others has come down to its level, and then
            drawn with them, so that the sample is of p(x_0 | the elements at their levels). That needs a stepper of
            the reversed process (ancestral): a flow has the right law at each time, not over two times.
        known: which elements are held, (*element) or (n, *element) bool; None is all. The others are sampled. Exact
            where the modality holds its known elements (masked) or has an elementwise clock; else the known part is
            drawn afresh at each level from the forward kernel, with ``resample`` passes a step.
        resample: passes a step where replacement is used: after a step t -> s the state goes back by the kernel s ->
            t and the step is taken again (Lugmayr et al. 2022, 2201.09865). 1 is plain replacement.
    """

    value: Tensor
    level: float | Tensor = 0.0
    known: Tensor | None = None
    resample: int = 4

    def levels(self) -> tuple[float, float]:
        """The lowest and the highest level that is held."""
        if not isinstance(self.level, Tensor):
            return self.level, self.level
        known = torch.ones(()) > 0 if self.known is None else self.known
        level, known = torch.broadcast_tensors(self.level, known)
        return (float(level[known].min()), float(level[known].max())) if bool(known.any()) else (0.0, 0.0)


@attrs.frozen(eq=False)
class Round:
    """One network call and the moves that follow it.

    Attributes:
        moving: who moves, in the order of the process.
        ending: who of them takes the last move, to data.
        weights: the weight in force of those of them that are guided.
    """

    moving: tuple[str, ...]
    ending: frozenset[str]
    weights: dict[str, float]


@attrs.frozen(eq=False)
class Plan:
    """A checked request.

    Attributes:
        n: rows.
        sampled: the modalities that move.
        held: the modalities that are given whole.
        known: the modalities that are given in part.
        conditions: what guidance noises: held modalities, and known parts that can be noised apart from the rest.
        readings: name -> the clock before each round and after the last.
        rounds: one network call each (without a second stage, guidance and resampling).
        methods: stepper by name, where it is not the default.
    """

    n: int
    sampled: tuple[str, ...]
    held: dict[str, Given]
    known: dict[str, Given]
    conditions: tuple[str, ...]
    readings: dict[str, list[float]]
    rounds: list[Round]
    methods: dict[str, str]
    guidance: NoisyGuidance | None

    def noised(self, name: str, k: int) -> bool:
        """Whether the weak side of round ``k`` noises a modality that is sampled: sigma lies above its time."""
        return self.guidance is not None and _above(self.guidance, name, self.readings[name][k])

    def passes(self, joint: JointProcess, names: Sequence[str] | None = None) -> int:
        """How often a step of ``names`` (all by default) is taken: more than once where a known part is replaced."""
        replaced = [g.resample for name, g in self.known.items() if joint.replaces(name)]
        moving = names is None or any(name in self.known and joint.replaces(name) for name in names)
        return max(replaced, default=1) if moving else 1


def make_plan(
    joint: JointProcess,
    n: int,
    *,
    given: Mapping[str, Tensor | Given] | None,
    steps: int | Mapping[str, Steps],
    methods: Mapping[str, str] | None,
    guidance: NoisyGuidance | None,
    path: Path | None = None,
) -> Plan:
    """Check a request and sort it.

    Raises:
        DiffuseError: n or steps below 1; an unknown modality; a level outside [0, 1]; a value or ``known`` of wrong
            shape or range; nothing left to sample; a stepper the modality lacks; a path that does not fit; guidance
            with no condition, by a part that cannot be noised, or with sigma below a condition's level.
    """
    _check_count("rows", n)
    given = {name: g if isinstance(g, Given) else Given(g) for name, g in (given or {}).items()}
    for name, g in given.items():
        _check_given(joint, name, g, n)
    held = {name: g for name, g in given.items() if g.known is None}
    known = {name: g for name, g in given.items() if g.known is not None}
    sampled = tuple(name for name in joint.modalities if name not in held)
    if not sampled:
        raise DiffuseError("nothing is left to sample: every modality is given")
    methods = dict(methods or {})
    for name, method in methods.items():
        joint.check_name(name)
        if method not in joint.modalities[name].methods():
            names = ", ".join(joint.modalities[name].methods()) or "none"
            raise DiffuseError(f"modality '{name}': no stepper {method!r}; expected one of {names}")
    conditions = (*held, *(name for name in known if not joint.replaces(name)))
    if guidance is not None:
        _check_guidance(joint, guidance, sampled, held, known, conditions)
    readings = _readings(joint, sampled, steps, path or Synchronous())
    weakened = guidance is not None and any(_above(guidance, name, given[name].levels()[0]) for name in conditions)
    rounds = [
        _round(sampled, readings, k, guidance, weakened if conditions else None)
        for k in range(len(readings[sampled[0]]) - 1)
    ]
    return Plan(n, sampled, held, known, conditions, readings, rounds, methods, guidance)


def _check_count(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise DiffuseError(f"{what}: expected a whole number of at least 1, got {number!r}")


def _readings(
    joint: JointProcess, sampled: Sequence[str], steps: int | Mapping[str, Steps], path: Path
) -> dict[str, list[float]]:
    """The path's readings, checked: equally many for all, from 1 down to 0."""
    if isinstance(steps, Mapping):
        for name in steps:
            joint.check_name(name)
        missing = [name for name in sampled if name not in steps]
        if missing:
            raise DiffuseError(f"steps: expected a count for '{missing[0]}' too, got {', '.join(steps) or 'none'}")
        each = {name: steps[name] for name in sampled}
    else:
        each = dict.fromkeys(sampled, steps)
    for name, count in each.items():
        if not isinstance(count, Sequence) or isinstance(count, str):
            _check_count(f"steps of '{name}'" if isinstance(steps, Mapping) else "steps", count)
    if not hasattr(path, "readings"):
        raise DiffuseError(f"path: expected a path such as Synchronous(), got {path!r}")
    found = path.readings({name: joint.modalities[name] for name in sampled}, each)
    rounds = {len(found[name]) for name in sampled}
    for name in sampled:
        t = torch.tensor(found[name])
        if len(rounds) > 1 or t[0] != 1 or t[-1] != 0 or bool((t.diff() > 0).any()):
            raise DiffuseError(f"path: expected readings from 1 down to 0 for '{name}', as many as for the others")
    return found


def _above(guidance: NoisyGuidance, name: str, t: float) -> bool:
    """Whether sigma lies above the time of a modality."""
    level = guidance.level(name)
    return level is not None and level > t


def _round(
    sampled: Sequence[str],
    readings: Mapping[str, list[float]],
    k: int,
    guidance: NoisyGuidance | None,
    weakened: bool | None,
) -> Round:
    """Round ``k``. A modality is guided where its weight is not 1 and the weak call differs from the strong one: by
    its model, by a condition (``weakened``; None where nothing is given) or by another sampled modality."""
    moving = tuple(name for name in sampled if readings[name][k + 1] != readings[name][k])
    ending = frozenset(name for name in moving if readings[name][k + 1] == 0)
    if guidance is None:
        return Round(moving, ending, {})
    noised = {name for name in sampled if _above(guidance, name, readings[name][k])}
    weights = {name: guidance.weight_at(name, readings[name][k]) for name in moving}
    differs = {
        name: guidance.model is not None or (bool(noised - {name}) if weakened is None else weakened) for name in moving
    }
    return Round(moving, ending, {name: w for name, w in weights.items() if w != 1 and differs[name]})


def _check_guidance(
    joint: JointProcess,
    guidance: NoisyGuidance,
    sampled: Sequence[str],
    held: dict[str, Given],
    known: dict[str, Given],
    conditions: Sequence[str],
) -> None:
    for option in (guidance.weight, guidance.sigma):
        for name in option if isinstance(option, Mapping) else ():
            joint.check_name(name)
    stuck = [name for name in known if joint.replaces(name)]
    named = guidance.sigma if isinstance(guidance.sigma, Mapping) else ()
    alone = guidance.model is None and not conditions and len(sampled) < 2
    for name in stuck:
        if alone or name in named:
            raise DiffuseError(
                f"guidance: the known part of '{name}' runs under one clock with the rest and cannot be noised apart "
                "from it; declare the modality elementwise"
            )
    if alone:
        raise DiffuseError("guidance: nothing to guide by: one modality, and nothing is given")
    for name, g in (held | known).items():
        level, highest = guidance.level(name), g.levels()[1]
        if level is not None and level < highest:
            raise DiffuseError(f"guidance: sigma {level} is below the level {highest:.6g} of the given '{name}'")


def _check_given(joint: JointProcess, name: str, g: Given, n: int) -> None:
    joint.check_name(name)
    modality = joint.modalities[name]
    if g.known is None:
        _check_level(joint, name, g, n)
    if not isinstance(g.value, Tensor):
        raise DiffuseError(f"modality '{name}': expected a tensor for the given value, got {type(g.value).__name__}")
    want = (n, *modality.event_shape)
    if tuple(g.value.shape) != want:
        raise DiffuseError(f"modality '{name}': expected the given value of shape {want}, got {tuple(g.value.shape)}")
    if g.resample < 1:
        raise DiffuseError(f"modality '{name}': expected resample of at least 1, got {g.resample}")
    floating = modality.prior(1, rng=0).is_floating_point()
    if g.value.is_floating_point() != floating or not (floating or g.value.dtype == torch.int64):
        kind, came = "floating" if floating else "int64", str(g.value.dtype).removeprefix("torch.")
        raise DiffuseError(f"modality '{name}': expected the given value as {kind}, got {came}")
    if g.known is None:
        joint.validate_one(name, g.value, noised=g.levels()[1] > 0)
        return
    if g.known.dtype != torch.bool or tuple(g.known.shape) not in (
        modality.element_shape,
        (n, *modality.element_shape),
    ):
        raise DiffuseError(
            f"modality '{name}': expected known as bool of shape {modality.element_shape} or "
            f"{(n, *modality.element_shape)}, got {tuple(g.known.shape)} {g.known.dtype}"
        )
    _check_level(joint, name, g, n)
    known = torch.where(expand(g.known.expand(n, *modality.element_shape), g.value), g.value, 0)
    if not floating:
        joint.validate_one(name, known, noised=g.levels()[1] > 0)  # class 0 stands in for what is not known
    elif not bool(known.isfinite().all()):
        raise DiffuseError(f"modality '{name}': expected finite numbers in the known part, got NaN or infinite")


def _check_level(joint: JointProcess, name: str, g: Given, n: int) -> None:
    apart = g.known is not None and name in joint.elementwise
    if isinstance(g.level, Tensor):
        element = joint.modalities[name].element_shape
        if not apart or tuple(g.level.shape) not in (element, (n, *element)):
            want = f"one number, or one an element of shape {element} or {(n, *element)}" if apart else "one number"
            raise DiffuseError(f"modality '{name}': expected the level as {want}, got shape {tuple(g.level.shape)}")
    elif g.known is not None and not apart and g.level != 0:
        raise DiffuseError(f"modality '{name}': a partly known value is clean, expected level 0, got {g.level}")
    least, most = g.levels()
    if not (least >= 0 and most <= 1):  # NaN too
        raise DiffuseError(f"modality '{name}': expected a level in [0, 1], got {least if least < 0 else most:.6g}")
