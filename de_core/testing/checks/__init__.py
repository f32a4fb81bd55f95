"""The checks of the conformance kit, by what they look at. The order is that in which they run."""

from de_core.testing.checks import (
    contract,
    density,
    draws,
    finish,
    forward,
    guidance,
    joint,
    learning,
    numerics,
    reverse,
    small_steps,
)
from de_core.testing.report import Check

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    *contract.CHECKS,
    *draws.CHECKS,
    *forward.CHECKS,
    *density.CHECKS,
    *learning.CHECKS,
    *reverse.CHECKS,
    *small_steps.CHECKS,
    *finish.CHECKS,
    *guidance.CHECKS,
    *joint.CHECKS,
    *numerics.CHECKS,
)
