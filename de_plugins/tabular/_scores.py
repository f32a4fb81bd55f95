"""The scores of the report: what they are called, what they say, how they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["ANCHORS", "SCORES", "SECTIONS", "Score", "score_of", "shown", "standing"]

ANCHORS = {"perfect": "perfect sample", "shuffled": "columns shuffled", "copied": "training copied"}

# what the report itself is made of; every other entry of its results is shown as a table of two columns
SECTIONS = {
    *("rows", "columns", "target", "scores", "shape", "missing", "worst_pairs", "k_way", "validity", "anchors"),
    *("two_sample_against", "two_sample", "every_target", "learning", "privacy", "bound", "imputation", "cost"),
    *("rules", "seconds"),
}


@attrs.frozen
class Score:
    """How a number of the report reads.

    Args:
        title: its name.
        says: what it is, in a few words.
        percent: shown as a hundredfold.
        between: whether shuffled columns are its bad end, so that it has a place between them and a perfect sample.
        less: whether less is better.
    """

    title: str
    says: str
    percent: bool = False
    between: bool = False
    less: bool = False


SCORES = {
    "shape": Score("Shape", "single columns; 100 is best", True),
    "trend": Score("Trend", "pairs of columns, all of them, as published; 100 is best", True, True),
    "trend_real_bins": Score("Trend, real bins", "the same, numbers cut where the real table is", True, True),
    "trend_ranks": Score("Trend, deciles and ranks", "the same with deciles and rank correlation", True, True),
    "k_way_3": Score("3-way variation", "three columns at a time, cells that differ; 0 is best", True, True, True),
    "invalid": Score("Impossible cells", "out of range, off the grid or never seen, in the worst column", True),
    "auc": Score("Two-sample AUC", "a classifier tells real rows from synthetic ones; 0.5 is best", False, True, True),
    "auc_marginal": Score("- of the columns", "the same, seeing single columns only"),
    "auc_dependence": Score(
        "- of the dependence", "the same, once every single column is made right", False, True, True
    ),
    "mle": Score("Learning", "learnt from this table, judged on real rows held out", False, True),
    "mle_paper": Score("Learning, as published", "the same with the faults of the common script", False, True),
    "exact_train": Score("Copies of training rows", "training rows that occur in the table", True),
    "exact_test": Score("Copies of held-out rows", "the same of rows held out: what chance gives", True),
    "closer_to_train": Score("Nearer to training rows", "share of rows nearer to these than to rows held out; 0.5"),
    "distance_ratio": Score("Distance ratio", "to the nearest training row over nearest row held out; 1"),
    "distance_ratio_low": Score("- of the closest rows", "the same for the closest twentieth; 1"),
    "attack_auc": Score("Membership attack, AUC", "who was in the training table? 0.5 is a guess"),
    "attack_tpr": Score("Membership attack, hits", "members found at 1 % false alarms; 0.01 is a guess"),
}


def score_of(key: str, results: Mapping[str, Any]) -> Score:
    """The description of a score; a metric of another plugin goes by its own name."""
    score = SCORES.get(key, Score(key.replace("_", " "), "a metric of another plugin"))
    if key.startswith("mle") and results.get("learning"):
        metric = results["learning"]["metric"].upper()
        less = metric != "AUC"
        best = "0 is best" if less else "1 is best"
        return attrs.evolve(score, title=f"{score.title}, {metric}", says=f"{score.says}; {best}", less=less)
    return score


def shown(score: Score, value: float | None) -> str:
    """The number as the report prints it."""
    if value is None:
        return ""
    return f"{100 * value:.2f}" if score.percent else f"{value:.3f}"


def standing(key: str, results: Mapping[str, Any]) -> float | None:
    """Where a score stands between shuffled columns (0) and a perfect sample (1); None where the perfect sample is not
    the better of the two: then there is no place between them."""
    score, value, anchors = score_of(key, results), results["scores"].get(key), results.get("anchors", {})
    worst, best = (anchors.get(name, {}).get(key) for name in ("shuffled", "perfect"))
    if not score.between or value is None or worst is None or best is None:
        return None
    if (worst - best if score.less else best - worst) < 0.005:
        return None
    return (value - worst) / (best - worst)
