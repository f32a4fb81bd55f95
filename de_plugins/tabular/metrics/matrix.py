"""Tables as matrices of float64, coded alike: every metric sees the same numbers and categories."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import attrs
import numpy as np
import pandas as pd
import torch

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.tabular._objects import native
from de_plugins.tabular.schema import check_frame, column_of

__all__ = ["Matrix", "is_categorical", "matrices", "number_array", "scale_of", "unit_of"]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@attrs.frozen(eq=False)
class Matrix:
    """A table as numbers.

    Args:
        names: of the columns, (p,).
        numeric: (p,) bool: a number (NaN where missing), else the code of a category (missing is a category).
        sizes: (p,) int: number of categories, the last one for missing; 0 for numbers.
        words: the categories of each column as text, without the one for missing; empty for numbers.
        values: (n, p) float64.
    """

    names: tuple[str | int, ...]
    numeric: np.ndarray
    sizes: np.ndarray
    words: tuple[tuple[str, ...], ...]
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: np.ndarray | slice) -> Matrix:
        """Some of the rows."""
        return attrs.evolve(self, values=self.values[index])

    def sample(self, n: int, rng: Rng) -> Matrix:
        """`n` different rows, drawn without replacement; all of them, as they are, if there are no more."""
        if n >= len(self):
            return self
        return self.rows(torch.randperm(len(self), generator=as_generator(rng))[:n].numpy())

    def shuffled(self, rng: Rng) -> Matrix:
        """Every column in an order of its own: the same marginals, no dependence."""
        generator = as_generator(rng)
        columns = [c[torch.randperm(len(self), generator=generator).numpy()] for c in self.values.T]
        return attrs.evolve(self, values=np.column_stack(columns))


def is_categorical(series: pd.Series) -> bool:
    """Text, booleans, categories, and numbers with two values; other numbers and dates are numbers."""
    kinds, series = pd.api.types, native(series)
    if _is_time(series):
        return False
    if kinds.is_bool_dtype(series.dtype) or not kinds.is_numeric_dtype(series.dtype):
        return True
    return series.nunique() <= 2


def matrices(tables: Mapping[str, pd.DataFrame], categorical: Collection[str | int] | None = None) -> dict[str, Matrix]:
    """Tables of the same columns as matrices; the first one gives the order of the columns and their kinds.

    Categories are compared by one string form on all sides, in which 1, 1.0 and "1" are equal; dates and durations as
    ticks of the first table's unit, whatever the unit of the others.

    Args:
        tables: by name, at least one row each.
        categorical: which columns are categories; by default as `is_categorical` says of the first table.

    Raises:
        DiffuseError: a table without rows, or with other columns than the first.
    """
    (first_name, first), *_ = tables.items()
    for name, frame in tables.items():
        check_frame(frame)
        for column in first.columns:
            if column not in frame.columns:
                raise DiffuseError(f"column '{column}' of the {first_name} table is missing from the {name} table")
        for column in frame.columns:
            if column not in first.columns:
                raise DiffuseError(f"column '{column}' of the {name} table is not in the {first_name} table")
    names = tuple(first.columns)
    for name in categorical or ():
        if name not in names:
            raise DiffuseError(
                f"column '{name}' is said to be categorical but is not in the table; it has {list(names)}"
            )
    chosen = [
        is_categorical(column_of(first, name)) if categorical is None else name in set(categorical) for name in names
    ]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in tables}
    sizes, words = [], []
    for name, nominal in zip(names, chosen, strict=True):
        series = {table: _like(column_of(frame, name), column_of(first, name)) for table, frame in tables.items()}
        if nominal:
            codes, spelt = _codes(series)
        else:
            unit = unit_of(series[first_name])
            codes, spelt = {table: _numbers(s, name, table, unit) for table, s in series.items()}, ()
        sizes.append(len(spelt) + 1 if nominal else 0)
        words.append(spelt)
        for table in tables:
            columns[table].append(codes[table])
    numeric = ~np.array(chosen)
    return {
        table: Matrix(names, numeric, np.array(sizes), tuple(words), np.column_stack(cells))
        for table, cells in columns.items()
    }


def unit_of(series: pd.Series) -> str | None:
    """The unit of dates and durations, "s", "ms", "us" or "ns"; None for any other column."""
    series = native(series)
    found = re.search(r"\[(s|ms|us|ns)\b", str(series.dtype)) if _is_time(series) else None
    return found and found.group(1)


def number_array(series: pd.Series, unit: str | None = None) -> np.ndarray:
    """Numbers, or the ticks of dates and durations in `unit` (by default the dtype's own; with fractions
    where that is finer), (n,) float64, NaN where missing."""
    own, series = unit_of(series), native(series)
    out = np.full(len(series), np.nan)
    good = series.dropna()
    if own is not None:
        cells = _ticks(good.astype("int64").to_numpy(dtype=np.int64), own, unit or own)
    else:
        cells = np.asarray(pd.to_numeric(good.astype(object)), dtype=np.float64)
    out[series.notna().to_numpy(dtype=bool)] = cells
    return out


def scale_of(values: np.ndarray, most: float) -> np.ndarray:
    """The power of two that brings each column (n, p) below `most`, (p,); 1 where it is. To divide by it is exact, and
    trees do not mind."""
    largest = np.max(np.abs(values), axis=0, initial=0.0, where=~np.isnan(values))
    return np.where(largest > most, np.exp2(np.ceil(np.log2(np.maximum(largest / most, 1.0)))), 1.0)


def _like(series: pd.Series, first: pd.Series) -> pd.Series:
    """A column of floats, rounded as the first table's has them where those are of 16 or 32 bits: what was written and
    read again has their decimals in float64."""
    kind = native(first).dtype
    if kind not in (np.float16, np.float32) or not pd.api.types.is_float_dtype(native(series).dtype):
        return series
    return native(series).astype(kind)


def _is_time(series: pd.Series) -> bool:
    kinds = pd.api.types
    return kinds.is_datetime64_any_dtype(series.dtype) or kinds.is_timedelta64_dtype(series.dtype)


def _ticks(ticks: np.ndarray, own: str, unit: str) -> np.ndarray:
    """Ticks (n,) int64 of the unit `own` as float64 ticks of `unit`; the same instant gives the same number."""
    if _PER_SECOND[own] <= _PER_SECOND[unit]:
        return ticks.astype(np.float64) * (_PER_SECOND[unit] // _PER_SECOND[own])
    whole, rest = np.divmod(ticks, per := _PER_SECOND[own] // _PER_SECOND[unit])
    return whole.astype(np.float64) + rest / per


def _numbers(series: pd.Series, name: object, table: str, unit: str | None) -> np.ndarray:
    try:
        values = number_array(series, unit)
    except (ValueError, TypeError) as error:
        raise DiffuseError(f"column '{name}' of the {table} table: expected numbers, got {series.dtype}") from error
    if np.isinf(values).any():
        raise DiffuseError(f"column '{name}' of the {table} table: expected finite numbers, got an infinite one")
    return values


def _codes(series: Mapping[str, pd.Series]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    text = {table: _strings(s) for table, s in series.items()}
    codes, words = pd.factorize(np.concatenate(list(text.values())), sort=True)
    codes = np.where(codes < 0, len(words), codes).astype(np.float64)  # missing comes last
    cuts = np.cumsum([len(t) for t in text.values()])[:-1]
    return dict(zip(text, np.split(codes, cuts), strict=True)), tuple(words.tolist())


def _strings(series: pd.Series) -> np.ndarray:
    """Cells as text, None where missing; whole floats as whole numbers."""
    distinct_codes, distinct = pd.factorize(native(series).astype(object))
    words = np.array([_word(cell) for cell in distinct] + [None], dtype=object)
    return words[distinct_codes]


def _word(cell: object) -> str:
    if isinstance(cell, (float, np.floating)) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)
