"""What only the fitted model can tell: a bound on held-out rows, imputation of hidden cells, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from de_core.errors import DiffuseError
from de_core.rng import seed_of, stream
from de_plugins.tabular._plain import describe
from de_plugins.tabular.metrics import imputers
from de_plugins.tabular.metrics.imputation import imputation, random_holes, summary
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.validity import unreadable
from de_plugins.tabular.schema import column_of

if TYPE_CHECKING:
    from de_plugins.tabular.synthesizer import TableSynthesizer

__all__ = ["check_model", "cost", "held_out_bound", "imputed"]

BOUND_ROWS = 2000
IMPUTED_ROWS = 1000
DRAWS = 20
SHARE = 0.2


def held_out_bound(
    model: TableSynthesizer, train: pd.DataFrame, test: pd.DataFrame, seed: int
) -> dict[str, float | int]:
    """The bound on -log p of rows held out and of training rows, mean and standard error, nats per row.

    Rows with a cell that training rules out have no finite bound; they are left out and counted.

    Args:
        model: fitted on `train`.
        train, test: frames of pandas.
        seed: of the draws of rows and of the bound.
    """
    out: dict[str, float | int] = {}
    for name, frame in (("test", test), ("train", train)):
        rows = _some(frame, BOUND_ROWS, seed)
        bad = unreadable(model.codec, rows).any(axis=1)
        out[f"{name}_left_out"] = int(bad.sum())
        if not bad.all():
            nats = model.bound(rows[~bad], rng=seed)
            out |= {name: float(nats.mean()), f"{name}_error": float(nats.std() / np.sqrt(len(nats)))}
            out[f"{name}_rows"] = len(nats)
    return out


def imputed(
    model: TableSynthesizer,
    train: pd.DataFrame,
    test: pd.DataFrame,
    categorical: Collection[str | int] | None,
    seed: int,
    rows: int = IMPUTED_ROWS,
) -> dict[str, Any]:
    """Scores of filling 20 % of the cells of rows held out, 20 draws, beside two imputers that learn nothing deep.

    Args:
        model: fitted on `train`.
        train, test: frames of pandas.
        categorical: as in `evaluate`.
        seed: of rows, holes and draws.
        rows: at most so many; of a class column a fifth of them are scored.

    Returns:
        "summary": means over the columns, by imputer; "columns": the same by column; "rows", "holes" and "draws".
    """
    truth = _some(test, rows, seed).reindex(columns=list(train.columns))
    holes = random_holes(truth, SHARE, rng=stream(seed, "holes"))
    unknown = holes | unreadable(model.codec, truth)
    filled = model.impute(_hidden(truth, unknown), draws=DRAWS, rng=seed_of(stream(seed, "impute")))
    coded = matrices({"train": train, "truth": truth, **{f"draw {k}": f for k, f in enumerate(filled)}}, categorical)
    known, asked = coded["train"], coded["truth"]
    draws = {
        "model": [coded[f"draw {k}"] for k in range(DRAWS)],
        "neighbours": imputers.neighbours(known, asked, holes, DRAWS, seed=seed),
        "iterative": imputers.iterative(known, asked, holes, DRAWS, seed=seed),
    }
    scores = {name: imputation(asked, some, holes) for name, some in draws.items()}
    return {
        "summary": {name: summary(found) for name, found in scores.items()},
        "columns": {str(c): {name: found.get(c, {}) for name, found in scores.items()} for c in scores["model"]},
        "rows": len(truth),
        "holes": int(holes.sum()),
        "draws": DRAWS,
    }


def _hidden(truth: pd.DataFrame, unknown: Any) -> pd.DataFrame:
    """The table without some cells; whole numbers stay whole, which pandas has as floats where one is missing."""
    dtypes = {c: describe(column_of(truth, c), c) for c in truth}
    return truth.astype({c: d.nullable.name for c, d in dtypes.items() if d.nullable != d}).mask(unknown)


def cost(model: TableSynthesizer, rows: int, seed: int) -> dict[str, float | int]:
    """Parameters, seconds and steps of training, seconds and speed of drawing.

    Args:
        model: fitted.
        rows: to draw, for the clock.
        seed: of the draw.
    """
    began = time.perf_counter()
    model.sample(rows, rng=seed)
    seconds = time.perf_counter() - began
    out: dict[str, float | int] = {
        "parameters": model.parameters,
        "training_steps": model.steps,
        "training_seconds": model.seconds,
        "sampling_rows": rows,
        "sampling_seconds": seconds,
    }
    return out


def check_model(model: TableSynthesizer, train: pd.DataFrame) -> None:
    """Refuse a model of other columns.

    Raises:
        DiffuseError: it is not fitted, or on other columns than the table's.
    """
    names = model.schema.names
    if set(names) != set(train.columns):
        raise DiffuseError(f"model: expected one of the columns {list(train.columns)}, it was fitted on {names}")


def _some(frame: pd.DataFrame, rows: int, seed: int) -> pd.DataFrame:
    """At most so many rows, drawn, numbered from 0."""
    order = torch.randperm(len(frame), generator=stream(seed, "some rows"))[:rows].numpy()
    return frame.iloc[np.sort(order)].reset_index(drop=True)
