"""Does the synthetic table give training rows away? Nearest neighbours, and an attack on membership."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.tabular.metrics.matrix import Matrix
from de_plugins.tabular.metrics.validity import exact_matches

__all__ = ["Privacy", "nearest", "privacy", "true_positives"]


@attrs.frozen
class Privacy:
    """All from equally many training rows and held-out rows.

    Args:
        closer_to_train: share of synthetic rows nearer to a training row than to any held-out row, ties
            counted half; 0.5 where nothing is memorised.
        distance_ratio: median distance from a synthetic row to its nearest training row over the same to its
            nearest held-out row; 1 where nothing is memorised. NaN where the latter is 0.
        exact_train, exact_test: share of synthetic rows that are a training row, a held-out row.
        attack_auc: an attacker who calls those rows members that lie nearest to a synthetic row; 0.5 is a
            coin.
        attack_tpr: members found at one false alarm in a hundred; 0.01 is a coin.
        rows: on each side.
    """

    closer_to_train: float
    distance_ratio: float
    exact_train: float
    exact_test: float
    attack_auc: float
    attack_tpr: float
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return attrs.asdict(self)


def privacy(train: Matrix, test: Matrix, synthetic: Matrix, rng: Rng, rows: int = 5000) -> Privacy:
    """Compare training rows with held-out rows as seen from the synthetic table.

    Args:
        train: rows that the synthesizer saw.
        test: rows of the same source that it did not see.
        synthetic: coded alike.
        rng: draws the rows.
        rows: at most so many of each table.
    """
    generator = as_generator(rng)
    m = min(len(train), len(test))
    members, others = train.sample(m, generator), test.sample(m, generator)
    exact = exact_matches(synthetic, members), exact_matches(synthetic, others)
    members, others = members.sample(rows, generator), others.sample(rows, generator)
    fake = synthetic.sample(rows, generator)
    scale = _ranker(train)
    a, b, s = scale(members), scale(others), scale(fake)
    to_train, to_test = nearest(s, a, train.numeric), nearest(s, b, train.numeric)
    closer = float(np.mean((to_train < to_test) + 0.5 * (to_train == to_test)))
    middle = float(np.median(to_test))
    ratio = float(np.median(to_train)) / middle if middle > 0 else float("nan")
    near_members, near_others = nearest(a, s, train.numeric), nearest(b, s, train.numeric)
    auc, tpr = true_positives(-near_members, -near_others)
    return Privacy(closer, ratio, *exact, auc, tpr, len(members))


def nearest(x: np.ndarray, pool: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Distance (n,) of each row of `x` (n, p) to the nearest row of `pool` (m, p).

    The distance is the sum over columns of the difference of two numbers (ranks in [0, 1]; 1 where one is
    missing) and of 1 for two different categories (Gower). Memory is bounded by blocks.
    """
    out = np.empty(len(x))
    block = max(1, 4_000_000 // len(pool))
    columns = [np.ascontiguousarray(c, dtype=np.float32) for c in pool.T]
    for start in range(0, len(x), block):
        part = x[start : start + block].astype(np.float32)
        distance = np.zeros((len(part), len(pool)), dtype=np.float32)
        for c, column in enumerate(columns):
            if numeric[c]:
                gap = np.abs(part[:, c, None] - column)
                if np.isnan(column).any() or np.isnan(part[:, c]).any():
                    gap = np.where(np.isnan(part[:, c, None]) & np.isnan(column), 0.0, np.nan_to_num(gap, nan=1.0))
                distance += gap
            else:
                distance += part[:, c, None] != column
        out[start : start + block] = distance.min(axis=1)
    return out


def true_positives(members: np.ndarray, others: np.ndarray, false_positives: float = 0.01) -> tuple[float, float]:
    """AUC, and the true-positive rate at a false-positive rate, of an attack that scores members (n,) and
    others (m,).

    Where scores tie across the threshold the rate is interpolated, as a coin thrown for the tied would give.
    """
    if not len(members) or not len(others):
        raise DiffuseError("attack: expected at least one member and one other row")
    levels = np.unique(np.concatenate([members, others]))[::-1]
    tpr = np.concatenate([[0.0], 1 - np.searchsorted(np.sort(members), levels, side="left") / len(members)])
    fpr = np.concatenate([[0.0], 1 - np.searchsorted(np.sort(others), levels, side="left") / len(others)])
    auc = float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))
    after = int(np.searchsorted(fpr, false_positives, side="right"))
    if after == len(fpr):
        return auc, 1.0
    share = (false_positives - fpr[after - 1]) / (fpr[after] - fpr[after - 1])
    return auc, float(tpr[after - 1] + share * (tpr[after] - tpr[after - 1]))


def _ranker(train: Matrix):
    """Numbers as their rank in the training table, in [0, 1]; categories as they are."""
    knots = [np.unique(c[~np.isnan(c)]) if train.numeric[j] else c for j, c in enumerate(train.values.T)]
    full = [np.sort(c[~np.isnan(c)]) for c in train.values.T]

    def scale(table: Matrix) -> np.ndarray:
        columns = []
        for j, column in enumerate(table.values.T):
            if table.numeric[j] and len(knots[j]):
                middle = np.searchsorted(full[j], knots[j], side="left") + np.searchsorted(
                    full[j], knots[j], side="right"
                )
                column = np.interp(column, knots[j], middle / 2 / len(full[j]))
            columns.append(column)
        return np.column_stack(columns)

    return scale
