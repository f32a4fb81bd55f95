"""Machine-learning efficiency: XGBoost trained on the synthetic table, judged on real rows."""

from __future__ import annotations

from itertools import chain, product
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular.metrics._parallel import side_by_side
from de_plugins.tabular.metrics.matrix import Matrix, scale_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Utility", "every_column", "utility"]

ROUNDS = (10, 50, 100)
DEPTHS = (5, 10, 20)
CHILD_WEIGHTS = (1, 10)
GAMMAS = (0.0, 1.0)
MOST_LABELS = 9  # of a target in `every_column`, the others are one more: a tree a label and round
MOST, MOST_TARGET = 2.0**100, 2.0**62  # XGBoost has float32, and squares sums of targets
ONE_HOT = 256  # columns with more categories go in as codes, to bound memory


@attrs.frozen
class Utility:
    """How well a model trained on synthetic rows does on real ones.

    Args:
        metric: "auc" (higher is better; one against the rest, averaged, for more than two classes) or "rmse"
            (lower).
        score: on the real test rows, of the setting that did best on the validation rows.
        validation: its score there.
        setting: number of trees, depth, child weight, gamma; empty where the synthetic rows have one class.
    """

    metric: str
    score: float
    validation: float
    setting: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return attrs.asdict(self)


def utility(
    synthetic: Matrix,
    test: Matrix,
    target: str | int,
    *,
    seed: int,
    paper: bool = False,
    log_target: bool = False,
    threads: int | None = None,
    full: bool = True,
) -> Utility:
    """The published protocol: 36 settings of XGBoost, a ninth of the synthetic rows to choose one, real rows
    to judge it.

    The chosen setting is fitted on the other eight ninths, with the regression target as it is or as
    log(clip(y, 1, 20000)). Categories are one-hot; a test row's category that the synthetic table lacks is
    all zeros.

    Args:
        synthetic: rows to train on.
        test: real rows.
        target: a column; categories are classified, numbers regressed.
        seed: of the split.
        paper: with two faults of the script that the published figures come from: every number is scaled by
            the range of the first one (with log(max(x, 0.01)) where that reaches from 0 or more to 1000 or
            more), and with `log_target` the validation targets are not logged. The choice is made on
            validation rows all the same.
        log_target: of a regression.
        threads: fits at a time; by default as many as there are processors.
        full: all 36 settings; else only 50 trees of depth 5, child weight 1, gamma 0.

    Raises:
        DiffuseError: the target is not a column, or the only one; too few rows are there to split.
    """
    if target not in synthetic.names:
        raise DiffuseError(f"target: column '{target}' is not in the table; it has {list(synthetic.names)}")
    if len(synthetic.names) < 2:
        raise DiffuseError(f"target '{target}': expected another column to predict it from, it is the only one")
    t = synthetic.names.index(target)
    classify = not synthetic.numeric[t]
    synthetic, test = (m.rows(~np.isnan(m.values[:, t])) for m in (synthetic, test))
    held = len(synthetic) // 9
    if held < 1 or len(test) < 1:
        raise DiffuseError(f"target '{target}': expected 9 synthetic rows and 1 test row at least")
    x, x_test = _features(synthetic, test, t, paper)
    y, y_test = synthetic.values[:, t], test.values[:, t]
    order = torch.randperm(len(y), generator=stream(seed, "utility")).numpy()
    valid, train = order[:held], order[held:]
    if classify:
        labels, y_train = np.unique(y[train], return_inverse=True)
        if len(labels) < 2:
            return Utility("auc", 0.5, 0.5, {})  # nothing can be learnt: a coin
        judge = _Auc(labels)
        y_valid = y[valid]
    else:
        y_train, y_valid, y_test = (_log(v) if log_target else v for v in (y[train], y[valid], y_test))
        if paper:
            y_valid = y[valid]
        scale = float(scale_of(y_train[:, None], MOST_TARGET)[0])
        y_train, y_valid, y_test = (v / scale for v in (y_train, y_valid, y_test))
        judge = _Rmse(scale)
    depths, weights, gammas, rounds = (DEPTHS, CHILD_WEIGHTS, GAMMAS, ROUNDS) if full else ((5,), (1,), (0.0,), (50,))

    def fit(setting: tuple[int, int, float]) -> list[Utility]:
        depth, weight, gamma = setting
        model = judge.model(n_estimators=max(rounds), max_depth=depth, min_child_weight=weight, gamma=gamma, n_jobs=1)
        model.fit(x[train], y_train)
        found = []
        for trees in rounds:  # the first trees of a longer boosting are the shorter boosting
            chosen = {"trees": trees, "depth": depth, "child_weight": weight, "gamma": gamma}
            scores = judge.score(model, x_test, y_test, trees), judge.score(model, x[valid], y_valid, trees)
            found.append(Utility(judge.name, *scores, chosen))
        return found

    settings = product(depths, weights, gammas)
    found = chain.from_iterable(side_by_side(fit, settings, threads))
    return max(found, key=lambda one: judge.sign * one.validation)


