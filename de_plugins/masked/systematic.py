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
    ceiling of the sum of the chances. One uniform a row is laid over the cumulative chances in random order; a row
    whose sum is at most 1 has at most one element picked, whatever the order, and keeps its own.

    Source: Madow 1949, On the theory of systematic sampling.
    """
    flat = rows(chance)
    keys = torch.rand(flat.shape, generator=generator, device=flat.device)
    u = torch.rand(len(flat), 1, generator=generator, device=flat.device, dtype=flat.dtype)
    crowded = flat.sum(1, keepdim=True) > 1
    if not bool(crowded.any()):
        return _crossed(u, flat).reshape(chance.shape)
    own = torch.arange(flat.shape[1], device=flat.device, dtype=keys.dtype)
    order = torch.where(crowded, keys, own).argsort(1)
    found = _crossed(u, flat.gather(1, order))
    return torch.zeros_like(found).scatter(1, order, found).reshape(chance.shape)


def _crossed(u: Tensor, chance: Tensor) -> Tensor:
    """Where u plus the cumulative chances passes a whole number, (B, L) bool."""
    marks = torch.cat([u, u + chance.cumsum(1)], 1).floor()
    return marks[:, 1:] > marks[:, :-1]
