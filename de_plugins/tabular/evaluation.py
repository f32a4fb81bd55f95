"""One call that says how good a synthetic table is, beside what a perfect sample and two bad ones score."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pandas as pd

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular._anchors import anchors as anchors_of
from de_plugins.tabular._anchors import likeness, private, views
from de_plugins.tabular._frames import as_pandas
from de_plugins.tabular._model_scores import check_model, cost, held_out_bound, imputed
from de_plugins.tabular._scores import SECTIONS
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.metrics import detection, fidelity
from de_plugins.tabular.metrics.matrix import Matrix, matrices
from de_plugins.tabular.metrics.privacy import privacy
from de_plugins.tabular.metrics.utility import every_column, utility
from de_plugins.tabular.metrics.validity import exact_matches, rules_kept, validity
from de_plugins.tabular.schema import Schema

if TYPE_CHECKING:
    from de_plugins.tabular.synthesizer import TableSynthesizer

__all__ = ["Report", "evaluate"]


@attrs.frozen(eq=False)
class Report:
    """The outcome of `evaluate`.

    Args:
        results: everything as JSON; "scores" holds the headline numbers as fractions (not per cent),
            "anchors" the same for a perfect sample, for shuffled columns and for a copy of the training
            table.
        real, synthetic: the tables coded alike, for the pictures.
        trend: (p, p) Trend of each pair, with the real table's bins.
    """

    results: dict[str, Any]
    real: Matrix
    synthetic: Matrix
    trend: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return self.results

    @property
    def verdict(self) -> list[str]:
        """What the scores come to, in sentences."""
        from de_plugins.tabular._verdict import verdict

        return [judgement.sentence for judgement in verdict(self.results)]

    def to_text(self) -> str:
        """The scores beside the anchors, and the verdict, for a terminal."""
        from de_plugins.tabular.report import text

        return text(self)

    def to_html(self, path: str | os.PathLike) -> None:
        """One page with its pictures inside, written at once or not at all."""
        from de_plugins.tabular.report import html

        atomic_write(path, html(self))

    def to_json(self, path: str | os.PathLike) -> None:
        """The results as a JSON file, written at once or not at all."""
        atomic_write(path, json.dumps(self.results, indent=2))


def evaluate(
    train: Any,
    synthetic: Any,
    test: Any = None,
    target: str | int | None = None,
    *,
    model: TableSynthesizer | None = None,
    categorical: Collection[str | int] | None = None,
    log_target: bool = False,
    paper: bool = False,
    anchors: bool = True,
    seed: int = 0,
    seeds: int = 3,
    threads: int | None = None,
    extras: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Judge a synthetic table.

    Shape, Trend and validity are against the training table; the two-sample test is against the test table
    (against the training table where there is none, which flatters a model that copies); learning, every column as a
    target, and privacy need the test table; the bound, imputation and what it cost need the model.

    Args:
        train: what the synthesizer saw: a frame of pandas, polars or pyarrow.
        synthetic: the same columns.
        test: rows of the same source that it did not see.
        target: a column for "learning": categories are classified, numbers regressed.
        model: the synthesizer, fitted on `train`.
        categorical: which columns are categories in every metric; by default text, booleans, categoricals and
            numbers with two values.
        log_target: judge a regression by log(clip(y, 1, 20000)), as the published tables do.
        paper: also the published learning protocol with its faults (see `metrics.utility`).
        anchors: also score a perfect sample, the training table with its columns shuffled, and a copy of it.
        seed: of every draw.
        seeds: repetitions of the two-sample test; its two parts and the anchors get one.
        threads: fits of XGBoost at a time; by default as many as there are processors.
        extras: sections to show in the report, under names that it does not use itself: name to value by title.

    Raises:
        DiffuseError: a table is empty or has other columns; no such target; the model has other columns; an extra of
            the name of a section, or one that is no mapping; no repetition; no thread.
    """
    began = time.perf_counter()
    if seeds < 1:
        raise DiffuseError(f"seeds: expected at least one repetition of the two-sample test, got {seeds}")
    if threads is not None and threads < 1:
        raise DiffuseError(f"threads: expected at least 1, got {threads}")
    for name, section in (extras or {}).items():
        if not isinstance(section, Mapping):
            raise DiffuseError(f"extras: expected section '{name}' as values by title, got {type(section).__name__}")
    if taken := sorted(SECTIONS & set(extras or ())):
        raise DiffuseError(f"extras: the report has a section '{taken[0]}' of its own; expected another name")
    frames = {"train": as_pandas(train)[0], "synthetic": as_pandas(synthetic)[0]}
    if test is not None:
        frames["test"] = as_pandas(test)[0]
    coded = matrices(frames, categorical)
    real, fake, held = coded["train"], coded["synthetic"], coded.get("test")
    if target is not None and target not in real.names:
        raise DiffuseError(f"target: column '{target}' is not in the table; it has {list(real.names)}")
    if model is not None:
        check_model(model, frames["train"])
    names = [str(name) for name in real.names]
    pairs = fidelity.trend(real, fake, bins="real")
    codec = TableCodec.fit(frames["train"], Schema.infer(frames["train"]).without_groups("judged by column"))
    wrong = _cells(codec, frames["synthetic"])
    scores: dict[str, float] = likeness(real, fake) | {"invalid": _worst_cells(wrong)}
    results: dict[str, Any] = {
        "rows": {name: len(matrix) for name, matrix in coded.items()},
        "columns": len(names),
        "target": target,
        "scores": scores,
        "shape": dict(zip(names, fidelity.shape(real, fake).tolist(), strict=True)),
        "missing": dict(zip(names, fidelity.missing(real, fake).tolist(), strict=True)),
        "worst_pairs": _worst(pairs, names),
        "k_way": {str(k): fidelity.k_way(real, fake, k, seed) for k in (1, 2, 3)},
        "validity": wrong,
        "rules": {name: rules_kept(codec, frame) for name, frame in frames.items()},
        "two_sample_against": "train" if held is None else "test",
    }
    against = real if held is None else held
    found = detection.detection(against, fake, seed=seed, seeds=seeds, threads=threads)
    results["two_sample"] = {name: view.to_dict() for name, view in found.items()}
    scores |= views(found)
    if held is None:
        scores["exact_train"] = exact_matches(real, fake)
    else:
        close = privacy(real, held, fake, rng=stream(seed, "privacy"))
        results["privacy"] = close.to_dict()
        scores |= private(close)
        chosen: dict[str, Any] = {"seed": seed, "threads": threads}
        if target is not None:
            learnt = utility(fake, held, target, log_target=log_target, **chosen)
            results["learning"] = learnt.to_dict()
            scores["mle"] = learnt.score
            if paper:
                faulty = utility(fake, held, target, log_target=log_target, paper=True, **chosen)
                scores["mle_paper"] = faulty.score
        results["every_target"] = _every_target(real, held, fake, chosen)
    if anchors:
        chosen = {"seed": seed, "paper": paper, "log_target": log_target, "threads": threads}
        results["anchors"] = anchors_of(real, held, target, **chosen)
        for name, row in results["anchors"].items():
            fresh = name == "perfect" and held is not None
            row["invalid"] = _worst_cells(_cells(codec, frames["test"])) if fresh else 0.0
    if model is not None:
        if held is not None:
            results["bound"] = held_out_bound(model, frames["train"], frames["test"], seed)
            results["imputation"] = imputed(model, frames["train"], frames["test"], categorical, seed)
        results["cost"] = cost(model, min(len(fake), 8192), seed)
    results |= {name: dict(section) for name, section in (extras or {}).items()}
    results["seconds"] = time.perf_counter() - began
    return Report(_plain(results), real, fake, pairs)


