"""Functions between columns (``_functions``) as pairs of values, and how drawn rows are made to keep them.

A small network learns which pairs of classes go together, and draws others now and then; what is a function in training
is one in every drawn row, as far as its values have been seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._functions import Function
from de_plugins.tabular._plain import DType, array_of, filled_in, from_plain, to_plain
from de_plugins.tabular.schema import column_of

__all__ = ["Lookup", "keep_functions"]

_GOLDEN = (5**0.5 - 1) / 2


@attrs.frozen(eq=False)
class Lookup:
    """What a function says: pairs that at least two training rows have.

    Args:
        function: of the schema. dtype, of_dtype: of its column, and of the one that says it.
        number: whether the latter is drawn as a continuous number.
        keys, values: plain values (k,); a key occurs once.
        counts: training rows of each pair, (k,).
    """

    function: Function
    dtype: DType
    of_dtype: DType
    number: bool
    keys: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    _index: pd.Index = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_index", pd.Index(self.keys))

    @classmethod
    def fit(cls, function: Function, dtypes: tuple[DType, DType], number: bool, frame: pd.DataFrame) -> Lookup:
        """From training rows: of each key the value that most of them have."""
        columns = zip((function.column, function.of), dtypes, strict=True)
        plain = [to_plain(column_of(frame, name), dtype, name) for name, dtype in columns]
        known = ~plain[0][1] & ~plain[1][1]
        (b, values), (a, keys) = (pd.factorize(values[known]) for values, _ in plain)
        pairs, counts = np.unique(a.astype(np.int64) * max(1, len(values)) + b, return_counts=True)
        key, said = np.divmod(pairs, max(1, len(values)))
        order = np.lexsort((counts, key))
        best = order[np.diff(key[order], append=-1) != 0]  # the last of each key
        best = best[counts[best] >= 2]
        return cls(function, *dtypes, number, np.asarray(keys)[key[best]], np.asarray(values)[said[best]], counts[best])

    @property
    def rough(self) -> bool:
        """Whether what a number says mostly changes from one key to the next, as the weekday does from day to day: then
        a model knows better what is said than which key, of those near to it, says it."""
        values = self.values[np.argsort(self.keys, kind="stable")] if self.number else self.values[:0]
        return len(values) > 1 and bool((values[1:] != values[:-1]).mean() > 0.5)

    def said(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What it says of plain values a, (n,), the values b where nothing; and where it says something."""
        place = np.asarray(self._index.get_indexer(pd.Index(a)))
        out = b.copy()
        out[place >= 0] = self.values[place[place >= 0]]
        return out, place >= 0

    def inverse(self, a: np.ndarray, b: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Keys whose values are b, in the rows (n,) that are ``wrong``; a in the others, and where no key has it.

        Of numbers and times the nearest; of others the next by frequency, in turn by the row's number.
        """
        out, turn = a.copy(), (np.arange(1, len(a) + 1) * _GOLDEN) % 1
        for value in pd.unique(b[wrong]):
            keys, counts = self.keys[self.values == value], self.counts[self.values == value]
            rows = np.flatnonzero(wrong & (b == value))
            if not len(keys):
                continue
            if self.of_dtype.plain in ("int", "float", "ticks"):
                keys = np.sort(keys)
                high = np.searchsorted(keys, a[rows]).clip(0, len(keys) - 1)
                low = np.maximum(high - 1, 0)
                place, below, above = (x.astype(np.float64) for x in (a[rows], keys[low], keys[high]))
                out[rows] = keys[np.where(np.abs(place - below) <= np.abs(above - place), low, high)]
            else:
                out[rows] = keys[np.searchsorted(np.cumsum(counts) / counts.sum(), turn[rows], side="right")]
        return out

    def kept(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a table that have both cells, and a key that it knows; and those that keep it. (n,) bool each; none
        where a column has no such dtype."""
        try:
            (b, gone), (a, none) = (to_plain(column_of(frame, name), dtype, name) for name, dtype in self.columns)
        except DiffuseError:
            return np.zeros(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
        said, known = self.said(a, b)
        return known & ~gone & ~none, said == b

    @property
    def columns(self) -> tuple[tuple[str | int, DType], ...]:
        """Its two columns and their dtypes."""
        return (self.function.column, self.dtype), (self.function.of, self.of_dtype)

    def config(self) -> dict[str, Any]:
        """JSON; the inverse of `from_config`."""
        return {name: getattr(self, name).tolist() for name in ("keys", "values", "counts")}

    @classmethod
    def from_config(
        cls, function: Function, dtypes: tuple[DType, DType], number: bool, config: Mapping[str, Any]
    ) -> Lookup:
        """From JSON."""
        keys, values = array_of(config["keys"], dtypes[1]), array_of(config["values"], dtypes[0])
        return cls(function, *dtypes, number, keys, values, np.asarray(config["counts"], dtype=np.int64))


def keep_functions(
    lookups: Sequence[Lookup], frame: pd.DataFrame, free: Mapping[Any, Any] | pd.DataFrame
) -> pd.DataFrame:
    """A decoded table in which columns are what functions say, of keys that training had.

    The column takes what the key says; where only the key may move, or the function is ``rough``, the key becomes one
    that says what the column is. A row stays as it is where a cell is missing or neither may move.

    Args:
        free: column -> whether its cells may move, one bool or one a row.
    """
    columns = {name: dtype for one in lookups for name, dtype in one.columns}
    plain = {name: to_plain(column_of(frame, name), dtype, name) for name, dtype in columns.items()}
    values, missing = ({name: part[k] for name, part in plain.items()} for k in (0, 1))
    fixed = {name: ~np.broadcast_to(np.asarray(free[name], dtype=bool), len(frame)) for name in columns}
    before = dict(values)

    def follow(one: Lookup, rows: np.ndarray) -> np.ndarray:
        """The column takes what the key says, in some rows; returns where the key says something."""
        b, a = one.function.column, one.function.of
        said, known = one.said(values[a], values[b])
        there = rows & known & ~missing[a] & ~missing[b]
        values[b] = np.where(there & ~fixed[b], said, values[b])
        return there

    for one in lookups:  # what is known says the rest first
        fixed[one.function.column] = fixed[one.function.column] | follow(one, fixed[one.function.of])
    for one in reversed(lookups):
        b, a = one.function.column, one.function.of
        there = ~missing[a] & ~missing[b] & (fixed[b] | one.rough) & ~fixed[a]
        if not there.any():
            continue
        said, known = one.said(values[a], values[b])
        values[a] = one.inverse(values[a], values[b], there & ((said != values[b]) | ~known))
        fixed[a] = fixed[a] | (there & fixed[b])
    for one in lookups:
        follow(one, np.ones(len(frame), dtype=bool))
    for name, dtype in columns.items():
        moved = (values[name] != before[name]) & ~missing[name]
        if moved.any():
            new = from_plain(values[name].astype(before[name].dtype), missing[name], dtype)
            frame[name] = filled_in(column_of(frame, name), new, moved, dtype, name)
    return frame
