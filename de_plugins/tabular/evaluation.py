"""One call that says how good a synthetic table is, beside what a perfect sample and two bad ones score."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular._frames import as_pandas
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.metrics import detection, fidelity
from de_plugins.tabular.metrics.matrix import Matrix, matrices
from de_plugins.tabular.metrics.privacy import privacy
from de_plugins.tabular.metrics.utility import every_column, utility
from de_plugins.tabular.metrics.validity import exact_matches, validity

__all__ = ["Report", "evaluate"]

SCORES: dict[str, tuple[str, str]] = {  # what a score is called, and what it says
    "shape": ("Shape", "columns one by one, %"),
    "trend": (
        "Trend",
        "pairs of columns, all of them, bins of each table's own range (as published), %",
    ),
    "trend_real_bins": ("Trend, real bins", "the same with the real table's bins for both, %"),
    "trend_ranks": ("Trend, deciles and ranks", "the same with deciles and rank correlation, %"),
    "k_way_3": ("3-way variation", "total variation of three columns at a time, %"),
    "invalid": ("Impossible cells", "out of range, off the grid or never seen, % of the worst column"),
    "auc": ("Two-sample AUC", "a classifier's, real against synthetic; 0.5 is best"),
    "auc_marginal": ("- of the marginals", "the same with columns shuffled"),
    "auc_dependence": ("- of the dependence", "the same with the real marginals"),
    "mle": ("Learning (MLE)", "trained on the synthetic table, judged on the test table"),
    "mle_paper": ("Learning, as published", "the same with the faults of the common script"),
    "exact_train": ("Copies of training rows", "% of synthetic rows"),
    "exact_test": ("Copies of test rows", "% of synthetic rows, from as many rows; what chance gives"),
    "closer_to_train": (
        "Nearer to training rows",
        "share of rows nearer to training than to test rows; 0.5",
    ),
    "attack_tpr": ("Membership attack", "members found at 1 % false alarms; 0.01 is chance"),
}
PERCENT = {
    "shape",
    "trend",
    "trend_real_bins",
    "trend_ranks",
    "k_way_3",
    "invalid",
    "exact_train",
    "exact_test",
}


@attrs.frozen(eq=False)
class Report:
    """The outcome of `evaluate`.

    Args:
        results: everything as JSON; "scores" holds the headline numbers as fractions (not per cent),
            "anchors" the same for a perfect sample, for shuffled columns and for a copy of the training
            table.
        real, synthetic: the tables coded alike, for the pictures.
        trend: (p, p) Trend of each pair.
    """

    results: dict[str, Any]
    real: Matrix
    synthetic: Matrix
    trend: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return self.results

    def to_text(self) -> str:
        """The scores beside the anchors, as a table for a terminal."""
        from de_plugins.tabular.report import text

        return text(self)

    def to_html(self, path: str | os.PathLike) -> None:
        """One page with its pictures inside, written at once or not at all."""
        from de_plugins.tabular.io import write_atomically
        from de_plugins.tabular.report import html

        page = html(self)
        write_atomically(Path(path), lambda aside: aside.write_text(page, encoding="utf-8"))

    def to_json(self, path: str | os.PathLike) -> None:
        """The results as a JSON file, written at once or not at all."""
        from de_plugins.tabular.io import write_atomically

        body = json.dumps(self.results, indent=2)
        write_atomically(Path(path), lambda aside: aside.write_text(body, encoding="utf-8"))


def evaluate(
    train: Any,
    synthetic: Any,
    test: Any = None,
    target: str | int | None = None,
    *,
    categorical: Collection[str | int] | None = None,
    log_target: bool = False,
    paper: bool = False,
    anchors: bool = True,
    every_target: bool = False,
    seed: int = 0,
    seeds: int = 3,
    threads: int | None = None,
    extras: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Judge a synthetic table.

    Shape, Trend and validity are against the training table; the two-sample test is against the test table
    (against the training table where there is none, which flatters a model that copies); learning and privacy
    need the test table.

    Args:
        train: what the synthesizer saw: a frame of pandas, polars or pyarrow.
        synthetic: the same columns.
        test: rows of the same source that it did not see.
        target: a column for "learning": categories are classified, numbers regressed.
        categorical: which columns are categories in every metric; by default text, booleans, categoricals and
            numbers with two values.
        log_target: judge a regression by log(clip(y, 1, 20000)), as the published tables do.
        paper: also the published learning protocol with its faults (see `metrics.utility`).
        anchors: also score a perfect sample (one half of the training table against the other, extrapolated
            to the full size where the score is a distance), the training table with its columns shuffled, and
            a copy of it.
        every_target: also take every column in turn as the target, with one setting of the classifier, for the
            synthetic and for the training table.
        seed: of every draw.
        seeds: repetitions of the two-sample test; the anchors get one.
        threads: fits of XGBoost at a time; by default as many as there are processors.
        extras: sections to show in the report, such as cost or the held-out bound: name to value by title.

    Raises:
        DiffuseError: a table is empty or has other columns; no such target.
    """
    began = time.perf_counter()
    frames = {"train": as_pandas(train)[0], "synthetic": as_pandas(synthetic)[0]}
    if test is not None:
        frames["test"] = as_pandas(test)[0]
    coded = matrices(frames, categorical)
    real, fake, held = coded["train"], coded["synthetic"], coded.get("test")
    if target is not None and target not in real.names:
        raise DiffuseError(f"target: column '{target}' is not in the table; it has {list(real.names)}")
    names = [str(name) for name in real.names]

    shapes = fidelity.shape(real, fake)
    pairs = fidelity.trend(real, fake)
    scores: dict[str, float] = _likeness(real, fake, pairs, seed)
    valid = validity(TableCodec.fit(frames["train"]), frames["synthetic"])
    wrong = {str(name): cells for name, cells in valid.items()}
    scores["invalid"] = max(max(c.get(k, 0.0) for k in ("outside", "off_grid", "unseen")) for c in wrong.values())
    results: dict[str, Any] = {
        "rows": {name: len(matrix) for name, matrix in coded.items()},
        "columns": len(names),
        "target": target,
        "scores": scores,
        "shape": dict(zip(names, shapes.tolist(), strict=True)),
        "missing": dict(zip(names, fidelity.missing(real, fake).tolist(), strict=True)),
        "worst_pairs": _worst(pairs, names),
        "k_way": {str(k): fidelity.k_way(real, fake, k, seed) for k in (1, 2, 3)},
        "validity": wrong,
        "two_sample_against": "train" if held is None else "test",
    }
    views = detection.detection(real if held is None else held, fake, seed=seed, seeds=seeds, threads=threads)
    results["two_sample"] = {name: view.to_dict() for name, view in views.items()}
    for name, view in views.items():
        scores["auc" if name == "full" else f"auc_{name}"] = view.auc
    if held is None:
        scores["exact_train"] = exact_matches(fake, real)
    else:
        private = privacy(real, held, fake, rng=stream(seed, "privacy"))
        results["privacy"] = private.to_dict()
        for name in ("exact_train", "exact_test", "closer_to_train", "attack_tpr"):
            scores[name] = getattr(private, name)
        if target is not None:
            chosen = {"seed": seed, "log_target": log_target, "threads": threads}
            learnt = utility(fake, held, target, **chosen)
            results["learning"] = learnt.to_dict()
            scores["mle"] = learnt.score
            if paper:
                scores["mle_paper"] = utility(fake, held, target, paper=True, **chosen).score
    if every_target and held is not None:
        ours, best = (every_column(rows, held, seed=seed, threads=threads) for rows in (fake, real))
        results["every_target"] = {
            str(name): {"metric": ours[name].metric, "synthetic": ours[name].score, "real": best[name].score}
            for name in ours
            if name in best
        }
    if anchors:
        results["anchors"] = _anchors(real, held, target, seed, log_target, threads)
    results |= {name: dict(section) for name, section in (extras or {}).items()}
    results["seconds"] = time.perf_counter() - began
    return Report(_plain(results), real, fake, pairs)


