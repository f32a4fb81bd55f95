"""Groups of columns that sum to a total in every row: what the schema says of them, and how they are found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError
from de_plugins.tabular._plain import DType

__all__ = ["MAX_ODD", "OFF", "Group", "find_groups", "spoken"]

OFF = 1e-6  # of the total: how far a row's sum may be from it
MAX_ODD = 8  # distinct rows that are no composition, each a class of the group's gate
ODD_SHARE = 0.01  # of the rows at most
LEAST_ROWS = 20  # fewer rows sum to one by chance
LEAST_PARTS = 3  # two parts are one variable only where the schema says so
PAIR_SHARE = 0.9  # of the rows, in which two parts add up, for drawn rows to do so
TIE_SHARE, TIE_ROWS, TIE_EXCESS = 0.01, 10, 5.0  # a tie: so many rows, and so often more than within 1 % of the total
# a pile: so many rows within so much of the total, away from 0; Wright-Fisher diffusion at its least time blurs it
PILE_SHARE, PILE_WIDTH, PILE_FROM = 0.1, 0.001, 0.01
_LOOK = 2000  # rows that are looked at first
_LONGEST = 200  # columns of a group that is found
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = ("numbers", "classes")
_TOTALS = (1.0, 100.0)


@attrs.frozen
class Group:
    """Columns whose cells are shares of a total.

    Args:
        name: of the modality; a letter, then letters, digits and "_".
        columns: at least two, in order.
        total: what each row sums to.
        use: one variable on the simplex; False keeps the columns apart, each by its own kind.
        why: one sentence.
        close: of columns kept apart: drawn rows are made to add up (``_sums``).
    """

    name: str
    columns: tuple[str | int, ...]
    total: float = 1.0
    use: bool = True
    why: str = "set by hand"
    close: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON."""
        return attrs.asdict(self) | {"columns": list(self.columns)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dtypes: Mapping[str | int, DType]) -> Group:
        """The inverse of `to_dict`.

        Args:
            dtypes: of the columns that there are.

        Raises:
            DiffuseError: an unknown or missing key, a bad name or total, fewer than two columns, a column that there
                is not, or columns that are not numbers of one dtype.
        """
        name = data.get("name", "?")
        known = [field.name for field in attrs.fields(cls)]
        for key in data:
            if key not in known:
                raise DiffuseError(f"schema, group '{name}': unknown key '{key}'; expected {known}")
        columns = data.get("columns")
        if not isinstance(columns, list) or len(columns) < 2 or len(set(columns)) < len(columns):
            raise DiffuseError(f"schema, group '{name}': expected at least two different columns, got {columns}")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise DiffuseError(
                f"schema, group '{name}': expected a name of a letter, then letters, digits and '_', and neither of "
                f"{', '.join(_TAKEN)}"
            )
        total, use = data.get("total", 1.0), data.get("use", True)
        if not isinstance(total, int | float) or isinstance(total, bool) or not 0 < total < float("inf"):
            raise DiffuseError(f"schema, group '{name}': expected a total above 0, got {total!r}")
        for key, flag in {"use": use, "close": data.get("close", False)}.items():
            if not isinstance(flag, bool):
                raise DiffuseError(f"schema, group '{name}': expected {key} as true or false, got {flag!r}")
        for column in columns:
            if column not in dtypes:
                raise DiffuseError(f"schema, group '{name}': column '{column}' is not in the schema")
            if dtypes[column].plain not in ("int", "float"):
                raise DiffuseError(
                    f"schema, group '{name}': expected numbers, got {dtypes[column].name} in column '{column}'"
                )
            if dtypes[column] != dtypes[columns[0]]:
                raise DiffuseError(
                    f"schema, group '{name}': expected columns of one dtype, got {dtypes[columns[0]].name} in "
                    f"'{columns[0]}' and {dtypes[column].name} in '{column}'"
                )
        return cls(
            name, tuple(columns), float(total), use, str(data.get("why", "set by hand")), data.get("close", False)
        )


def spoken(columns: Sequence[str | int]) -> str:
    """The columns of a group in words."""
    return f"{columns[0]}{' .. ' if len(columns) > 2 else ' and '}{columns[-1]}"


def find_groups(
    cells: Mapping[str | int, tuple[np.ndarray, np.ndarray]], dtypes: Mapping[str | int, DType]
) -> tuple[Group, ...]:
    """The groups of a table, those in use and those that only look like one, which say why they are none.

    Looked for among runs of number columns between 0 and the total, in the order of the table; others between them do
    not matter. Columns of two values are left out: one-hot columns are exact as classes.

    Args:
        cells: plain values (n,) and missing (n,) of the number columns that are not constant, in order.
        dtypes: of those columns.
    """
    found: list[Group] = []
    for total in _TOTALS:
        for dtype in dict.fromkeys(dtypes[name].name for name in cells):
            taken = {column for group in found for column in group.columns}
            names = [n for n in cells if dtypes[n].name == dtype and n not in taken and _fits(*cells[n], total)]
            for run in _runs(names, cells, total):
                group = _judged(run, cells, total)
                if group is not None:
                    found.append(group)
                    names = [n for n in names if n not in run]
            found += _pairs(names, cells, total)
    labels = ["shares", *(f"shares_{k}" for k in range(2, len(found) + 1))]
    return tuple(attrs.evolve(group, name=label) for group, label in zip(found, labels, strict=False))


