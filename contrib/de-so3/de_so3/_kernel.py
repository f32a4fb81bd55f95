"""The heat kernel of SO(3), known as IGSO(3), its slope, and exact draws from it. All in float64.

Rotations are 3 x 3 matrices R. hat(w) is the antisymmetric matrix with hat(w) a = w x a. Everything is a function of
u = 1 - cos omega = |R - R_0|^2/4 (Frobenius), which has no cancellation at small angles omega between the two, and of
v, the accumulated variance of a Brownian motion along each of the three axes: generator (1/2) sum_k V_k^2, (V_k f)(R) =
d/ds f(R exp(s hat(e_k))). In the metric of these axes the volume of SO(3) is 8 pi^2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["axial", "draw", "exponential", "hat", "log_kernel", "slope", "stretch", "uniform"]

_SWITCH = 0.5  # of v: below it the windings, above it the characters
_TERMS = 12  # of the series: the first left out is 27^2 exp(-13 * 14/4) < 2e-17
_NEAR = 2.0  # of v: below it draws start from the gaussian of the tangent space, above it from the uniform law
_BOUNDS = (1.7, 2.3)  # of kernel over proposal: 1.63 at omega = pi and 8 pi^2 p = 2.28 at 0, both at v = 2


def hat(w: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3): hat(w) a = w x a."""
    a, b, c = w.unbind(-1)
    o = torch.zeros_like(a)
    return torch.stack([o, -c, b, c, o, -a, -b, a, o], -1).reshape(*w.shape, 3)


def axial(m: Tensor) -> Tensor:
    """The w whose hat(w) is the antisymmetric part of m: sin omega times the axis, for a rotation."""
    parts = [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]]
    return 0.5 * torch.stack(parts, -1)


def exponential(x: Tensor, w: Tensor) -> Tensor:
    """x exp(hat(w)), w in the body frame, by Rodrigues' formula."""
    size = torch.linalg.vector_norm(w, dim=-1)[..., None, None].to(x.dtype)
    k = hat(w.to(x.dtype))
    turn = torch.sinc(size / math.pi) * k + 0.5 * torch.sinc(size / (2 * math.pi)) ** 2 * k @ k
    return x + x @ turn


def uniform(z: Tensor) -> Tensor:
    """(..., 4) -> (..., 3, 3): the rotation of the quaternion z/|z|; of the uniform law for a normal z."""
    w, x, y, z = (z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).reshape(*w.shape, 3, 3)


def stretch(u: Tensor) -> Tensor:
    """omega^2/2u, which is ((omega/2)/sin(omega/2))^2, smooth on [0, 2): 2 sum_n (2u)^(n-1)/(n^2 C(2n, n)) where
    u < 0.2, else acos(1 - u)^2/2u.

    Source: the series of arcsin^2 (Abramowitz and Stegun 4.4.40, squared); the first left out of 14 is below 1e-15.
    """
    small = u < 0.2
    near, power = torch.zeros_like(u), torch.ones_like(u)
    inside = torch.where(small, u, 0.0)
    for n in range(1, 15):
        near = near + 2 * power / (n**2 * math.comb(2 * n, n))
        power = power * 2 * inside
    outside = torch.where(small, 1.0, u.clamp_max(2 - 1e-15))
    return torch.where(small, near, torch.acos(1 - outside) ** 2 / (2 * outside))


def log_kernel(u: Tensor, v: Tensor) -> Tensor:
    """log p_v(R | R_0) against volume (that of SO(3) is 8 pi^2), elementwise.

    v >= 1/2: 8 pi^2 p = sum_l (2l + 1) exp(-l (l + 1) v/2) sin((l + 1/2) omega)/sin(omega/2): the time scale at which
    v is the variance an axis (some papers have v without the half). Below, the same by Poisson's summation over l,

        p = exp(v/8) (2 pi v)^{-3/2} (1/2)/sin(omega/2) sum_k (-1)^k (omega + 2 pi k) exp(-(omega + 2 pi k)^2/2v),

    with |k| <= 1. Sources: Nikolayev and Savyolova 1997 (normal law on SO(3)); Leach et al. 2022.
    """
    late = v >= _SWITCH
    if bool(late.all()):
        return _series(u, v)
    if not bool(late.any()):
        return _windings(u, v)
    return torch.where(late, _series(u, v.clamp_min(_SWITCH)), _windings(u, v.clamp_max(_SWITCH)))


