"""A table as tensors, and rows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

__all__ = ["Encoded", "joined", "stack", "take"]


@attrs.frozen(eq=False)
class Encoded:
    """A table as tensors.

    Args:
        classes: (n, D) int64, one column for every class column and every gate; column d is in [0,
            class_sizes[d]).
        numbers: (n, C) float64, mean 0 and variance 1 in training where present; 0 where it is not.
        present: (n, C) bool: the gate says that the number is there. False where the cell is a spike, missing
            or a hole.
        classes_known: (n, D) bool: False at holes, where `classes` is 0.
        numbers_known: (n, C) bool: False at holes. A spike or missing cell is known: its gate tells.
        shares: name of a group -> (n, k) float64, in the table's unit; 0 at holes, equal where it is not there.
        shares_present: name -> (n,) bool: the row is a composition, and all of its cells are known.
        shares_known: name -> (n, k) bool: False at holes.
    """

    classes: Tensor
    numbers: Tensor
    present: Tensor
    classes_known: Tensor
    numbers_known: Tensor
    shares: Mapping[str, Tensor] = attrs.Factory(dict)
    shares_present: Mapping[str, Tensor] = attrs.Factory(dict)
    shares_known: Mapping[str, Tensor] = attrs.Factory(dict)

    def __len__(self) -> int:
        return len(self.classes)


def take(coded: Encoded, index: Tensor) -> Encoded:
    """Some rows of a coded table."""
    return _each([coded], lambda parts: parts[0].index_select(0, index))


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Coded tables one below the other."""
    return _each(parts, torch.cat)


def _each(parts: Sequence[Encoded], change: Callable[[list[Tensor]], Tensor]) -> Encoded:
    """Every tensor of tables of one kind, changed."""
    out: dict[str, Any] = {}
    for field in attrs.fields(Encoded):
        found = [getattr(part, field.name) for part in parts]
        if isinstance(found[0], Tensor):
            out[field.name] = change(found)
        else:
            out[field.name] = {name: change([group[name] for group in found]) for name in found[0]}
    return Encoded(**out)


def stack(columns: list[np.ndarray], rows: int, dtype: Any) -> Tensor:
    """Columns (rows,) as one tensor (rows, columns)."""
    out = np.empty((rows, len(columns)), dtype=dtype)
    for index, column in enumerate(columns):
        out[:, index] = column
    return torch.from_numpy(out)
