"""Where rows to train on come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["Source", "TensorSource"]


class Source(Protocol):
    """Rows to train on."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Clean rows by index, (B,) int64; what is random about them (augmentation, captions) is drawn from ``rng``."""
        ...


@attrs.frozen(eq=False)
class TensorSource:
    """Rows that lie in memory: name -> (n, *event)."""

    tensors: Mapping[str, Tensor]

    def __attrs_post_init__(self) -> None:
        sizes = {name: len(x) for name, x in self.tensors.items()}
        if len(set(sizes.values())) != 1 or not min(sizes.values()):
            raise DiffuseError(f"training data: expected one number of rows, at least 1, got {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {name: x[index] for name, x in self.tensors.items()}
