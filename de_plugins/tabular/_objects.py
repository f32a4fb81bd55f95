"""Columns that pandas keeps as Python objects or leaves to Arrow: dates, times of day, decimal numbers, zoned times.

`native` brings them to a dtype of numpy's or pandas' own that holds the same values; `rebuild` is the way back.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from de_core.errors import DiffuseError

__all__ = ["KINDS", "arrow_dtype", "decimal_name", "is_rebuilt", "native", "rebuild"]

KINDS = {"date": "date[s]", "time": "time[us]"}
"""pandas' word for the cells -> the name of the `DType`; decimals have the name that `decimal_name` gives."""

_MIDNIGHT = datetime.datetime(1970, 1, 1)
_MOST_DIGITS = 15  # decimal digits that float64 gives back as they were


def native(series: pd.Series) -> pd.Series:
    """Dates as datetime64[s], times of day as timedelta64[us], decimals as float64; any other column as it is.

    Raises:
        DiffuseError: a time of day with an offset to UTC.
    """
    if isinstance(series.dtype, pd.ArrowDtype):
        return _from_arrow(series)
    if series.dtype != object:
        return series
    found = pd.api.types.infer_dtype(series, skipna=True)
    if found == "date":
        return series.where(series.notna(), None).astype("datetime64[s]")
    if found == "time":
        spans = [np.timedelta64("NaT", "us") if pd.isna(cell) else _since_midnight(cell) for cell in series]
        return pd.Series(np.array(spans, dtype="m8[us]"), index=series.index)
    if found == "decimal":
        return _as_floats(series)
    return series


def _as_floats(series: pd.Series) -> pd.Series:
    return pd.Series([np.nan if pd.isna(cell) else float(cell) for cell in series], index=series.index, dtype="float64")


def _since_midnight(cell: datetime.time) -> np.timedelta64:
    if cell.tzinfo is not None:  # one time of day in two zones is two
        raise DiffuseError(f"expected times of day without an offset to UTC, got {cell}")
    return np.timedelta64(datetime.datetime.combine(_MIDNIGHT, cell) - _MIDNIGHT)


def _from_arrow(series: pd.Series) -> pd.Series:
    import pyarrow as pa

    dtype: Any = series.dtype
    kind = dtype.pyarrow_dtype
    if pa.types.is_date(kind):
        return series.astype(pd.ArrowDtype(pa.timestamp("s"))).astype("datetime64[s]")
    if pa.types.is_timestamp(kind) and kind.tz:
        return series.astype(f"datetime64[{kind.unit}, {kind.tz}]")
    return _as_floats(series.astype(object)) if pa.types.is_decimal(kind) else series


def decimal_name(good: Sequence[Decimal], name: object) -> str:
    """The `DType` name of a column of decimals that are not missing: its digits after the point.

    Raises:
        DiffuseError: more than 15 digits, which float64 does not hold.
    """
    finite = [cell for cell in good if cell.is_finite()]
    scale = max((max(0, -int(cell.as_tuple().exponent)) for cell in finite), default=0)
    for cell in finite:
        if len(str(abs(int(cell.scaleb(scale))))) > _MOST_DIGITS:
            raise DiffuseError(f"column '{name}': expected decimals of at most {_MOST_DIGITS} digits, got {cell}")
    return f"decimal[{scale}]"


def is_rebuilt(name: str) -> bool:
    """Whether a `DType` of this name holds Python objects that `rebuild` makes."""
    return name.startswith(("date[", "time[", "decimal["))


def rebuild(values: np.ndarray, name: str) -> np.ndarray:
    """Plain values (n,) as objects (n,): the inverse of `native` where nothing is missing."""
    if name.startswith("date["):
        return np.asarray(values, dtype="M8[s]").astype("M8[D]").astype(object)
    out = np.empty(len(values), dtype=object)
    if name.startswith("time["):
        out[:] = [(_MIDNIGHT + datetime.timedelta(microseconds=int(value))).time() for value in values]
        return out
    scale = int(name[len("decimal[") : -1])
    out[:] = [Decimal(f"{value:.{scale}f}") for value in values]
    return out


def arrow_dtype(alias: str) -> Any:
    """The Arrow-backed dtype of a name that Arrow prints, with the two kinds that it does not read back itself."""
    import pyarrow as pa

    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", alias):
        return pd.ArrowDtype(pa.timestamp(found[1], tz=found[2]))
    if found := re.fullmatch(r"decimal128\((\d+), (\d+)\)", alias):
        return pd.ArrowDtype(pa.decimal128(int(found[1]), int(found[2])))
    return pd.ArrowDtype(pa.type_for_alias(alias))
