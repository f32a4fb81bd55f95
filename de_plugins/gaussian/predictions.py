"""What a network of a gaussian modality predicts, and one prediction as another."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.modality import Output, expand, times
from de_core.schedule import PathSchedule

__all__ = ["LEAST_ALPHA", "PREDICTIONS", "convert"]

PREDICTIONS = ("v", "x0", "eps", "score")
LEAST_ALPHA = 1e-4  # the alpha at which what divides by it stops growing (eps and score outputs), where alpha(1) = 0


def convert(path: PathSchedule, output: Output, xt: Tensor, t: Tensor, to: str, source: str) -> Tensor:
    """One prediction as another, at (x_t, t), t > 0.

    x0 = (alpha x - sigma n v)/n^2 = (x - sigma eps)/alpha; eps = (sigma x + alpha n v)/n^2 = (x - alpha x0)/sigma =
    -sigma score; n^2 = alpha^2 + sigma^2. Dividing by alpha is capped where alpha vanishes (eps and score outputs at
    t = 1).

    Args:
        output: (B, *event).
        to, source: of PREDICTIONS.

    Source: Salimans and Ho 2022 (2202.00512) for v.
    """
    if source == to:
        return output
    t = times(t, xt)
    alpha, sigma = expand(path.alpha(t), xt), expand(path.sigma(t), xt)
    norm = (alpha**2 + sigma**2).sqrt()
    if source == "v" and to == "x0":  # at every step of sampling: coefficients first, then two passes over the state
        return torch.addcmul(alpha / norm**2 * xt, sigma / norm, output, value=-1)
    if source == "v":
        eps = (sigma * xt + alpha * norm * output) / norm**2
    elif source == "x0":
        eps = (xt - alpha * output) / sigma.clamp_min(1e-12)
    else:
        eps = output if source == "eps" else -sigma * output
    if to == "eps":
        return eps
    if to == "score":
        return -eps / sigma.clamp_min(1e-12)
    x0 = output if source == "x0" else (xt - sigma * eps) / alpha.clamp_min(LEAST_ALPHA)
    return x0 if to == "x0" else (alpha * eps - sigma * x0) / norm
