"""The ancestral step: a draw of q(x_s | x_t, x_0 = x0_hat)."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.schedule import PathSchedule

__all__ = ["ancestral"]


def ancestral(path: PathSchedule, x0: Tensor, xt: Tensor, t: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
    """N(a_ts sigma_s^2/sigma_t^2 x_t + alpha_s var_ts/sigma_t^2 x0_hat, var_ts sigma_s^2/sigma_t^2).

    a_ts = alpha_t/alpha_s and var_ts = sigma_t^2 - a_ts^2 sigma_s^2 are the kernel s -> t. Source: Ho et al. 2020
    (2006.11239) in the notation of Kingma et al. 2021 (2107.00630).
    """
    ratio, variance = path.between(s, t)
    total = path.sigma(t) ** 2
    keep = expand(ratio * path.sigma(s) ** 2 / total, xt)
    pull = expand(path.alpha(s) * variance / total, xt)
    spread = expand((variance * path.sigma(s) ** 2 / total).sqrt(), xt)
    noise = torch.randn(xt.shape, generator=generator, dtype=xt.dtype, device=xt.device)
    return keep * xt + pull * x0 + spread * noise
