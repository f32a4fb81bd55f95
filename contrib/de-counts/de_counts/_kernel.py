"""A count thinned and added to: y = B + N, B ~ Binomial(x, kept), N ~ Poisson(rate). Its law, its moments, its draws.

The kernel of the immigration-death process, forward from any time to any later one, is of this kind, and so is the
reverse step. All in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from de_core.rng import fork

__all__ = ["draw", "thinned"]

_TINY = 1e-30
_MOST = 1e9  # newcomers in one draw: an untrained network's exp() can ask for more than an int64 holds


def thinned(y: Tensor, x: Tensor, kept: Tensor, lost: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log P(y | x), and given x and y the means of x - B (the dead), y - B (the newcomers) and B (the survivors).

    P(y | x) = sum_b C(x, b) kept^b lost^(x - b) e^-rate rate^(y - b)/(y - b)!, elementwise. The summands w_b have the
    ratio w_{b+1}/w_b = (x - b)(y - b)/(b + 1) kept/(lost rate), which falls in b: one mode, near the smaller root b* of
    (x - b)(y - b) kept = b lost rate. The second difference of log w is at most -1/(M - b) - 1/(b + 1) <= -4/(M + 1),
    M = min(x, y), so that what lies further than sqrt(20 (M + 1)) from the mode is below e^-40 of it, and is left out.

    Args:
        y, x: counts, int64 or whole numbers, broadcast together.
        kept, lost: probabilities, lost = 1 - kept without its cancellation; taken as at least 1e-30, as is ``rate``.
    """
    y, x, kept, lost, rate = torch.broadcast_tensors(y.double(), x.double(), kept, lost, rate)
    kept, lost, rate = (a.double().clamp_min(_TINY) for a in (kept, lost, rate))
    least = torch.minimum(x, y)
    most = int(least.max()) if least.numel() else 0
    reach = math.ceil(math.sqrt(20 * (most + 1))) + 2
    odds = lost * rate / kept
    total = x + y + odds
    mode = 2 * x * y / (total + (total**2 - 4 * x * y).clamp_min(0).sqrt())
    start = (mode.floor() - reach).clamp_min(0)
    b = start[..., None] + torch.arange(min(most, 2 * reach) + 1, device=x.device)
    ratio = (x[..., None] - b).clamp_min(0) * (y[..., None] - b).clamp_min(0) / ((b + 1) * odds[..., None])
    logs = torch.cat([torch.zeros_like(start)[..., None], ratio[..., :-1].log()], -1).cumsum(-1)
    first = (x + 1).lgamma() - (start + 1).lgamma() - (x - start + 1).lgamma() - (y - start + 1).lgamma()
    first = first + start * kept.log() + (x - start) * lost.log() + (y - start) * rate.log() - rate
    top = logs.amax(-1)
    weight = (logs - top[..., None]).exp()  # 0 where b > M
    total = weight.sum(-1)
    dead, newcomers, survivors = ((weight * a).sum(-1) / total for a in (x[..., None] - b, y[..., None] - b, b))
    return first + top + total.log(), dead, newcomers, survivors


def draw(x: Tensor, kept: Tensor, rate: Tensor, rng: torch.Generator) -> Tensor:
    """y, int64, of the shape of ``x``; at most 1e9 newcomers. Two streams of its own: how many random numbers a draw
    takes depends on the counts."""
    left = torch.binomial(x.double(), kept.double().expand(x.shape).contiguous(), generator=fork(rng))
    came = torch.poisson(rate.double().clamp_max(_MOST).expand(x.shape).contiguous(), generator=fork(rng))
    return left.to(torch.int64) + came.to(torch.int64)
