"""The implicit form of the Wright-Fisher diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.families.diffusion import slope
from de_core.generator import rows
from de_core.modality import Output, expand
from de_plugins.simplex._wright_fisher import quadratic

if TYPE_CHECKING:
    from de_plugins.simplex.modality import Simplex

__all__ = ["implicit"]


def implicit(
    modality: Simplex, head: Callable[[Tensor], Output], xt: Tensor, t: Tensor, draw: torch.Generator, probes: int
) -> Tensor:
    """b [s^T A s/2 + psi (pi - x) . s + tr(A grad s)], (B,): L* beta/beta + L log beta for a reversible L.

    The trace is exact for ``probes=0``, else by tangent noise sigma z, sigma sigma^T = A. Elements at t = 0 add
    nothing.
    """
    x = xt.detach().requires_grad_()
    t, rate = torch.where(t > 0, t, 0.5), torch.where(t > 0, modality.rate(t), 0.0)
    weight = expand(rate, x[..., 0]).to(x.dtype).expand(x.shape[:-1])[..., None]
    with torch.enable_grad():
        s = modality.score(head(x), x, t)

        def trace(z: Tensor) -> Tensor:
            root = x.detach().clamp_min(0).sqrt()
            w = weight.sqrt() * root * (z - root * (root * z).sum(-1, keepdim=True))
            return rows(w * slope(w * s, x)).sum(1)

        if probes:
            shape = {"generator": draw, "dtype": x.dtype, "device": x.device}
            curvature = torch.stack([trace(torch.randn(x.shape, **shape)) for _ in range(probes)]).mean(0)
        else:
            size = math.prod(modality.event_shape)
            eye = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *modality.event_shape)
            curvature = torch.stack([trace(z.expand_as(x)) for z in eye]).sum(0)
        pull = modality.psi * ((1 / modality.parts - x) * s).sum(-1, keepdim=True)
        return curvature + rows(weight * (0.5 * quadratic(s, x)[..., None] + pull)).sum(1)
