"""Cells that are held: the values of ``given``, and the known cells of a table with holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core import Given
from de_core.errors import DiffuseError
from de_plugins.tabular._plain import DType, from_plain, label, to_plain
from de_plugins.tabular._variables import Classes, Number
from de_plugins.tabular.codec import Encoded, TableCodec
from de_plugins.tabular.process import rows_of

__all__ = ["NeverMissing", "encode_given", "fill", "given_cells", "known_cells", "repeated"]


def given_cells(codec: TableCodec, given: Mapping[str | int, Any]) -> dict[str | int, pd.Series]:
    """The given values as columns of one row, in the dtypes of training.

    Raises:
        DiffuseError: an unknown column, or a value that does not fit its column.
    """
    cells = {}
    for name, value in given.items():
        if name not in codec.schema.names:
            raise DiffuseError(f"given: there is no column '{name}'; expected one of {codec.schema.names}")
        dtype = codec.schema[name].dtype
        if dtype.plain == "ticks" and isinstance(value, str):
            value = _moment(value, dtype, name)
        try:
            cells[name] = from_plain(*to_plain(pd.Series([value]), dtype, name), dtype)
            if dtype.plain == "codes" and pd.isna(cells[name].iloc[0]) and not pd.isna(value):
                raise DiffuseError(f"column '{name}': {value!r} is none of its categories")
        except DiffuseError as error:
            raise DiffuseError(f"given: {error}") from None
    return cells


def _moment(text: str, dtype: DType, name: str | int) -> Any:
    try:
        return pd.Timedelta(text) if dtype.is_span else pd.Timestamp(text)
    except ValueError:
        raise DiffuseError(
            f"given: column '{name}': expected a {'duration' if dtype.is_span else 'date'}, got {text!r}"
        ) from None


def encode_given(codec: TableCodec, cells: Mapping[str | int, pd.Series], rng: torch.Generator) -> Encoded:
    """One coded row whose known part is the given cells.

    Raises:
        DiffuseError: a category that training did not have, a missing cell where it had none, a number outside its
            range: a condition of probability 0.
    """
    blank = codec.decode(
        torch.zeros(1, len(codec.class_sizes), dtype=torch.int64), torch.zeros(1, codec.num_numbers), rng=0
    )
    frame = pd.DataFrame({name: cells.get(name, blank[name]) for name in codec.schema.names})
    holes = np.array([[name not in cells for name in codec.schema.names]])
    try:
        coded = codec.encode(frame, holes=holes, rng=rng)
        for variable in codec.variables:
            if variable.column.name in cells and isinstance(variable, Number):
                _inside(variable, cells[variable.column.name])
    except DiffuseError as error:
        raise DiffuseError(f"given: {str(error).replace(' in row 0', '')}") from None  # there is one row
    return coded


def _inside(variable: Number, cell: pd.Series) -> None:
    """Refuse a number that is no spike and lies outside the training range."""
    dtype, name = variable.column.dtype, variable.column.name
    values, missing = to_plain(cell, dtype, name)
    if missing.any() or np.isin(values, variable.spikes).all():
        return
    index, ends = variable.grid.to_index(values), variable.map.value[[0, -1]]
    if values.dtype.kind in "iu" and index[0] == 0:  # an index below the grid is cut to 0
        index = np.where(values < variable.grid.from_index(np.zeros(1), dtype), -1.0, index)
    if not ends[0] <= index[0] <= ends[1]:
        low, high = (label(v, dtype) for v in variable.grid.from_index(ends, dtype))
        raise DiffuseError(
            f"column '{name}': {label(values[0], dtype)} lies outside the training range, {low} to {high}"
        )


def fill(column: pd.Series, drawn: pd.Series, holes: np.ndarray, dtype: DType, name: str | int) -> pd.Series:
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


class NeverMissing:
    """A model that gives the classes that stand for a missing cell no mass, so that a filled cell has a value."""

    def __init__(self, model: Callable[..., dict[str, Tensor]], codec: TableCodec) -> None:
        self.model = model
        ends = np.cumsum(codec.class_sizes, dtype=int)
        missing = [
            v.column.missing
            for v in codec.variables
            if isinstance(v, Classes) or (isinstance(v, Number) and v.size > 1)
        ]
        self.banned = torch.tensor([end - 1 for end, has in zip(ends, missing, strict=True) if has], dtype=torch.int64)

    def __call__(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        out = dict(self.model(x, t))
        if "classes" in out and len(self.banned):
            # finite, so that the check for NaN and infinity still says something
            out["classes"] = out["classes"].index_fill(1, self.banned, -1e9)
        return out


def known_cells(coded: Encoded, rng: torch.Generator) -> dict[str, Given]:
    """The known cells as conditions. A number behind a shut or unknown gate is none: it is drawn and not read."""
    rows = rows_of(coded, rng)
    known = {"classes": coded.classes_known, "numbers": coded.numbers_known & coded.present}
    return {name: Given(rows[name], known=known[name]) for name in rows}


def repeated(given: Given, n: int) -> Given:
    """The condition of one row for n rows."""
    assert given.known is not None  # made by known_cells
    return Given(given.value.expand(n, -1), known=given.known.expand(n, -1))
