"""A set of a column's values in the model's terms: chances of classes, stretches of scores."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pandas as pd
import torch

from de_core.errors import DiffuseError
from de_plugins.tabular._among import Among
from de_plugins.tabular._plain import from_plain, narrowed, to_plain
from de_plugins.tabular._variables import Classes, Number
from de_plugins.tabular._wanted import ValueSet

__all__ = ["Asked", "ask"]

_POINT = 5e-4  # half the stretch of scores that stands for one value of a column without a grid
_FAR = 100.0  # no score lies beyond


@attrs.frozen(eq=False)
class Asked:
    """The set that is asked of one column.

    Args:
        variable, values: of the column, and the set.
        among: the same for the model.
        ends: (m, 2) plain numbers, the least and the greatest of each stretch of scores.
    """

    variable: Classes | Number
    values: ValueSet
    among: Among
    ends: np.ndarray

    def settle(self, series: pd.Series, stretch: np.ndarray, u: np.ndarray) -> pd.Series:
        """The decoded column (n,) brought into the set: what rounding and the class of rare values leave open.

        Args:
            stretch: (n,) int64 as ``draw_among`` returns it. u: (n,) uniform draws.
        """
        dtype, name = self.variable.column.dtype, self.variable.column.name
        values, missing = to_plain(series, dtype, name)
        if isinstance(self.variable, Number):
            if len(self.ends):
                low, high = self.ends[np.maximum(stretch, 0)].T
                values = np.where(stretch < 0, values, np.clip(values, low, high))
            elif not self.variable.clusters:
                return series
            return from_plain(self._into(values, missing), missing, dtype)
        fitting = self.values.holds(self.variable.rare)
        if not fitting.any():
            return series
        rare = (pd.Index(self.variable.rare).get_indexer(pd.Index(values)) >= 0) & ~missing
        share = np.cumsum(self.variable.rare_counts[fitting])
        at = np.minimum(np.searchsorted(share / share[-1], u, side="right"), len(share) - 1)
        return from_plain(np.where(rare, self.variable.rare[fitting][at], values), missing, dtype)

    def _into(self, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Numbers of a cluster that lies in the set in part, moved to the nearest end of the set."""
        if not isinstance(self.variable, Number) or not self.variable.clusters:
            return values
        out = ~self.values.holds(values) & ~missing
        ends = [end for pair in self.values.stretches for end in pair if end is not None]
        if not out.any() or not ends:
            return values
        moved, near = values.copy(), np.asarray(ends, dtype=values.dtype)
        moved[out] = near[np.abs(values[out][:, None] - near).argmin(1)]
        return moved


def ask(variable: Classes | Number, values: ValueSet, place: int, number: int) -> Asked:
    """The set of a column whose variables lie at ``place`` and ``number`` among the classes and the numbers.

    Raises:
        DiffuseError: no value that occurs lies in the set: a condition of probability 0.
    """
    scores, ends = torch.zeros(0, 2, dtype=torch.float64), np.zeros((0, 2))
    if isinstance(variable, Number):
        scores, ends = _stretches(variable, values)
        # of a cluster the share of its knots that lies in the set: it is narrow, and `settle` brings the number inside
        knots = [variable.grid.from_index(mapping.value, variable.column.dtype) for mapping in variable.clusters]
        clusters = [max(values.holds(k).mean(), float(values.meets(k[0], k[-1])) / len(k)) for k in knots]
        chances = np.concatenate([[float(len(scores) > 0)], clusters, values.holds(variable.spikes)])
    else:
        chances = values.holds(variable.values).astype(np.float64)
        if len(variable.rare):
            fitting = variable.rare_counts[values.holds(variable.rare)].sum()
            chances = np.append(chances, fitting / variable.rare_counts.sum())
    if variable.column.missing:
        chances = np.append(chances, float(values.missing))
    if not chances.any():
        raise DiffuseError(f"column '{variable.column.name}': no value of training lies in the set that is given")
    found = torch.from_numpy(chances.astype(np.float64))
    among = Among(place, found if place >= 0 else found[:0], number if len(scores) else -1, scores)
    return Asked(variable, values, among, ends)


def _stretches(variable: Number, values: ValueSet) -> tuple[torch.Tensor, np.ndarray]:
    """The scores that decode into the set: as decoding does not decrease, one stretch for each of the values."""
    dtype = variable.column.dtype
    least, most = narrowed(variable.values_at(np.array([-_FAR, _FAR])), dtype)
    wanted = [
        (least if low is None else max(low, least), most if high is None else min(high, most))
        for low, high in values.stretches
    ]
    wanted = _joined([pair for pair in wanted if pair[0] <= pair[1]])
    if not wanted:
        return torch.zeros(0, 2, dtype=torch.float64), np.zeros((0, 2))
    ends = narrowed(np.array(wanted, dtype=np.asarray(least).dtype), dtype)
    low = np.where(ends[:, 0] <= least, -np.inf, _first(variable, ends[:, 0], strict=False))
    high = np.where(ends[:, 1] >= most, np.inf, _first(variable, ends[:, 1], strict=True))
    thin = high - low < 2 * _POINT
    if variable.grid.step:
        thin &= high - low < 1e-9  # no value of the grid lies between
        low, high, ends = low[~thin], high[~thin], ends[~thin]
        pairs = _joined(list(zip(low, high, *ends.T, strict=True)), touch=1e-9)
    else:
        with np.errstate(invalid="ignore"):  # of all numbers
            middle = np.where(thin, (low + high) / 2, 0.0)
        low, high = np.where(thin, middle - _POINT, low), np.where(thin, middle + _POINT, high)
        pairs = list(zip(low, high, *ends.T, strict=True))
    scores = torch.tensor([pair[:2] for pair in pairs], dtype=torch.float64).reshape(-1, 2)
    return scores, np.array([pair[2:] for pair in pairs], dtype=ends.dtype).reshape(-1, 2)


def _joined(pairs: list[Any], touch: float = 0.0) -> list[Any]:
    """Stretches (low, high, ...) in order, those that overlap or touch as one; what follows the ends comes in pairs."""
    out: list[Any] = []
    for pair in sorted(pairs):
        if out and pair[0] <= out[-1][1] + touch:
            last = out[-1]
            out[-1] = tuple(max(a, b) if i % 2 else a for i, (a, b) in enumerate(zip(last, pair, strict=True)))
        else:
            out.append(tuple(pair))
    return out


def _first(variable: Number, bound: np.ndarray, *, strict: bool) -> np.ndarray:
    """The least score (m,) whose value is at least ``bound`` (m,), or above it if ``strict``, by bisection."""
    below, above = np.full(len(bound), -_FAR), np.full(len(bound), _FAR)
    for _ in range(64):
        middle = (below + above) / 2
        value = narrowed(variable.values_at(middle), variable.column.dtype)
        reached = value > bound if strict else value >= bound
        below, above = np.where(reached, below, middle), np.where(reached, middle, above)
    return above
