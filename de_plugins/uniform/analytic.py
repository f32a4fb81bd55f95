"""The analytic step: exact given the prediction at x_t."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.families.jump import guided_log_probs
from de_core.modality import Output

if TYPE_CHECKING:
    from de_plugins.uniform.modality import Uniform

__all__ = ["analytic"]


def analytic(
    modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None, weight: float
) -> Tensor:
    """log q(x_s = j | x_t = z) = log sum_b mu_b P_s(b, j) P_{t|s}(j, z)/P_t(b, z), (B, *event, K) float64.

    Elements that move together are drawn independently of each other, the step's only error. Guidance mixes these
    log-probabilities and renormalises. Source: Lou et al. 2024 (2310.16834), Tweedie tau-leaping; Schiff et al. 2024
    (2412.10193).
    """
    strong = reverse(modality, output, xt, t, s)
    return guided_log_probs(strong, None if weak is None else reverse(modality, weak, xt, t, s), weight)


def reverse(modality: Uniform, output: Output, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The same of one output, unguided."""
    log_mu = modality.posterior(output, xt, t).double()
    t, s = t.double(), s.double()
    k, z = modality.num_classes, xt[..., None]
    classes = torch.arange(k, device=xt.device)
    log_c = modality.log_odds(t, xt, torch.float64)
    loo = (log_mu - torch.where(classes == z, log_c, 0.0)).softmax(-1)  # nu_b, proportional to mu_b/P_t(b, z)
    a_s, a_ts = modality.clock.survival(s), modality.clock.kept(s, t)
    a_s, a_ts = (a.reshape(a.shape + (1,) * (xt.ndim - a.ndim + 1)) for a in (a_s, a_ts))
    back = a_s * loo + (1 - a_s) / k
    return (back * (torch.where(classes == z, a_ts, 0.0) + (1 - a_ts) / k)).log().log_softmax(-1)
