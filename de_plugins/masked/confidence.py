"""Confidence-ordered unmasking: the surest elements first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.families.jump import guided_log_probs
from de_core.generator import rows
from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import movable, revealed, unmask

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["confidence"]


def confidence(move: Move[Masked]) -> Tensor:
    """Of each row as many elements as the analytic step unmasks on average, rounded up or down at random: those whose
    likeliest class has the largest (guided) probability, ties by place. Each takes a class drawn from p.

    The order looks at x_t alone and not at the classes drawn, so that one element at a time, with an exact network,
    the law is exact whatever the order; several at a time are drawn where p is surest, and independence costs least.
    In the spirit of Chang et al. 2022 (2202.04200, MaskGIT), whose order depends on what was drawn and sharpens the
    law. It reads the scores of every masked element.
    """
    where, layout = movable(move), move.modality.layout
    log_p = layout.rows(move.output, where)
    if move.weak is not None:
        log_p = guided_log_probs(log_p, layout.rows(move.weak, where), move.weight)
    sure = torch.full(move.xt.shape, -torch.inf, dtype=log_p.dtype, device=log_p.device)
    sure[where] = log_p.amax(-1)
    u = torch.rand(len(move.xt), 1, generator=move.draw, dtype=torch.float64, device=move.xt.device)
    count = (rows(torch.where(where, revealed(move), 0.0)).sum(1, keepdim=True) + u).floor()
    rank = rows(sure).argsort(dim=1, descending=True, stable=True).argsort(1)
    return unmask(move, where & (rank < count).reshape(where.shape))
