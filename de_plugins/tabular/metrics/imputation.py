"""How well several draws of missing cells match the truth: CRPS of numbers, accuracy and log score of categories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from de_core.errors import DiffuseError
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["crps", "imputation"]


def imputation(truth: Matrix, draws: Sequence[Matrix], holes: np.ndarray) -> dict[str | int, dict[str, float]]:
    r"""Scores of each column over its holes.

    Numbers: "crps", in standard deviations of the true column. Categories: "accuracy", the mean share of draws that are
    right, and "nats", the mean of :math:`-\log((k + 1/K) / (m + 1))` where k of m draws are right and there are K
    categories, which stays finite when none is.

    Args:
        truth: the full table.
        draws: m >= 2 imputed tables, coded alike.
        holes: (n, p) bool: the cells that were hidden.

    Raises:
        DiffuseError: fewer than two draws, or another shape.
    """
    if len(draws) < 2:
        raise DiffuseError(f"imputation: expected at least 2 draws, got {len(draws)}")
    if holes.shape != truth.values.shape or any(d.values.shape != truth.values.shape for d in draws):
        raise DiffuseError(f"imputation: expected tables and holes of shape {truth.values.shape}")
    out: dict[str | int, dict[str, float]] = {}
    for c, name in enumerate(truth.names):
        known = holes[:, c] & ~np.isnan(truth.values[:, c])
        if not known.any():
            continue
        y = truth.values[known, c]
        x = np.stack([draw.values[known, c] for draw in draws])
        if truth.numeric[c]:
            spread = float(np.nanstd(truth.values[:, c]))
            out[name] = {"crps": float(np.nanmean(crps(x, y))) / (spread or 1.0)}
        else:
            right = (x == y).sum(axis=0)
            nats = -np.log((right + 1 / truth.sizes[c]) / (len(draws) + 1))
            out[name] = {"accuracy": float(right.mean() / len(draws)), "nats": float(nats.mean())}
    return out


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r"""Continuous ranked probability score (n,) of draws (m, n), unbiased in m: :math:`E|X - y| - E|X - X'| / 2`.

    The second mean runs over the m (m - 1) pairs of different draws (the "fair" estimator); with sorted draws
    :math:`\sum_{i<j} (x_j - x_i) = \sum_j (2 j - m - 1) x_j`. NaN where a draw is NaN.

    Source: Gneiting and Raftery (2007), equation 21; Ferro (2014) for the fair form.
    """
    m = len(draws)
    weights = 2 * np.arange(1, m + 1) - m - 1
    pairs = (weights[:, None] * np.sort(draws, axis=0)).sum(axis=0)
    return np.abs(draws - truth).mean(axis=0) - pairs / (m * (m - 1))
