"""Paths through the cube of clocks, from all data (u = 0) to all noise (u = 1), no clock ever running back.

The bound integrates along a path; sampling runs it backwards, from u = 1 to 0. With exact heads every path has the same
law and the same bound; with a trained network they differ, and the spread says how consistent its heads are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Modality

__all__ = ["Cascaded", "Matched", "Path", "Sequential", "Steps", "Synchronous"]

Steps = int | Sequence[float]
"""Of one modality: how many readings of its own grid, or the readings themselves, descending from 1 to above 0."""


class Path(Protocol):
    """A path in both of its views. ``modalities`` are those that move, by name, in the order of the process."""

    def clocks(self, modalities: Mapping[str, Modality], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """name -> (clock in [0, 1], its derivative in u), each of the shape of ``u``."""
        ...

    def readings(self, modalities: Mapping[str, Modality], steps: Mapping[str, Steps]) -> dict[str, list[float]]:
        """name -> the clock before each round of sampling and after the last: equally many for all, from 1 to 0."""
        ...


def _names(order: Sequence[str]) -> tuple[str, ...]:
    if isinstance(order, str):
        raise DiffuseError(f"path: expected an order of names, such as [{order!r}], got the text {order!r}")
    return tuple(order)


@attrs.frozen
class Cascaded:
    """One modality after the other, each ``lag`` of a run behind the one before.

    With n modalities, the k-th of the order (from 0) has t_k = clamp((1 + lag (n - 1)) u - lag (n - 1 - k), 0, 1): the
    first is finished first. lag = 0 is ``Synchronous``, lag = 1 is ``Sequential``. Each moves on its own grid.

    Args:
        order: names in the order in which they are generated; those left out follow, in the order of the process.
        lag: in [0, 1].

    Raises:
        DiffuseError: lag outside [0, 1]; ``order`` is a text; (when used) a name that does not move or stands there
            twice.
    """

    order: Sequence[str] = attrs.field(default=(), converter=_names)
    lag: float = 0.5

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.lag <= 1:
            raise DiffuseError(f"path: expected a lag in [0, 1], got {self.lag}")

    def clocks(self, modalities: Mapping[str, Modality], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return _clocks(_in_order(self.order, modalities), self.lag, u)

    def readings(self, modalities: Mapping[str, Modality], steps: Mapping[str, Steps]) -> dict[str, list[float]]:
        order = _in_order(self.order, modalities)
        return _rounds({name: _own(name, modalities[name], steps[name]) for name in order}, self.lag)


@attrs.frozen
class Synchronous:
    """All clocks run together, t_i = u; in sampling each modality moves on its own grid, all at the same time."""

    def clocks(self, modalities: Mapping[str, Modality], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return _clocks(tuple(modalities), 0.0, u)

    def readings(self, modalities: Mapping[str, Modality], steps: Mapping[str, Steps]) -> dict[str, list[float]]:
        return _rounds({name: _own(name, m, steps[name]) for name, m in modalities.items()}, 0.0)


@attrs.frozen
class Sequential:
    """One modality after the other: the first of ``order`` is finished before the second starts.

    The chain rule: log p = log p(first) + log p(second | first) + ... Names left out follow, in the order of the
    process.

    Raises:
        DiffuseError: as ``Cascaded``.
    """

    order: Sequence[str] = attrs.field(default=(), converter=_names)

    def clocks(self, modalities: Mapping[str, Modality], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return _clocks(_in_order(self.order, modalities), 1.0, u)

    def readings(self, modalities: Mapping[str, Modality], steps: Mapping[str, Steps]) -> dict[str, list[float]]:
        order = _in_order(self.order, modalities)
        return _rounds({name: _own(name, modalities[name], steps[name]) for name in order}, 1.0)


@attrs.frozen
class Matched:
    """All modalities at one signal-to-noise ratio: ``signal(t_i)`` = cos^2(pi u/2) for each.

    ``Modality.signal`` is the share of the data's variance that x_t still explains, SNR/(1 + SNR) for numbers, so that
    equal shares are equal ratios. In sampling the readings are those of evenly spread u, in place of each modality's
    own grid. A clock whose signal does not vanish at the end of its path stays at 1 until the others come down to it.
    """

    def clocks(self, modalities: Mapping[str, Modality], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        width = 1e-4  # central differences: the derivative's integral is exact, and it is finite at the kinks
        low, high = (u - width).clamp_min(0), (u + width).clamp_max(1)
        return {
            name: (_at_signal(m, u), (_at_signal(m, high) - _at_signal(m, low)) / (high - low))
            for name, m in modalities.items()
        }

    def readings(self, modalities: Mapping[str, Modality], steps: Mapping[str, Steps]) -> dict[str, list[float]]:
        grids = {}
        for name, m in modalities.items():
            count = steps[name]
            if not isinstance(count, int):
                raise DiffuseError(f"modality '{name}': the path Matched sets its readings, expected steps as a count")
            u = 1 - torch.arange(count, dtype=torch.float64) / count
            grids[name] = _at_signal(m, u).clamp_min(m.t_min).tolist()
        return _rounds(grids, 0.0)


def _in_order(order: Sequence[str], modalities: Mapping[str, Modality]) -> tuple[str, ...]:
    """All names that move, those of ``order`` first."""
    for name in order:
        if name not in modalities:
            raise DiffuseError(f"path: unknown modality '{name}'; those that move are {', '.join(modalities)}")
    if len(set(order)) < len(order):
        raise DiffuseError(f"path: expected each modality once, got {', '.join(order)}")
    return (*order, *(name for name in modalities if name not in order))


def _clocks(order: Sequence[str], lag: float, u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    last = len(order) - 1
    speed, out = 1 + lag * last, {}
    for k, name in enumerate(order):
        local = speed * u - lag * (last - k)
        inside = (local >= 0) & (local < 1)
        out[name] = (local.clamp(0, 1), torch.where(inside, speed, 0.0).to(u.dtype))
    return out


def _own(name: str, modality: Modality, steps: Steps) -> list[float]:
    """The modality's own grid of so many readings, or the readings that were asked for."""
    if isinstance(steps, int):
        return modality.grid(steps).tolist()
    readings = [float(t) for t in steps]
    falls = all(a > b for a, b in itertools.pairwise(readings))
    if not readings or readings[0] != 1 or not falls or not readings[-1] > 0:
        raise DiffuseError(f"modality '{name}': expected readings that descend from 1 to above 0, got {readings}")
    return readings


