"""Heun's step of the probability flow: second order, two network calls."""

from __future__ import annotations

from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families.diffusion import Diffusion
from de_core.modality import Again, Output, expand

__all__ = ["heun"]


def heun(
    modality: Diffusion,
    output: Output,
    xt: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    again: Again | None,
    weight: float = 1.0,
) -> Tensor:
    """x_s = x_t + (s - t) (v(x_t, t) + v(x_hat, s))/2 with x_hat Euler's step.

    Both coefficients of the second stage are taken at s. The poster's Algorithm 4 prints them at t, which is first
    order: ``tests/laws/test_errata.py`` measures both.

    Raises:
        DiffuseError: no second network call was offered.
    """
    if again is None:
        raise DiffuseError("method 'heun' needs a second network call: pass again=(x, t) -> output")
    first = modality.velocity(output, xt, t)
    ahead = modality.retract(xt + expand(s - t, xt) * first)
    second = modality.velocity(modality.again_output(again(ahead, s), weight), ahead, s)
    return modality.retract(xt + expand(s - t, xt) * 0.5 * (first + second))
