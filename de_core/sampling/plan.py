"""Who is sampled and who is given: checked in full before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.guidance import NoisyGuidance
from de_core.modality import expand

if TYPE_CHECKING:
    from de_core.joint import JointProcess

__all__ = ["Given", "Plan", "make_plan"]


@attrs.frozen(eq=False)
class Given:
    """A modality, or part of one, held while the others are sampled.

    Args:
        value: the state *at* its level, (n, *event): clean at level 0, already noisy above.
        level: its clock, in [0, 1].
        known: which elements are held, (*element) or (n, *element) bool; None is all. The others are sampled. Exact
            where the modality holds its known elements (masked) or has an elementwise clock; else the known part is
            drawn afresh at each level from the forward kernel, with ``resample`` passes a step.
        resample: passes a step where replacement is used: after a step t -> s the state goes back by the kernel s ->
            t and the step is taken again (Lugmayr et al. 2022, 2201.09865). 1 is plain replacement.
    """

    value: Tensor
    level: float = 0.0
    known: Tensor | None = None
    resample: int = 4


@attrs.frozen(eq=False)
class Plan:
    """A checked request: the rows, the modalities that are sampled in order, those that are held, the guidance.

    Attributes:
        n, steps: rows and network calls a block (without a second stage, guidance and resampling).
        sampled: the modalities that move.
        held: the modalities that are given whole.
        known: the modalities that are given in part.
        methods: stepper by name, where it is not the default.
    """

    n: int
    steps: int
    sampled: tuple[str, ...]
    held: dict[str, Given]
    known: dict[str, Given]
    methods: dict[str, str]
    guidance: NoisyGuidance | None

    def passes(self, joint: JointProcess) -> int:
        """How often each step is taken: more than once where a known part is held by replacement."""
        replaced = [g.resample for name, g in self.known.items() if joint.replaces(name)]
        return max(replaced, default=1)


def make_plan(
    joint: JointProcess,
    n: int,
    *,
    given: Mapping[str, Tensor | Given] | None,
    steps: int,
    methods: Mapping[str, str] | None,
    guidance: NoisyGuidance | None,
) -> Plan:
    """Check a request and sort it.

    Raises:
        DiffuseError: n or steps below 1; an unknown modality; a level outside [0, 1]; a value or ``known`` of wrong
            shape or range; nothing left to sample; a stepper the modality lacks; guidance with no condition, or with
            sigma below a condition's level.
    """
    for what, number in (("rows", n), ("steps", steps)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise DiffuseError(f"{what}: expected a whole number of at least 1, got {number!r}")
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
    if guidance is not None:
        if not held and len(sampled) < 2:
            raise DiffuseError("guidance: nothing to guide by: one modality, and nothing is given")
        for name in guidance.sigma if isinstance(guidance.sigma, Mapping) else ():
            joint.check_name(name)
        for name, g in held.items():
            if g.level > guidance.level(name):
                raise DiffuseError(
                    f"guidance: sigma {guidance.level(name)} is below the level {g.level} of the given '{name}'"
                )
    return Plan(n, steps, sampled, held, known, methods, guidance)


def _check_given(joint: JointProcess, name: str, g: Given, n: int) -> None:
    joint.check_name(name)
    modality = joint.modalities[name]
    if not 0 <= g.level <= 1:
        raise DiffuseError(f"modality '{name}': expected a level in [0, 1], got {g.level}")
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
        if g.level == 0:
            joint.validate_one(name, g.value)
        elif not bool(g.value.isfinite().all()):
            raise DiffuseError(f"modality '{name}': expected finite numbers in the given value, got NaN or infinite")
        return
    if g.level != 0:
        raise DiffuseError(f"modality '{name}': a partly known value is clean, expected level 0, got {g.level}")
    if g.known.dtype != torch.bool or tuple(g.known.shape) not in (
        modality.element_shape,
        (n, *modality.element_shape),
    ):
        raise DiffuseError(
            f"modality '{name}': expected known as bool of shape {modality.element_shape} or "
            f"{(n, *modality.element_shape)}, got {tuple(g.known.shape)} {g.known.dtype}"
        )
    known = torch.where(expand(g.known.expand(n, *modality.element_shape), g.value), g.value, 0)
    if not floating:
        joint.validate_one(name, known)  # class 0 stands in for what is not known
    elif not bool(known.isfinite().all()):
        raise DiffuseError(f"modality '{name}': expected finite numbers in the known part, got NaN or infinite")
