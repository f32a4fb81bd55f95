"""The rates of the absorbing chain, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.generator import JumpGenerator, rows

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["AbsorbingGenerator"]


class AbsorbingGenerator(JumpGenerator):
    """L f(x) = h sum_l [f(x with element l masked) - f(x)] over unmasked l.

    Neighbours come in ``largest`` slots an element: a masked element's are its classes (rate in h, rate out 0); an
    unmasked one's first is the mask (rate out h, rate in 0), the others are padding.
    """

    def __init__(self, modality: Masked, hazard: Tensor) -> None:
        self.modality, self.hazard = modality, hazard

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layout, event = self.modality.layout, self.modality.event_shape
        count, k = self.modality.elements, layout.largest
        flat = x.reshape(len(x), count)
        mask = layout.sizes(x.device).expand(event).reshape(count)
        slots = torch.arange(k, device=x.device)
        masked = (flat == mask)[..., None]
        real = slots < mask[:, None]
        value = torch.where(masked & real, slots, flat[..., None])
        value = torch.where(~masked & (slots == 0), mask[:, None], value)
        rate = self.hazard if self.hazard.ndim == 0 else rows(self.hazard)
        rate = rate.expand(len(x), count)[..., None]
        out = torch.where(~masked & (slots == 0), rate, 0.0).flatten(1)
        into = torch.where(masked & real, rate, 0.0).flatten(1)
        own = torch.eye(count, dtype=torch.bool, device=x.device)[:, None]
        y = torch.where(own, value[..., None], flat[:, None, None])
        return y.reshape(len(x), count * k, *event), out, into

    def states(self) -> Tensor:
        event = self.modality.event_shape
        sizes = self.modality.layout.sizes(torch.device("cpu")).expand(event).reshape(-1).tolist()
        return torch.cartesian_prod(*[torch.arange(n + 1) for n in sizes]).reshape(-1, *event)
