"""Churn: the flow beyond s, and noise back up to s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.steppers import Move, heun

if TYPE_CHECKING:
    from de_plugins.gaussian.modality import Gaussian

__all__ = ["churn"]


def churn(move: Move[Gaussian]) -> tuple[Tensor, None]:
    """Heun's step of the probability flow from t to s^2/t, then the forward kernel s^2/t -> s.

    Karras et al. 2022 (2206.00364), Algorithm 2, read from one network call to the next: there the state is noised
    from sigma to (1 + gamma) sigma and the flow runs from where the noise left it; here the readings t and s are those
    after the noise, so that no call is spent twice. s^2/t puts as much noise back as the ancestral step, which on
    sigma = t ends its own flow at sigma_s^2/sigma_t too: gamma = t/s - 1, which falls with the step, as a constant
    gamma would not. Second order, two calls.

    Raises:
        DiffuseError: no second network call was offered.
    """
    modality, t, s = move.modality, move.t, move.s
    low = s * s / t.clamp_min(1e-12)
    x = heun(modality, move.output, move.xt, t, low, again=move.call, weight=move.weight)
    ratio, variance = modality.path.between(low, s)
    noise = torch.randn(x.shape, generator=move.draw, dtype=x.dtype, device=x.device)
    return expand(ratio, x) * x + expand(variance.sqrt(), x) * noise, None