def _pairs(names: list, cells: Mapping, total: float) -> list[Group]:
    """Neighbours that add up to the total in most rows: kept apart, as what sets the others off is not known."""
    out, k = [], 0
    while k + 1 < len(names):
        pair = names[k : k + 2]
        (a, a_gone), (b, b_gone) = cells[pair[0]], cells[pair[1]]
        there = ~a_gone & ~b_gone
        share = float((np.abs(a + b - total)[there] <= OFF * total).mean()) if there.sum() >= LEAST_ROWS else 0.0
        if share >= PAIR_SHARE:
            why = f"{spoken(pair)} sum to {total:g} in {share:.0%} of the rows: kept apart, and drawn rows are made to"
            out.append(Group("", tuple(pair), total, False, f"{why} add up", True))
        k += 2 if share >= PAIR_SHARE else 1
    return out


def _fits(values: np.ndarray, missing: np.ndarray, total: float) -> bool:
    """Whether a column can be a part: between 0 and the total, and of more than two values."""
    there = values[~missing]
    if len(there) < LEAST_ROWS or there.min() < 0 or there.max() > total * (1 + OFF):
        return False
    return len(np.unique(there[:_LOOK])) > 2 or len(np.unique(there)) > 2


def _runs(names: list, cells: Mapping, total: float) -> list[list]:
    """Runs of columns that sum to the total in the rows that are looked at first, all but few."""
    if len(names) < LEAST_PARTS:
        return []
    rows = len(cells[names[0]][0])
    some = np.arange(rows) if rows <= _LOOK else np.linspace(0, rows - 1, _LOOK).astype(np.int64)
    shown = {n: np.where(cells[n][1][some], np.nan, cells[n][0][some].astype(np.float64)) for n in names}
    allowed = ODD_SHARE * len(some)
    out, first = [], 0
    while first < len(names):
        upto, found = np.zeros(len(some)), 0
        for last in range(first, min(first + _LONGEST, len(names))):
            upto = upto + shown[names[last]]
            if (upto > total * (1 + OFF)).sum() > allowed:
                break
            there = np.isfinite(upto)
            near = np.abs(upto - total) <= OFF * total
            if last - first + 1 >= LEAST_PARTS and there.sum() >= LEAST_ROWS and (there & ~near).sum() <= allowed:
                found = last - first + 1
                break
        if found:
            out.append(names[first : first + found])
        first += found or 1
    return out


def _judged(names: list, cells: Mapping, total: float) -> Group | None:
    """The group of a run, from all rows: in use, or not and why; None where too many rows are no composition."""
    values = np.stack([cells[n][0].astype(np.float64) for n in names], 1)
    missing = np.stack([cells[n][1] for n in names], 1)
    whole, none = ~missing.any(1), missing.all(1)
    near = np.abs(values.sum(1) - total) <= OFF * total
    odd = whole & ~near
    rows, said = len(values), f"{spoken(names)} sum to {'one' if total == 1 else f'{total:g}'} in"
    if odd.sum() > ODD_SHARE * rows or whole.sum() < LEAST_ROWS:
        return None
    said += " every row" if not odd.any() else f" all rows but {int(odd.sum())}"
    partly = int((~whole & ~none).sum())
    if partly:
        apart = f"{said} without a missing cell, but {partly} miss some of the cells and not all: kept apart"
        return Group("", tuple(names), total, False, apart)
    distinct = len(np.unique(values[odd], axis=0))
    if distinct > MAX_ODD:
        apart = f"{said}, which hold {distinct} different ones, more than {MAX_ODD}: kept apart"
        return Group("", tuple(names), total, False, apart)
    tie = _tie(names, values[whole & near], total)
    if tie is not None:
        often = f"column '{tie[0]}' is {tie[1]:g} in {tie[2]:.0%} of them"
        apart = f"{said}, but {often}, and shares have no ties: kept apart, and drawn rows are made to add up"
        return Group("", tuple(names), total, False, apart, True)
    pile = _pile(names, values[whole & near], total)
    if pile is not None:
        often = f"column '{pile[0]}' lies within {PILE_WIDTH * total:g} of {pile[1]:.4g} in {pile[2]:.0%} of them"
        apart = f"{said}, but {often}, finer than shares are resolved: kept apart, and drawn rows are made to add up"
        return Group("", tuple(names), total, False, apart, True)
    if odd.any():
        said += f", whose {'cells are a class' if distinct == 1 else f'{distinct} kinds are classes'} of a gate"
    if none.any():
        said += f"; missing together in {none.mean():.1%} of the rows, a class of the gate"
    return Group("", tuple(names), total, True, said)


def _tie(names: list, values: np.ndarray, total: float) -> tuple[Any, float, float] | None:
    """A part, a value and its share of the rows, where it stands out from all that is within 1 % of the total."""
    for name, part in zip(names, values.T, strict=True):
        distinct, counts = np.unique(part, return_counts=True)
        many = (counts > TIE_SHARE * len(part)) & (counts >= TIE_ROWS)
        for value, count in zip(distinct[many], counts[many], strict=True):
            close = int((np.abs(part - value) <= 0.01 * total * (1 + OFF)).sum()) - count
            if count > TIE_EXCESS * close:
                return name, float(value), count / len(part)
    return None


def _pile(names: list, values: np.ndarray, total: float) -> tuple[Any, float, float] | None:
    """A part, where its closest values begin, and the share of the rows among them, where they are a pile: of many
    different values, since one value that many rows hold is a tie."""
    for name, part in zip(names, values.T, strict=True):
        distinct, counts = np.unique(part[part > PILE_FROM * total], return_counts=True)
        if not len(distinct):
            continue
        ends = np.searchsorted(distinct, distinct + PILE_WIDTH * total, side="right")
        rows = np.concatenate([[0], counts.cumsum()])
        inside = np.where(ends - np.arange(len(distinct)) >= TIE_ROWS, rows[ends] - rows[:-1], 0)
        if inside.max() > PILE_SHARE * len(part):
            return name, float(distinct[inside.argmax()]), inside.max() / len(part)
    return None
