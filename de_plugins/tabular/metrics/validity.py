"""Values that cannot be: out of range, off the grid, never seen; and rows that were copied."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from de_plugins.tabular._objects import native
from de_plugins.tabular._plain import from_plain, narrowed
from de_plugins.tabular._rules import holds, rounding, said
from de_plugins.tabular._shares import Share
from de_plugins.tabular._variables import Classes, Constant, Number, slack_of
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.metrics.matrix import Matrix, number_array, unit_of
from de_plugins.tabular.schema import column_of

__all__ = ["exact_matches", "rules_kept", "unreadable", "validity"]


def validity(codec: TableCodec, synthetic: pd.DataFrame) -> dict[str | int, dict[str, Any]]:
    """For every column the shares of synthetic rows that cannot be, 0 is best.

    Args:
        codec: fitted on the training table, which says what each column may hold; without groups (see
            `Schema.without_groups`): the columns of a group are left out.
        synthetic: the same columns, of any dtype.

    Returns:
        By column: "unseen" (classes: a value that training did not have), "outside" (numbers: beyond the
        training range), "off_grid" (numbers: not on the lattice that held the whole training column),
        "attained" (numbers: whether the least and the greatest training value occur).
    """
    alone = [v for v in codec.variables if not isinstance(v, Share)]
    return {v.column.name: _column(v, column_of(synthetic, v.column.name)) for v in alone}


def rules_kept(codec: TableCodec, frame: pd.DataFrame) -> dict[str, float]:
    """For every rule of the schema, in its words, the share of rows that keep it, of those with all of its cells, and
    for every function in use, of those whose key training had; NaN where there are none.

    Args:
        codec: fitted on the training table.
        frame: the same columns, of any dtype.
    """
    variables, out = {v.column.name: v for v in codec.variables}, {}
    for rule in codec.schema.rules:
        columns = []
        for name in (rule.column, *rule.of):
            dtype = variables[name].column.dtype
            columns.append(_array(column_of(frame, name), dtype.unit if dtype.plain == "ticks" else None))
        there = ~np.isnan(np.stack(columns)).any(axis=0)
        kept = holds(rule, columns[0], columns[1:], slack_of(variables[rule.column]))
        out[said(rule)] = float(kept[there].mean()) if there.any() else math.nan
    for lookup in codec.lookups:
        known, kept = lookup.kept(frame)
        out[lookup.function.said] = float(kept[known].mean()) if known.any() else math.nan
    return out


def unreadable(codec: TableCodec, frame: pd.DataFrame) -> np.ndarray:
    """Cells that training rules out, (n, p) bool in the order of the frame's columns: a class that it did not have, or
    missing where it never was, and all of a group that is no composition. A model gives them no probability."""
    out = pd.DataFrame(False, index=range(len(frame)), columns=frame.columns)
    for variable in codec.variables:
        series = column_of(frame, variable.column.name)
        bad = series.isna().to_numpy(dtype=bool) & (not variable.column.missing)
        if isinstance(variable, Constant) or (isinstance(variable, Classes) and not len(variable.rare)):
            bad |= _new(variable, series).to_numpy(dtype=bool)
        out[variable.column.name] = bad
    for group in codec.groups:
        bad = ~group.readable(frame)
        for name in group.group.columns:
            out[name] = bad
    return out.to_numpy()


def exact_matches(rows: Matrix, others: Matrix) -> float:
    """The share of `rows` that are, in every cell, a row of `others`.

    With `others` the synthetic table, compare `rows` = training rows with `rows` = rows held out: a model that does not
    copy draws both equally often.
    """
    known = {row.tobytes() for row in _canonical(others)}
    return sum(row.tobytes() in known for row in _canonical(rows)) / len(rows)


def _canonical(table: Matrix) -> np.ndarray:
    """Rows whose bytes are equal where their cells are: no negative zero, one NaN."""
    values = np.ascontiguousarray(table.values) + 0.0
    values[np.isnan(values)] = np.nan
    return values


def _column(variable: Constant | Classes | Number, series: pd.Series) -> dict[str, Any]:
    dtype = variable.column.dtype
    unit = dtype.unit if dtype.plain == "ticks" else None
    if isinstance(variable, Number):
        if dtype.wall and isinstance(series.dtype, pd.DatetimeTZDtype):
            series = series.dt.tz_convert(dtype.pandas().tz).dt.tz_localize(None)
        return _number(variable, _array(series, unit))
    new = _new(variable, series)
    out: dict[str, Any] = {"unseen": float(new.mean())}
    if isinstance(variable, Classes) and dtype.plain in ("int", "float", "ticks"):
        values, seen = narrowed(_array(series, unit), dtype), number_array(_known(variable), unit)
        out["outside"] = float(((values < seen.min()) | (values > seen.max())).mean())
        out["attained"] = bool(np.nanmin(values) == seen.min() and np.nanmax(values) == seen.max())
    return out


def _array(series: pd.Series, unit: str | None) -> np.ndarray:
    """``number_array``, NaN where a cell is no number."""
    try:
        return number_array(series, unit)
    except (ValueError, TypeError):
        return np.asarray(pd.to_numeric(native(series).astype(object), errors="coerce"), dtype=np.float64)


def _known(variable: Classes | Constant) -> pd.Series:
    cells = variable.value if isinstance(variable, Constant) else np.concatenate([variable.values, variable.rare])
    if not len(cells):
        return pd.Series([], dtype=object)
    return from_plain(cells, np.zeros(len(cells), bool), variable.column.dtype)


def _new(variable: Classes | Constant, series: pd.Series) -> pd.Series:
    """Cells that are there and hold what training did not have."""
    known, dtype = native(_known(variable)), variable.column.dtype
    if dtype.plain == "ticks" and unit_of(series):
        seen = np.isin(number_array(series, dtype.unit), number_array(known, dtype.unit))
        return ~pd.Series(seen, index=series.index) & series.notna()
    if dtype.narrow is not None and dtype.plain == "float":
        seen = np.isin(narrowed(_array(series, None), dtype), number_array(known))
        return ~pd.Series(seen, index=series.index) & series.notna()
    return ~native(series).astype(object).isin(known.astype(object)) & series.notna()


def _number(variable: Number, values: np.ndarray) -> dict[str, Any]:
    dtype = variable.column.dtype
    ends = variable.grid.from_index(variable.ends, dtype)
    ends = narrowed(np.concatenate([ends, variable.spikes]).astype(np.float64), dtype)
    values, there = narrowed(values, dtype), ~np.isnan(values)
    off = ~variable.grid.holds(values, rounding(dtype)) & ~np.isin(values, variable.spikes.astype(np.float64)) & there
    present = values[there]
    return {
        "outside": float(((values < ends.min()) | (values > ends.max())).mean()),
        "off_grid": float(off.mean()),
        "attained": bool(len(present) and present.min() == ends.min() and present.max() == ends.max()),
    }
