"""The checks of the conformance kit, by what they look at. The order is that in which they run."""

from de_core.testing.checks import (
    clocks,
    contract,
    density,
    draws,
    finish,
    forward,
    guidance,
    implicit,
    independence,
    joint,
    learning,
    likelihood,
    numerics,
    objectives,
    refusals,
    reverse,
    signal,
    small_steps,
)
from de_core.testing.report import Check

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    *contract.CHECKS,
    *refusals.CHECKS,
    *independence.CHECKS,
    *draws.CHECKS,
    *signal.CHECKS,
    *clocks.CHECKS,
    *forward.CHECKS,
    *density.CHECKS,
    *learning.CHECKS,
    *objectives.CHECKS,
    *implicit.CHECKS,
    *likelihood.CHECKS,
    *reverse.CHECKS,
    *small_steps.CHECKS,
    *finish.CHECKS,
    *guidance.CHECKS,
    *joint.CHECKS,
    *numerics.CHECKS,
)
