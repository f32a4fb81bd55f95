"""Can a classifier tell real rows from synthetic ones? AUC in full, of the marginals, of the dependence."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch

from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular.metrics._parallel import side_by_side
from de_plugins.tabular.metrics.matrix import Matrix, scale_of

__all__ = ["Detection", "detection", "match_marginals", "two_sample_auc"]

TREES: dict[str, Any] = {
    "n_estimators": 300,
    "max_depth": 6,
    "learning_rate": 0.1,
    "subsample": 0.9,
    "n_jobs": 1,
}
LOST_ROWS = 2000
MOST = 2.0**100  # XGBoost has float32


@attrs.frozen
class Detection:
    """What a classifier found.

    Args:
        auc: mean over seeds, 0.5 is best; below 0.5 is chance.
        spread: standard deviation over seeds.
        columns: what the AUC loses on rows that the trees have not seen when a column is shuffled, most telling first.
    """

    auc: float
    spread: float
    columns: tuple[tuple[str | int, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return {"auc": self.auc, "spread": self.spread, "columns": [list(pair) for pair in self.columns]}


def two_sample_auc(
    real: Matrix, synthetic: Matrix, *, seed: int, seeds: int = 3, folds: int = 5, threads: int | None = None
) -> Detection:
    """AUC of XGBoost (300 trees, depth 6, rate 0.1, subsample 0.9) on real against synthetic rows, out of
    fold.

    Both sides are cut to as many rows, drawn anew for every seed. Categories go in as codes.

    Args:
        real: rows that the synthesizer has not seen; the holdout.
        synthetic: coded alike.
        seed: of all draws.
        seeds: repetitions.
        folds: of the cross-validation.
        threads: fits at a time; by default as many as there are processors.

    Raises:
        DiffuseError: fewer rows than folds on a side.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from xgboost import XGBClassifier

    n = min(len(real), len(synthetic))
    if n < folds:
        raise DiffuseError(f"two-sample test: expected at least {folds} rows on each side, got {n}")
    draws, jobs, lost = [], [], []
    y = np.repeat([0, 1], n)
    for k in range(seeds):
        rng = stream(seed, "two-sample", k)
        x = np.concatenate([real.sample(n, rng).values, synthetic.sample(n, rng).values])
        x = x / scale_of(x, MOST)
        draws.append(np.empty(2 * n))
        cuts = StratifiedKFold(folds, shuffle=True, random_state=(seed + k) % 2**32).split(x, y)
        jobs += [(k, x, train, test) for train, test in cuts]

    def fold(job: tuple[int, np.ndarray, np.ndarray, np.ndarray]) -> None:
        k, x, train, test = job
        model = XGBClassifier(**TREES, random_state=(seed + k) % 2**31)
        model.fit(x[train], y[train])
        draws[k][test] = model.predict_proba(x[test])[:, 1]
        if k == 0:
            lost.append(_lost(model, x[test], y[test], stream(seed, "lost", int(test[0]))))

    side_by_side(fold, jobs, threads)
    scores = [roc_auc_score(y, guess) for guess in draws]
    drop = np.mean(lost, axis=0)
    columns = tuple((real.names[c], float(drop[c])) for c in np.argsort(-drop, kind="stable"))
    return Detection(float(np.mean(scores)), float(np.std(scores)), columns)


def _lost(model: Any, x: np.ndarray, y: np.ndarray, rng: torch.Generator) -> np.ndarray:
    """AUC of the model less its AUC with one column shuffled, (p,), on at most `LOST_ROWS` rows."""
    from sklearn.metrics import roc_auc_score

    some = torch.randperm(len(x), generator=rng)[:LOST_ROWS].numpy()
    x, y = x[some], y[some]
    if y.min() == y.max():
        return np.zeros(x.shape[1])
    whole = roc_auc_score(y, model.predict_proba(x)[:, 1])
    out = np.empty(x.shape[1])
    for c in range(len(out)):
        mixed = x.copy()
        mixed[:, c] = x[torch.randperm(len(x), generator=rng).numpy(), c]
        out[c] = whole - roc_auc_score(y, model.predict_proba(mixed)[:, 1])
    return out


def detection(
    real: Matrix, synthetic: Matrix, *, seed: int, seeds: int = 3, threads: int | None = None
) -> dict[str, Detection]:
    """The two-sample test in three views.

    "full": as the tables are. "marginal": every column of both tables shuffled on its own, so that only
    differences of single columns are left. "dependence": the synthetic columns moved onto the real marginals
    (`match_marginals`), so that only differences of dependence are left. The two parts are drawn once.
    """
    n = min(len(real), len(synthetic))
    rng = stream(seed, "detection")
    a, b = real.sample(n, rng), synthetic.sample(n, rng)
    return {
        "full": two_sample_auc(real, synthetic, seed=seed, seeds=seeds, threads=threads),
        "marginal": two_sample_auc(a.shuffled(rng), b.shuffled(rng), seed=seed, seeds=1, threads=threads),
        "dependence": two_sample_auc(a, match_marginals(a, b, rng), seed=seed, seeds=1, threads=threads),
    }


def match_marginals(real: Matrix, synthetic: Matrix, rng: torch.Generator) -> Matrix:
    """The synthetic table with every column moved onto the real one's marginal, exactly; both have as many
    rows.

    Numbers: the value of rank r becomes the real value of rank r, ties in random order, missing cells last.
        Categories:
    as many cells as possible stay; the surplus of one category, chosen at random, goes to those that lack.
    """
    columns = []
    for c, (a, b) in enumerate(zip(real.values.T, synthetic.values.T, strict=True)):
        order = torch.randperm(len(b), generator=rng).numpy()
        moved = np.empty_like(b)
        if real.numeric[c]:
            ranked = order[np.argsort(b[order], kind="stable")]  # NaN sorts last
            moved[ranked] = np.sort(a)
        else:
            want = np.bincount(a.astype(np.int64), minlength=real.sizes[c])
            codes = b[order].astype(np.int64)
            by_code = np.argsort(codes, kind="stable")
            start = np.searchsorted(codes[by_code], np.arange(real.sizes[c]))
            place = np.arange(len(codes)) - start[codes[by_code]]  # 0, 1, ... within each category
            keep = np.empty(len(codes), dtype=bool)
            keep[by_code] = place < want[codes[by_code]]
            lack = np.repeat(np.arange(real.sizes[c]), want - np.bincount(codes[keep], minlength=real.sizes[c]))
            codes[~keep] = lack[torch.randperm(len(lack), generator=rng).numpy()]
            moved[order] = codes
        columns.append(moved)
    return attrs.evolve(synthetic, values=np.column_stack(columns))
