"""How alike two tables look column by column, pair by pair and k columns at a time."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
import torch

from de_core.rng import Rng, as_generator
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["extrapolated", "k_way", "missing", "shape", "trend"]

DECIMALS = 14  # sdmetrics rounds numbers so before it compares them
HUGE = 1e290  # beyond, sums and decimals overflow float64
BINS = 10
DENSE = 2**18  # codes below this are counted as they are, others are renumbered first

Codes = tuple[np.ndarray, np.ndarray]  # of the real and of the synthetic rows, int64 from 0


def shape(real: Matrix, synthetic: Matrix) -> np.ndarray:
    """Shape of every column, (p,) in [0, 1], 1 is best; NaN where a column has no value on one side.

    Numbers: one minus the Kolmogorov-Smirnov distance. Categories: one minus the total variation distance.
        Missing cells
    are left out, as sdmetrics does (see `missing` for their share).

    Source: sdmetrics, KSComplement and TVComplement.
    """
    out = np.full(len(real.names), np.nan)
    for c in range(len(out)):
        a, b = _present(real, c), _present(synthetic, c)
        if len(a) and len(b):
            out[c] = 1 - (_ks(a, b) if real.numeric[c] else _total_variation((a.astype(np.int64), b.astype(np.int64))))
    return out


def missing(real: Matrix, synthetic: Matrix) -> np.ndarray:
    """Share of missing cells in the synthetic minus the real column, (p,)."""
    return _gone(synthetic).mean(axis=0) - _gone(real).mean(axis=0)


def trend(
    real: Matrix, synthetic: Matrix, bins: Literal["own", "real", "quantile"] = "own", ranks: bool = False
) -> np.ndarray:
    r"""Trend of every pair of columns, (p, p) symmetric in [0, 1], 1 is best; NaN on the diagonal and where
    undefined.

    Two numbers: :math:`1 - |r - r'| / 2` with the correlations of the two tables. Any other pair: one minus
    the total variation distance of the contingency tables, numbers cut into ten bins.

    Args:
        real, synthetic: coded alike.
        bins: "own": even bins between each table's own minimum and maximum, as published (sdmetrics), where
            one outlier moves every bin; "real": the same with the real table's minimum and maximum for both;
            "quantile": the real table's deciles for both.
        ranks: correlation of ranks (Spearman) in place of values (Pearson).

    Source: sdmetrics, ColumnPairTrends with both thresholds at 0, which is the average over all pairs of the
        papers.
    """
    width = len(real.names)
    cut = [_binned(real, synthetic, c, bins) for c in range(width)]
    r, s = _correlations(real, ranks), _correlations(synthetic, ranks)
    out = np.full((width, width), np.nan)
    for i, j in combinations(range(width), 2):
        if real.numeric[i] and real.numeric[j]:
            out[i, j] = 1 - abs(r[i, j] - s[i, j]) / 2
        else:
            out[i, j] = 1 - _total_variation(_crossed(cut[i], cut[j]))
        out[j, i] = out[i, j]
    return out


def k_way(real: Matrix, synthetic: Matrix, k: int, rng: Rng, sets: int = 100, bins: int = 5) -> float:
    """Mean total variation distance over sets of `k` columns, in [0, 1], 0 is best.

    Numbers are cut at the real table's quantiles. It is not 0 for a perfect sample: cells are few in rows.
    Compare it with the anchor of another real sample.

    Args:
        real, synthetic: coded alike.
        k: columns in a set; at most all of them are taken.
        rng: draws the sets where there are more than `sets`.
        sets: at most so many.
        bins: of a number.
    """
    width = len(real.names)
    k = min(k, width)
    cut = [_binned(real, synthetic, c, "quantile", bins) for c in range(width)]
    generator = as_generator(rng)
    chosen: set[tuple[int, ...]] = set()
    if comb(width, k) <= sets:
        chosen = set(combinations(range(width), k))
    while len(chosen) < min(sets, comb(width, k)):
        chosen.add(tuple(sorted(torch.randperm(width, generator=generator)[:k].tolist())))
    total = 0.0
    for columns in chosen:
        cells = cut[columns[0]]
        for column in columns[1:]:
            cells = _crossed(cells, cut[column])
        total += _total_variation(cells)
    return total / len(chosen)


def extrapolated(score: float) -> float:
    r"""The score of two samples of n rows, from the score of two halves of n/2 rows, for a score that is 1 -
    distance.

    The distance between two samples of one law falls like :math:`1 / \sqrt n`.
    """
    return 1 - (1 - score) / np.sqrt(2.0)


def _gone(table: Matrix) -> np.ndarray:
    return np.where(table.numeric, np.isnan(table.values), table.values == table.sizes - 1)


def _present(table: Matrix, c: int) -> np.ndarray:
    column = table.values[:, c]
    if table.numeric[c]:
        known = column[~np.isnan(column)]
        return np.where(np.abs(known) < HUGE, np.round(np.clip(known, -HUGE, HUGE), DECIMALS), known)
    return column[column != table.sizes[c] - 1]


def _ks(a: np.ndarray, b: np.ndarray) -> float:
    a, b = np.sort(a), np.sort(b)
    points = np.concatenate([a, b])
    f = np.searchsorted(a, points, side="right") / len(a)
    g = np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(f - g).max())


def _total_variation(cells: Codes) -> float:
    """Of the laws of two samples of codes."""
    a, b = cells
    size = int(max(a.max(), b.max())) + 1
    f, g = (np.bincount(codes, minlength=size) / len(codes) for codes in (a, b))
    return float(np.abs(f - g).sum() / 2)


def _crossed(one: Codes, two: Codes) -> Codes:
    """One code for two, renumbered from 0 where they are too many to count as they are."""
    width = int(max(two[0].max(), two[1].max())) + 1
    a, b = (x * width + y for x, y in zip(one, two, strict=True))
    if max(a.max(), b.max()) < DENSE:
        return a, b
    codes = np.unique(np.concatenate([a, b]), return_inverse=True)[1]
    return codes[: len(a)], codes[len(a) :]


def _binned(real: Matrix, synthetic: Matrix, c: int, bins: str, count: int = BINS) -> Codes:
    """Codes of column c in both tables; missing numbers get the last bin, as in np.digitize."""
    if not real.numeric[c]:
        return real.values[:, c].astype(np.int64), synthetic.values[:, c].astype(np.int64)
    a, b = real.values[:, c], synthetic.values[:, c]
    if bins == "own":
        return _digitize(a, _even(a, count)), _digitize(b, _even(b, count))
    known = a[~np.isnan(a)]
    inner = _even(a, count)[1:-1]
    if bins == "quantile":
        inner = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)[1:-1])) if len(known) else inner
    x, y = _digitize(a, inner), _digitize(b, inner)
    x[np.isnan(a)] = y[np.isnan(b)] = len(inner) + 1
    return x, y


def _even(column: np.ndarray, count: int) -> np.ndarray:
    """Edges of even bins; some are equal where float64 has not so many numbers between the ends."""
    known = column[~np.isnan(column)]
    if not len(known):
        return np.histogram_bin_edges(known, bins=count)
    low, high = known.min(), known.max()
    share, room = np.linspace(0, 1, count + 1), np.spacing(max(abs(low), abs(high)))
    if max(abs(low), abs(high)) < HUGE and (high - low > 2 * count * room or (low == high and room < 1 / (4 * count))):
        return np.histogram_bin_edges(known, bins=count)
    return np.clip(np.maximum.accumulate(low * (1 - share) + high * share), low, high)


def _digitize(column: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.digitize(column, edges).astype(np.int64)


def _correlations(table: Matrix, ranks: bool) -> np.ndarray:
    """(p, p); over the rows where both numbers are there. Columns without missing cells go in one product."""
    width = len(table.names)
    out = np.full((width, width), np.nan)
    numbers = np.flatnonzero(table.numeric)
    values = {c: _ranks(table.values[:, c]) if ranks else table.values[:, c] for c in numbers}
    gaps = {c: np.isnan(values[c]) for c in numbers}
    whole = [c for c in numbers if not gaps[c].any()]
    if whole:
        z = np.stack([_unit(values[c]) for c in whole])
        out[np.ix_(whole, whole)] = z @ z.T
    for i, j in combinations(numbers, 2):
        gone = gaps[i] | gaps[j]
        if gone.any():
            out[i, j] = float(_unit(values[i][~gone]) @ _unit(values[j][~gone]))
    return out


def _unit(x: np.ndarray) -> np.ndarray:
    """Of mean 0 and length 1; NaN where there are less than two different values."""
    if len(x) < 2 or x.min() == x.max():
        return np.full(len(x), np.nan) if len(x) else np.array([np.nan])
    if np.abs(x).max() >= HUGE:
        x = x / np.abs(x).max()
    x = x - x.mean()
    x = x / np.abs(x).max()  # so that squares neither overflow nor vanish
    return x / np.sqrt((x * x).sum())


def _ranks(column: np.ndarray) -> np.ndarray:
    """Mean ranks; NaN stays."""
    distinct, codes, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts - 1) / 2
    return np.where(np.isnan(distinct), np.nan, mean)[codes]
