"""Euler's step of the probability flow: first order, one network call."""

from __future__ import annotations

from torch import Tensor

from de_core.families.diffusion import Diffusion
from de_core.modality import Output, expand

__all__ = ["euler"]


def euler(modality: Diffusion, output: Output, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x_s = x_t + (s - t) v(x_t, t), back on the space."""
    return modality.retract(xt + expand(s - t, xt) * modality.velocity(output, xt, t))
