"""Tau-leaping: Poisson numbers of jumps at the rates of time t."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import by_chance, frozen_rate

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["tau_leaping", "tau_leaping_paper"]


def tau_leaping(move: Move[Masked]) -> Tensor:
    """A Poisson number of jumps with mean z = (t - s) w(t) Z; any of them moves the element, to the class of the first.

    It moves with probability 1 - e^-z. First order. Guidance mixes log-rates, raw: Z is their sum. Source: Campbell et
    al. 2022 (2205.14987).
    """
    return by_chance(move, -torch.expm1(-frozen_rate(move)))


def tau_leaping_paper(move: Move[Masked]) -> Tensor:
    """The same with the jumps of an element dropped when more than one fires, so that it moves with probability z e^-z.

    It loses jumps where z is not small: near t = 0, where z is about 1, only .37 of the elements move and what is left
    is filled in by ``finish``. Source: the authors' released samplers for Rojas et al. 2025 (2506.07903), Algorithm 3.
    """
    mean = frozen_rate(move)
    return by_chance(move, mean * torch.exp(-mean))
