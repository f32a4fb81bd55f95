"""Does the synthetic table give training rows away? Nearest neighbours, and an attack on membership."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.tabular.metrics.matrix import Matrix
from de_plugins.tabular.metrics.validity import exact_matches

__all__ = ["Privacy", "nearest", "privacy", "true_positives"]
MOST = 50_000  # rows of a table in which the nearest is sought
CELLS = 2**18  # of a block of distances: it stays in the processor's cache


@attrs.frozen
class Privacy:
    """Distances and attack are from equally many training rows and held-out rows.

    Args:
        closer_to_train: share of synthetic rows nearer to a training row than to any held-out row, ties
            counted half; 0.5 where nothing is memorised.
        distance_ratio: median distance from a synthetic row to its nearest training row over the same to its
            nearest held-out row; 1 where nothing is memorised. NaN where the latter is 0.
        distance_ratio_low: the same of the 5th percentile, where the closest rows are.
        neighbour_ratio_train, neighbour_ratio_test: median over the synthetic rows of the distance to the
            nearest over that to the second nearest training row, held-out row; equal where nothing is memorised.
        exact_train, exact_test: share of training rows, of held-out rows, that are a synthetic row.
        attack_auc: an attacker who calls those rows members that lie nearest to a synthetic row; 0.5 is a
            coin.
        attack_tpr: members found at one false alarm in a hundred; 0.01 is a coin.
        rows: synthetic rows whose distances were taken, training rows and held-out rows that were attacked.
        distances: 51 quantiles, from 0 to 1, of the distances to the nearest training row and held-out row.
    """

    closer_to_train: float
    distance_ratio: float
    distance_ratio_low: float
    neighbour_ratio_train: float
    neighbour_ratio_test: float
    exact_train: float
    exact_test: float
    attack_auc: float
    attack_tpr: float
    rows: int
    distances: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return attrs.asdict(self)


def privacy(train: Matrix, test: Matrix, synthetic: Matrix, rng: Rng, rows: int = 2500) -> Privacy:
    """Compare training rows with held-out rows as seen from the synthetic table.

    Args:
        train: rows that the synthesizer saw.
        test: rows of the same source that it did not see.
        synthetic: coded alike.
        rng: draws the rows.
        rows: at most so many are looked at from each table; the nearest is sought among all (of the tables held
            against each other, as many as the smaller has).
    """
    generator = as_generator(rng)
    m = min(len(train), len(test))
    members, others = train.sample(m, generator), test.sample(m, generator)
    exact = [exact_matches(real, synthetic) for real in (train, test)]
    scale = _ranker(train)
    a, b, s = (scale(_mixed(table, generator)) for table in (members, others, synthetic))
    to_train, to_test = (nearest(s[:rows], x, train.numeric) for x in (a, b))
    near_members, near_others = (nearest(x[:rows], s, train.numeric)[:, 0] for x in (a, b))
    auc, tpr = true_positives(-near_members, -near_others)
    one, other = to_train[:, 0], to_test[:, 0]
    steps = np.linspace(0, 1, 51)
    return Privacy(
        closer_to_train=float(np.mean((one < other) + 0.5 * (one == other))),
        distance_ratio=_ratio(np.median(one), np.median(other)),
        distance_ratio_low=_ratio(np.quantile(one, 0.05), np.quantile(other, 0.05)),
        neighbour_ratio_train=_neighbour_ratio(to_train),
        neighbour_ratio_test=_neighbour_ratio(to_test),
        exact_train=exact[0],
        exact_test=exact[1],
        attack_auc=auc,
        attack_tpr=tpr,
        rows=min(rows, len(a), len(s)),
        distances={"train": np.quantile(one, steps).tolist(), "test": np.quantile(other, steps).tolist()},
    )


def _mixed(table: Matrix, rng: torch.Generator) -> Matrix:
    """At most `MOST` of its rows, in random order."""
    return table.rows(torch.randperm(len(table), generator=rng)[:MOST].numpy())


def _ratio(one: float, other: float) -> float:
    return float(one) / float(other) if other > 0 else float("nan")


def _neighbour_ratio(distances: np.ndarray) -> float:
    """Median of nearest over second nearest; 1 where both are 0, since then none of the two stands out."""
    one, two = distances.T
    return float(np.median(np.divide(one, two, out=np.ones_like(one), where=two > 0)))


def nearest(x: np.ndarray, pool: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Distances (n, 2) of each row of `x` (n, p) to the nearest and second nearest row of `pool` (m, p).

    The distance is the sum over columns of the difference of two numbers (ranks in [0, 1]; 1 where one is
    missing) and of 1 for two different categories (Gower). Infinite where there is no second row. Memory is bounded
    by blocks.
    """
    out = np.full((len(x), 2), np.inf)
    block = max(1, CELLS // len(pool))
    columns = [np.ascontiguousarray(c, dtype=np.float32) for c in pool.T]
    few = min(2, len(pool))
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
        out[start : start + block, :few] = np.partition(distance, few - 1, axis=1)[:, :few]
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
