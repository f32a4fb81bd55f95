"""The ancestral process of the Wright-Fisher diffusion: how many lineages m are left after WF-time tau.

The number of lineages is a pure death chain that comes down from infinity, k -> k - 1 at rate r_k = k (k +
psi - 1) / 2; its law q_m(tau) mixes the Dirichlet laws of the forward kernel (Griffiths 1984; Tavare 1984;
Jenkins and Spano 2017, arXiv 1506.06998, eq. 5). The textbook series for q_m alternates and needs hundreds of
digits at small tau. Here the chain's master equation dq_m/dtau = r_{m+1} q_{m+1} - r_m q_m is solved once per
psi by uniformisation, a sum of positive terms, from a saddlepoint approximation at a tau so small that it is
within 1e-5 of exact; the error then shrinks like tau^(-3/2), for the chain forgets where it came from.
"""

from __future__ import annotations

import functools
import math

import attrs
import torch
from torch import Tensor

__all__ = [
    "MIN_TAU",
    "TABLE_TAU",
    "AncestralTable",
    "ancestral_table",
    "log_q",
    "mean_count",
    "normal_moments",
    "saddlepoint_log_q",
    "sample_counts",
]

TABLE_TAU = 0.008
"""The table's first tau; below it q_m is the saddlepoint law, and m is drawn from the normal law."""
MIN_TAU = 2.5e-4
"""Where a series over m is summed, a smaller tau is read as this one, which bounds it to 9,000 terms."""
_PRUNE = 1e-60  # the upper tail below this leaves the table; no series gives those m a weight near 1e60
_DRAW_TAU = 1e-6  # sample_counts reads a smaller tau as this one: about 2e6 lineages, finite
_LOG_ZERO = -1e4  # stands for log 0 in the table: its exp is exactly 0, and interpolation meets no infinity


@attrs.frozen(eq=False)
class AncestralTable:
    """The law of m on a grid of tau, for one psi. All float64; G grid points, M values of m.

    A cell of the grid moves the mean of m by at most a tenth of its standard deviation and the decay of
    any polynomial of degree two by at most a tenth.
    """

    psi: float
    tau: Tensor  # (G,) increasing from TABLE_TAU to where q_0 > 1 - 1e-6
    log_q: Tensor  # (G, M)
    slope: Tensor  # (G, M) d log q / d tau, from the master equation
    width: Tensor  # (G,) int64: every m >= width has q_m = 0 here
    log_mean: (
        Tensor  # (4, G - 1) log E[m] in each cell, the coefficients of 1, x, x^2, x^3, x = tau less the cell's start
    )
    decay: Tensor  # (G + 1,) exp(-psi tau / 2); a last row stands for tau = infinity, where m = 0
    steps: Tensor  # ((G + 1) M,) row index + cumulative law of that row: one increasing sequence

    def to(self, device: torch.device) -> AncestralTable:
        """The same table on another device."""
        names = [f.name for f in attrs.fields(AncestralTable) if f.name != "psi"]
        return attrs.evolve(self, **{name: getattr(self, name).to(device) for name in names})


