"""Heun's step as the poster prints it: the second stage's coefficients at t."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from de_core.modality import expand
from de_core.sampling.steppers import Move

if TYPE_CHECKING:
    from de_plugins.gaussian.modality import Gaussian

__all__ = ["heun_paper"]


def heun_paper(move: Move[Gaussian]) -> tuple[Tensor, None]:
    """x_s = x_t + (s - t) (v + v')/2 with v = f x_t - g^2/2 score(x_t, t), x_hat = x_t + (s - t) v and
    v' = f x_hat - g^2/2 score(x_hat, s), f and g at t in both.

    First order: v' wants f and g at s, as "heun" has them. For parity on the poster's path, schedule "linear"; on the
    cosine path f and g are infinite at t = 1 and capped there (SPEC.md, "Ends of time"). Source: Rojas et al. 2025
    (2506.07903), Algorithms 4 and 5 of the poster.

    Raises:
        DiffuseError: no second network call was offered.
    """
    modality, x, t, s = move.modality, move.xt, move.t, move.s
    f, g2 = (expand(c, x) for c in (modality.path.drift(t), modality.path.diffusion(t)))
    first = f * x - 0.5 * g2 * modality.score(move.output, x, t)
    ahead = x + expand(s - t, x) * first
    output, weak = move.call(ahead, s)
    second = f * ahead - 0.5 * g2 * modality.score(modality.blend(output, weak, move.weight), ahead, s)
    return x + expand(s - t, x) * 0.5 * (first + second), None
