"""DPM-Solver++(2M): second order in the log signal-to-noise ratio with one network call a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.steppers import Move

if TYPE_CHECKING:
    from de_plugins.gaussian.modality import Gaussian

__all__ = ["dpm_solver"]

_FLOOR = 1e-12


def dpm_solver(move: Move[Gaussian]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """x_s = sigma_s/sigma_t x_t + alpha_s (1 - e^{-h}) D,  D = (1 + 1/2r) x0_hat(t) - 1/2r x0_hat(before).

    h = l_s - l_t with l = log(alpha/sigma), r = h_before/h. Without a step before it, or where that step started at
    alpha = 0 (h infinite), D = x0_hat: the exact step for a constant x0_hat (DDIM). e^{-h} = alpha_t sigma_s/(sigma_t
    alpha_s) is taken as the ratio, so nothing is infinite. What it carries to the next step is (x0_hat, t).

    Source: Lu et al. 2022 (2211.01095), Algorithm 2.
    """
    path, xt, t, s = move.modality.path, move.xt, move.t, move.s
    x0 = move.modality.convert(move.output, xt, t, "x0")
    alpha_t, alpha_s, sigma_t, sigma_s = path.alpha(t), path.alpha(s), path.sigma(t), path.sigma(s)
    shrink = alpha_t * sigma_s / (sigma_t * alpha_s).clamp_min(_FLOOR)
    part = alpha_s * (1 - shrink)
    moved = torch.addcmul(expand(sigma_s / sigma_t, xt) * xt, expand(part, xt), x0)
    if move.carry is not None:
        before, t_before = move.carry
        alpha_b, sigma_b = path.alpha(t_before), path.sigma(t_before)
        h = _log_ratio(alpha_s, sigma_s) - _log_ratio(alpha_t, sigma_t)
        h_before = _log_ratio(alpha_t, sigma_t) - _log_ratio(alpha_b, sigma_b)
        usable = (alpha_b > 0) & (sigma_s > 0) & (h_before > 0)
        extra = torch.where(usable, h / (2 * torch.where(usable, h_before, 1.0)), 0.0)
        moved.addcmul_(expand(part * extra, xt), x0 - before)
    return moved, (x0, t)


def _log_ratio(alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha.clamp_min(_FLOOR).log() - sigma.clamp_min(_FLOOR).log()
