"""Systematic unmasking: the analytic step's chances without the scatter of their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.generator import rows
from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import movable, revealed, unmask

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["systematic"]


def systematic(move: Move[Masked]) -> Tensor:
    """Each masked element is unmasked with the analytic step's chance, and of each row as many as the sum of the
    chances, rounded up or down.

    With no more elements than steps they are unmasked one at a time; the order is random and the optimal p does not
    need the clock (Ou et al. 2024, 2406.03736), so the law stays exact. Guidance as in the analytic step.
    """
    return unmask(move, picked(torch.where(movable(move), revealed(move), 0.0), move.draw))


def picked(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Which elements of each row are picked, bool: element l with probability chance[l], and of each row floor or
    ceiling of the sum of the chances. One uniform a row is laid over the cumulative chances in random order.

    Source: Madow 1949, On the theory of systematic sampling.
    """
    flat = rows(chance)
    order = torch.rand(flat.shape, generator=generator, device=flat.device).argsort(1)
    u = torch.rand(len(flat), 1, generator=generator, device=flat.device, dtype=flat.dtype)
    marks = torch.cat([u, u + flat.gather(1, order).cumsum(1)], 1).floor()
    found = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, marks[:, 1:] > marks[:, :-1])
    return found.reshape(chance.shape)