def _cells(codec: TableCodec, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(name): cells for name, cells in validity(codec, frame).items()}


def _worst_cells(wrong: Mapping[str, Mapping[str, Any]]) -> float:
    """The greatest share of impossible cells of a column."""
    return max(max(cells.get(key, 0.0) for key in ("outside", "off_grid", "unseen")) for cells in wrong.values())


def _every_target(real: Matrix, held: Matrix, fake: Matrix, chosen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each column how well it is predicted after learning from synthetic and from real rows.

    "auc" for categories; for numbers "r2", the share of the held-out column's variance that is explained.
    """
    ours, best = (every_column(rows, held, **chosen) for rows in (fake, real))
    out = {}
    for name in ours:
        if name not in best:
            continue
        metric, scores = ours[name].metric, [ours[name].score, best[name].score]
        if metric == "rmse":
            column = held.values[:, held.names.index(name)]
            # a power of two, so that nothing is rounded, and squares neither overflow nor vanish
            scale = float(np.ldexp(1.0, min(np.frexp(np.nanmax(np.abs(column)))[1], 1023)))
            spread = float(np.nanvar(column / scale))
            metric, scores = "r2", [1 - (score / scale) ** 2 / spread for score in scores]
        out[str(name)] = {"metric": metric, "synthetic": scores[0], "real": scores[1]}
    return out


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