def normal_moments(tau: Tensor, psi: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of Griffiths' normal law of m for small tau (both like 1/tau).

    With b = (psi - 1) tau / 2 and e = b / (exp(b) - 1): mean 2 e / tau and
    variance (2 e / tau) (e + b)^2 (1 + e / (e + b) - 2 e) / b^2, where e / (e + b) = exp(-b).
    Griffiths 1984, Theorem 4, as in Jenkins and Spano 2017, Theorem 1. Subtracting 1/6 from the mean when the
    law is rounded to integers cuts its distance to the exact law threefold; the callers do.

    Args:
        tau: float64, > 0, any shape.
        psi: > 0.
    """
    b = 0.5 * (psi - 1.0) * tau
    small = b.abs() < 0.05  # the last bracket cancels: Taylor series, whose next term is under 1e-8
    safe = torch.where(small, torch.ones_like(b), b)
    e = torch.where(small, 1 - b / 2 + b**2 / 12 - b**4 / 720, safe / torch.expm1(safe))
    bracket = (1 + torch.exp(-safe) - 2 * safe / torch.expm1(safe)) / safe**2
    bracket = torch.where(small, 1 / 3 - b / 6 + 2 * b**2 / 45 - b**3 / 120, bracket)
    return 2 * e / tau, 2 * e / tau * (e + b) ** 2 * bracket


def saddlepoint_log_q(tau: Tensor, psi: float, size: int) -> Tensor:
    """log q_m(tau), m < size, for small tau: relative error of a few 1e-3, in the far tails too.

    The chain leaves m after S_m = sum_{k >= m} Exp(r_k), so r_m q_m is the density of S_m at tau. With
    c = (psi - 1) / 2, r_k + theta = ((k + c)^2 + a^2) / 2, and sums over k >= m taken as integrals from
    X = m - 1/2 + c (midpoint rule), the saddle equation sum 1 / (r_k + theta) = tau becomes
    phi cot(phi) = X tau / 2 with a = 2 phi / tau, and

        log q_m = -(2 / tau) (phi^2 + X tau log cos phi) + sin(phi)^2 / (12 X) + 2 log Gamma(m + 1 + c)
                  - log Gamma(m + 1) - log Gamma(m + psi) - 2 log(m + c) - log(K'') / 2 + const,

    K'' proportional to (phi - sin phi cos phi) / phi^3; v = phi^2 < 0 (hyperbolic functions) beyond the mean.
    The second term is the midpoint rule's first correction. q_0 comes from dq_0/dtau = r_1 q_1 = theta q_0.
    Daniels 1954 for the method.

    Args:
        tau: (B,) float64 in (0, TABLE_TAU]; still within 1e-4 in total variation at 0.02.
        psi: > 0.
        size: number of m, at least 2.

    Returns:
        (B, size) float64; each row's exp sums to one.
    """
    m, c = torch.arange(1, size, dtype=torch.float64, device=tau.device), (psi - 1) / 2
    t, x = tau[:, None], m - 0.5 + c
    kappa = x * t / 2
    v = 3 * (1 - kappa)  # the tangent at v = 0; g(v) = phi cot phi is concave, so Newton converges from here
    for _ in range(6):
        flat = v.abs() < 1e-3  # there by Taylor series: the next terms are 2 v^3 / 945 and v^2 / 105
        u = torch.where(flat, torch.ones_like(v), v)
        phi = u.abs().sqrt()
        g = torch.where(flat, 1 - v / 3 - v**2 / 45, phi / torch.where(u > 0, torch.tan(phi), torch.tanh(phi)))
        slope = torch.where(flat, -1 / 3 - 2 * v / 45, (g - g**2 - u) / (2 * u))
        v = v - (g - kappa) / slope
    phi = v.abs().sqrt()
    cos = torch.where(v > 0, torch.cos(phi), torch.cosh(phi))
    product = torch.where(v > 0, torch.sin(2 * phi), torch.sinh(2 * phi)) / 2
    flat = v.abs() < 0.02  # (phi - product) cancels; the Taylor series' next term is under 1e-10
    curvature = (phi - product) / torch.where(flat, torch.ones_like(v), phi * v)
    curvature = torch.where(flat, 2 / 3 - 2 * v / 15 + 4 * v**2 / 315 - 2 * v**3 / 2835, curvature)
    tail = -2 / t * (v + 2 * kappa * cos.log()) + (1 - cos**2) / (12 * x) - 0.5 * curvature.log()
    tail = tail + 2 * torch.lgamma(m + 1 + c) - torch.lgamma(m + 1) - torch.lgamma(m + psi) - 2 * torch.log(m + c)
    theta = (c**2 + 4 * v[:, :1] / t**2) / 2
    return torch.log_softmax(torch.cat([tail[:, :1] + math.log(psi / 2) - theta.log(), tail], 1), -1)


def _rates(size: int, psi: float, device: torch.device | None = None) -> Tensor:
    m = torch.arange(size, dtype=torch.float64, device=device)
    return m * (m + psi - 1) / 2


def _window(mean: Tensor, variance: Tensor) -> int:
    """How many m to keep: 10 standard deviations leave out 1e-22, 30 more cover the Poisson-like tail."""
    return math.ceil((mean + 10 * variance.sqrt()).max().item() + 30)


def _advance(q: Tensor, rates: Tensor, times: Tensor) -> Tensor:
    """q after each of the times (n,), by uniformisation.

    exp(h Q) = sum_k Poisson(k; h R) (I + Q / R)^k with R the largest rate: no term is negative.
    """
    top = rates[-1].item()
    stay, die = 1 - rates / top, (rates / top)[1:]
    # so many leave out less than 1e-15 of the Poisson law for top h < 7, and keep the tails of q right too
    terms = math.ceil(4 * top * times[-1].item()) + 19
    powers = torch.empty(terms, len(q), dtype=torch.float64)
    powers[0] = q
    for k in range(1, terms):
        torch.mul(powers[k - 1], stay, out=powers[k])
        powers[k, :-1].addcmul_(powers[k - 1, 1:], die)
    k = torch.arange(terms, dtype=torch.float64)
    x = top * times[:, None]
    after = torch.exp(k * x.log() - x - torch.lgamma(k + 1)) @ powers
    return after / after.sum(1, keepdim=True)


@functools.lru_cache(maxsize=32)
def ancestral_table(psi: float) -> AncestralTable:
    """The law of m on a grid of tau; built once per psi, in about half a second.

    Args:
        psi: total mass of the Dirichlet stationary law, > 0.

    Raises:
        ValueError: psi is not a positive finite number.
    """
    if not (psi > 0 and math.isfinite(psi)):
        raise ValueError(f"psi: expected a positive finite number, got {psi}")
    start = torch.tensor([TABLE_TAU], dtype=torch.float64)
    q = saddlepoint_log_q(start, psi, _window(*normal_moments(start, psi)))[0].exp()
    rates, m = _rates(len(q), psi), torch.arange(len(q), dtype=torch.float64)
    taus, rows = [TABLE_TAU], [q]
    while q[0].item() <= 1 - 1e-6:
        size = int((q > _PRUNE).nonzero().max()) + 1
        q, rates, m = q[:size], rates[:size], m[:size]
        mean, speed = (q @ m).item(), (q @ rates).item()
        cell = min(0.1 * math.sqrt((q @ (m - mean) ** 2).item()) / speed, 0.1 / (psi + 1))
        count = max(1, int(6 / (rates[-1].item() * cell)))
        times = cell * torch.arange(1, count + 1, dtype=torch.float64)
        after = _advance(q, rates, times)
        taus += (taus[-1] + times).tolist()
        rows += list(after)
        q = after[-1]
    return _assemble(psi, taus, rows)


def _assemble(psi: float, taus: list[float], rows: list[Tensor]) -> AncestralTable:
    size = max(len(q) for q in rows)
    q = torch.zeros(len(rows), size, dtype=torch.float64)
    for i, row in enumerate(rows):
        q[i, : len(row)] = row
    tau = torch.tensor(taus, dtype=torch.float64)
    flow = q * _rates(size, psi)
    arriving = torch.cat([flow[:, 1:], torch.zeros(len(rows), 1, dtype=torch.float64)], 1)
    mean = q @ torch.arange(size, dtype=torch.float64)
    gone = torch.zeros(1, size, dtype=torch.float64)
    gone[0, 0] = 1
    cumulative = torch.cat([q, gone]).cumsum(1)
    cumulative = (cumulative / cumulative[:, -1:]).clamp(max=1.0)
    positive = q > 1e-300
    return AncestralTable(
        psi=psi,
        tau=tau,
        log_q=torch.where(positive, q.clamp(min=1e-300).log(), _LOG_ZERO),
        slope=torch.where(positive, (arriving - flow) / q.clamp(min=1e-300), 0.0),
        width=torch.tensor([len(row) for row in rows]),
        log_mean=_cubic(tau, mean.log(), -flow.sum(1) / mean),
        decay=torch.cat([torch.exp(-psi * tau / 2), torch.zeros(1, dtype=torch.float64)]),
        steps=(cumulative + torch.arange(len(rows) + 1)[:, None]).flatten(),
    )


def _cubic(at: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """The cubic Hermite interpolant between neighbouring points: (4, G - 1) coefficients of 1, x, x^2, x^3."""
    h, left, right = at.diff(), slope[:-1], slope[1:]
    rise = value.diff() / h
    return torch.stack([value[:-1], left, (3 * rise - 2 * left - right) / h, (left + right - 2 * rise) / h**2])


@functools.lru_cache(maxsize=32)
def _table_on(psi: float, device: torch.device) -> AncestralTable:
    return ancestral_table(psi).to(device)


def sample_counts(tau: Tensor, psi: float, generator: torch.Generator) -> Tensor:
    """Draw m ~ q_m(tau), elementwise.

    By inverse cumulative law in the table. Between two grid points one of them is chosen at random, with the
    probability that makes E[m / (m + psi)] = exp(-psi tau / 2) hold exactly: the mean of the Wright-Fisher
    kernel is then exact at every tau. Below TABLE_TAU from the rounded normal law, mean less 1/6. The number
    of random numbers used depends on the shape only.

    Args:
        tau: WF-time >= 0, any shape, on the generator's device. Below 1e-6, 0 included, it is read as 1e-6
            (some two million lineages): time 0 is the caller's to handle.
        psi: > 0.
        generator: source of the draws.

    Returns:
        int64, tau's shape, >= 0.
    """
    table = _table_on(float(psi), tau.device)
    t = tau.to(torch.float64).flatten()
    pick, u = torch.rand(2, t.numel(), generator=generator, dtype=torch.float64, device=t.device)
    normal = torch.randn(t.numel(), generator=generator, dtype=torch.float64, device=t.device)
    cell = (torch.searchsorted(table.tau, t, right=True) - 1).clamp(min=0)
    near, far = table.decay[cell], table.decay[cell + 1]
    row = cell + (pick * (near - far) >= torch.exp(-psi * t / 2) - far).long()
    size = table.log_q.shape[1]
    exact = (torch.searchsorted(table.steps, row + u, right=True) - row * size).clamp(0, size - 1)
    mean, variance = normal_moments(t.clamp(min=_DRAW_TAU), psi)
    rounded = (mean - 1 / 6 + variance.sqrt() * normal).round().clamp(min=0).long()
    return torch.where(t < TABLE_TAU, rounded, exact).reshape(tau.shape)


def _cell(table: AncestralTable, tau: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The grid cell of each tau (clamped into the grid), and the cubic Hermite weights there.

    The weights multiply (left value, left slope, right value, right slope).
    """
    t = tau.clamp(TABLE_TAU, table.tau[-1].item())
    j = (torch.searchsorted(table.tau, t, right=True) - 1).clamp(0, len(table.tau) - 2)
    h = table.tau[j + 1] - table.tau[j]
    s = (t - table.tau[j]) / h
    return j, ((1 + 2 * s) * (1 - s) ** 2, h * s * (1 - s) ** 2, s**2 * (3 - 2 * s), h * s**2 * (s - 1))


def log_q(tau: Tensor, psi: float) -> Tensor:
    """log q_m(tau) for m = 0..M-1, M large enough for the smallest tau given.

    Cubic Hermite interpolation of log q in the table, whose slopes the master equation gives exactly; the
    normal law below TABLE_TAU; beyond the table's end q_m ~ exp(-r_m tau).

    Args:
        tau: (B,), WF-time; below MIN_TAU it is read as MIN_TAU.
        psi: > 0.

    Returns:
        (B, M) float64; each row's exp sums to one. Values near -1e4 stand for log 0.
    """
    table = _table_on(float(psi), tau.device)
    t = tau.to(torch.float64).clamp(min=MIN_TAU)
    j, (a, b, c, d) = _cell(table, t)
    small = t < TABLE_TAU
    size = inside = int(table.width[j].max())
    if bool(small.any()):
        size = max(size, _window(*normal_moments(t[small], psi)))
    rows = torch.full((len(t), size), _LOG_ZERO, dtype=torch.float64, device=t.device)
    rows[:, :inside] = (
        a[:, None] * table.log_q[j, :inside]
        + b[:, None] * table.slope[j, :inside]
        + c[:, None] * table.log_q[j + 1, :inside]
        + d[:, None] * table.slope[j + 1, :inside]
    )
    rows = rows - _rates(size, psi, t.device) * (t - table.tau[-1]).clamp(min=0)[:, None]
    rows = torch.log_softmax(rows, -1)
    if bool(small.any()):
        rows[small] = saddlepoint_log_q(t[small], psi, size)
    return rows


def mean_count(tau: Tensor, psi: float) -> Tensor:
    """E[m | tau] > 0: like 2 / tau at small tau, decaying like exp(-psi tau / 2) at large.

    Args:
        tau: WF-time >= 0, any shape and floating dtype; below 1e-6 it is read as 1e-6.
        psi: > 0.

    Returns:
        tau's shape and dtype.
    """
    table = _table_on(float(psi), tau.device)
    t = tau.to(torch.float64).clamp(min=_DRAW_TAU)
    last = table.tau[-1].item()
    inside = t.clamp(TABLE_TAU, last)
    j = (torch.searchsorted(table.tau, inside, right=True) - 1).clamp(0, len(table.tau) - 2)
    x, (one, two, three, four) = inside - table.tau[j], table.log_mean[:, j].unbind(0)
    beyond = (t - last).clamp(min=0) * (psi / 2)
    mean, small = torch.exp(one + x * (two + x * (three + x * four)) - beyond), t < TABLE_TAU
    if bool(small.any()):
        mean = torch.where(small, normal_moments(t, psi)[0] - 1 / 6, mean)
    return mean.to(tau.dtype)
