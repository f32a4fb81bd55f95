"""The first-hitting step: exact, one element and one network call at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.generator import rows
from de_core.modality import expand
from de_core.rng import fork
from de_core.sampling.steppers import Move
from de_plugins.masked.unmask import coin, movable

if TYPE_CHECKING:
    from de_plugins.masked.modality import Masked

__all__ = ["first_hitting"]


def first_hitting(move: Move[Masked]) -> Tensor:
    """The reverse chain itself between t and s, event by event.

    A masked element is unmasked at the time t' with 1 - a_{t'} = (1 - a_t) u, u uniform, if that is later than s: the
    law of the chain, whatever p is. (Of n elements the first is then at (1 - a_t) u^{1/n}, any of them as likely.) At
    its time the network is called at the present state, and the element takes a class drawn from p(. | x_{t'}): no two
    are drawn from one call. The k-th events of all rows share a call, each row at its own time; a row with none left
    waits at s. Clocks of their own run together, each from its t to its s.

    Exact for any length of step where this modality moves alone; other modalities are held at their t, as in every
    joint step. Guidance mixes log-probabilities and renormalises. Source: Zheng et al. 2024 (2409.02908).

    Raises:
        DiffuseError: no second network call was offered.
    """
    clock = move.modality.clock
    draw = fork(move.draw)  # how many events there are depends on the rows
    lost, least = (expand(clock.lost(when), move.xt).double() for when in (move.t, move.s))
    hit = lost * coin(move)
    t, s = (expand(when, move.xt).double() for when in (move.t, move.s))
    share = torch.where(movable(move) & (hit > least), (t - clock.time_of(hit)) / (t - s), torch.inf)
    share, order = rows(share.clamp_min(0)).sort(1)
    x = move.xt
    for k in range(int((share < torch.inf).sum(1).max()) if len(x) else 0):
        now, happens = share[:, k], share[:, k] < torch.inf
        past = torch.where(happens, now, 1.0).reshape(-1, *[1] * (move.t.ndim - 1))
        when = torch.lerp(move.t.double(), move.s.double(), past).to(move.t.dtype)
        output, weak = move.call(x, when)
        where = torch.zeros_like(rows(x), dtype=torch.bool).scatter(1, order[:, k : k + 1], happens[:, None])
        x = move.modality.layout.draw(output, where.reshape(x.shape), x, draw, weak, move.weight)
    return x
