"""The schema: what each column is taken for, and why. Inferred, editable as TOML, saved with the model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal, cast

import attrs
import numpy as np
import pandas as pd
import tomli_w

from de_core.errors import DiffuseError
from de_plugins.tabular._clusters import find_clusters, inside
from de_plugins.tabular._functions import Function, find_functions, read_functions
from de_plugins.tabular._groups import Group, find_groups
from de_plugins.tabular._numeric import Grid
from de_plugins.tabular._plain import DType, describe, label, to_plain
from de_plugins.tabular._rule_search import find_rules
from de_plugins.tabular._rules import Rule, ordered

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] # the backport is there on Python 3.10 only

__all__ = ["Column", "Kind", "Schema"]

Kind = Literal["classes", "number", "constant"]

MOST_DISTINCT = 150  # distinct numbers up to here are classes, which are exact for free
ROWS_PER_CLASS = 20  # fewer rows than this a distinct number, and they say less than the order of the numbers
SPIKE_SHARE = 0.01  # a number that holds more of a continuous column than this is a class of its gate
SPIKE_ROWS = 10  # and at least so many rows
MAX_CLASSES = 1000  # the modelled vocabulary of a class column; rarer values share one class


@attrs.frozen
class Column:
    """One column of the schema.

    Args:
        name: of the column.
        kind: "classes" (a discrete variable), "number" (a continuous one, with a gate where there are spikes
            or missing cells), or "constant" (one value, stored and not modelled).
        why: one sentence.
        dtype: how to rebuild the pandas column.
        missing: missing cells are modelled, as one more class.
        spikes: of a number: values that are classes of its gate, as plain values (time as ticks).
        clusters: of a number: disjoint stretches [low, high] that are classes of its gate, with a number inside.
        resolution: of a number: the spacing of the grid it lies on, 0 for none; a duration as text for time. None is
            what the training column shows.
        max_classes: of classes: the modelled vocabulary; rarer values share one class.
    """

    name: str | int
    kind: Kind
    why: str
    dtype: DType
    missing: bool = False
    spikes: tuple = ()
    clusters: tuple[tuple[float, float], ...] = ()
    resolution: float | int | str | None = None
    max_classes: int = MAX_CLASSES

    def to_dict(self) -> dict[str, Any]:
        """JSON: only what applies to the kind."""
        out: dict[str, Any] = {"name": self.name, "kind": self.kind, "why": self.why, "missing": self.missing}
        if self.kind == "number":
            out["spikes"] = list(self.spikes)
            out |= {} if self.resolution is None else {"resolution": self.resolution}
            out |= {"clusters": [list(ends) for ends in self.clusters]} if self.clusters else {}
        if self.kind == "classes":
            out["max_classes"] = self.max_classes
        return out | {"dtype": self.dtype.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Column:
        """The inverse of `to_dict`.

        Raises:
            DiffuseError: an unknown or missing key, or an unknown kind.
        """
        if not isinstance(data, Mapping):
            raise DiffuseError(f"schema: expected each of 'columns' as a table, got {data!r}")
        name = data.get("name", "?")
        known = {field.name for field in attrs.fields(cls)}
        for key in data:
            if key not in known:
                raise DiffuseError(f"schema, column '{name}': unknown key '{key}'; expected {sorted(known)}")
        for key in ("name", "kind", "dtype"):
            if key not in data:
                raise DiffuseError(f"schema, column '{name}': the key '{key}' is missing")
        if data["kind"] not in ("classes", "number", "constant"):
            raise DiffuseError(
                f"schema, column '{name}': expected kind classes, number or constant, got '{data['kind']}'"
            )
        dtype = _read_dtype(data["dtype"], name)
        _check_settings(data, dtype, name)
        fields: dict[str, Any] = dict(data) | {
            "dtype": dtype,
            "spikes": tuple(data.get("spikes", ())),
            "clusters": _read_clusters(data.get("clusters", ()), name),
        }
        if fields["kind"] == "number" and fields["dtype"].plain not in ("int", "float", "ticks"):
            raise DiffuseError(f"schema, column '{name}': dtype {fields['dtype'].name} cannot be a number")
        fields.setdefault("why", "set by hand")
        return cls(**fields)


@attrs.frozen
class Schema:
    """The columns of a table in order, the one that is to be predicted, if any, groups that sum to a total, and rules
    and functions that drawn rows keep."""

    columns: tuple[Column, ...]
    target: str | int | None = None
    groups: tuple[Group, ...] = ()
    rules: tuple[Rule, ...] = ()
    functions: tuple[Function, ...] = ()

    def __getitem__(self, name: str | int) -> Column:
        """The column of that name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise DiffuseError(f"column '{name}' is not in the schema; it has {self.names}")

    @property
    def names(self) -> list[str | int]:
        """Column names in order."""
        return [column.name for column in self.columns]

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        out: dict[str, Any] = {} if self.target is None else {"target": self.target}
        out |= {"groups": [group.to_dict() for group in self.groups]} if self.groups else {}
        out |= {"rules": [rule.to_dict() for rule in self.rules]} if self.rules else {}
        out |= {"functions": [attrs.asdict(function) for function in self.functions]} if self.functions else {}
        return out | {"columns": [column.to_dict() for column in self.columns]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """The inverse of `to_dict`."""
        columns = data.get("columns")
        if not isinstance(columns, list) or not columns:
            raise DiffuseError("schema: expected a list 'columns' with at least one column")
        schema = cls(tuple(Column.from_dict(column) for column in columns), data.get("target"))
        _check_names(schema.names)
        schema = attrs.evolve(schema, groups=_read_groups(data.get("groups", []), schema))
        schema = attrs.evolve(schema, rules=_read_rules(data.get("rules", []), schema))
        schema = attrs.evolve(schema, functions=read_functions(data.get("functions", []), schema.names))
        if schema.target is not None:
            schema[schema.target]
        return schema

    @property
    def groups_in_use(self) -> tuple[Group, ...]:
        """The groups that are one variable each."""
        return tuple(group for group in self.groups if group.use)

    def without_groups(self, reason: str) -> Schema:
        """The same with each column by itself; the groups that were in use say why."""
        groups = tuple(
            attrs.evolve(group, use=False, why=f"{group.why}; {reason}") if group.use else group
            for group in self.groups
        )
        return attrs.evolve(self, groups=groups)

    def to_toml(self) -> str:
        """Text that people can edit."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, text: str) -> Schema:
        """The inverse of `to_toml`.

        Raises:
            DiffuseError: the text is not TOML, or not a schema.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise DiffuseError(f"schema: not valid TOML: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def infer(cls, frame: pd.DataFrame, target: str | int | None = None, max_classes: int = MAX_CLASSES) -> Schema:
        """Choose the kind of every column from its data.

        Text, booleans and categories are classes, and so are numbers of at most `MOST_DISTINCT` values, each in
        `ROWS_PER_CLASS` rows on average: classes are exact, but each is learnt by itself. Other numbers are
        continuous, and the values that pile up in them, or are missing, become classes of a gate.

        Args:
            frame: at least one row and one column.
            target: the column to be predicted, if any.
            max_classes: the largest modelled vocabulary.

        Raises:
            DiffuseError: an empty table, duplicate or unsupported column names, mixed types, infinities, no
                such target.
        """
        check_frame(frame)
        if target is not None and target not in frame.columns:
            raise DiffuseError(f"target: column '{target}' is not in the table; it has {list(frame.columns)}")
        columns = tuple(_infer(column_of(frame, name), name, max_classes) for name in frame.columns)
        varied = [c for c in columns if c.kind != "constant"]
        inner = [c for c in varied if c.dtype.plain in ("int", "float", "ticks")]
        cells = {c.name: to_plain(column_of(frame, c.name), c.dtype, c.name) for c in varied}
        numbers = {c.name: c.dtype for c in inner if c.dtype.plain != "ticks"}
        groups = find_groups({name: cells[name] for name in numbers}, numbers)
        rules = _find_rules(inner, cells, groups)
        shared = {name for group in groups if group.use or group.close for name in group.columns}
        functions = find_functions(
            {name: part for name, part in cells.items() if name not in shared},
            [name for rule in rules for name in (rule.column, *rule.of)],
        )
        return cls(columns, target, groups, rules, functions)


def check_frame(frame: pd.DataFrame) -> None:
    """Refuse what is no table with rows and plain, distinct column names."""
    if not isinstance(frame, pd.DataFrame):
        raise DiffuseError(f"table: expected a data frame, got {type(frame).__name__}")
    _check_names(list(frame.columns))
    if frame.shape[1] == 0 or frame.shape[0] == 0:
        raise DiffuseError(
            f"table: expected at least one row and one column, got {frame.shape[0]} and {frame.shape[1]}"
        )


def column_of(frame: pd.DataFrame, name: str | int) -> pd.Series:
    """One column of a frame whose names differ."""
    return cast(pd.Series, frame[name])


def _read_dtype(data: Any, name: object) -> DType:
    """A dtype as JSON or TOML keeps it, which pandas knows."""
    try:
        dtype = DType.from_dict(data)
        dtype.pandas()
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DiffuseError(f"schema, column '{name}': dtype: expected one that fit writes, got {data!r}") from error
    return dtype


def _check_settings(data: Mapping[str, Any], dtype: DType, name: object) -> None:
    """Refuse settings of another type than their own."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    def cell(value: Any) -> bool:
        return number(value) and (dtype.plain == "float" or isinstance(value, int))

    spacing, most, spikes = data.get("resolution", 0), data.get("max_classes", 1), data.get("spikes", [])
    right = {
        "missing": ("true or false", isinstance(data.get("missing", False), bool)),
        "max_classes": ("a whole number of at least 1", number(most) and isinstance(most, int) and most >= 1),
        "spikes": ("a list of numbers of the column", isinstance(spikes, list | tuple) and all(map(cell, spikes))),
        "resolution": (
            "a duration such as '1 days', or 0" if dtype.plain == "ticks" else "a number of at least 0",
            spacing == 0 or (isinstance(spacing, str) if dtype.plain == "ticks" else number(spacing) and spacing > 0),
        ),
    }
    for key, (expected, fits) in right.items():
        if not fits:
            raise DiffuseError(f"schema, column '{name}': {key}: expected {expected}, got {data[key]!r}")


def _read_groups(parts: Any, schema: Schema) -> tuple[Group, ...]:
    """Groups as JSON or TOML keeps them, whose names differ, and no column in two that are in use."""
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise DiffuseError("schema: expected 'groups' as a list of tables")
    dtypes = {column.name: column.dtype for column in schema.columns}
    groups = tuple(Group.from_dict(part, dtypes) for part in parts)
    names, taken = set(), set()
    for group in groups:
        if group.name in names:
            raise DiffuseError(f"schema, group '{group.name}': the name occurs twice; names must differ")
        names.add(group.name)
        for column in group.columns if group.use else ():
            if column in taken:
                raise DiffuseError(f"schema, group '{group.name}': column '{column}' is in another group in use")
            taken.add(column)
    return groups


def _read_rules(parts: Any, schema: Schema) -> tuple[Rule, ...]:
    """Rules as JSON or TOML keeps them."""
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise DiffuseError("schema: expected 'rules' as a list of tables")
    dtypes = {column.name: column.dtype for column in schema.columns}
    return ordered([Rule.from_dict(part, dtypes) for part in parts])


def _find_rules(
    columns: list[Column], cells: Mapping[str | int, tuple[np.ndarray, np.ndarray]], groups: tuple[Group, ...]
) -> tuple[Rule, ...]:
    """The rules between columns of numbers and times that are in no group, from their plain values and missing."""
    taken = {name for group in groups if group.use or group.close for name in group.columns}
    chosen, numbers, steps = [c for c in columns if c.name not in taken], {}, {}
    for c in chosen:
        values, missing = cells[c.name]
        numbers[c.name] = np.where(missing, np.nan, values.astype(np.float64))
        steps[c.name] = 0.0 if c.kind == "classes" or isinstance(c.resolution, str) else float(c.resolution or 0)
    spikes = {c.name: c.spikes for c in chosen if c.kind == "number"}
    return find_rules(numbers, {c.name: c.dtype for c in chosen}, steps, spikes)


def _read_clusters(parts: Any, name: object) -> tuple[tuple[float, float], ...]:
    """Stretches in order that do not overlap."""
    try:
        found = tuple(sorted((float(low), float(high)) for low, high in parts))
    except (TypeError, ValueError):
        raise DiffuseError(f"schema, column '{name}': expected clusters as pairs of numbers, got {parts}") from None
    ends = [end for pair in found for end in pair]
    if ends != sorted(ends) or len({low for low, _ in found} | {high for _, high in found[:-1]}) < 2 * len(found) - 1:
        raise DiffuseError(f"schema, column '{name}': expected clusters [low, high] that do not overlap, got {parts}")
    return found


def _check_names(names: list) -> None:
    seen = set()
    for name in names:
        if not isinstance(name, (str, int)):
            raise DiffuseError(
                f"column {name!r}: expected a name that is text or a whole number, got {type(name).__name__}"
            )
        if name in seen:
            raise DiffuseError(f"column '{name}': the name occurs twice; names must differ")
        seen.add(name)


def _infer(series: pd.Series, name: str | int, max_classes: int) -> Column:
    if isinstance(name, np.integer):
        name = int(name)
    dtype = describe(series, name)
    values, missing = to_plain(series, dtype, name)
    present = values[~missing]
    rows, gone = len(values), bool(missing.any())
    if len(present) == 0:
        return Column(name, "constant", "every cell is missing", dtype, missing=True)
    distinct, counts = _count(present)
    if len(distinct) == 1 and not gone:
        return Column(name, "constant", f"every cell is {label(distinct[0], dtype)}", dtype)
    tail = ", and missing is one more" if gone else ""
    if dtype.plain in ("text", "bool", "codes"):
        what = {"text": "text", "bool": "true or false", "codes": "categorical"}[dtype.plain]
        why = f"{what} with {len(distinct)} distinct values{tail}"
        if len(distinct) > max_classes:
            why += (
                f"; the {max_classes} most frequent are modelled, the other {len(distinct) - max_classes}"
                " share one class and are drawn by their frequency alone"
            )
        return Column(name, "classes", why, dtype, missing=gone, max_classes=max_classes)
    if len(distinct) <= min(MOST_DISTINCT, max_classes, max(2, len(present) // ROWS_PER_CLASS)):
        why = f"a number with only {len(distinct)} distinct values, exact as classes{tail}"
        return Column(name, "classes", why, dtype, missing=gone, max_classes=max_classes)
    spikes = distinct[(counts > SPIKE_SHARE * rows) & (counts >= SPIKE_ROWS)]
    if len(spikes) == len(distinct):
        spikes = spikes[:0]
    resolution = Grid.infer(present, dtype).resolution(dtype)
    why = f"a continuous number with {len(distinct)} distinct values"
    if resolution:
        why += f" on a grid of {resolution}"
    if len(spikes):
        share = counts[np.isin(distinct, spikes)].sum() / rows
        shown = ", ".join(label(value, dtype) for value in spikes[:3]) + (", ..." if len(spikes) > 3 else "")
        why += f"; {len(spikes)} of them ({shown}) hold {share:.0%} of the rows and are classes of a gate"
    clusters = find_clusters(present[~np.isin(present, spikes)]) if dtype.plain == "float" else ()
    if clusters:
        share = float((inside(present, clusters) > 0).mean())
        why += f"; {len(clusters)} narrow clusters hold {share:.0%} of the rows, and are classes of the gate too"
    if gone:
        why += f"; missing in {missing.mean():.1%} of the rows, a class of the gate"
    return Column(name, "number", why, dtype, gone, tuple(spikes.tolist()), clusters, resolution)


def _count(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values in order and how often each occurs; hashing, so that long text columns stay cheap."""
    codes, distinct = pd.factorize(present, sort=True)
    return np.asarray(distinct), np.bincount(codes, minlength=len(distinct))
