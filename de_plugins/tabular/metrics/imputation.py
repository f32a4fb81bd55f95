"""How well several draws of missing cells match the truth: CRPS of numbers, accuracy and log score of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["crps", "imputation", "random_holes", "summary"]


def random_holes(frame: pd.DataFrame, share: float = 0.2, *, rng: Rng) -> np.ndarray:
    """Cells to hide, (n, p) bool: each that is there with probability `share`; every row keeps one at least.

    Args:
        frame: the full table; its missing cells are no holes, since there is no truth to compare with.
        share: in [0, 1].
        rng: draws the holes.
    """
    there = frame.notna().to_numpy(dtype=bool)
    score = torch.rand(there.shape, generator=as_generator(rng), dtype=torch.float64).numpy()
    holes = there & (score < share)
    kept = np.where(there, score, -1.0).argmax(axis=1)  # the last cell to be hidden
    holes[np.arange(len(holes)), kept] &= (there & ~holes).any(axis=1)
    return holes


def imputation(truth: Matrix, draws: Sequence[Matrix], holes: np.ndarray) -> dict[str | int, dict[str, float]]:
    r"""Scores of each column over its holes.

    Numbers: "crps", in standard deviations of the true column. Categories: "accuracy", the mean share of draws that are
    right, and "nats", the mean of :math:`-\log((k + 1/K) / (m + 1))` where k of m draws are right and there are K
    categories, which stays finite when none is. Cells that are missing in truth do not count.

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
        cells, size = truth.values[:, c], int(truth.sizes[c]) - 1
        known = holes[:, c] & (~np.isnan(cells) if truth.numeric[c] else cells != size)
        if not known.any():
            continue
        y = cells[known]
        x = np.stack([draw.values[known, c] for draw in draws])
        if truth.numeric[c]:
            spread, found = float(np.nanstd(cells)), crps(x, y)
            if not np.isnan(found).all():  # donors may all lack the cell
                out[name] = {"crps": float(np.nanmean(found)) / (spread or 1.0)}
        else:
            right = (x == y).sum(axis=0)
            nats = -np.log((right + 1 / size) / (len(draws) + 1))
            out[name] = {"accuracy": float(right.mean() / len(draws)), "nats": float(nats.mean())}
    return out


def summary(scores: Mapping[str | int, Mapping[str, float]]) -> dict[str, float]:
    """Means over the columns that have a score: "crps", "accuracy", "nats"; what no column has is left out."""
    found = {key: [s[key] for s in scores.values() if key in s] for key in ("crps", "accuracy", "nats")}
    return {key: float(np.mean(values)) for key, values in found.items() if values}


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
