"""A reversible chain on the classes 0..K-1: its stationary law, its clock and its kernel. All in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from de_core import DiffuseError

__all__ = ["Chain", "neighbour_rates", "read_rates"]

_BASE = 16  # of the digits in which a span is cut
_LAST = 1e-6  # the least 1 - t in the speed, which is infinite at t = 1


def neighbour_rates(num_classes: int) -> Tensor:
    """Rate 1 to each class next to one's own, (K, K): reversible, with the uniform law."""
    place = torch.arange(num_classes)
    return ((place - place[:, None]).abs() == 1).double()


def read_rates(rates: Sequence[Sequence[float]] | Tensor, num_classes: int) -> Tensor:
    """The rates as a tensor with a zero diagonal, (K, K); the diagonal given is not read.

    Raises:
        DiffuseError: not (K, K), or a rate that is negative or not finite.
    """
    try:
        table = torch.as_tensor(rates, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise DiffuseError(f"rates: expected {num_classes} rows of {num_classes} numbers, got {rates!r:.60}") from None
    if tuple(table.shape) != (num_classes, num_classes):
        raise DiffuseError(f"rates: expected shape ({num_classes}, {num_classes}), got {tuple(table.shape)}")
    table = torch.where(torch.eye(num_classes, dtype=torch.bool), 0.0, table)
    bad = ((table < 0) | ~table.isfinite()).nonzero().tolist()
    if bad:
        x, y = bad[0]
        raise DiffuseError(f"rates: expected finite numbers of at least 0, got {float(table[x, y])} from {x} to {y}")
    return table


def log_law(rates: Tensor) -> Tensor:
    """log pi with pi(x) Q(x, y) = pi(y) Q(y, x), normalised, (K,): along the jumps from class 0, checked on all jumps.

    Raises:
        DiffuseError: a jump without its way back, a class out of reach, or a cycle whose rates multiply to another
            number one way round than the other (Kolmogorov's criterion).
    """
    one_way = ((rates > 0) & (rates.T == 0)).nonzero().tolist()
    if one_way:
        x, y = one_way[0]
        raise DiffuseError(f"rates: expected a reversible chain, but it jumps from {x} to {y} and never back")
    count, open_, gain = len(rates), [0], rates.log() - rates.T.log()
    found = torch.full((count,), torch.nan, dtype=torch.float64)
    found[0] = 0.0
    while open_:
        x = open_.pop()
        for y in range(count):
            if rates[x, y] > 0 and bool(found[y].isnan()):
                found[y] = found[x] + gain[x, y]
                open_.append(y)
    if bool(found.isnan().any()):
        x = int(found.isnan().nonzero()[0])
        raise DiffuseError(f"rates: expected a chain that reaches every class from every other, but not {x} from 0")
    error = torch.where(rates > 0, found[:, None] + gain - found, 0.0).abs()
    if float(error.max()) > 1e-8:
        x, y = divmod(int(error.argmax()), count)
        raise DiffuseError(
            f"rates: expected a reversible chain, but around a cycle through {x} and {y} the product of the rates is "
            f"{math.exp(float(error.max())):.4g} times that of the way back"
        )
    return found.log_softmax(0)


class Chain:
    """Q = rates, reversible against pi: Q = D^(-1/2) S D^(1/2), S symmetric, D = diag(pi), with eigenvalues -decay.

    Clock: t = 1 - log tr exp(2 sigma Q)/log K, sigma the accumulated time. By reversibility the trace is
    E sum_y P(x, y)^2/pi(y) for x of the law pi: its logarithm is the information of order 2 (Renyi) about the start,
    which falls evenly from log K at t = 0 to 0 at t = 1, where sigma is infinite.

    Kernel P = exp(sigma Q): the eigenvectors give it to 1e-16 absolute, which spoils the small entries, and a
    posterior divides one by another. Here every entry is right relative to itself: sums and products of non-negative
    numbers alone. With U = I + Q/q, q the largest exit rate, and q sigma = r + sum_j d_j 16^j, 0 <= r < 1:

        P = e^-r sum_n r^n/n! U^n  prod_j exp(Q/q)^(d_j 16^j),

    the series with K + 20 terms (beyond the K - 1 jumps that reach every class, 1/21! of it), the powers from a table.

    Attributes:
        rates: Q off the diagonal, (K, K). log_law: log pi, (K,).
        nearby: the classes next to each, (K, N): those with a rate, and the class itself where there are fewer than N.

    Args:
        rates: (K, K), off the diagonal; see ``read_rates``.

    Raises:
        DiffuseError: as ``log_law``; a slowest mode more than 1e10 times slower than the fastest.
    """

    def __init__(self, rates: Tensor) -> None:
        count = len(rates)
        self.rates, self.log_law = rates, log_law(rates)
        root = (0.5 * self.log_law).exp()
        symmetric = root[:, None] * rates / root - torch.diag(rates.sum(1))
        self.decay = -torch.linalg.eigvalsh((symmetric + symmetric.T) / 2).flip(0)[1:]
        if float(self.decay[0]) < 1e-10 * float(self.decay[-1]):
            raise DiffuseError(
                "rates: expected a chain whose slowest mode is at most 1e10 times slower than its fastest, got decays "
                f"from {float(self.decay[0]):.3g} to {float(self.decay[-1]):.3g}"
            )
        self.end = 24 / float(self.decay[0])  # e^-24 left of the slowest mode; t = 1 - 1e-16 lies before it
        self.log_count = math.log1p(count - 1)
        joined = rates > 0
        order = (~joined).long().argsort(dim=1, stable=True)[:, : int(joined.sum(1).max())]
        self.nearby = torch.where(joined.gather(1, order), order, torch.arange(count)[:, None])
        self.exit = float(rates.sum(1).max())
        jump = rates / self.exit
        jump += torch.diag((1 - jump.sum(1)).clamp_min(0))
        eye = torch.eye(count, dtype=torch.float64)
        powers = [eye]
        for _ in range(count + 20):
            powers.append(powers[-1] @ jump)
        self.powers = torch.stack(powers)
        self.orders = torch.arange(1, len(powers), dtype=torch.float64)
        tables: list[Tensor] = []
        unit = self._series(torch.ones(1, dtype=torch.float64))[0]
        while _BASE ** len(tables) <= self.exit * self.end:
            table = [eye]
            for _ in range(_BASE - 1):
                table.append(table[-1] @ unit)
            tables.append(torch.stack(table))
            unit = table[-1] @ unit
        self.tables = torch.stack(tables)
        self.nodes = torch.cat([torch.zeros(1), torch.logspace(-6, 0, 600)]).double() * self.end
        self.levels = self._level(self.nodes)[0]

    def on(self, device: torch.device) -> Chain:
        """The same chain with its tables on a device."""
        if device == self.rates.device:
            return self
        other = copy.copy(self)
        other.__dict__ |= {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return other

    def _series(self, rest: Tensor) -> Tensor:
        """exp(r Q/q), (M, K, K), for r (M,) in [0, 1]."""
        weights = torch.cat([(-rest).exp()[:, None], rest[:, None] / self.orders], 1).cumprod(1)
        return (weights @ self.powers.flatten(1)).unflatten(1, self.powers.shape[1:])

    def exponential(self, sigma: Tensor, left: Tensor | None = None) -> Tensor:
        """exp(sigma Q), (M, K, K), for sigma (M,), or left exp(sigma Q) for non-negative rows left (M, R, K)."""
        span = self.exit * sigma.clamp(0, self.end)
        whole = span.floor()
        out, whole = self._series(span - whole), whole.long()
        out = out if left is None else left @ out
        for table in self.tables:
            out, whole = out @ table[whole % _BASE], whole // _BASE
        return out

    def kernel(self, t: Tensor, s: Tensor | None = None, left: Tensor | None = None) -> Tensor:
        """P_{t|s}, (M, K, K), rows its start, for readings s <= t (M,), s = 0 by default; pi in every row at t = 1 > s.
        Or left P_{t|s}, for rows left (M, R, K) of sum 1."""
        moved = self.exponential(self.span(t) if s is None else self.span(t) - self.span(s), left)
        return torch.where(((t == 1) & (s is None or s < 1))[:, None, None], self.log_law.exp(), moved)

    # --- the clock --------------------------------------------------------------------------------------------------

    def _level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """log(1 - t) at sigma, and its slope."""
        modes = torch.exp(-2 * self.decay * sigma[..., None])
        total = modes.sum(-1)
        nats = total.log1p()
        return (nats / self.log_count).log(), -2 * (modes @ self.decay) / ((1 + total) * nats)

    def span(self, t: Tensor) -> Tensor:
        """sigma(t), by Newton's method on log(1 - t) from a table."""
        aim = (-t).log1p()
        above = torch.searchsorted(-self.levels, -aim).clamp(1, len(self.levels) - 1)
        low, high = self.levels[above - 1], self.levels[above]
        share = ((aim - low) / (high - low)).clamp(0, 1)
        sigma = self.nodes[above - 1].lerp(self.nodes[above], share)
        for _ in range(2):  # 600 nodes: off by 1e-4 of sigma, then 1e-8, then rounding
            level, slope = self._level(sigma)
            sigma = (sigma + (aim - level) / slope).clamp(0, self.end)
        return sigma

    def speed(self, t: Tensor) -> Tensor:
        """d sigma/dt, held where 1 - t < 1e-6."""
        level, slope = self._level(self.span(t.clamp_max(1 - _LAST)))
        return -1 / (slope * level.exp())
