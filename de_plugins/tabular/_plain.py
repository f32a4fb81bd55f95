"""Plain values: a pandas column as one numpy array and a mask of missing cells, and back to the exact dtype.

The codec only sees plain arrays: text as objects, booleans, integers, floats, time as integer ticks of the
dtype's unit, and the codes of a categorical. `DType` says how to rebuild the pandas column, in words that fit
into JSON and TOML.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import attrs
import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._objects import KINDS, arrow_dtype, decimal_name, is_rebuilt, native, rebuild

__all__ = ["DType", "Plain", "describe", "filled_in", "from_plain", "label", "narrowed", "to_plain"]

Plain = Literal["text", "bool", "int", "float", "ticks", "codes", "interval"]

_PLACEHOLDER = {"text": None, "bool": False, "int": 0, "float": 0.0, "ticks": 0, "codes": -1}
_SPOKEN = {
    "text": "text",
    "bool": "booleans",
    "int": "whole numbers",
    "float": "numbers",
    "ticks": "dates or durations",
    "codes": "categories",
    "interval": "intervals",
}


@attrs.frozen
class DType:
    """The dtype of a pandas column.

    Args:
        name: pandas' name ("int64", "Int64", "category", "datetime64[ns, UTC]", ...), "str[python]" or
            "str[pyarrow]" for the text type whose missing value is NaN, "arrow:int64" and the like for
            Arrow-backed columns, "date[s]", "time[us]" and "decimal[2]" for objects of these kinds.
        plain: what the plain array holds.
        missing: the marker of a missing cell in an object column: "nan", "None" or "NA".
        ordered: of a categorical.
        categories: of a categorical, all of them, seen or not, as plain values.
        categories_dtype: how to rebuild the categories.
        wall: ticks are of the clock on the wall, so that local midnights lie a day apart, summer and winter: of a zone
            whose offset changes within the column, none of whose cells is of an hour that comes twice.
    """

    name: str
    plain: Plain
    missing: str = "nan"
    ordered: bool = False
    categories: tuple = ()
    categories_dtype: DType | None = None
    wall: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON: defaults are left out."""
        out: dict[str, Any] = {"name": self.name, "plain": self.plain}
        if self.missing != "nan":
            out["missing"] = self.missing
        if self.wall:
            out["wall"] = True
        if self.categories_dtype is not None:
            out["ordered"] = self.ordered
            out["categories"] = [[_edge(x) for x in c] if isinstance(c, tuple) else c for c in self.categories]
            out["categories_dtype"] = self.categories_dtype.to_dict()
        return out

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DType:
        """The inverse of `to_dict`."""
        data = dict(data)
        if "categories_dtype" in data:
            data["categories_dtype"] = cls.from_dict(data["categories_dtype"])
            data["categories"] = tuple(
                tuple(float(x) if isinstance(x, str) else x for x in c) if isinstance(c, list) else c
                for c in data["categories"]
            )
        return cls(**data)

    @property
    def unit(self) -> str:
        """Of ticks: "s", "ms", "us" or "ns"."""
        if self.name.startswith("arrow:date"):
            return "s"
        found = re.search(r"\[(s|ms|us|ns)", self.name)
        if found is None:
            raise DiffuseError(f"dtype '{self.name}' has no unit of time")
        return found.group(1)

    @property
    def is_span(self) -> bool:
        """Ticks of a duration, not of a date."""
        return self.name.startswith(("timedelta", "arrow:duration", "time["))

    @property
    def nullable(self) -> DType:
        """The dtype, or pandas' own one with room for a missing cell."""
        if self.plain == "bool" and self.name == "bool":
            return attrs.evolve(self, name="boolean")
        if re.fullmatch(r"u?int(8|16|32|64)", self.name):
            return attrs.evolve(self, name=self.name.replace("int", "Int").replace("uInt", "UInt"))
        return self

    @property
    def narrow(self) -> np.dtype | None:
        """The numpy type of a number of fewer than 64 bits; None for any other column."""
        found = re.search(r"(u?int|float)(8|16|32)\b", self.name.lower().replace("arrow:float", "float32"))
        return np.dtype(found[0]) if found and self.plain in ("int", "float") else None

    def pandas(self) -> Any:
        """The pandas dtype."""
        if self.categories_dtype is not None:
            none = np.zeros(len(self.categories), bool)
            if self.categories_dtype.plain == "interval":
                index = _intervals(self.categories, self.categories_dtype)
            else:
                index = pd.Index(
                    from_plain(array_of(self.categories, self.categories_dtype), none, self.categories_dtype)
                )
            return pd.CategoricalDtype(index, ordered=self.ordered)
        if self.name.startswith("str["):
            return pd.StringDtype(self.name[4:-1], na_value=np.nan)
        if self.name.startswith("arrow:"):
            return arrow_dtype(self.name[6:])
        if is_rebuilt(self.name):
            return np.dtype(object)
        return pd.api.types.pandas_dtype(self.name)


