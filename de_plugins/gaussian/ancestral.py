"""The ancestral step: a draw of q(x_s | x_t, x_0 = x0_hat)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.steppers import Move

if TYPE_CHECKING:
    from de_plugins.gaussian.modality import Gaussian

__all__ = ["ancestral"]


def ancestral(move: Move[Gaussian]) -> tuple[Tensor, None]:
    """N(a_ts sigma_s^2/sigma_t^2 x_t + alpha_s var_ts/sigma_t^2 x0_hat, var_ts sigma_s^2/sigma_t^2).

    a_ts = alpha_t/alpha_s and var_ts = sigma_t^2 - a_ts^2 sigma_s^2 are the kernel s -> t. First order. Source: Ho et
    al. 2020 (2006.11239) in the notation of Kingma et al. 2021 (2107.00630).
    """
    path, xt, t, s = move.modality.path, move.xt, move.t, move.s
    ratio, variance = path.between(s, t)
    total = path.sigma(t) ** 2
    keep = expand(ratio * path.sigma(s) ** 2 / total, xt)
    pull = expand(path.alpha(s) * variance / total, xt)
    spread = expand((variance * path.sigma(s) ** 2 / total).sqrt(), xt)
    noise = torch.randn(xt.shape, generator=move.draw, dtype=xt.dtype, device=xt.device)
    return keep * xt + pull * move.modality.convert(move.output, xt, t, "x0") + spread * noise, None
