"""The heat kernel of the unit sphere S^2, its slope, and exact draws from it. All in float64.

Everything is a function of u = 1 - cos theta = |x - x_0|^2/2, which has no cancellation at small angles, and of the
accumulated variance v of a Brownian motion with generator (1/2) Laplacian.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["draw", "exponential", "log_kernel", "slope", "square_angle", "tangent"]

_SWITCH = 0.2  # of v: below it the integral, above it the series
_TERMS = 20  # of the series: the first left out is 43 exp(-21 * 22 * 0.2/2) = 4e-19
_NODES, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.hermite.hermgauss(24))
_NEAR = 2.0  # of v: below it draws start from the gaussian of the tangent plane, above it from the uniform law
_BOUND = 1.45  # of kernel over proposal, both ways: 4 pi p(u = 0, v = 2) = 1.42 is the largest


def square_angle(u: Tensor) -> Tensor:
    """theta^2, smooth in u on [0, 2): 2 sum_n (2u)^n/(n^2 C(2n, n)) where u < 0.2, else acos(1 - u)^2.

    Source: the series of arcsin^2 (Abramowitz and Stegun 4.4.40, squared); the first left out of 14 is below 1e-15.
    """
    small = u < 0.2
    near, power = torch.zeros_like(u), torch.ones_like(u)
    inside = torch.where(small, u, 0.0)
    for n in range(1, 15):
        power = power * 2 * inside
        near = near + 2 * power / (n**2 * math.comb(2 * n, n))
    far = torch.acos(1 - torch.where(small, 1.0, u.clamp_max(2 - 1e-9))) ** 2
    return torch.where(small, near, far)


def log_kernel(u: Tensor, v: Tensor) -> Tensor:
    """log p_v(x | x_0) against area, elementwise.

    v >= 0.2: p = sum_l (2l + 1)/(4 pi) exp(-l (l + 1) v/2) P_l(cos theta). Below, where that sum cancels: Mehler's
    integral of P_l and Poisson's summation over l, with phi^2 = theta^2 + 2 v y^2 and windings (e^{-(pi^2 -
    theta^2)/2v}) left out,

        p = exp(v/8 - theta^2/2v)/(2 pi v) E_y [2 (cos theta - cos phi)/(phi^2 - theta^2)]^{-1/2},  y ~ N(0, 1/2),

    by Gauss and Hermite's rule. As v -> 0 this is Varadhan's law with its factor sqrt(theta/sin theta). Right to 1e-13,
    but for angles above 2.5 at v < 0.2, where p < 1e-6: there the windings show, up to 0.4 at the antipode (p < 1e-10).
    """
    return torch.where(v >= _SWITCH, _series(u, v.clamp_min(_SWITCH)), _integral(u, v.clamp_max(_SWITCH)))


def _series(u: Tensor, v: Tensor) -> Tensor:
    c = 1 - u
    before, now = torch.ones_like(c), c
    total = torch.ones_like(c)
    for n in range(1, _TERMS + 1):
        total = total + (2 * n + 1) * torch.exp(-0.5 * n * (n + 1) * v) * now
        before, now = now, ((2 * n + 1) * c * now - n * before) / (n + 1)
    return total.clamp_min(1e-30).log() - math.log(4 * math.pi)


def _integral(u: Tensor, v: Tensor) -> Tensor:
    square = square_angle(u)
    theta = (square + 1e-16).sqrt()[..., None]  # its slope stays finite at 0, where the integrand is even in it
    phi = (theta**2 + 2 * v[..., None] * _NODES.to(u.device) ** 2).sqrt()
    ratio = torch.sinc((phi + theta) / (2 * math.pi)) * torch.sinc((phi - theta) / (2 * math.pi))
    mean = (_WEIGHTS.to(u.device) * ratio.clamp_min(0.02).rsqrt()).sum(-1) / math.sqrt(math.pi)
    return mean.log() + v / 8 - square / (2 * v) - (2 * math.pi * v).log()


def slope(u: Tensor, v: Tensor) -> Tensor:
    """d log p_v/du, elementwise."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        (grad,) = torch.autograd.grad(log_kernel(u, v).sum(), u)
    return grad


def tangent(x: Tensor, z: Tensor) -> Tensor:
    """z - (x . z) x: the part of z in the tangent plane at x."""
    return z - (x * z).sum(-1, keepdim=True) * x


def exponential(x: Tensor, w: Tensor) -> Tensor:
    """The point at distance |w| from x along the great circle that leaves x in the direction of w."""
    size = torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return x * size.cos() + w * torch.sinc(size / math.pi)


def draw(x: Tensor, v: Tensor, rng: torch.Generator) -> Tensor:
    """y ~ p_v(. | x), (..., 3) for x (..., 3) and v (...), exact: proposals accepted by the kernel's ratio.

    Where v < 2 the proposal is the gaussian of variance v in the tangent plane, brought down by the exponential map,
    with density exp(-theta^2/2v)/(2 pi v) theta/sin theta, theta < pi; else it is uniform. Every round draws for every
    row, so that a row's value does not depend on the others'. Two thirds or more are accepted.
    """
    out, open_ = x.clone(), torch.ones_like(v, dtype=torch.bool)
    near = v < _NEAR
    while bool(open_.any()):
        z = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
        coin = torch.rand(v.shape, generator=rng, dtype=x.dtype, device=x.device)
        at, noise, spread = x[open_], z[open_], v[open_]
        flat = noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)
        w = spread.sqrt()[..., None] * tangent(at, noise)
        theta = torch.linalg.vector_norm(w, dim=-1)
        y = torch.where(near[open_][..., None], exponential(at, w), flat)
        gaussian = -(theta**2) / (2 * spread) - (2 * math.pi * spread * torch.sinc(theta / math.pi).abs()).log()
        proposal = torch.where(near[open_], gaussian, -math.log(4 * math.pi))
        ratio = log_kernel((y - at).square().sum(-1) / 2, spread) - proposal
        accepted = (coin[open_].log() < ratio - math.log(_BOUND)) & ((theta < math.pi) | ~near[open_])
        out[open_] = torch.where(accepted[..., None], y, at)
        open_[open_.clone()] = ~accepted
    return out