def describe(series: pd.Series, name: object) -> DType:
    """The `DType` of a column.

    Raises:
        DiffuseError: the column mixes types, or its type is none of numbers, text, booleans, categories,
            dates, durations.
    """
    dtype = series.dtype
    api = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        index = dtype.categories
        if isinstance(index, pd.IntervalIndex):
            inner = DType(str(index.dtype), "interval")
            cells: list = list(zip(index.left.tolist(), index.right.tolist(), strict=True))
            if not all(isinstance(edge, (int, float)) for pair in cells for edge in pair):
                raise DiffuseError(
                    f"column '{name}': intervals of {index.left.dtype} are not supported; expected numbers"
                )
        else:
            inner = describe(pd.Series(index), name)
            cells = to_plain(pd.Series(index), inner, name)[0].tolist()
        return DType("category", "codes", ordered=bool(dtype.ordered), categories=tuple(cells), categories_dtype=inner)
    if isinstance(dtype, pd.StringDtype):
        plain_na = dtype.na_value is np.nan
        return DType(f"{'str' if plain_na else 'string'}[{dtype.storage}]", "text")
    if isinstance(dtype, (pd.PeriodDtype, pd.SparseDtype, pd.IntervalDtype)) or api.is_complex_dtype(dtype):
        raise DiffuseError(
            f"column '{name}': dtype {dtype} is not supported; convert it to numbers, text or dates first"
        )
    if pd.api.types.is_object_dtype(dtype):
        return _describe_objects(series, name)
    shown = str(dtype)
    if isinstance(dtype, pd.ArrowDtype):
        shown = f"arrow:{dtype.pyarrow_dtype}"
        if shown.startswith("arrow:decimal"):
            decimal_name(series.dropna().tolist(), name)
            return DType(shown, "float")
        if "tz=" in shown or shown.startswith("arrow:date"):
            return DType(shown, "ticks")
        if shown.startswith(("arrow:time32", "arrow:time64", "arrow:dictionary")):
            raise DiffuseError(f"column '{name}': dtype {dtype} is not supported; convert it to a pandas dtype first")
        if api.is_string_dtype(dtype):
            return DType(shown, "text")
    if api.is_bool_dtype(dtype):
        return DType(shown, "bool")
    if api.is_integer_dtype(dtype):
        return DType(shown, "int")
    if api.is_float_dtype(dtype):
        return DType(shown, "float")
    if api.is_datetime64_any_dtype(dtype) or api.is_timedelta64_dtype(dtype):
        return DType(shown, "ticks", wall=isinstance(dtype, pd.DatetimeTZDtype) and _is_wall(series.dropna()))
    raise DiffuseError(f"column '{name}': dtype {dtype} is not supported; expected numbers, text, booleans or dates")


