"""Clusters of a number: narrow stretches in which its values pile up, each a class of the gate with a number inside.

Values such as 0.02 plus next to nothing, where the 0.02 is set by another column, are two things: which pile, and where
in it. A map to one normal law would leave the network to learn the piles' edges in its scores; a class is exact.
"""

from __future__ import annotations

import numpy as np

__all__ = ["find_clusters", "inside"]

WIDTH = 1e-3  # of a cluster at most, in spreads of the column, its 5 % to its 95 % quantile
SHARE, ROWS = 0.025, 50  # of the rows, that it holds at the least
TOGETHER = 0.2  # of the rows, that all of them hold at the least: a few ties side by side are no clusters
OVER = 8.0  # times as many rows as each of the equally wide stretches beside it
MOST = 32  # clusters of a column
_LOOK = 100_000  # rows that are looked at


def find_clusters(values: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The clusters among plain numbers (n,) without spikes: disjoint closed stretches (low, high), in order; none where
    they would leave nothing beside them."""
    x = np.sort(values.astype(np.float64))
    if len(x) > _LOOK:
        x = x[np.linspace(0, len(x) - 1, _LOOK).astype(np.int64)]
    low, high = np.quantile(x, [0.05, 0.95])
    width, n = WIDTH * high - WIDTH * low, len(x)  # a difference of the ends may overflow
    if n < ROWS / SHARE or not 0 < width < np.inf:
        return ()
    upto = np.searchsorted(x, x + width, side="right")
    count = upto - np.arange(n)
    before = np.arange(n) - np.searchsorted(x, x - width, side="left")
    after = np.searchsorted(x, x + 2 * width, side="right") - upto
    distinct = np.concatenate([[0], np.cumsum(x[1:] > x[:-1])])
    several = distinct[upto - 1] - distinct > 1  # two values at most: ties, no cluster
    left = np.where(several & (count >= max(ROWS, SHARE * n)), count, 0)
    found, held = [], 0
    while len(found) < MOST and left.max() > 0:
        i = int(left.argmax())
        if count[i] > OVER * max(before[i], after[i]):
            found.append((float(x[i]), float(x[upto[i] - 1])))
            held += int(count[i])
        left[np.searchsorted(x, x[i] - width, side="left") : upto[i]] = 0
    return tuple(sorted(found)) if TOGETHER * n <= held < n else ()


def inside(values: np.ndarray, clusters: tuple[tuple[float, float], ...]) -> np.ndarray:
    """1 + the cluster that each number (n,) lies in, 0 for none; int64."""
    out = np.zeros(len(values), dtype=np.int64)
    for k, (low, high) in enumerate(clusters):
        out[(values >= low) & (values <= high)] = k + 1
    return out
