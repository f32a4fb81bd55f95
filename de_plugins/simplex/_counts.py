"""The ancestral process of the Wright-Fisher diffusion: how many lineages m are left after WF-time tau.

The number of lineages is a pure death chain that comes down from infinity, k -> k - 1 at rate r_k = k (k +
psi - 1) / 2; its law q_m(tau) mixes the Dirichlet laws of the forward kernel (Griffiths 1984; Tavare 1984;
Jenkins and Spano 2017, arXiv 1506.06998, eq. 5). The textbook series for q_m alternates and needs hundreds of
digits at small tau. Here the chain's master equation dq_m/dtau = r_{m+1} q_{m+1} - r_m q_m is solved once per
psi by uniformisation, a sum of positive terms, started at a tau so small that the discretised normal law of
Griffiths (1984, Theorem 4) is exact to about 1e-3, an error that shrinks like (start / tau)^3 because the
chain forgets where it came from.
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
    "sample_counts",
]

TABLE_TAU = 0.005
"""The table's first tau; below it m is drawn from the normal law."""
MIN_TAU = 2.5e-4
"""Where a series over m is summed, a smaller tau is read as this one, which bounds it to 9,000 terms."""
_START_TAU = 0.0025  # the master equation starts here, with the normal law
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
    log_mean: Tensor  # (G,) log E[m]
    mean_slope: Tensor  # (G,) its derivative in tau
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


def _rates(size: int, psi: float, device: torch.device | None = None) -> Tensor:
    m = torch.arange(size, dtype=torch.float64, device=device)
    return m * (m + psi - 1) / 2


def _window(mean: float, variance: float) -> int:
    """How many m to keep: 10 standard deviations leave out 1e-22, 30 more cover the Poisson-like tail."""
    return math.ceil(mean + 10 * math.sqrt(variance) + 30)


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
    tau = _START_TAU
    mean, variance = (v.item() for v in normal_moments(torch.tensor(tau, dtype=torch.float64), psi))
    m = torch.arange(_window(mean, variance), dtype=torch.float64)
    q = torch.softmax(-((m - mean + 1 / 6) ** 2) / (2 * variance), 0)
    rates = _rates(len(q), psi)
    taus, rows = [], []
    while not rows or rows[-1][0].item() <= 1 - 1e-6:
        size = int((q > _PRUNE).nonzero().max()) + 1
        q, rates, m = q[:size], rates[:size], m[:size]
        mean, speed = (q @ m).item(), (q @ rates).item()
        cell = min(0.1 * math.sqrt((q @ (m - mean) ** 2).item()) / speed, 0.1 / (psi + 1))
        times = cell * torch.arange(1, max(2, int(6 / (rates[-1].item() * cell)) + 1), dtype=torch.float64)
        if tau < TABLE_TAU < tau + times[-1].item() + 1e-12:
            times = torch.tensor([TABLE_TAU - tau], dtype=torch.float64)
        after = _advance(q, rates, times)
        if tau + times[-1].item() > TABLE_TAU - 1e-12:
            taus += (tau + times).tolist()
            rows += list(after)
        q, tau = after[-1], tau + times[-1].item()
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
        log_mean=mean.log(),
        mean_slope=-flow.sum(1) / mean,
        decay=torch.cat([torch.exp(-psi * tau / 2), torch.zeros(1, dtype=torch.float64)]),
        steps=(cumulative + torch.arange(len(rows) + 1)[:, None]).flatten(),
    )


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
    mean, variance = normal_moments(t, psi)
    small = t < TABLE_TAU
    size = int(table.width[j].max())
    if bool(small.any()):
        size = max(size, _window(float(mean.max()), float(variance.max())))
    inside = min(size, table.log_q.shape[1])
    rows = torch.full((len(t), size), _LOG_ZERO, dtype=torch.float64, device=t.device)
    rows[:, :inside] = (
        a[:, None] * table.log_q[j, :inside]
        + b[:, None] * table.slope[j, :inside]
        + c[:, None] * table.log_q[j + 1, :inside]
        + d[:, None] * table.slope[j + 1, :inside]
    )
    rows = rows - _rates(size, psi, t.device) * (t - table.tau[-1]).clamp(min=0)[:, None]
    m = torch.arange(size, dtype=torch.float64, device=t.device)
    normal = -((m - mean[:, None] + 1 / 6) ** 2) / (2 * variance[:, None])
    return torch.log_softmax(torch.where(small[:, None], normal, rows), -1)


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
    j, (a, b, c, d) = _cell(table, t)
    log_mean = a * table.log_mean[j] + c * table.log_mean[j + 1]
    log_mean = log_mean + b * table.mean_slope[j] + d * table.mean_slope[j + 1]
    beyond = (t - table.tau[-1]).clamp(min=0) * psi / 2
    small = normal_moments(t, psi)[0] - 1 / 6
    return torch.where(t < TABLE_TAU, small, torch.exp(log_mean - beyond)).to(tau.dtype)