def every_column(
    synthetic: Matrix, test: Matrix, *, seed: int, rows: int = 10_000, threads: int | None = None
) -> dict[str | int, Utility]:
    """Every column in turn as the target, with one setting (50 trees of depth 5).

    The test rows' `MOST_LABELS` most frequent categories are told apart, the others are one. Left out: columns with one
    value on a side, and those too few of whose cells are there.

    Args:
        synthetic: rows to train on.
        test: real rows.
        seed: of the draws and splits.
        rows: at most so many of each table, so that two tables of different lengths compare.
        threads: fits at a time; by default as many as there are processors.
    """
    synthetic, test = (m.sample(rows, stream(seed, "every", k)) for k, m in enumerate((synthetic, test)))
    pairs = [_pooled(synthetic, test, c) for c in range(len(synthetic.names))] if len(synthetic.names) > 1 else []

    def one(c: int) -> Utility | None:
        cells = [m.values[~np.isnan(m.values[:, c]), c] for m in pairs[c]]
        if any(len(x) < 9 or x.min() == x.max() for x in cells):
            return None
        try:
            return utility(*pairs[c], synthetic.names[c], seed=seed, threads=1, full=False)
        except DiffuseError:  # the rows that are left to train on have one class
            return None

    found = side_by_side(one, range(len(pairs)), threads)
    return {name: best for name, best in zip(synthetic.names, found, strict=False) if best is not None}


def _pooled(synthetic: Matrix, test: Matrix, c: int) -> tuple[Matrix, Matrix]:
    """Both with the rare categories of column `c` as one."""
    if synthetic.sizes[c] <= MOST_LABELS + 1:
        return synthetic, test
    counts = np.bincount(test.values[:, c].astype(np.int64), minlength=synthetic.sizes[c])
    code = np.full(len(counts), MOST_LABELS)
    code[np.argsort(-counts, kind="stable")[:MOST_LABELS]] = np.arange(MOST_LABELS)
    sizes = synthetic.sizes.copy()
    sizes[c] = MOST_LABELS + 1
    out = []
    for table in (synthetic, test):
        values = table.values.copy()
        values[:, c] = code[values[:, c].astype(np.int64)]
        out.append(attrs.evolve(table, values=values, sizes=sizes))
    return out[0], out[1]


class _Auc:
    name, sign = "auc", 1.0

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def model(self, **setting: Any) -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(**setting)

    def score(self, model: Any, x: csr_matrix, y: np.ndarray, trees: int) -> float:
        """Mean AUC of a label against the rest, over the labels that occur and are not all."""
        from sklearn.metrics import roc_auc_score

        guess = model.predict_proba(x, iteration_range=(0, trees))
        columns = range(1, 2) if len(self.labels) == 2 else range(len(self.labels))
        hits = [(y == self.labels[k], guess[:, k]) for k in columns]
        scores = [roc_auc_score(hit, p) for hit, p in hits if hit.any() and not hit.all()]
        return float(np.mean(scores)) if scores else 0.5


class _Rmse:
    name, sign = "rmse", -1.0

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def model(self, **setting: Any) -> Any:
        from xgboost import XGBRegressor

        return XGBRegressor(**setting)

    def score(self, model: Any, x: csr_matrix, y: np.ndarray, trees: int) -> float:
        guess = model.predict(x, iteration_range=(0, trees))
        return float(np.sqrt(np.mean((guess - y) ** 2))) * self.scale


def _log(y: np.ndarray) -> np.ndarray:
    return np.log(np.clip(y, 1, 20000))


def _features(train: Matrix, test: Matrix, target: int, paper: bool) -> tuple[csr_matrix, csr_matrix]:
    """Numbers as they are (trees do not mind the scale), categories one-hot, over those of the training.

    Only the ones of a one-hot block are stored: XGBoost takes what is not stored for missing, and "one against
    missing" is the same split as "one against zero", in a third of the time.
    """
    low = high = 0.0
    scale = scale_of(np.concatenate([train.values, test.values]), np.inf if paper else MOST)
    out = []
    for table in (train, test):
        cells: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []  # width, place, value, stored
        for c in range(len(train.names)):
            x = table.values[:, c]
            place, there = np.zeros(len(x), dtype=np.int64), np.ones(len(x), dtype=bool)
            if c == target:
                continue
            if not train.numeric[c] and train.sizes[c] <= ONE_HOT:
                known = np.unique(train.values[:, c])
                place = np.minimum(np.searchsorted(known, x), len(known) - 1)
                cells.append((len(known), place, np.ones(len(x)), known[place] == x))
                continue
            if paper and train.numeric[c]:
                # the script looks for a range only while it has none (or 0), and carries it on to the test
                # rows
                low, high = low or float(np.nanmin(x)), high or float(np.nanmax(x))
                logs, span = low >= 0 and high >= 1e3, (high - low) or 1.0
                x = np.log(np.maximum(x, 1e-2)) if logs else (x - low) / span * 5
            cells.append((1, place, x / scale[c], there))
        out.append(_sparse(cells))
    return out[0], out[1]


def _sparse(cells: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> csr_matrix:
    """At most one stored cell a row in each block of columns; a stored zero stays a zero."""
    from scipy.sparse import csr_matrix

    widths, places, values, stored = zip(*cells, strict=True)
    starts = np.concatenate([[0], np.cumsum(widths)])
    place, value, there = (np.column_stack(part) for part in (places, values, stored))
    ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    shape = (len(place), int(starts[-1]))
    return csr_matrix((value[there].astype(np.float32), (place + starts[:-1])[there], ends), shape=shape)