def _likeness(real: Matrix, fake: Matrix, pairs: np.ndarray, seed: int) -> dict[str, float]:
    """The scores that cost little; `pairs` is their Trend."""
    return {
        "shape": _mean(fidelity.shape(real, fake)),
        "trend": _mean(pairs),
        "trend_real_bins": _mean(fidelity.trend(real, fake, bins="real")),
        "trend_ranks": _mean(fidelity.trend(real, fake, bins="quantile", ranks=True)),
        "k_way_3": fidelity.k_way(real, fake, 3, seed),
    }


def _anchors(
    real: Matrix,
    held: Matrix | None,
    target: str | int | None,
    seed: int,
    log_target: bool,
    threads: int | None,
) -> dict[str, dict[str, float]]:
    """Scores of a perfect sample and of two bad ones."""
    rng = stream(seed, "anchors")
    mixed = real.sample(len(real), rng).rows(_order(len(real), seed))
    half = len(real) // 2
    out: dict[str, dict[str, float]] = {}
    shuffled = real.shuffled(rng)
    cases = {
        "perfect": (mixed.rows(slice(half)), mixed.rows(slice(half, 2 * half))),
        "shuffled": (real, shuffled),
    }
    cases["copied"] = (real, real)
    for name, (a, b) in cases.items():
        if min(len(a), len(b)) < 5:
            continue
        row = _likeness(a, b, fidelity.trend(a, b), seed)
        if name == "perfect":
            distances = {"k_way_3"}
            row = {k: v / 2**0.5 if k in distances else fidelity.extrapolated(v) for k, v in row.items()}
        against = a if held is None else held
        if min(len(against), len(b)) >= 5:
            row["auc"] = detection.two_sample_auc(against, b, seed=seed, seeds=1, threads=threads).auc
        row["exact_train"] = exact_matches(b, a)
        if name == "copied" and held is not None and target is not None and len(b) >= 9:
            row["mle"] = utility(b, held, target, seed=seed, log_target=log_target, threads=threads).score
        out[name] = row
    return out


def _order(n: int, seed: int) -> np.ndarray:
    import torch

    return torch.randperm(n, generator=stream(seed, "halves")).numpy()


def _mean(scores: np.ndarray) -> float:
    """Over what is defined; NaN where nothing is."""
    good = scores[~np.isnan(scores)]
    return float(good.mean()) if len(good) else float("nan")


def _worst(pairs: np.ndarray, names: list[str], count: int = 10) -> list[list[Any]]:
    i, j = np.triu_indices(len(pairs), 1)
    flat = np.nan_to_num(pairs[i, j], nan=2.0)
    order = np.argsort(flat)[:count]
    return [[names[i[k]], names[j[k]], float(flat[k])] for k in order if flat[k] <= 1]


def _plain(value: Any) -> Any:
    """JSON: NaN becomes None, numpy scalars become Python's."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
