"""Tau-leaping: Poisson numbers of jumps at the rates of time t."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import Output
from de_plugins.uniform.rates import expected_jumps, moved

if TYPE_CHECKING:
    from de_plugins.uniform.modality import Uniform

__all__ = ["tau_leaping", "tau_leaping_paper"]


def tau_leaping(
    modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None, weight: float
) -> Tensor:
    """A Poisson number of jumps with mean z, the sum over classes of (t - s) h/K beta(j)/beta(x_t); any of them moves
    the element, to the class of the first.

    It moves with probability 1 - e^-z. First order. Source: Campbell et al. 2022 (2205.14987).
    """
    jumps = expected_jumps(modality, output, xt, t, s, weak, weight)
    return moved(jumps, xt, -torch.expm1(-jumps.logsumexp(-1).exp()))


def tau_leaping_paper(
    modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None, weight: float
) -> Tensor:
    """The same with the jumps of an element dropped when more than one fires, so that it moves with probability z e^-z.

    It loses jumps where z is not small. Source: the authors' released samplers for Rojas et al. 2025 (2506.07903),
    Algorithm 3.
    """
    jumps = expected_jumps(modality, output, xt, t, s, weak, weight)
    mean = jumps.logsumexp(-1).exp()
    return moved(jumps, xt, mean * torch.exp(-mean))