def _is_wall(good: pd.Series) -> bool:
    """Whether the offset of cells of one zone changes, and each is told by the clock on the wall."""
    wall, zone = good.dt.tz_localize(None), good.dt.tz
    if (wall - good.dt.tz_convert("UTC").dt.tz_localize(None)).nunique() < 2:
        return False
    return bool((wall.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT") == good).all())


def _describe_objects(series: pd.Series, name: object) -> DType:
    missing = series.isna()
    good = series[~missing]
    marker = "None"
    if missing.any():
        holes = series[missing]
        kinds = [value is None for value in holes], [value is pd.NA for value in holes]
        marker = "None" if sum(kinds[0]) * 2 > len(holes) else "NA" if sum(kinds[1]) * 2 > len(holes) else "nan"
    found = pd.api.types.infer_dtype(good, skipna=True)
    plain: dict[str, Plain] = {
        "string": "text",
        "empty": "text",
        "boolean": "bool",
        "integer": "int",
        "floating": "float",
        "mixed-integer-float": "float",
    }
    if found in KINDS:
        return DType(KINDS[found], "ticks", missing=marker)
    if found == "decimal":
        return DType(decimal_name(list(good), name), "float", missing=marker)
    if found not in plain:
        types = sorted({type(value).__name__ for value in good})
        what = " and ".join(types[:3])
        fix = "one type" if len(types) > 1 else "numbers, text, booleans, categories or dates"
        raise DiffuseError(f"column '{name}': expected {fix}, got {what} values; convert the column first")
    return DType("object", plain[found], missing=marker)


def to_plain(series: pd.Series, dtype: DType, name: object) -> tuple[np.ndarray, np.ndarray]:
    """Plain values (n,) and the mask (n,) of missing cells, which hold a placeholder.

    The column may have another dtype than `dtype` (whole numbers read as floats because some are missing,
    text that became a categorical) as long as its values fit. A code of -1 at a cell that is not missing is a
    category never seen.

    Raises:
        DiffuseError: the values do not fit the dtype, or a number is infinite.
    """
    missing = series.isna().to_numpy(dtype=bool)
    if isinstance(series.dtype, pd.CategoricalDtype) and dtype.plain != "codes":
        series = series.astype(object)
    good = series.loc[~missing]
    if dtype.plain in ("ticks", "int", "float"):
        try:
            good = native(good)
        except DiffuseError as error:
            raise DiffuseError(f"column '{name}': {error}") from None
    values = _fitting(good, dtype) if len(good) else array_of((), dtype)  # nothing fits any dtype
    if values is None:
        kind = _SPOKEN[dtype.plain]
        raise DiffuseError(
            f"column '{name}': expected {kind} ({dtype.name}), got {series.dtype}, for one {_example(good)}"
        )
    if dtype.plain == "float" and not np.isfinite(values).all():
        row = int(np.flatnonzero(~missing)[~np.isfinite(values)][0])
        what = "NaN" if np.isnan(values[~np.isfinite(values)][0]) else "an infinite one"
        raise DiffuseError(f"column '{name}': expected finite numbers, got {what} in row {row}")
    if dtype.narrow is not None:
        info = np.iinfo(dtype.narrow) if dtype.plain == "int" else np.finfo(dtype.narrow)
        beyond = (values < info.min) | (values > info.max)
        if beyond.any():
            row, value = int(np.flatnonzero(~missing)[beyond][0]), values[beyond][0]
            held = f"{dtype.name} holds {info.min} to {info.max}"
            raise DiffuseError(f"column '{name}': {held}, got {value} in row {row}")
    out = np.full(len(series), _PLACEHOLDER[dtype.plain], dtype=values.dtype)
    out[~missing] = narrowed(values, dtype)
    return out, missing


def narrowed(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Floats as a column of the dtype holds them: rounded to a precision below float64's; any others as they are."""
    if dtype.narrow is None or dtype.plain != "float":
        return values
    return values.astype(dtype.narrow).astype(values.dtype)


def _fitting(good: pd.Series, dtype: DType) -> np.ndarray | None:
    """The plain values of cells that are not missing, or None where they do not fit."""
    api = pd.api.types
    numeric = api.is_numeric_dtype(good.dtype) and not api.is_bool_dtype(good.dtype)
    if good.dtype == object and dtype.plain in ("int", "float", "bool"):
        found = api.infer_dtype(good, skipna=True)
        numeric = found in ("integer", "floating", "mixed-integer-float", "empty")
    if dtype.plain == "codes":
        return np.asarray(pd.Categorical(good, dtype=dtype.pandas()).codes).astype(np.int64)
    if dtype.plain == "text":
        cells = good.to_numpy(dtype=object)
        return cells if api.infer_dtype(cells, skipna=False) in ("string", "empty") else None
    if dtype.plain == "bool":
        truthy = api.is_bool_dtype(good.dtype) or api.infer_dtype(good, skipna=False) in ("boolean", "empty")
        return good.to_numpy(dtype=bool) if truthy else None
    if dtype.plain == "float":
        return good.to_numpy(dtype=np.float64) if numeric else None
    if dtype.plain == "int":
        return _whole(good, dtype) if numeric else None
    if api.is_timedelta64_dtype(good.dtype) if dtype.is_span else api.is_datetime64_any_dtype(good.dtype):
        zoned, wanted = isinstance(good.dtype, pd.DatetimeTZDtype), "," in dtype.name
        if zoned != wanted:
            return None
        if zoned:
            good = good.dt.tz_convert(dtype.pandas().tz if dtype.wall else "UTC").dt.tz_localize(None)
        try:
            coarse = good if isinstance(good.dtype, pd.ArrowDtype) else good.dt.as_unit(dtype.unit)
        except ValueError:  # out of bounds; numpy's own conversion would wrap
            return None
        ticks = coarse.to_numpy(dtype=f"{'m8' if dtype.is_span else 'M8'}[{dtype.unit}]").view(np.int64)
        day = np.timedelta64(1, "D") // np.timedelta64(1, dtype.unit)
        days = dtype.name.startswith(("date[", "arrow:date"))
        return None if (coarse != good).any() or (days and (ticks % day).any()) else ticks
    return None


def _whole(good: pd.Series, dtype: DType) -> np.ndarray | None:
    target = np.uint64 if "uint" in dtype.name.lower() else np.int64
    if pd.api.types.is_integer_dtype(good.dtype) and len(good):  # numpy would wrap around
        least, most = int(good.min()), int(good.max())
        if least < np.iinfo(target).min or most > np.iinfo(target).max:
            return None
    if pd.api.types.is_float_dtype(good.dtype) or good.dtype == object:
        values = good.to_numpy(dtype=object)
        if any(value != int(value) for value in values if abs(value) != float("inf")):
            return None
        good = pd.Series(values)
    try:
        return good.to_numpy(dtype=target)
    except (OverflowError, ValueError):
        return None


def from_plain(values: np.ndarray, missing: np.ndarray, dtype: DType) -> pd.Series:
    """The column of dtype `dtype` with these plain values (n,) and missing cells (n,)."""
    target = dtype.pandas()
    if dtype.plain == "codes":
        return pd.Series(pd.Categorical.from_codes(np.where(missing, -1, values), dtype=target))
    if dtype.plain == "ticks" and not is_rebuilt(dtype.name):
        return _from_ticks(values, missing, dtype, target)
    if dtype.name == "object" or is_rebuilt(dtype.name):
        cells = rebuild(values, dtype.name) if is_rebuilt(dtype.name) else np.asarray(values).astype(object)
        cells[missing] = {"nan": np.nan, "None": None, "NA": pd.NA}[dtype.missing]
        return pd.Series(cells, dtype=object)
    if dtype.plain == "text":
        cells = np.asarray(values, dtype=object).copy()
        cells[missing] = None
        return pd.Series(cells, dtype=target)
    if not missing.any():
        return pd.Series(np.asarray(values)).astype(target)
    if dtype.plain == "float" and isinstance(target, np.dtype):
        return pd.Series(np.where(missing, np.nan, values)).astype(target)
    column = pd.Series(np.asarray(values)).astype(target)
    column[missing] = pd.NA
    return column


def _from_ticks(values: np.ndarray, missing: np.ndarray, dtype: DType, target: Any) -> pd.Series:
    base = f"{'m8' if dtype.is_span else 'M8'}[{dtype.unit}]"
    ticks = np.where(missing, np.iinfo(np.int64).min, values).astype(np.int64).view(base)
    column = pd.Series(ticks)
    if dtype.wall:  # of an hour that comes twice the first, of one that does not come the next that does
        first = np.ones(len(column), dtype=bool)
        return column.dt.tz_localize(target.tz, ambiguous=first, nonexistent="shift_forward")
    if isinstance(target, pd.DatetimeTZDtype):
        return column.dt.tz_localize("UTC").dt.tz_convert(target.tz)
    if "tz=" in dtype.name:
        column = column.dt.tz_localize("UTC").dt.tz_convert(target.pyarrow_dtype.tz)
    return column if column.dtype == target else column.astype(target)


def array_of(cells: Any, dtype: DType) -> np.ndarray:
    """Plain scalars, as JSON keeps them, as a plain array."""
    kinds: dict[str, Any] = {
        "text": object,
        "bool": bool,
        "float": np.float64,
        "ticks": np.int64,
        "codes": np.int64,
    }
    if dtype.plain == "int":
        return np.asarray(list(cells), dtype=np.uint64 if "uint" in dtype.name.lower() else np.int64)
    return np.asarray(list(cells), dtype=kinds[dtype.plain])


def filled_in(column: pd.Series, drawn: pd.Series, holes: np.ndarray, dtype: DType, name: str | int) -> pd.Series:
    """``column`` with the ``drawn`` cells in its ``holes`` (n,) bool; the other cells as they were.

    The dtype is that of the column where it can hold the drawn cells, else that of training (whole numbers that were
    read as floats because some were missing are whole again).
    """
    if not holes.any():
        return column
    if column.dtype != drawn.dtype and pd.api.types.is_float_dtype(column.dtype) and dtype.plain == "float":
        drawn = drawn.astype(str(column.dtype))
    if column.dtype == drawn.dtype:
        filled = column.copy()
        filled[holes] = drawn[holes]
        return filled
    (values, missing), (new, gone) = to_plain(column, dtype, name), to_plain(drawn, dtype, name)
    return from_plain(np.where(holes, new, values), np.where(holes, gone, missing), dtype)


def label(value: Any, dtype: DType) -> str:
    """A plain scalar as people read it: dates as dates, a code as its category."""
    if dtype.plain == "ticks":
        text = str(pd.Timedelta(int(value), dtype.unit) if dtype.is_span else pd.Timestamp(int(value), unit=dtype.unit))  # pyright: ignore[reportArgumentType]  # `unit` is one of pandas' units
        return text[-8:] if dtype.name.startswith("time[") and "." not in text else text
    if dtype.plain == "codes" and dtype.categories_dtype is not None:
        cell = dtype.categories[int(value)]
        return str(cell) if dtype.categories_dtype.plain == "interval" else label(cell, dtype.categories_dtype)
    return str(value)


def _intervals(cells: tuple, dtype: DType) -> pd.IntervalIndex:
    closed = dtype.name.rsplit(",", 1)[1].strip(" ]")
    index = pd.IntervalIndex.from_tuples(list(cells), closed=closed)  # pyright: ignore[reportArgumentType]  # pandas' own word
    return index.astype(dtype.name)  # pyright: ignore[reportReturnType]  # an interval dtype gives an interval index


def _edge(x: float) -> float | str:
    """Of an interval; JSON has no infinite number."""
    return x if np.isfinite(x) else str(x)


def _example(good: pd.Series) -> str:
    return repr(good.iloc[0]) if len(good) else "nothing"
