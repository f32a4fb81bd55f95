"""Columns that are a function of another, as a city's state is: what the schema says of them, and how they are found.
``_lookups`` keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._rules import ALWAYS

__all__ = ["Function", "find_functions", "read_functions"]

Cells = Mapping[str | int, tuple[np.ndarray, np.ndarray]]
"""Name of a column -> its plain values (n,), and which are missing (n,) bool."""

_LEAST_ROWS = 100
_LOOK, _CELLS = 2048, 2**26  # rows that are looked at first, and pairs of cells compared in all
_HINT, _PROOF = 3.0, 20.0  # broken pairs that shuffled rows would have: on the rows that are looked at, and on all
_STRAY = 0.02  # of those, that may be broken
_TRIED = 8  # columns that one may be a function of are judged on all rows


@attrs.frozen
class Function:
    """A column that another one says.

    Args:
        column: what is said. of: the column that says it.
        use: drawn rows are made to keep it.
        why: one sentence.
    """

    column: str | int
    of: str | int
    use: bool = True
    why: str = "set by hand"

    @property
    def said(self) -> str:
        """In words."""
        return f"'{self.column}' is a function of '{self.of}' in all rows"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], names: Sequence[str | int]) -> Function:
        """From JSON or TOML, of the columns that there are.

        Raises:
            DiffuseError: an unknown or missing key, or a column that there is not.
        """
        where, known = f"schema, function '{data.get('column', '?')}'", [field.name for field in attrs.fields(cls)]
        for key in data:
            if key not in known:
                raise DiffuseError(f"{where}: unknown key '{key}'; expected {known}")
        for key in ("column", "of"):
            if data.get(key) not in names:
                raise DiffuseError(f"{where}: expected {key} as a column of the schema, got {data.get(key)!r}")
        if data["column"] == data["of"]:
            raise DiffuseError(f"{where}: a column is no function of itself")
        for key, kind, expected in (("use", bool, "true or false"), ("why", str, "text")):
            if key in data and not isinstance(data[key], kind):
                raise DiffuseError(f"{where}: expected {key} as {expected}, got {data[key]!r}")
        return cls(**data)


def read_functions(parts: Any, names: Sequence[str | int]) -> tuple[Function, ...]:
    """Functions as JSON or TOML keeps them, each after those that say what it reads.

    Raises:
        DiffuseError: as ``Function.from_dict``; a column is said twice, or they go in a circle.
    """
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise DiffuseError("schema: expected 'functions' as a list of tables")
    left: dict[str | int, Function] = {}
    for function in (Function.from_dict(part, names) for part in parts):
        if function.column in left:
            raise DiffuseError(f"schema, function '{function.column}': the column is a function of another already")
        left[function.column] = function
    out: list[Function] = []
    while left:
        ready = [function for function in left.values() if function.of not in left]
        if not ready:
            raise DiffuseError(f"schema, function '{next(iter(left))}': the functions go in a circle")
        out += ready
        left = {name: function for name, function in left.items() if function not in ready}
    return tuple(out)


def find_functions(cells: Cells, taken: Sequence[str | int]) -> tuple[Function, ...]:
    """The columns that are a function of another one, each of the one with the fewest values, in an order in which each
    comes after what it reads; of two that say each other, the later one.

    In 99.9 % of the rows that have both cells; where shuffled rows would break it by chance it is none: these must
    have 20 broken ones at the least, and the table a fiftieth of that at the most. Looked for on some rows, and then
    judged on all.

    Args:
        cells: of the columns that vary. taken: columns that something else says.
    """
    names, rows = list(cells), len(next(iter(cells.values()))[0]) if cells else 0
    if rows < _LEAST_ROWS or len(names) < 2:
        return ()
    count = min(rows, _LOOK, max(_LEAST_ROWS, _CELLS // len(names) ** 2))
    look = np.sort(np.random.default_rng(0).choice(rows, count, replace=False))
    coded = [_codes(values[look], missing[look]) for values, missing in cells.values()]
    x, sizes = np.stack([codes for codes, _ in coded], 1), np.array([size for _, size in coded])
    shifted = np.roll(x, len(x) // 2, axis=0)
    differ = ((x != shifted) & (x >= 0) & (shifted >= 0)).mean(0)
    likely = np.stack([_likely(x, k, differ) for k in range(len(names))])
    whole: dict[int, tuple[np.ndarray, int]] = {}

    def all_of(k: int) -> tuple[np.ndarray, int]:
        if k not in whole:
            whole[k] = _codes(*cells[names[k]])
        return whole[k]

    found: dict[int, int] = {}
    for b, name in enumerate(names):
        if name in taken:
            continue
        sources = np.flatnonzero(likely[:, b])
        for a in sources[np.argsort(sizes[sources], kind="stable")][:_TRIED]:
            finer = (-all_of(int(a))[1], int(a)) < (-all_of(b)[1], b)  # so that they go in no circle
            if finer and _is_function(all_of(int(a))[0], *all_of(b)):
                found[b] = int(a)
                break
    functions = [Function(names[b], names[a]) for b, a in found.items()]
    functions = [attrs.evolve(function, why=function.said) for function in functions]
    return read_functions([attrs.asdict(function) for function in functions], names)


def _codes(values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, int]:
    """Whole numbers for values, -1 where missing, and how many there are."""
    codes, distinct = pd.factorize(values)
    return np.where(missing, -1, codes).astype(np.int64), len(distinct)


def _likely(x: np.ndarray, a: int, differ: np.ndarray) -> np.ndarray:
    """Which columns of codes (n, p) may be a function of column a, (p,) bool: two rows that have it in common have them
    in common, and of shuffled rows a share ``differ`` (p,) would not."""
    order = np.argsort(x[:, a], kind="stable")
    ordered = x[order]
    here, after = ordered[:-1], ordered[1:]
    pairs = ((here[:, a] == after[:, a]) & (here[:, a] >= 0))[:, None] & (here >= 0) & (after >= 0)
    broken, expected = (pairs & (here != after)).sum(0), pairs.sum(0) * differ
    out = (expected >= _HINT) & (broken <= np.maximum(1, 2 * _STRAY * expected))
    out[a] = False
    return out


def _is_function(a: np.ndarray, b: np.ndarray, size: int) -> bool:
    """Whether codes b below ``size`` are a function of codes a, on all rows that have both."""
    known = (a >= 0) & (b >= 0)
    if known.sum() < _LEAST_ROWS:
        return False
    pairs, counts = np.unique(a[known] * size + b[known], return_counts=True)
    starts = np.flatnonzero(np.diff(pairs // size, prepend=-1))
    rows, share = known.sum(), np.bincount(b[known]) / known.sum()
    broken = rows - np.maximum.reduceat(counts, starts).sum()
    expected = (rows - len(starts)) * (1 - (share**2).sum())
    enough = expected >= _PROOF and rows - len(starts) >= rows / 2
    return bool(enough and broken <= min((1 - ALWAYS) * rows, _STRAY * expected))
