"""What the steppers of a masked modality share: which elements may move, and how the chosen ones take a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.steppers import Move

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["by_chance", "coin", "frozen_rate", "movable", "revealed", "unmask"]


def movable(move: Move[Masked]) -> Tensor:
    """The elements that are masked and whose clock moves, (B, *event) bool."""
    return (move.xt == move.modality.mask(move.xt.device)) & move.moving()


def coin(move: Move[Masked]) -> Tensor:
    """One uniform an element, (B, *event) float64."""
    return torch.rand(move.xt.shape, generator=move.draw, dtype=torch.float64, device=move.xt.device)


def by_chance(move: Move[Masked], chance: Tensor) -> Tensor:
    """x_t with each element that may move unmasked with probability ``chance``, each by itself."""
    return unmask(move, movable(move) & (coin(move) < chance))


def unmask(move: Move[Masked], where: Tensor) -> Tensor:
    """x_t with a class drawn from the guided output at the elements ``where``, each by itself, (B, *event)."""
    return move.modality.layout.draw(move.output, where, move.xt, move.draw, move.weak, move.weight)


def revealed(move: Move[Masked]) -> Tensor:
    """(a_s - a_t)/(1 - a_t): the exact chance that a masked element is unmasked between t and s, float64, shaped to
    multiply x."""
    return expand(move.modality.clock.revealed(move.t, move.s), move.xt).double()


def frozen_rate(move: Move[Masked]) -> Tensor:
    """(t - s) w(t) Z: the expected number of jumps of a masked element at the rates of time t, float64, shaped to
    multiply x.

    Z = sum_y p_strong(y)^w p_weak(y)^(1-w) under guidance, which mixes the log-rates and leaves the sum as it comes;
    1 without. Source: Nisonoff et al. 2024 (2406.01572).
    """
    mean = expand((move.t - move.s) * move.modality.clock.reverse_hazard(move.t), move.xt).double()
    if move.weak is None:
        return mean
    where, layout = movable(move), move.modality.layout
    strong, weak = (layout.rows(output, where).double().clamp_min(-1e4) for output in (move.output, move.weak))
    mean = mean.expand(move.xt.shape).clone()
    mean[where] *= (move.weight * strong + (1 - move.weight) * weak).exp().sum(-1)
    return mean
