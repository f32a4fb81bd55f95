"""What ``given`` asks of each column: one value, one at a noise level, or a set of values."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import pandas as pd

from de_core import Given
from de_core.errors import DiffuseError
from de_plugins.tabular._plain import from_plain, to_plain
from de_plugins.tabular._shares import Variable
from de_plugins.tabular._variables import Classes, Constant
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import Column

__all__ = ["ValueSet", "Wanted", "read_given", "read_text"]

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_SPOKEN = {"int": "a whole number", "float": "a number", "bool": "true or false"}


@attrs.frozen(eq=False)
class ValueSet:
    """Values of one column: a union of closed stretches of plain values, and perhaps missing.

    Args:
        stretches: (low, high), None where it is open; a single value is (v, v).
        missing: whether a missing cell is in the set.
    """

    stretches: tuple[tuple[Any, Any], ...]
    missing: bool

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Which plain values (n,) lie in the set, (n,) bool."""
        out = np.zeros(len(values), dtype=bool)
        for low, high in self.stretches:
            inside = np.ones(len(values), dtype=bool) if low is None else np.asarray(values >= low, dtype=bool)
            out |= inside if high is None else inside & np.asarray(values <= high, dtype=bool)
        return out

    def meets(self, least: Any, most: Any) -> bool:
        """Whether some number between two lies in the set."""
        return any((low is None or low <= most) and (high is None or high >= least) for low, high in self.stretches)


@attrs.frozen(eq=False)
class Wanted:
    """The conditions of one call, by column.

    Args:
        values: one value, as a column of one row in the dtype of training.
        levels: the noise level of such a value, where it is above 0.
        sets: a set of values.
    """

    values: dict[str | int, pd.Series]
    levels: dict[str | int, float]
    sets: dict[str | int, ValueSet]

    def __bool__(self) -> bool:
        return bool(self.values or self.sets)

    def __contains__(self, name: object) -> bool:
        return name in self.values or name in self.sets


def read_given(codec: TableCodec, given: Mapping[str | int, Any]) -> Wanted:
    """Python's forms: a value; ``Given(value, level)``; (low, high) with None for an open end; a set or list of these.

    Raises:
        DiffuseError: an unknown column, or a value that does not fit its column.
    """
    if not isinstance(given, Mapping):
        raise DiffuseError(f"given: expected column -> value, got {type(given).__name__}")
    wanted = Wanted({}, {}, {})
    variables = {variable.column.name: variable for variable in codec.variables}
    for name, value in given.items():
        if name not in variables:
            raise DiffuseError(f"given: there is no column '{name}'; expected one of {codec.schema.names}")
        try:
            _read(wanted, variables[name], value)
        except DiffuseError as error:
            raise DiffuseError(f"given: {error}") from None
    return wanted


def _read(wanted: Wanted, variable: Variable, value: Any) -> None:
    column = variable.column
    if isinstance(value, Given):
        value, level = value.value, value.level
        if not isinstance(level, int | float) or isinstance(level, bool) or not 0 <= level <= 1:
            raise DiffuseError(f"column '{column.name}': expected a level in [0, 1], got {level!r}")
        if level and _is_set(value):
            raise DiffuseError(f"column '{column.name}': expected one value at level {level}, got several")
        if level:
            wanted.levels[column.name] = float(level)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, str) and column.dtype.plain in ("int", "float", "ticks") and (".." in value or "|" in value):
        value = read_text(value, variable)
    if _is_set(value):
        found, missing = _stretches(value, column)
        if not found and not missing:
            raise DiffuseError(f"column '{column.name}': expected at least one value, got an empty set")
        wanted.sets[column.name] = ValueSet(tuple(found), missing)
        return
    cell = _cell(value, column)
    if isinstance(variable, Classes) and len(variable.rare) and not variable.occurs(cell):
        raise DiffuseError(f"column '{column.name}': '{cell.iloc[0]}' did not occur in training")
    wanted.values[column.name] = cell


def _is_set(value: Any) -> bool:
    several = tuple | list | set | frozenset | range | np.ndarray | pd.Series | pd.Index
    return isinstance(value, several)


def _cell(value: Any, column: Column) -> pd.Series:
    """One value as a column of one row."""
    dtype, name = column.dtype, column.name
    cell = from_plain(*to_plain(_one_row(_moment(value, column), column), dtype, name), dtype)
    if dtype.plain == "codes" and pd.isna(cell.iloc[0]) and not pd.isna(value):
        raise DiffuseError(f"column '{name}': {value!r} is none of its categories")
    return cell


def _one_row(value: Any, column: Column) -> pd.Series:
    """A date keeps its unit: pandas takes one that nanoseconds do not reach for an object."""
    if column.dtype.plain != "ticks" or not isinstance(value, pd.Timestamp):
        return pd.Series([value])
    zoned = value.tzinfo is not None
    return pd.Series([value], dtype=pd.DatetimeTZDtype(value.unit, value.tz) if zoned else f"datetime64[{value.unit}]")  # pyright: ignore[reportArgumentType, reportCallIssue]  # any unit of pandas


