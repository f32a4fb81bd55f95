"""Two imputers to compare with: scikit-learn's chained regressions, and donors among the nearest rows."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch

from de_core.rng import seed_of, stream
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["iterative", "neighbours"]

ROUNDS = 10  # of the chained regressions, scikit-learn's default
MOST_INDICATORS = 20  # of a column's categories, the most frequent ones


def iterative(
    train: Matrix, truth: Matrix, holes: np.ndarray, draws: int = 20, *, seed: int, rows: int = 10_000
) -> list[Matrix]:
    """scikit-learn's IterativeImputer with `sample_posterior=True` (Bayesian ridge regression of each column on all
    others, in turn), fitted on training rows.

    Numbers go in standardised, categories as indicators of all but the most frequent one, whose indicator is what the
    others leave of 1 (with it among them none could be drawn: the others tell it exactly); the greatest is the category
    that was drawn.

    Args:
        train: rows to learn from.
        truth: the full table, (n, p), coded alike; its cells under `holes` are not read.
        holes: (n, p) bool.
        draws: independent fillings.
        seed: of the draws.
        rows: at most so many training rows.

    Returns:
        The filled tables.
    """
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # scikit-learn's switch for the next line
    from sklearn.impute import IterativeImputer

    coder = _Coder.fit(train)
    used = ~coder.reference
    known = coder.encode(train.sample(rows, stream(seed, "rows")), None)[:, used]
    known[:, np.isnan(known).all(axis=0)] = 0.0
    # complete training rows give the same regressions in every round: one fit stands for all
    whole = not np.isnan(known).any()
    imputer: Any = IterativeImputer(
        sample_posterior=True,
        max_iter=1 if whole else ROUNDS,
        random_state=seed_of(seed) % 2**32,
    ).fit(known)
    if whole:
        imputer.imputation_sequence_ *= ROUNDS
        imputer.n_iter_ = ROUNDS
    filled = np.zeros((draws * len(truth), len(used)))
    filled[:, used] = imputer.transform(np.tile(coder.encode(truth, holes)[:, used], (draws, 1)))
    return [coder.decode(part, truth, holes) for part in np.split(filled, draws)]


def neighbours(
    train: Matrix, truth: Matrix, holes: np.ndarray, draws: int = 20, *, seed: int = 0, rows: int = 50_000
) -> list[Matrix]:
    """Donors: draw k fills the holes of a row from the k-th nearest training row.

    The distance is Euclidean over the cells that are known on both sides, numbers standardised and two different
    categories at distance 1. A hole whose donor has no value either stays as missing.

    Args:
        train: the donors.
        truth: the full table, (n, p), coded alike; its cells under `holes` are not read.
        holes: (n, p) bool.
        draws: fillings.
        seed: of the draw of donors.
        rows: at most so many donors.

    Returns:
        The filled tables.
    """
    donors = train.sample(rows, stream(seed, "donors"))
    coder = _Coder.fit(train)
    pool, x = (torch.from_numpy(coder.encode(*part)).float() for part in ((donors, None), (truth, holes)))
    there, whole = ~x.isnan(), ~pool.isnan()
    x, pool = x.nan_to_num(), pool.nan_to_num()
    count = min(draws, len(donors))
    out = [truth.values.copy() for _ in range(draws)]
    for start in range(0, len(x), 1024):
        part, m = x[start : start + 1024], there[start : start + 1024].float()
        # sum over the columns that both have of (x - y)^2
        distance = part.square() @ whole.T.float() - 2 * part @ pool.T + m @ pool.square().T
        nearest = distance.topk(count, dim=1, largest=False).indices.numpy()
        hidden = holes[start : start + 1024]
        for k in range(draws):
            cells = out[k][start : start + 1024]
            cells[hidden] = donors.values[nearest[:, k % count]][hidden]
    return [attrs.evolve(truth, values=cells) for cells in out]


@attrs.frozen(eq=False)
class _Coder:
    """Standardised numbers and indicators of categories, and back.

    Args:
        table: names, kinds and sizes of the columns.
        mean, sd: (p,), of the numbers.
        shown: the categories of each column that have an indicator.
    """

    table: Matrix
    mean: np.ndarray
    sd: np.ndarray
    shown: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, train: Matrix) -> _Coder:
        values = np.where(np.isnan(train.values).all(axis=0), 0.0, train.values)
        mean, sd = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        shown = []
        for c, size in enumerate(train.sizes):
            cells = train.values[:, c].astype(np.int64) if size else np.empty(0, dtype=np.int64)
            counts = np.bincount(cells, minlength=size)[: max(size - 1, 0)]
            shown.append(np.argsort(-counts, kind="stable")[:MOST_INDICATORS])
        return cls(train.rows(slice(0)), mean, np.where(sd > 0, sd, 1.0), tuple(shown))

    @property
    def reference(self) -> np.ndarray:
        """(width,) bool: the indicator of a column's most frequent category."""
        first = [np.arange(len(shown)) == 0 for shown in self.shown]
        return np.concatenate([[False] if n else f for n, f in zip(self.table.numeric, first, strict=True)])

    def encode(self, table: Matrix, holes: np.ndarray | None) -> np.ndarray:
        """(n, width), NaN where missing or hidden."""
        blocks = []
        for c, x in enumerate(table.values.T):
            if table.numeric[c]:
                block = (x[:, None] - self.mean[c]) / self.sd[c]
            else:
                block = (x[:, None] == self.shown[c]) * np.sqrt(0.5)
                block[x == table.sizes[c] - 1] = np.nan
            if holes is not None:
                block[holes[:, c]] = np.nan
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    def decode(self, filled: np.ndarray, truth: Matrix, holes: np.ndarray) -> Matrix:
        """The table with its holes filled; indicators of reference are not read."""
        values, start = truth.values.copy(), 0
        for c in range(len(truth.names)):
            width = 1 if truth.numeric[c] else len(self.shown[c])
            block, start = filled[:, start : start + width], start + width
            if truth.numeric[c]:
                cells = block[:, 0] * self.sd[c] + self.mean[c]
            else:
                block = np.column_stack([np.sqrt(0.5) - block[:, 1:].sum(axis=1), block[:, 1:]])
                cells = self.shown[c][block.argmax(axis=1)] if width else np.zeros(len(filled))
            values[holes[:, c], c] = cells[holes[:, c]]
        return attrs.evolve(truth, values=values)
