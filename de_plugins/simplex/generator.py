"""The operator of the Wright-Fisher diffusion."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.families.diffusion import slope
from de_core.generator import Function, Generator, rows
from de_plugins.simplex._wright_fisher import quadratic

__all__ = ["WrightFisherGenerator"]


class WrightFisherGenerator(Generator):
    """L f = b [psi/2 sum_i (pi_i - x_i) d_i f + 1/2 sum_ij A_ij d_ij f], A = diag(x) - x x^T, pi uniform, for each
    simplex.

    Reversible against D = Dir(psi pi), the reference measure: densities against it satisfy L* p = L p.

    Args:
        psi: total mass of the Dirichlet law.
        rate: b = d tau/dt, 0-d, (B,) or (B, *element).
    """

    reference = "dirichlet"

    def __init__(self, psi: float, rate: Tensor) -> None:
        self.psi, self.rate = psi, rate

    def _rate(self, x: Tensor) -> Tensor:
        """b for each simplex, (B, *element)."""
        shape = x.shape[:-1]
        return self.rate.to(x).reshape(self.rate.shape + (1,) * (len(shape) - self.rate.ndim)).expand(shape)

    def apply(self, f: Function, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        k, rate = x.shape[-1], self._rate(x)
        with torch.enable_grad():
            grad = slope(f(x), x)
            total = (rate[..., None] * 0.5 * self.psi * (1 / k - x) * grad).detach()
            for index in range(grad[0].numel()):
                if not grad.requires_grad:
                    break
                (row,) = torch.autograd.grad(grad.flatten(1)[:, index].sum(), x, retain_graph=True, allow_unused=True)
                if row is None:
                    continue
                element, part = divmod(index, k)
                xs, hs = x.detach().reshape(len(x), -1, k)[:, element], row.reshape(len(x), -1, k)[:, element]
                second = xs[:, part] * (hs[:, part] - (xs * hs).sum(-1))
                share = 0.5 * rate.reshape(len(x), -1)[:, element] * second / total[0].numel()
                total = total + share.reshape(-1, *[1] * (x.ndim - 1))
        return rows(total).sum(1)

    def adjoint(self, p: Function, x: Tensor) -> Tensor:
        return self.apply(p, x)

    def bregman(self, target_score: Tensor, score: Tensor, x: Tensor) -> Tensor:
        """b/2 (u - s)^T A (u - s), summed over simplices."""
        return rows(0.5 * self._rate(x).to(score.dtype) * quadratic(target_score - score, x)).sum(1)
