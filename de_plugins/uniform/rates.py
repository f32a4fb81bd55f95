"""The rates of the reverse chain at time t, and the law of a move by frozen rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import Output, expand

if TYPE_CHECKING:
    from de_plugins.uniform.modality import Uniform

__all__ = ["expected_jumps", "moved"]


def expected_jumps(
    modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None, weight: float
) -> Tensor:
    """log of (t - s) h(t)/K beta(j)/beta(x_t): the expected number of jumps to each class j at the rates of time t,
    (B, *event, K) float64, -inf at the present class.

    Guidance mixes log-rates and leaves their sum as it comes. Source: Nisonoff et al. 2024 (2406.01572).
    """
    log_s = modality.log_ratios(output, xt, t).double()
    if weak is not None:
        log_s = weight * log_s + (1 - weight) * modality.log_ratios(weak, xt, t).double()
    log_s = log_s + expand((t - s).double() * modality.clock.hazard(t) / modality.num_classes, xt)[..., None].log()
    present = torch.arange(modality.num_classes, device=xt.device) == xt[..., None]
    return torch.where(present, -torch.inf, log_s)


def moved(log_jumps: Tensor, xt: Tensor, chance: Tensor) -> Tensor:
    """The law of an element that moves with probability ``chance``, (B, *event), to a class drawn by its share of the
    jumps, and else stays: log-probabilities (B, *event, K)."""
    away = log_jumps - log_jumps.logsumexp(-1, keepdim=True) + chance[..., None].log()
    away = torch.where(chance[..., None] > 0, away, -torch.inf)
    return away.scatter(-1, xt[..., None], torch.log1p(-chance)[..., None])
