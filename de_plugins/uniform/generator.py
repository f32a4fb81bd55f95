"""The rates of the uniform chain, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.generator import JumpGenerator, rows

if TYPE_CHECKING:
    from de_plugins.uniform.modality import Uniform

__all__ = ["UniformGenerator"]


class UniformGenerator(JumpGenerator):
    """L f(x) = h/K sum_l sum_j [f(x with element l = j) - f(x)]. Neighbours of an element: x+1, x+2, ... modulo K."""

    def __init__(self, modality: Uniform, hazard: Tensor) -> None:
        self.modality, self.hazard = modality, hazard

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        event, count, k = self.modality.event_shape, self.modality.elements, self.modality.num_classes
        flat = x.reshape(len(x), count)
        value = (flat[..., None] + 1 + torch.arange(k - 1, device=x.device)) % k
        own = torch.eye(count, dtype=torch.bool, device=x.device)[:, None]
        y = torch.where(own, value[..., None], flat[:, None, None]).reshape(len(x), count * (k - 1), *event)
        rate = self.hazard if self.hazard.ndim == 0 else rows(self.hazard)
        rate = (rate.expand(len(x), count) / k)[..., None].expand(-1, -1, k - 1).flatten(1)
        return y, rate, rate

    def states(self) -> Tensor:
        axes = [torch.arange(self.modality.num_classes)] * self.modality.elements
        return torch.cartesian_prod(*axes).reshape(-1, *self.modality.event_shape)
