"""Machine-learning efficiency: XGBoost trained on the synthetic table, judged on real rows."""

from __future__ import annotations

from itertools import chain, product
from typing import Any

import attrs
import numpy as np
import torch

from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular.metrics._parallel import side_by_side
from de_plugins.tabular.metrics.matrix import Matrix

__all__ = ["Utility", "every_column", "utility"]

ROUNDS = (10, 50, 100)
DEPTHS = (5, 10, 20)
CHILD_WEIGHTS = (1, 10)
GAMMAS = (0.0, 1.0)
MOST_LABELS = 50  # one tree a label and round: more would cost minutes
ONE_HOT = 256  # columns with more categories go in as codes, to bound memory


@attrs.frozen
class Utility:
    """How well a model trained on synthetic rows does on real ones.

    Args:
        metric: "auc" (higher is better; one against the rest, averaged, for more than two classes) or "rmse"
            (lower).
        score: on the real test rows, of the setting that did best on the validation rows.
        validation: its score there.
        setting: number of trees, depth, child weight, gamma.
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
        full: all 36 settings; else only 100 trees of depth 5, child weight 1, gamma 0.

    Raises:
        DiffuseError: the target is not a column, has one class only, or too few rows are there to split.
    """
    if target not in synthetic.names:
        raise DiffuseError(f"target: column '{target}' is not in the table; it has {list(synthetic.names)}")
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
            raise DiffuseError(f"target '{target}': expected two classes at least in the synthetic table, got one")
        judge = _Auc(labels)
        y_valid = y[valid]
    else:
        y_train, y_valid, y_test = (_log(v) if log_target else v for v in (y[train], y[valid], y_test))
        if paper:
            y_valid = y[valid]
        judge = _Rmse()
    depths, weights, gammas, rounds = (DEPTHS, CHILD_WEIGHTS, GAMMAS, ROUNDS) if full else ((5,), (1,), (0.0,), (100,))

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


def every_column(synthetic: Matrix, test: Matrix, *, seed: int, threads: int | None = None) -> dict[str | int, Utility]:
    """Every column in turn as the target, with one setting (100 trees of depth 5).

    Left out: columns with more than `MOST_LABELS` categories, and those with one value on a side.
    """
    out = {}
    for c, name in enumerate(synthetic.names):
        varied = [len(np.unique(m.values[~np.isnan(m.values[:, c]), c])) > 1 for m in (synthetic, test)]
        if all(varied) and synthetic.sizes[c] <= MOST_LABELS:
            out[name] = utility(synthetic, test, name, seed=seed, threads=threads, full=False)
    return out


class _Auc:
    name, sign = "auc", 1.0

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels

    def model(self, **setting: Any) -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(**setting)

    def score(self, model: Any, x: np.ndarray, y: np.ndarray, trees: int) -> float:
        """Mean AUC of a label against the rest, over the labels that occur and are not all."""
        from sklearn.metrics import roc_auc_score

        guess = model.predict_proba(x, iteration_range=(0, trees))
        columns = range(1, 2) if len(self.labels) == 2 else range(len(self.labels))
        hits = [(y == self.labels[k], guess[:, k]) for k in columns]
        scores = [roc_auc_score(hit, p) for hit, p in hits if hit.any() and not hit.all()]
        return float(np.mean(scores)) if scores else 0.5


class _Rmse:
    name, sign = "rmse", -1.0

    def model(self, **setting: Any) -> Any:
        from xgboost import XGBRegressor

        return XGBRegressor(**setting)

    def score(self, model: Any, x: np.ndarray, y: np.ndarray, trees: int) -> float:
        guess = model.predict(x, iteration_range=(0, trees))
        return float(np.sqrt(np.mean((guess - y) ** 2)))


def _log(y: np.ndarray) -> np.ndarray:
    return np.log(np.clip(y, 1, 20000))


def _features(train: Matrix, test: Matrix, target: int, paper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as they are (trees do not mind the scale), categories one-hot, over those of the training."""
    low = high = 0.0
    blocks: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for side, table in zip(blocks, (train, test), strict=True):
        for c in range(len(train.names)):
            x = table.values[:, c]
            if c == target:
                continue
            if not train.numeric[c] and train.sizes[c] <= ONE_HOT:
                side.append(x[:, None] == np.unique(train.values[:, c])[None])
            elif paper and train.numeric[c]:
                # the script looks for a range only while it has none (or 0), and carries it on to the test
                # rows
                low, high = low or float(np.nanmin(x)), high or float(np.nanmax(x))
                if low >= 0 and high >= 1e3:
                    side.append(np.log(np.maximum(x, 1e-2))[:, None])
                else:
                    side.append(((x - low) / ((high - low) or 1.0) * 5)[:, None])
            else:
                side.append(x[:, None])
    x_train, x_test = (np.concatenate(side, axis=1).astype(np.float32) for side in blocks)
    return x_train, x_test
