"""Euler's step of the reverse chain: one jump at most, at the rates of time t."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import by_chance, frozen_rate

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["euler"]


def euler(move: Move[Masked]) -> Tensor:
    """Each masked element is unmasked with probability min(1, (t - s) w(t) Z) and takes a class drawn from p.

    With a = 1 - t and no guidance this is the analytic step; else first order. Guidance mixes log-rates, raw: Z is
    their sum. Source: Lou et al. 2024 (2310.16834), section 4.
    """
    return by_chance(move, frozen_rate(move))
