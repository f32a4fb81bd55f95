"""Sums that hold in training and are kept when cells are drawn: columns kept apart whose rows add up to a total."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from de_plugins.tabular._plain import filled_in, from_plain, to_plain
from de_plugins.tabular._variables import Number
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["close_sums"]

_FAR = 0.5  # of the total: a row whose sum is further off is one of those that do not add up


def close_sums(codec: TableCodec, frame: pd.DataFrame, free: Mapping[Any, Any] | pd.DataFrame) -> pd.DataFrame:
    """A decoded table in which the rows of every group with ``close`` add up.

    The greatest of a row's free cells takes what the others leave: it is moved by the smallest share of itself. A row
    stays as it is where a cell is missing, nothing is free, the sum is far off, or the cell would leave the range that
    its column had in training.

    Args:
        free: column -> whether its cells may move, one bool or one a row.
    """
    numbers = {v.column.name: v for v in codec.variables if isinstance(v, Number)}
    for group in codec.schema.groups:
        if not group.close or not all(name in numbers for name in group.columns):
            continue
        dtype = numbers[group.columns[0]].column.dtype
        plain = [to_plain(column_of(frame, name), dtype, name) for name in group.columns]
        x = np.stack([values.astype(np.float64) for values, _ in plain], 1)
        may = np.stack([np.broadcast_to(free[name], len(x)) for name in group.columns], 1)
        off = group.total - x.sum(1)
        k = np.where(may, x, -np.inf).argmax(1)
        moved = x[np.arange(len(x)), k] + off
        ends = np.stack([numbers[name].grid.from_index(numbers[name].ends, dtype) for name in group.columns])
        good = (ends[k, 0] <= moved) & (moved <= ends[k, 1]) & may.any(1) & (np.abs(off) <= _FAR * group.total)
        good &= ~np.stack([missing for _, missing in plain], 1).any(1)
        for c, name in enumerate(group.columns):
            here = good & (k == c)
            if here.any():
                values, missing = plain[c]
                values = np.where(here, np.rint(moved) if dtype.plain == "int" else moved, values).astype(values.dtype)
                frame[name] = filled_in(column_of(frame, name), from_plain(values, missing, dtype), here, dtype, name)
    return frame
