"""Euler's step of the reverse chain: one jump at most, at the rates of time t."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from de_core.modality import Output
from de_plugins.uniform.rates import expected_jumps, moved

if TYPE_CHECKING:
    from de_plugins.uniform.modality import Uniform

__all__ = ["euler"]


def euler(
    modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None, weight: float
) -> Tensor:
    """An element jumps to class j with probability (t - s) h/K beta(j)/beta(x_t); where these sum to more than 1 they
    are scaled to 1.

    First order. Source: Lou et al. 2024 (2310.16834), section 4.
    """
    jumps = expected_jumps(modality, output, xt, t, s, weak, weight)
    return moved(jumps, xt, jumps.logsumexp(-1).exp().clamp_max(1))
