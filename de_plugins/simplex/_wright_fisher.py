"""The neutral Wright-Fisher diffusion with parent-independent mutation on the simplex, as pure functions.

K parts, total mass psi > 0, mean pi_i = 1/K, so alpha_i = psi / K; A(x) = diag(x) - x x^T; WF-time tau:

    L f = (psi / 2) sum_i (pi_i - x_i) d_i f + (1 / 2) sum_ij A_ij(x) d_ij f,

stationary and reversible for D_psi = Dir(alpha). Its kernel is a mixture of Dirichlet laws (Griffiths and Li
1983; Jenkins and Spano 2017, arXiv 1506.06998): m ~ q_m(tau), l ~ Multinomial(m, x_0), x_tau ~ Dir(alpha +
l). Hence

    E[x_tau | x_0] = pi + exp(-psi tau / 2) (x_0 - pi),

and, as p(x | l) / D_psi is proportional to prod x_i^{l_i}, the score s = grad log(p_tau / D_psi) is s_i =
E[l_i | x_tau] / x_i, known up to a constant shift of all parts, which A does not see: A(x) 1 = 0.

This file draws and has the small algebra; the law of m is in `_counts`, densities and scores are in
`_density`; all are exported here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.rng import fork
from de_plugins.simplex._counts import log_q, mean_count, sample_counts
from de_plugins.simplex._density import align, conditional_log_density, conditional_score, one_hot_log_G

__all__ = [
    "apply_A",
    "conditional_log_density",
    "conditional_score",
    "dirichlet",
    "log_q",
    "mean_count",
    "multinomial",
    "one_hot_log_G",
    "quadratic",
    "sample_counts",
    "sample_forward",
]


def apply_A(v: Tensor, x: Tensor) -> Tensor:
    """A(x) v = x (v - sum_j x_j v_j), over the last axis.

    Its parts sum to zero, and a constant added to v changes nothing.

    Args:
        v: (..., K) real.
        x: (..., K), on the simplex.
    """
    return x * (v - (x * v).sum(-1, keepdim=True))


def quadratic(v: Tensor, x: Tensor) -> Tensor:
    """v^T A(x) v = sum_i x_i v_i^2 - (sum_i x_i v_i)^2 >= 0.

    Computed as the variance of v under x, which does not cancel.

    Args:
        v: (..., K) real.
        x: (..., K), on the simplex.

    Returns:
        (...).
    """
    return (x * (v - (x * v).sum(-1, keepdim=True)) ** 2).sum(-1)


def multinomial(m: Tensor, p: Tensor, generator: torch.Generator) -> Tensor:
    """l ~ Multinomial(m, p), by splitting off one part after another with binomial draws.

    Args:
        m: (...) int64 >= 0.
        p: (..., K) >= 0, not all zero in a row; need not be normalised.
        generator: source of the draws, on m's device.

    Returns:
        (..., K) int64; sums to m exactly; a part with p = 0 gets exactly 0.
    """
    p = p.to(torch.float64)
    tail = p.flip(-1).cumsum(-1).flip(-1)  # the last positive part is its own tail: it takes all the rest
    share = torch.where(p > 0, p / tail.clamp(min=torch.finfo(torch.float64).tiny), 0.0).clamp(max=1.0)
    left = m.to(torch.float64)
    counts = []
    for part in share.unbind(-1):
        drawn = torch.binomial(left, part, generator=fork(generator))
        counts.append(drawn)
        left = left - drawn
    return torch.stack(counts, -1).long()


def dirichlet(shape: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """x ~ Dir(shape), over the last axis.

    In float64 and in logarithms: log Gamma(a) is drawn as log Gamma(a + 1) + log(U) / a, which cannot
    underflow however small a is.

    Args:
        shape: (..., K) > 0.
        generator: source of the draws, on the shape's device.
        dtype: of the result.

    Returns:
        (..., K), sums to one up to rounding; a part that rounds to zero becomes the dtype's smallest normal
        number, so all are > 0.
    """
    a = shape.to(torch.float64)
    u = torch.rand(a.shape, generator=generator, dtype=torch.float64, device=a.device)
    # torch.distributions takes no generator; this private function is what it calls
    gamma = torch._standard_gamma(a + 1, generator=fork(generator))  # pyright: ignore[reportPrivateImportUsage]
    logs = gamma.log() + torch.log1p(-u) / a
    return torch.softmax(logs, -1).to(dtype).clamp(min=torch.finfo(dtype).tiny)


def sample_forward(x0: Tensor, tau: Tensor, psi: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw from the Wright-Fisher kernel: m ~ q_m(tau), l ~ Multinomial(m, x_0), x_tau ~ Dir(psi / K + l).

    Exact but for the law of m, see `sample_counts`. Jenkins and Spano 2017, Algorithm 1.

    Args:
        x0: (B, *el, K) floating, on the simplex, faces and corners included.
        tau: (B,) or broadcastable to (B, *el) from the left, WF-time > 0.
        psi: > 0.
        generator: source of the draws, on x0's device.

    Returns:
        x_tau (B, *el, K) of x0's dtype, > 0; l (B, *el, K) int64; m (B, *el) int64, the sum of l.
    """
    m = sample_counts(align(tau, x0.shape[:-1]), psi, generator)
    counts = multinomial(m, x0, generator)
    return dirichlet(psi / x0.shape[-1] + counts, generator, x0.dtype), counts, m