def _series(u: Tensor, v: Tensor) -> Tensor:
    """Characters by their recurrence chi_{l+1} = 2 cos omega chi_l - chi_{l-1}, chi_0 = 1, chi_{-1} = -1."""
    c = 1 - u
    before, now = -torch.ones_like(c), torch.ones_like(c)
    total = torch.zeros_like(c)
    for n in range(_TERMS + 1):
        total = total + (2 * n + 1) * torch.exp(-0.5 * n * (n + 1) * v) * now
        before, now = now, 2 * c * now - before
    return total.log() - math.log(8 * math.pi**2)


def _windings(u: Tensor, v: Tensor) -> Tensor:
    """k = +-1 relative to k = 0 is below 1e-13 where omega < 0.5, and is left out there."""
    ratio, beyond = stretch(u), u > 0.12
    square = 2 * u * ratio
    omega = torch.where(beyond, square, 1.0).sqrt()
    wound = (2 * math.pi - omega) * torch.exp(-2 * math.pi * (math.pi - omega) / v)
    wound = wound - (2 * math.pi + omega) * torch.exp(-2 * math.pi * (math.pi + omega) / v)
    wound = torch.where(beyond, wound / omega, 0.0)
    return v / 8 - square / (2 * v) - 1.5 * (2 * math.pi * v).log() + 0.5 * ratio.log() + torch.log1p(wound)


def slope(u: Tensor, v: Tensor) -> Tensor:
    """d log p_v/du, elementwise."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        (grad,) = torch.autograd.grad(log_kernel(u, v).sum(), u)
    return grad


def draw(x: Tensor, v: Tensor, rng: torch.Generator) -> Tensor:
    """y ~ p_v(. | x), (..., 3, 3) for x (..., 3, 3) and v (...), exact: proposals accepted by the kernel's ratio.

    Where v < 2 the proposal is the gaussian of variance v an axis, brought down by the exponential map, with density
    (2 pi v)^{-3/2} exp(-omega^2/2v) ((omega/2)/sin(omega/2))^2, omega < pi; else it is uniform. Every round draws for
    every row, so that a row's value does not depend on the others'. Two in five or more are accepted.
    """
    out, open_ = x.clone(), torch.ones_like(v, dtype=torch.bool)
    near = v < _NEAR
    while bool(open_.any()):
        z = torch.randn(*v.shape, 4, generator=rng, dtype=x.dtype, device=x.device)
        coin = torch.rand(v.shape, generator=rng, dtype=x.dtype, device=x.device)
        at, spread, close = x[open_], v[open_], near[open_]
        w = spread.sqrt()[..., None] * z[open_][..., :3]
        omega = torch.linalg.vector_norm(w, dim=-1)
        y = torch.where(close[..., None, None], exponential(at, w), uniform(z[open_]))
        gaussian = -(omega**2) / (2 * spread) - 1.5 * (2 * math.pi * spread).log()
        gaussian = gaussian - 2 * torch.sinc(omega / (2 * math.pi)).abs().log()
        proposal = torch.where(close, gaussian, -math.log(8 * math.pi**2))
        ratio = log_kernel((y - at).square().sum((-2, -1)) / 4, spread) - proposal
        bound = torch.where(close, _BOUNDS[0], _BOUNDS[1]).log()
        accepted = (coin[open_].log() < ratio - bound) & ((omega < math.pi) | ~close)
        out[open_] = torch.where(accepted[..., None, None], y, at)
        open_[open_.clone()] = ~accepted
    return out
