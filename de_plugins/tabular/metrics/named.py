"""Scores of one table against another as single numbers, by the names under which the plugin registers them.

The report takes every installed metric with the capability "table", these and those of other plugins: a function of two
`Matrix` values, the training table and the synthetic table coded alike, that gives a float.
"""

from __future__ import annotations

import numpy as np

from de_plugins.tabular.metrics import fidelity
from de_plugins.tabular.metrics.detection import two_sample_auc
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["k_way_3", "shape", "trend", "trend_ranks", "trend_real_bins", "two_sample"]


def shape(real: Matrix, synthetic: Matrix) -> float:
    """Mean Shape of the columns (`fidelity.shape`)."""
    return _mean(fidelity.shape(real, synthetic))


def trend(real: Matrix, synthetic: Matrix) -> float:
    """Mean Trend of all pairs, as published (`fidelity.trend`)."""
    return _mean(fidelity.trend(real, synthetic))


def trend_real_bins(real: Matrix, synthetic: Matrix) -> float:
    """The same with the bins of the real table for both."""
    return _mean(fidelity.trend(real, synthetic, bins="real"))


def trend_ranks(real: Matrix, synthetic: Matrix) -> float:
    """The same with the real table's deciles and rank correlation."""
    return _mean(fidelity.trend(real, synthetic, bins="quantile", ranks=True))


def k_way_3(real: Matrix, synthetic: Matrix) -> float:
    """Total variation of three columns at a time (`fidelity.k_way`)."""
    return fidelity.k_way(real, synthetic, 3, rng=0)


def two_sample(real: Matrix, synthetic: Matrix) -> float:
    """AUC of a classifier that tells the rows of one table from those of the other (`detection.two_sample_auc`)."""
    return two_sample_auc(real, synthetic, seed=0).auc


def _mean(scores: np.ndarray) -> float:
    """Over what is defined; NaN where nothing is."""
    good = scores[~np.isnan(scores)]
    return float(good.mean()) if len(good) else float("nan")
