"""How a group of columns becomes one variable on the simplex, and a gate where rows are missing or no composition."""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._groups import MAX_ODD, OFF, Group, spoken
from de_plugins.tabular._numeric import EXACT, Grid
from de_plugins.tabular._plain import DType, array_of, from_plain, narrowed, to_plain
from de_plugins.tabular._variables import Classes, Constant, Number
from de_plugins.tabular.schema import Column, column_of

__all__ = ["Share", "Shares", "Variable"]


@attrs.frozen(eq=False)
class Share:
    """A column that is a part of a group: the group codes it."""

    column: Column

    def config(self) -> dict[str, Any]:
        """JSON part of the state: the group has it all."""
        return {}


Variable = Constant | Classes | Number | Share


@attrs.frozen(eq=False)
class Shares:
    """The variable of a group of k columns.

    Args:
        group: of the schema. dtype: of each column.
        odd: (m, k) plain: rows that are no composition; each is a class of the gate.
        unit, decimals: every cell is a multiple of unit / 10^decimals; a unit of 0 is none.
        missing: rows in which the whole group is missing are one more class of the gate.
    """

    group: Group
    dtype: DType
    odd: np.ndarray
    unit: int
    decimals: int
    missing: bool

    @classmethod
    def fit(cls, group: Group, dtype: DType, frame: pd.DataFrame) -> Shares:
        """From the training table.

        Raises:
            DiffuseError: a row in which some of the cells are missing, a negative cell, no composition at all, or more
                than a few rows that are none.
        """
        values, missing = _plain(group, dtype, frame)
        found = cls(group, dtype, np.zeros((0, len(group.columns)), values.dtype), 0, 0, bool(missing.all(1).any()))
        found._refuse(values, missing, np.zeros_like(missing))
        whole = ~missing.any(1)
        good = whole & found._sums(values)
        odd = np.unique(values[whole & ~good], axis=0)
        if not good.any() or len(odd) > MAX_ODD:
            row = int(np.flatnonzero(whole & ~good)[0]) if len(odd) else 0
            raise DiffuseError(
                f"columns {found.name}: expected rows that sum to {group.total:g}, and at most {MAX_ODD} "
                f"different ones that do not, got {values[row].sum():.9g} in row {row} and {len(odd)} such rows"
            )
        unit, decimals = _lattice(values[good], dtype, group.total)
        return attrs.evolve(found, odd=odd, unit=unit, decimals=decimals)

    @property
    def name(self) -> str:
        """The columns in words."""
        return spoken(self.group.columns)

    @property
    def parts(self) -> int:
        """k."""
        return len(self.group.columns)

    @property
    def size(self) -> int:
        """Number of classes of the gate; 1 where there is none."""
        return 1 + len(self.odd) + self.missing

    def labels(self) -> list[str]:
        """Readable names of the gate's classes."""
        odd = ["(" + ", ".join(f"{cell:g}" for cell in row) + ")" for row in self.odd]
        return ["(shares)", *odd] + ["(missing)"] * self.missing

    def share(self, column: Column) -> Share:
        """A column of the group, whose reason names it."""
        alone = column.why.split("; a part of the group '")[0]
        why = f"{alone}; a part of the group '{self.group.name}': {self.group.why}"
        return Share(attrs.evolve(column, missing=self.missing, why=why))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Which rows (n, k) sum to the total, (n,) bool."""
        return np.abs(values.sum(1, dtype=np.float64) - self.group.total) <= OFF * self.group.total

    def _refuse(self, values: np.ndarray, missing: np.ndarray, holes: np.ndarray) -> None:
        """Refuse a negative cell, and a row in which some of the known cells are missing and not all."""
        negative = (values < 0) & ~missing & ~holes
        if negative.any():
            row, part = (int(i[0]) for i in np.nonzero(negative))
            raise DiffuseError(
                f"column '{self.group.columns[part]}': expected shares of at least 0, got {values[row, part]:g} in row "
                f"{row}"
            )
        gone = missing & ~holes
        partly = gone.any(1) & ~(gone.all(1))
        if partly.any():
            row = int(np.flatnonzero(partly)[0])
            name = self.group.columns[int(np.flatnonzero(gone[row])[0])]
            raise DiffuseError(f"column '{name}': the cell in row {row} is missing, and not all of {self.name} are")

    def encode(self, frame: pd.DataFrame, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gate (n,) int64 and values (n, k) float64 in the table's unit.

        A row with a hole in some of the cells counts as a composition; its holes are 0. Where all are holes, or the
        gate is shut, the values are equal shares.

        Args:
            holes: (n, k) bool.

        Raises:
            DiffuseError: a row that is no composition and that training did not have, or known cells beyond the total.
        """
        values, missing = _plain(self.group, self.dtype, frame)
        self._refuse(values, missing, holes)
        whole = ~holes.any(1)
        gone, total = whole & missing.all(1), self.group.total
        if gone.any() and not self.missing:
            row = int(np.flatnonzero(gone)[0])
            raise DiffuseError(f"columns {self.name}: the cells in row {row} are missing, and none were in training")
        gate = np.where(gone, self.size - 1, 0)
        for k, row in enumerate(self.odd):
            gate[whole & ~gone & (values == row).all(1)] = k + 1
        off = whole & (gate == 0) & ~self._sums(values)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            got = values[row].sum(dtype=np.float64)
            raise DiffuseError(f"columns {self.name}: expected a sum of {total:g}, got {got:.9g} in row {row}")
        known = np.where(holes, 0.0, values.astype(np.float64))
        over = ~whole & (known.sum(1) > total * (1 + OFF))
        if over.any():
            row = int(np.flatnonzero(over)[0])
            raise DiffuseError(
                f"columns {self.name}: expected known cells of at most {total:g} together, got {known[row].sum():.9g} "
                f"in row {row}"
            )
        absent = (gate > 0) | holes.all(1)
        return gate, np.where(absent[:, None], total / self.parts, known)

    def readable(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows `encode` takes, (n,) bool."""
        values, missing = _plain(self.group, self.dtype, frame)
        odd = (values[:, None] == self.odd[None]).all(2).any(1)
        good = (self._sums(values) & (values >= 0).all(1)) | odd
        return np.where(missing.any(1), missing.all(1) & self.missing, good)

    def scaled(self, x: np.ndarray, known: np.ndarray | None = None, fixed: np.ndarray | None = None) -> np.ndarray:
        """Shares (n, k) of any sum as values in the table's unit, (n, k) float64, that sum to the total exactly.

        As exactly as floats of the column's precision do: on a lattice by the largest remainder; else the largest part
        takes what rounding leaves.

        Args:
            known, fixed: (n, k): which parts are given, and their values; the others share the rest.
        """
        total, rows = self.group.total, np.arange(len(x))
        known = np.zeros(x.shape, bool) if known is None else known
        held = np.zeros(x.shape) if fixed is None else np.where(known, fixed, 0.0)
        free = np.where(known, 0.0, np.maximum(x.astype(np.float64), 0.0))
        free = np.where((free.sum(1) > 0)[:, None], free, ~known)
        rest = np.maximum(total - held.sum(1), 0.0)
        y = free * (rest / np.maximum(free.sum(1), 1e-300))[:, None]
        if self.unit:
            scale = 10.0**self.decimals / self.unit
            exact = y * scale
            whole = np.floor(exact)
            lack = np.rint(rest * scale).astype(np.int64) - whole.sum(1).astype(np.int64)
            rank = np.argsort(np.argsort(-np.where(known, -np.inf, exact - whole), 1, kind="stable"), 1, kind="stable")
            whole = np.where(~known & (rank < lack[:, None]), whole + 1, whole)
            y = whole * self.unit / 10.0**self.decimals
        y = np.where(known, held, narrowed(y, self.dtype))
        most = np.argmax(np.where(known, -1.0, y), 1)
        others = y.sum(1) - y[rows, most]
        last = np.where(known[rows, most], y[rows, most], np.maximum(total - others, 0.0))
        if self.unit:  # the same number, without the rounding of a sum
            whole = np.rint(last * 10.0**self.decimals) / 10.0**self.decimals
            last = np.where(np.abs(whole - last) <= 1e-9 * total, whole, last)
        y[rows, most] = last
        return y

    def decode(self, gate: np.ndarray, values: np.ndarray) -> dict[str | int, pd.Series]:
        """The columns of gate classes (n,) and values (n, k) in the table's unit."""
        missing = np.full(len(gate), self.missing) & (gate == self.size - 1)
        shut = (gate > 0) & ~missing
        out = {}
        for i, name in enumerate(self.group.columns):
            cells = values[:, i]
            cells = np.rint(cells).astype(self.odd.dtype) if self.dtype.plain == "int" else cells
            if len(self.odd):
                cells = np.where(shut, self.odd[np.clip(gate - 1, 0, len(self.odd) - 1), i], cells)
            out[name] = from_plain(cells, missing, self.dtype)
        return out

    @property
    def log_jacobian(self) -> float:
        """log of the density against the flat Dirichlet law over that of all parts but one in the table's unit.

        The flat law has the density (k - 1)! in k - 1 of the shares; a value is the total times a share, and on a
        lattice the density is per step.
        """
        step = self.unit / 10.0**self.decimals if self.unit else 1.0
        return math.lgamma(self.parts) + (self.parts - 1) * math.log(step / self.group.total)

    def config(self) -> dict[str, Any]:
        """JSON part of the state."""
        return {"odd": self.odd.tolist(), "unit": self.unit, "decimals": self.decimals, "missing": self.missing}

    @classmethod
    def from_config(cls, group: Group, dtype: DType, data: dict[str, Any]) -> Shares:
        """The inverse of `config`."""
        odd = array_of([cell for row in data["odd"] for cell in row], dtype).reshape(-1, len(group.columns))
        return cls(group, dtype, odd, int(data["unit"]), int(data["decimals"]), bool(data["missing"]))


def _plain(group: Group, dtype: DType, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    parts = [to_plain(column_of(frame, name), dtype, name) for name in group.columns]
    return np.stack([part[0] for part in parts], 1), np.stack([part[1] for part in parts], 1)


def _lattice(values: np.ndarray, dtype: DType, total: float) -> tuple[int, int]:
    """The unit and the decimals of the lattice through 0 that holds all cells and the total, and on which every row
    sums to the total exactly; (0, 0) where there is none."""
    grid = Grid.infer(values.ravel(), dtype)
    whole_total = total * 10.0**grid.decimals
    if not grid.step or abs(whole_total - round(whole_total)) > 1e-6 or whole_total >= EXACT:
        return 0, 0
    whole = np.rint(values.astype(np.float64) * 10.0**grid.decimals).astype(np.int64)
    if (whole.sum(1) != round(whole_total)).any():
        return 0, 0
    return int(np.gcd.reduce(np.append(whole.ravel(), round(whole_total)))), grid.decimals
