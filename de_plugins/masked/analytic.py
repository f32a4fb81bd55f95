"""The analytic step: exact given the prediction at x_t."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import by_chance, revealed

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["analytic"]


def analytic(move: Move[Masked]) -> Tensor:
    """Each masked element is unmasked with probability (a_s - a_t)/(1 - a_t) and takes a class drawn from p(. | x_t).

    Elements unmasked together are drawn independently of each other, the step's only error. Guidance mixes
    log-probabilities and renormalises, so the schedule stays. Source: Sahoo et al. 2024 (2406.07524), Shi et al. 2024
    (2406.04329); guidance: Schiff et al. 2024 (2412.10193).
    """
    return by_chance(move, revealed(move))
