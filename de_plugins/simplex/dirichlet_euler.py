"""Euler's step of the reverse Wright-Fisher diffusion, made to stay on the simplex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.rng import fork
from de_core.sampling.steppers import Move
from de_plugins.simplex._density import align
from de_plugins.simplex._wright_fisher import dirichlet

if TYPE_CHECKING:
    from de_plugins.simplex.modality import Simplex

__all__ = ["dirichlet_euler", "shape_of"]

_LONGEST = 0.3  # the longest step in WF-time times psi/2 or 1, whichever is larger; longer ones are cut
_SMALLEST_SHAPE = 1e-8  # a step at a face would ask for a gamma of shape 0


def dirichlet_euler(move: Move[Simplex]) -> Tensor:
    """X ~ Dir((1/h - 1) mu), mu = x + h [psi/2 (pi - x) + A s], h the step in WF-time.

    Mean mu and covariance h (diag mu - mu mu^T): the moments of Euler's step, and on the simplex always. A step too
    long for it is cut into equal ones with the same output. First order. Source: SPEC.md, "Simplex".
    """
    modality = move.modality
    start, end = modality.tau(move.t), modality.tau(move.s)
    scale = max(0.5 * modality.psi, 1.0)
    length = torch.where(move.t > move.s, start - end, 0.5 * _LONGEST / scale)
    pieces = (length * (scale / _LONGEST)).ceil().clamp_min(1)  # of each clock's own step
    x, h = move.xt, length / pieces
    draw = fork(move.draw)  # how many pieces there are hangs on whether anything moves at all
    for k in range(int(pieces.max()) if len(x) else 0):
        now = modality.clock_at(start - torch.minimum(pieces - 1, torch.full_like(h, k)) * h).clamp(0, 1)
        mu = x + expand(h, x) * modality.reverse_drift(move.output, x, now)
        x = torch.where(expand(k < pieces, x), dirichlet(shape_of(mu, h), draw, x.dtype), x)
    return x


def shape_of(mu: Tensor, h: Tensor | float) -> Tensor:
    """The parameters (1/h - 1) mu of a step's Dirichlet law.

    Args:
        mu: (..., K), x + h drift(x). Parts below zero are set to zero and the rest is scaled to sum one.
        h: step in WF-time, in (0, 1); a number or a tensor that broadcasts to (...) from the left.

    Returns:
        (..., K) float64, > 0.

    Raises:
        ValueError: a step outside (0, 1).
    """
    mu = mu.to(torch.float64).clamp(min=0)
    mu = mu / mu.sum(-1, keepdim=True)
    step = align(torch.as_tensor(h, dtype=torch.float64, device=mu.device), mu.shape[:-1])[..., None]
    if not bool(((step > 0) & (step < 1)).all()):
        raise ValueError(f"dirichlet_euler: expected steps h in (0, 1), got {float(step.min())} to {float(step.max())}")
    return ((1 / step - 1) * mu).clamp(min=_SMALLEST_SHAPE)