def _moment(value: Any, column: Column) -> Any:
    """Text and dates of other kinds as pandas' own, in a column of time; any other value as it is."""
    dtype = column.dtype
    if dtype.plain != "ticks" or not isinstance(value, str | datetime.date | np.datetime64) or pd.isna(value):
        return value
    try:
        found = pd.Timedelta(value) if dtype.is_span else pd.Timestamp(value)  # pyright: ignore[reportArgumentType]  # what is no duration raises
    except (ValueError, TypeError, OverflowError):
        kind = "duration" if dtype.is_span else "date"
        raise DiffuseError(f"column '{column.name}': expected a {kind}, got {str(value)!r}") from None
    zone = getattr(dtype.pandas(), "tz", None)
    if zone is None or found is pd.NaT or found.tzinfo is not None:  # pyright: ignore[reportAttributeAccessIssue]  # only dates have zones
        return found
    local = found.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")  # pyright: ignore[reportAttributeAccessIssue]
    if local is pd.NaT:
        raise DiffuseError(
            f"column '{column.name}': expected a time that {zone} has once, got {str(value)!r}; add its offset to UTC"
        )
    return local


# --- sets -------------------------------------------------------------------------------------------------------------


def _stretches(value: Any, column: Column) -> tuple[list[tuple[Any, Any]], bool]:
    if isinstance(value, tuple):
        return [_stretch(value, column)], False
    if not _is_set(value):
        cell = _cell(value, column)
        if cell.isna().iloc[0]:
            return [], True
        plain = to_plain(cell, column.dtype, column.name)[0][0]
        return [(plain, plain)], False
    parts = [_stretches(part, column) for part in value]
    return [stretch for found, _ in parts for stretch in found], any(missing for _, missing in parts)


def _stretch(ends: tuple, column: Column) -> tuple[Any, Any]:
    dtype, name = column.dtype, column.name
    if dtype.plain not in ("int", "float", "ticks") and not dtype.ordered:
        raise DiffuseError(f"column '{name}': expected a value or a set of values, got a range; it has no order")
    if len(ends) != 2:
        raise DiffuseError(f"column '{name}': expected a range (low, high), got {len(ends)} values")
    low, high = (_end(end, column) for end in ends)
    if low is not None and high is not None and low > high:
        raise DiffuseError(f"column '{name}': expected a range from low to high, got {ends[0]} to {ends[1]}")
    if dtype.plain == "int":  # the whole numbers inside
        low, high = None if low is None else math.ceil(low), None if high is None else math.floor(high)
    return low, high


def _end(value: Any, column: Column) -> Any:
    """One end of a range, as a plain value or a number between two; None where it is open."""
    if value is None or value is pd.NaT:
        return None
    if column.dtype.plain in ("int", "float"):
        value = float(value) if isinstance(value, Decimal) else value
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or value != value:
            raise DiffuseError(f"column '{column.name}': expected numbers as the ends of a range, got {value!r}")
        return None if math.isinf(value) else value
    return to_plain(_cell(value, column), column.dtype, column.name)[0][0]


# --- text -------------------------------------------------------------------------------------------------------------


def read_text(text: str, variable: Variable) -> Any:
    """A value, a range ``LOW..HIGH`` (an end may be left out) or a set ``A|B`` as text; nothing is a missing cell.

    A text that is itself a value of the column is that value.

    Raises:
        DiffuseError: not of these forms, or of another type than the column.
    """
    column = variable.column
    if isinstance(variable, Classes | Constant) and column.dtype.plain in ("text", "codes") and _occurs(text, variable):
        return _one(text, column)
    parts = [_part(part.strip() if "|" in text else part, column) for part in text.split("|")]
    return parts if len(parts) > 1 else parts[0]


def _occurs(text: str, variable: Classes | Constant) -> bool:
    known = [variable.value] if isinstance(variable, Constant) else [variable.values, variable.rare]
    if variable.column.dtype.plain == "codes":
        return text in [str(category) for category in variable.column.dtype.categories]
    return any((part == text).any() for part in known if len(part))


def _part(text: str, column: Column) -> Any:
    low, dots, high = text.partition("..")
    if dots and (column.dtype.plain in ("int", "float", "ticks") or column.dtype.ordered):
        return tuple(_bound(end.strip(), column) for end in (low, high))
    return _one(text, column)


def _bound(text: str, column: Column) -> Any:
    if text and column.dtype.plain == "int":
        try:
            return float(text) if not text.lstrip("+-").isdigit() else int(text)
        except ValueError:
            raise DiffuseError("expected numbers as the ends of a range") from None
    return _one(text, column) if text else None


def _one(text: str, column: Column) -> Any:
    """The value in the type of its column; dates stay text."""
    dtype = column.dtype
    if text == "" and column.missing:
        return None
    inner = dtype.categories_dtype if dtype.plain == "codes" and dtype.categories_dtype is not None else dtype
    try:
        if inner.plain == "int":
            return int(text)
        if inner.plain == "float":
            return float(text)
        if inner.plain == "bool":
            return _TRUTH[text.lower()]
    except (ValueError, KeyError):
        raise DiffuseError(f"expected {_SPOKEN[inner.plain]}") from None
    return text
