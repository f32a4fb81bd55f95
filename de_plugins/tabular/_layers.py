"""Layers of the table network: the vectors of classes, the entry of numbers, and their principal directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core.networks import ClockFeatures

__all__ = ["FEATURES", "ClassTable", "Directions", "NumbersIn", "RowSums"]

_LEAST_VARIANCE = 1e-4  # of a direction: two columns that are the same differ by rounding
_BANDS = 2  # frequencies of the sines and cosines of a number
FEATURES = 4 + 2 * _BANDS  # of a number, as it enters


class ClassTable(nn.Module):
    """One vector of length ``width`` for each class of each column, (sum of sizes, width), held with few parameters.

    A column of at most ``rank`` classes has its vectors directly; a larger one as codes (size, rank) times a basis
    (rank, width) of its own, so that a column of a thousand classes costs a thousand short codes.

    Args:
        sizes: classes of each column, (D,).
        width: of a vector. rank: of a large column.

    At the start a sum of one vector a column has variance 1.
    """

    def __init__(self, sizes: Sequence[int], width: int, rank: int) -> None:
        super().__init__()
        small = [d for d, size in enumerate(sizes) if size <= rank]
        large = [d for d, size in enumerate(sizes) if size > rank]
        self.sizes = tuple(int(size) for size in sizes)
        self.small, self.large = ([sizes[d] for d in part] for part in (small, large))
        scale = 1 / math.sqrt(max(1, len(sizes)))
        self.rank, self.longest = rank, max((sizes[d] for d in large), default=0)
        self.direct = nn.Parameter(scale * torch.randn(sum(sizes[d] for d in small), width))
        self.codes = nn.Parameter(torch.randn(sum(sizes[d] for d in large), rank))
        self.bases = nn.Parameter(scale / math.sqrt(rank) * torch.randn(len(large), rank, width))
        # where the rows lie: `slots` spreads the codes over (large column, class) with padding, `order` brings the
        # rows of [direct; slots] into column order
        slots = torch.zeros(len(large), self.longest, dtype=torch.int64)
        starts, place, code = [0] * len(sizes), 0, 0
        for d in small:
            starts[d], place = place, place + sizes[d]
        for k, d in enumerate(large):
            slots[k, : sizes[d]] = torch.arange(code, code + sizes[d])
            starts[d], code = place + k * self.longest, code + sizes[d]
        order = [torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
        self.slots: Tensor
        self.order: Tensor
        self.register_buffer("slots", slots, persistent=False)
        self.register_buffer(
            "order", torch.cat(order) if order else torch.zeros(0, dtype=torch.int64), persistent=False
        )

    def forward(self) -> Tensor:
        """All vectors, column after column."""
        rows = self.direct
        if self.longest:
            spread = functional.embedding(self.slots, self.codes)
            rows = torch.cat([rows, torch.bmm(spread, self.bases).flatten(0, 1)])
        return functional.embedding(self.order, rows)

    def scores(self, asked: Tensor, bias: Tensor) -> Tensor:
        """Products of ``asked`` (B, width) with the vectors of all classes but the last of each column, plus ``bias``,
        (B, sum of sizes less columns). Those of a large column go through its basis, rank products a class in place of
        width."""
        count = len(self.bases)
        small, large = (asked @ self.direct.T).split(self.small, 1), iter(())
        if count:
            coded = (asked @ self.bases.flatten(0, 1).T).unflatten(1, (count, self.rank)).unbind(1)
            large = iter(zip(coded, self.codes.split(self.large), strict=True))
        own, out = iter(small), []
        for size, part in zip(self.sizes, bias.split([size - 1 for size in self.sizes]), strict=True):
            if size <= self.rank:
                out.append(next(own)[:, :-1] + part)
            else:
                through, codes = next(large)
                out.append(torch.addmm(part, through, codes[:-1].T))
        return torch.cat(out, 1)


class RowSums(torch.autograd.Function):
    """The sums of rows of a table, (rows, width), at an index (B, D): (B, width).

    As ``embedding_bag``; its gradient goes to the rows column by column, without the sort of all of the index.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows = len(table)
        return functional.embedding_bag(index, table, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (index,), (grad,) = ctx.saved_tensors, grad_outputs
        found = grad.new_zeros(ctx.rows, grad.shape[1])
        for column in index.T.contiguous():
            found = found.index_add_(0, column, grad)
        return found, None


class NumbersIn(nn.Module):
    """What numbers add to the width, linear in x, alpha x, alpha, sigma, sines and cosines of x of each number, where
    alpha = cos(pi t/2) and sigma = sin(pi t/2).

    Args:
        numbers: C. width: of what comes out.
        mixtures: of each number's features, that enter in their place, which takes fewer parameters; 0 is none.
    """

    def __init__(self, numbers: int, width: int, mixtures: int) -> None:
        super().__init__()
        self.clock, self.waves = ClockFeatures(1), ClockFeatures(_BANDS)
        mix = torch.randn(numbers, FEATURES, mixtures) / math.sqrt(FEATURES)
        self.mix = nn.Parameter(mix) if mixtures else None
        self.out = nn.Linear(numbers * (mixtures or FEATURES), width)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x and t (B, C) -> (B, width), and alpha (B, C)."""
        clock, own = self.clock(t), x[..., None]
        alpha = clock[..., :1]
        features = torch.cat([own, alpha * own, clock, self.waves(x)], 2)
        if self.mix is not None:
            features = torch.einsum("bcf,cfm->bcm", features, self.mix)
        return self.out(features.flatten(1)), alpha[..., 0]


class Directions(nn.Module):
    r"""Numbers along the principal directions of the training table, each at its own scale at every time.

    Let C = Q diag(l) Q' be the covariance of the numbers and x_i = alpha_i x0_i + sigma_i eps_i. Direction j of x has,
    where the clocks agree, the variance :math:`s_j^2 = \alpha^2 l_j + \sigma^2`, and v = alpha eps - sigma x0 along it,
    less its best linear prediction, has the variance :math:`l_j / s_j^2` where x0 is normal. So ``forward`` shows the
    network what differs between columns that move together at full size however little it is, and ``back`` takes
    outputs of unit size. Where clocks differ, alpha^2 and sigma^2 are means over the columns by the squares of Q.

    Args:
        numbers: C. count: k, the directions kept, those of least variance: the sharpest relations.
        covariance: (C, C) of the training rows; None before weights are loaded.
    """

    def __init__(self, numbers: int, count: int, covariance: Tensor | None) -> None:
        super().__init__()
        found = torch.eye(numbers, dtype=torch.float64) if covariance is None else covariance.double()
        variance, directions = torch.linalg.eigh((found + found.T) / 2)
        # of the table, not trained, and counted with the parameters all the same
        self.variance = nn.Parameter(variance[:count].clamp_min(_LEAST_VARIANCE).float(), requires_grad=False)
        self.directions = nn.Parameter(directions[:, :count].float(), requires_grad=False)

    def forward(self, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """x and alpha (B, C) -> x along the directions at unit size, and the size of v there; (B, k) each."""
        share = self.directions**2
        signal = (alpha**2) @ share
        scale = (signal * self.variance + (1 - signal).clamp_min(0.0)).clamp_min(_LEAST_VARIANCE).rsqrt()
        return (x @ self.directions) * scale, self.variance.sqrt() * scale

    def back(self, v: Tensor) -> Tensor:
        """(B, k) along the directions -> (B, C)."""
        return v @ self.directions.T