def _rounds(grids: Mapping[str, list[float]], lag: float) -> dict[str, list[float]]:
    """Grids laid over rounds, each starting ``lag`` of the longest behind the one before and ending at 0.

    A shorter grid holds in between. Rounds in which nothing moves are left out.
    """
    length = max(len(grid) for grid in grids.values())
    gap = round(lag * length)
    rounds = length + gap * (len(grids) - 1)
    full = {}
    for k, (name, grid) in enumerate(grids.items()):
        inside = [min(max(r - k * gap, 0), length) for r in range(rounds + 1)]
        full[name] = [[*grid, 0.0][r * len(grid) // length] for r in inside]
    moves = [r for r in range(rounds) if any(t[r + 1] != t[r] for t in full.values())]
    return {name: [*(t[r] for r in moves), 0.0] for name, t in full.items()}


def _at_signal(modality: Modality, u: Tensor) -> Tensor:
    """The clock t with signal(t) = cos^2(pi u/2), by bisection in float64: 0 at u = 0, 1 at u = 1."""
    u = u.double()
    target = torch.cos(0.5 * math.pi * u) ** 2
    low, high = torch.zeros_like(u), torch.ones_like(u)
    for _ in range(53):  # the digits of a float64
        middle = 0.5 * (low + high)
        more = modality.signal(middle) > target
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return torch.where(u <= 0, 0.0, torch.where(u >= 1, 1.0, 0.5 * (low + high)))
