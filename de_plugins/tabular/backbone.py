"""The default network of a table: a fused gated residual MLP over all columns, and its size from a preset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core.errors import DiffuseError
from de_core.networks import ClockFeatures, GatedBlock
from de_plugins.tabular._group_layers import GroupHead, GroupsIn, count_group_parameters

__all__ = ["NARROW", "PRESETS", "ClassTable", "TableMLP", "count_parameters"]

PRESETS = {"nano": 64_000, "small": 300_000, "base": 2_000_000}
"""Most parameters of each preset, all counted: embedding tables, heads and biases too."""

NARROW = 64
"""A narrower network gives up rank of its class tables for width, and is short of room all the same."""

_DEPTH = {"nano": 2, "small": 3, "base": 4}
_RANKS = {"nano": 8, "small": 16, "base": 32}
_LOW = 4  # the rank down to which a narrow network gives up
_LEAST_VARIANCE = 1e-4  # of a direction: two columns that are the same differ by rounding
_BANDS = 2  # frequencies of the sines and cosines of a number


class ClassTable(nn.Module):
    """One vector of length ``width`` for each class of each column, (sum of sizes, width), held with few parameters.

    A column of at most ``rank`` classes has its vectors directly; a larger one as codes (size, rank) times a basis
    (rank, width) of its own, so that a column of a thousand classes costs a thousand short codes.

    Args:
        sizes: classes of each column, (D,).
        width: of a vector. rank: of a large column.
        zero: start with all vectors zero, as an output layer does; else with variance 1/D, so that a sum of one vector
            a column has variance 1.
    """

    def __init__(self, sizes: Sequence[int], width: int, rank: int, *, zero: bool) -> None:
        super().__init__()
        small = [d for d, size in enumerate(sizes) if size <= rank]
        large = [d for d, size in enumerate(sizes) if size > rank]
        scale = 0.0 if zero else 1 / math.sqrt(max(1, len(sizes)))
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


def count_directions(numbers: int, most: int) -> int:
    """How many directions a network of at most ``most`` parameters keeps: all, while they are a tenth of it."""
    return min(numbers, most // (10 * numbers)) if numbers > 1 else 0


class TableMLP(nn.Module):
    """Class scores and velocities of all columns from all noisy columns and the clocks of the numbers.

    Groups of shares enter by a linear layer of their own and have a head of their own (``_group_layers``).

    The first layer is linear in the one-hot classes (the mask is one more class of each column) and, for every
    number, in x, alpha x, sines and cosines of x, alpha and sigma, where alpha = cos(pi t/2). A masked column needs
    no clock: what it shows is all there is to know (Ou et al. 2024, 2406.03736). The velocity of a number is a + b x
    with a and b read from the last layer, which is exact where the posterior is normal, plus a part along the
    principal directions of the table (``Directions``), along which the entry sees it too. At the start a class has its
    training share and the velocity is 0, the best constant for a standard normal column.

    Args:
        class_sizes: (D,). numbers: C.
        width, hidden, depth: of the gated blocks. rank: see ``ClassTable``. directions: see ``Directions``.
        marginals: (sum of class sizes,) log shares of the classes in training; None starts uniform.
        groups: name of a group -> its number of parts.
        covariance: (C, C) of the numbers in training; None before weights are loaded.
    """

    takes_groups = True
    takes_covariance = True
    orthogonal = ("blocks",)

    def __init__(
        self,
        class_sizes: Sequence[int],
        numbers: int,
        *,
        width: int,
        hidden: int,
        depth: int,
        rank: int,
        directions: int = 0,
        marginals: Tensor | None = None,
        groups: Mapping[str, int] | None = None,
        covariance: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.class_sizes, self.numbers = tuple(int(size) for size in class_sizes), int(numbers)
        self.width = width
        sizes = {"width": width, "hidden": hidden, "depth": depth, "rank": rank}
        self.settings = sizes | ({"directions": directions} if directions else {})
        shown = [size + 1 for size in self.class_sizes]
        self.enter = ClassTable(shown, width, rank, zero=False)
        self.offsets: Tensor
        self.register_buffer("offsets", torch.tensor([0, *shown]).cumsum(0)[: len(shown)], persistent=False)
        self.masks: Tensor
        self.register_buffer("masks", torch.tensor(self.class_sizes, dtype=torch.int64), persistent=False)
        self.clock, self.waves = ClockFeatures(1), ClockFeatures(_BANDS)
        self.measure = nn.Linear(self.numbers * (4 + 2 * _BANDS), width) if self.numbers else None
        self.bias = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(GatedBlock(width, hidden) for _ in range(depth))
        self.scores = ClassTable(self.class_sizes, width, rank, zero=True)
        total = sum(self.class_sizes)
        # not trained, so that what is learned, and decays, is the difference from the training shares
        self.shares = nn.Parameter(torch.zeros(total) if marginals is None else marginals.float(), requires_grad=False)
        self.score_bias = nn.Parameter(torch.zeros(total))
        self.velocity = nn.Linear(width, 2 * self.numbers) if self.numbers else None
        if self.velocity is not None:
            nn.init.zeros_(self.velocity.weight)
            nn.init.zeros_(self.velocity.bias)
        self.directions = Directions(self.numbers, directions, covariance) if directions else None
        if directions:
            self.along_in = nn.Linear(directions, width, bias=False)
            self.along_out = nn.Linear(width, directions)
            nn.init.zeros_(self.along_out.weight)
            nn.init.zeros_(self.along_out.bias)
        self.groups_in = GroupsIn(groups, width) if groups else None
        self.group_head = GroupHead(groups, width) if groups else None

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        h, out, along = self.bias, {}, None
        if self.class_sizes:
            h = h + functional.embedding_bag(x["classes"] + self.offsets, self.enter(), mode="sum")
        if self.measure is not None:
            number, clock = x["numbers"], self.clock(t["numbers"])
            alpha = clock[..., 0]
            features = [number, alpha * number, clock.flatten(1), self.waves(number).flatten(1)]
            h = h + self.measure(torch.cat(features, 1))
            if self.directions is not None:
                along = self.directions(number, alpha)
                h = h + self.along_in(along[0])
        if self.groups_in is not None:
            h = h + self.groups_in(x, t)
        for block in self.blocks:
            h = block(h)
        h = functional.layer_norm(h, (self.width,))
        if self.class_sizes:
            out["classes"] = self._scored(h, x["classes"], t["classes"])
        if self.velocity is not None:
            level, slope = self.velocity(h).chunk(2, 1)
            out["numbers"] = level + slope * x["numbers"]
            if self.directions is not None and along is not None:
                out["numbers"] = out["numbers"] + self.directions.back(self.along_out(h) * along[1])
        return out if self.group_head is None else out | self.group_head(h, x, t)

    def _scored(self, h: Tensor, classes: Tensor, t: Tensor) -> Tensor:
        """Scores where a class is masked or its clock says that it might be; of other rows nothing is asked: 0.

        In training by row. In drawing all rows or none, as while numbers are drawn: a product of as many rows as are
        asked for would make a row's last digit hang on the others.
        """
        index = ((classes == self.masks) | (t > 0)).any(1).nonzero()[:, 0]
        drawing = not torch.is_grad_enabled()
        if drawing and not len(index):
            return h.new_zeros(()).expand(len(h), len(self.shares))
        weights, bias = self.scores(), self.shares + self.score_bias
        if drawing or len(index) == len(h):
            return functional.linear(h, weights, bias)
        found = functional.linear(h.index_select(0, index), weights, bias)
        return found.new_zeros(len(h), len(bias)).index_copy(0, index, found)

    @classmethod
    def for_preset(
        cls, preset: str, class_sizes: Sequence[int], numbers: int, groups: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The settings of the widest network within the preset's parameters.

        One narrower than 64 gives up rank for width, down to a rank of 4.

        Raises:
            DiffuseError: an unknown preset, or a table whose smallest network is larger.
        """
        if preset not in PRESETS:
            raise DiffuseError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        most, depth = PRESETS[preset], _DEPTH[preset]
        directions = count_directions(numbers, most)

        def size(width: int, hidden: int, rank: int) -> int:
            sizes = {"width": width, "hidden": hidden, "depth": depth, "rank": rank, "directions": directions}
            return count_parameters(class_sizes, numbers, groups=groups, **sizes)

        best: dict[str, Any] | None = None
        for rank in [r for r in (32, 16, 12, 8, 6, 4, 3, 2, 1) if r <= _RANKS[preset]]:
            # the widest network whose gates are as wide as it is; then wider gates from what is left
            width = max((w for w in range(8, 1025, 8) if size(w, w, rank) <= most), default=0)
            held = best["width"] if best else 0
            cheap = held < NARROW and rank >= _LOW  # below, a low rank costs more than a narrow layer
            if width > (held if cheap else 2 * held):
                spare = most - size(width, width, rank)
                hidden = width + spare // (depth * (3 * width + 2))
                best = {"width": width, "hidden": hidden, "depth": depth, "rank": rank, "directions": directions}
        if best is None:
            least, variables = size(8, 8, 1), len(class_sizes) + numbers + len(groups or ())
            raise DiffuseError(
                f"preset '{preset}' has at most {most:,} parameters, but a table of "
                f"{variables} variables with {sum(class_sizes):,} classes needs {least:,} at the "
                "least; take a larger preset, or lower max_classes in the schema"
            )
        return best


def count_parameters(
    class_sizes: Sequence[int],
    numbers: int,
    *,
    width: int,
    hidden: int,
    depth: int,
    rank: int,
    directions: int = 0,
    groups: Mapping[str, int] | None = None,
) -> int:
    """Parameters of a ``TableMLP``, without making it."""

    def table(sizes: Sequence[int]) -> int:
        return sum(n * width if n <= rank else n * rank + rank * width for n in sizes)

    blocks = depth * (width * 2 * hidden + 2 * hidden + hidden * width + width)
    entry = table([n + 1 for n in class_sizes]) + width + (numbers * (4 + 2 * _BANDS) * width + width if numbers else 0)
    heads = table(class_sizes) + 2 * sum(class_sizes) + 2 * numbers * (width + 1)
    along = directions * (numbers + 1 + 2 * width + 1)
    return blocks + entry + heads + along + count_group_parameters(groups or {}, width)
