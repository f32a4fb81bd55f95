"""Densities and scores of the Wright-Fisher kernel against its stationary law, as series of positive terms.

With q_m(tau) the law of the number of lineages, alpha = psi / K and (a)_m the rising factorial,

    h(x) = p_tau(x | x_0) / D_psi(x) = sum_m q_m (psi)_m m! [z^m] prod_i F(x_{0,i} x_i z),
    F(w) = sum_l w^l / (l! (alpha)_l),

which for x_0 = e_b is G(x_b), G(y) = sum_m q_m (psi)_m / (alpha)_m y^m.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from de_plugins.simplex._counts import MIN_TAU, log_q

__all__ = ["align", "conditional_log_density", "conditional_score", "one_hot_log_G"]

_BUDGET = 2**20  # float64 numbers in one work array: 8 MB, which stays in or near the cache
_SMALLEST = 1e-300  # a smaller x_0 x or y is read as this: the logarithm stays finite


def align(tau: Tensor, shape: torch.Size) -> Tensor:
    """tau broadcast to the shape from the left: (B,) to (B, 1, ...) to (B, *el)."""
    return tau.reshape(tau.shape + (1,) * (len(shape) - tau.ndim)).expand(shape)


def _by_tau(tau: Tensor, width: int, rows: Callable[[Tensor, Tensor], Tensor], psi: float) -> Tensor:
    """rows(index, log q) over chunks of like tau, put back in order: a series is some 3 / tau terms long."""
    order = torch.argsort(tau)
    done, out = 0, []
    while done < len(order):
        length = 3 / max(float(tau[order[done]]), MIN_TAU) + 60
        index = order[done : done + max(1, int(_BUDGET / (width * length)))]
        out.append(rows(index, log_q(tau[index], psi)))
        done += len(index)
    return torch.cat(out)[torch.argsort(order)]


def _saddle(log_w: Tensor, log_weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """log r of the circle on which the coefficients are read off, and the m at which the sum over m peaks.

    The coefficient of z^m in prod F(w_i z) is, up to powers of m, the least of r^-m prod F(w_i r) over r.
    The count w F'/F is close to (s - alpha) / 2, s = sqrt(alpha^2 + 4 w), exact at both ends, and so log F to
    s - alpha - alpha log((s + alpha) / (2 alpha)). Being right to a few standard deviations of m
    is enough: two rounds of a grid of radii, widest first.
    """
    size = log_weight.shape[-1]
    unit = torch.linspace(0, 1, 64, dtype=log_w.dtype, device=log_w.device)
    low = math.log(0.05 * alpha) - torch.logsumexp(log_w, -1)  # m is about 0.05
    high = 2 * (math.log(size + log_w.shape[-1] * alpha) - torch.logsumexp(log_w / 2, -1))  # m > size
    grid = best = m = unit[None]
    for _ in range(2):
        grid = low[:, None] + (high - low)[:, None] * unit
        s = torch.sqrt(alpha**2 + 4 * torch.exp((log_w[:, None, :] + grid[..., None]).clamp(max=60)))
        m = ((s - alpha) / 2).sum(-1)
        log_f = (s - alpha - alpha * torch.log((s + alpha) / (2 * alpha))).sum(-1)
        weight = log_weight.gather(1, m.round().clamp(0, size - 1).long())
        value = torch.where(m < size, weight - m * grid + log_f, -torch.inf)
        best = value.argmax(-1, keepdim=True)
        low = grid.gather(1, (best - 1).clamp(min=0))[:, 0]
        high = grid.gather(1, (best + 1).clamp(max=len(unit) - 1))[:, 0]
    return grid.gather(1, best), m.gather(1, best)


def _log_density(w: Tensor, log_q_rows: Tensor, psi: float) -> Tensor:
    """log h for rows w = x_0 x (n, K); see `conditional_log_density`."""
    size, alpha = log_q_rows.shape[-1], psi / w.shape[-1]
    m = torch.arange(size, dtype=torch.float64, device=w.device)
    log_weight = log_q_rows + torch.lgamma(psi + m) - math.lgamma(psi) + torch.lgamma(m + 1)
    log_w = w.clamp(min=_SMALLEST).log()
    with torch.no_grad():  # the result does not depend on the radius
        log_r, peak = _saddle(log_w, log_weight, alpha)
    # terms per factor: the m needed, and room so that what wraps round has left the bulk of the tilted law
    length = 64 * math.ceil((size + 9 * math.sqrt(size) + 16) / 64)
    count = torch.arange(length, dtype=torch.float64, device=w.device)
    log_c = count * (log_w + log_r)[..., None] - torch.lgamma(count + 1) - torch.lgamma(alpha + count)
    log_f = torch.logsumexp(log_c, -1)
    factors = torch.fft.rfft(torch.exp(log_c - log_f[..., None]))
    tilted = torch.fft.irfft(factors.prod(-2), n=length)[:, :size]  # [z^m] prod F(w_i r z) / F(w_i r)
    near = (m - peak).abs() <= 8 * (peak / 2).sqrt() + 16  # elsewhere there is only rounding
    log_v = torch.where(near, log_weight - m * log_r, -torch.inf)
    top = log_v.amax(-1, keepdim=True)
    series = (torch.exp(log_v - top) * tilted).sum(-1).log() + top[:, 0]
    return series + (log_f + math.lgamma(alpha)).sum(-1)


def conditional_log_density(x: Tensor, x0: Tensor, tau: Tensor, psi: float) -> Tensor:
    """log p_tau(x | x_0) / D_psi(x), for one-hot and for compositional x_0; differentiable in x and x_0.

    The coefficients of the product polynomial are read off a circle by a fast Fourier transform of length
    about M; the radius is put where the sum over m peaks, so that rounding stays near 1e-13 of the sum.

    Args:
        x: (B, *el, K), on the simplex, any floating dtype; all parts > 0 wherever x0 is.
        x0: (B, *el, K), on the simplex.
        tau: (B,) or broadcastable to (B, *el) from the left; below MIN_TAU it is read as MIN_TAU.
        psi: > 0.

    Returns:
        (B, *el) float64.
    """
    x, x0 = torch.broadcast_tensors(x.to(torch.float64), x0.to(torch.float64))
    w = (x * x0).reshape(-1, x.shape[-1])
    if not len(w):
        return (x * x0).sum(-1)
    flat = align(tau.to(torch.float64), x.shape[:-1]).flatten()
    out = _by_tau(flat, w.shape[-1], lambda index, logs: _log_density(w[index], logs, psi), psi)
    return out.reshape(x.shape[:-1])


def conditional_score(x: Tensor, x0: Tensor, tau: Tensor, psi: float) -> Tensor:
    """u_i = E[l_i | x_tau = x, x_0] / x_i: the gradient of log p_tau(x | x_0) / D_psi(x) with all K parts
    free.

    The series depends on x through x_{0,i} x_i only, so its derivative in log x_i is E[l_i | x, x_0]: u is
    the score of the marginal target. Exactly 0 where x_0 is.

    Args:
        x, x0, tau, psi: as for `conditional_log_density`.

    Returns:
        (B, *el, K) float64, >= 0 up to rounding.
    """
    with torch.enable_grad():
        x = x.detach().to(torch.float64).requires_grad_()
        total = conditional_log_density(x, x0.detach(), tau, psi).sum()
        return torch.autograd.grad(total, x)[0]


def one_hot_log_G(y: Tensor, tau: Tensor, psi: float) -> tuple[Tensor, Tensor]:
    """log G(y) and (log G)'(y), for the posterior head: p_tau(x | e_b) / D_psi(x) = G(x_b).

    G(y) = sum_m q_m (psi)_m / (alpha)_m y^m, alpha = psi / K, and (log G)'(y) = E[m | x, x_0 = e_b] / y under
    the series' weights. With mu_b = p(x_0 = e_b | x), the score is s_i = mu_i (log G)'(x_i).

    Args:
        y: (B, *el, K) in [0, 1]: usually x_tau, every part of it.
        tau: (B,) or broadcastable to (B, *el) from the left; below MIN_TAU it is read as MIN_TAU.
        psi: > 0.

    Returns:
        two (B, *el, K) float64.
    """
    parts = y.shape[-1]
    if not y.numel():
        return y.to(torch.float64), y.to(torch.float64)
    alpha = psi / parts
    flat = y.to(torch.float64).reshape(-1, parts).clamp(min=_SMALLEST)

    def rows(index: Tensor, log_q_rows: Tensor) -> Tensor:
        m = torch.arange(log_q_rows.shape[-1], dtype=torch.float64, device=y.device)
        log_weight = (
            log_q_rows + torch.lgamma(psi + m) - math.lgamma(psi) - torch.lgamma(alpha + m) + math.lgamma(alpha)
        )
        terms = log_weight[:, None, :] + m * flat[index].log()[..., None]
        log_g = torch.logsumexp(terms, -1)
        mean = (torch.exp(terms - log_g[..., None]) * m).sum(-1)
        return torch.stack([log_g, mean / flat[index]], -1)

    out = _by_tau(align(tau.to(torch.float64), y.shape[:-1]).flatten(), parts, rows, psi).reshape(*y.shape, 2)
    return out[..., 0], out[..., 1]
