"""The default network of a table: a fused gated residual MLP over all columns, and its size from a preset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core.errors import DiffuseError
from de_core.networks import GatedBlock
from de_plugins.tabular._group_layers import GroupHead, GroupsIn, count_group_parameters
from de_plugins.tabular._layers import FEATURES, ClassTable, Directions, NumbersIn, RowSums

__all__ = ["PRESETS", "TableMLP", "count_directions", "count_parameters"]

PRESETS = {"nano": 64_000, "small": 300_000, "base": 2_000_000}
"""Most parameters of each preset, all counted: embedding tables, heads and biases too."""

_DEPTH = {"nano": 2, "small": 3, "base": 4}
_NARROW = 64  # a narrower network gives up rank of its class table and features of its numbers for width
_PASSES = 3  # times that the blocks are passed where numbers are drawn together; to classes it is next to nothing
_WIDTHS = (4, *range(8, 1025, 8))  # the first for a thousand columns and more
_RANKS = {"nano": 8, "small": 16, "base": 32}
_LOW = 4  # the rank down to which a narrow network gives up
_MIXTURES = 3  # of its features, that enter a narrow network in their place
_SHAPES = (
    *((rank, 0) for rank in (32, 16, 12, 8, 6, _LOW)),
    *((rank, _MIXTURES) for rank in (_LOW, 3, 2, 1)),
)  # ranks and mixtures, in the order in which they are given up


def count_directions(numbers: int, most: int) -> int:
    """How many directions a network of at most ``most`` parameters keeps: all, while they are a tenth of it."""
    return min(numbers, most // (10 * numbers)) if numbers > 1 else 0


class TableMLP(nn.Module):
    """Class scores and velocities of all columns from all noisy columns and the clocks of the numbers.

    The gated blocks are passed ``passes`` times, with the same weights: depth without parameters. One table of vectors
    holds the classes: of a row's own the vectors enter, and the score of a class is the product of its vector and what
    the network asks for.

    Groups of shares enter by a linear layer of their own and have a head of their own (``_group_layers``).

    The first layer is linear in the one-hot classes (the mask is one more class of each column) and in features of the
    numbers (``NumbersIn``). A masked column needs no clock: what it shows is all there is to know (Ou et al. 2024,
    2406.03736). The velocity of a number is a + b x with a and b read from the last layer, which is exact where the
    posterior is normal, plus a part along the principal directions of the table (``Directions``), along which the entry
    sees it too. At the start a class has its training share and the velocity is 0, the best constant for a standard
    normal column.

    Args:
        class_sizes: (D,). numbers: C.
        width, hidden, depth, passes: of the gated blocks.
        rank: see ``ClassTable``. mixtures: see ``NumbersIn``. directions: see ``Directions``.
        marginals: (sum of class sizes,) log shares of the classes in training; None starts uniform.
        groups: name of a group -> its number of parts.
        covariance: (C, C) of the numbers in training; None before weights are loaded.
        spikes: for each number its gate among the classes, (C,), -1 for none, and the score of the value that each of
            the gate's classes says, (C, largest), NaN for none: what then enters is that score, clean, in place of the
            noise behind the gate, so that it stands among the other numbers where its value does.

    Source: blocks passed again, Dehghani et al. 2019 (1807.03819); one table in and out, Press and Wolf 2017
    (1608.05859).
    """

    takes_groups = True
    takes_covariance = True
    takes_spikes = True
    orthogonal = ("blocks",)

    def __init__(
        self,
        class_sizes: Sequence[int],
        numbers: int,
        *,
        width: int,
        hidden: int,
        depth: int,
        passes: int,
        rank: int,
        mixtures: int = 0,
        directions: int = 0,
        marginals: Tensor | None = None,
        groups: Mapping[str, int] | None = None,
        covariance: Tensor | None = None,
        spikes: tuple[Sequence[int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.class_sizes, self.numbers = tuple(int(size) for size in class_sizes), int(numbers)
        self.width, self.passes = width, passes
        sizes = {"width": width, "hidden": hidden, "depth": depth, "passes": passes, "rank": rank}
        more = {"mixtures": mixtures, "directions": directions}
        self.settings = sizes | {name: value for name, value in more.items() if value}
        self.spiked = spikes is not None
        if spikes is not None:
            self.settings["spiked"] = True
            gates = torch.tensor(spikes[0])
            levels = functional.pad(
                spikes[1].float(), (0, 1 + max(self.class_sizes) - spikes[1].shape[1]), value=math.nan
            )
            levels[gates < 0] = math.nan
            self.gates: Tensor
            self.levels: Tensor
            self.register_buffer("gates", gates.clamp_min(0), persistent=False)
            self.register_buffer("levels", levels, persistent=False)
        shown = [size + 1 for size in self.class_sizes]
        self.table = ClassTable(shown, width, rank)
        offsets = torch.tensor([0, *shown]).cumsum(0)
        self.masks: Tensor
        self.offsets: Tensor
        self.own: Tensor
        self.register_buffer("masks", torch.tensor(self.class_sizes, dtype=torch.int64), persistent=False)
        self.register_buffer("offsets", offsets[: len(shown)], persistent=False)
        # the rows of the table that are no mask
        self.register_buffer("own", _without(int(offsets[-1]), self.offsets + self.masks), persistent=False)
        self.numbers_in = NumbersIn(self.numbers, width, mixtures) if self.numbers else None
        self.bias = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(GatedBlock(width, hidden) for _ in range(depth))
        self.asked = nn.Linear(width, width, bias=False) if self.class_sizes else None
        # a step of Adam, of one size in each entry of `asked`, which the columns share, moves scores as far as one in
        # vectors of their own would
        self.unit = len(shown) / width
        if self.asked is not None:
            nn.init.zeros_(self.asked.weight)
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
        h, out, along, table = self.bias, {}, None, self.table()
        if self.class_sizes:
            h = h + RowSums.apply(table, x["classes"] + self.offsets)
        if self.numbers_in is not None:
            numbers, times = self._entering(x, t)
            shown, alpha = self.numbers_in(numbers, times)
            h = h + shown
            if self.directions is not None:
                along = self.directions(numbers, alpha)
                h = h + self.along_in(along[0])
        if self.groups_in is not None:
            h = h + self.groups_in(x, t)
        h = self.passed(h)
        if self.asked is not None:
            out["classes"] = self._scored(self.asked, table, h, x["classes"], t["classes"])
        if self.velocity is not None:
            level, slope = self.velocity(h).chunk(2, 1)
            out["numbers"] = level + slope * x["numbers"]
            if self.directions is not None and along is not None:
                out["numbers"] = out["numbers"] + self.directions.back(self.along_out(h) * along[1])
        return out if self.group_head is None else out | self.group_head(h, x, t)

    def _entering(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The numbers as they enter, and their clocks: behind a gate that says a value that value, at t = 0."""
        if not self.spiked:
            return x["numbers"], t["numbers"]
        level = self.levels[torch.arange(self.numbers, device=self.levels.device), x["classes"][:, self.gates]]
        none = level.isnan()
        return torch.where(none, x["numbers"], level.to(x["numbers"].dtype)), torch.where(none, t["numbers"], 0.0)

    @property
    def narrow(self) -> bool:
        """Whether its parameters are few for such a table: it gave up features of the numbers, or was narrow still."""
        return self.width < _NARROW or "mixtures" in self.settings

    def passed(self, h: Tensor) -> Tensor:
        """(B, width) through the blocks, ``passes`` times, at unit size."""
        for _ in range(self.passes):
            for block in self.blocks:
                h = block(h)
        return functional.layer_norm(h, (self.width,))

    def _scored(self, asked: nn.Linear, table: Tensor, h: Tensor, classes: Tensor, t: Tensor) -> Tensor:
        """Scores where a class is masked or its clock says that it might be; of other rows nothing is asked: 0.

        In training by row. In drawing all rows or none, as while numbers are drawn: a product of as many rows as are
        asked for would make a row's last digit hang on the others.
        """
        index = ((classes == self.masks) | (t > 0)).any(1).nonzero()[:, 0]
        drawing = not torch.is_grad_enabled()
        if drawing and not len(index):
            return h.new_zeros(()).expand(len(h), len(self.shares))
        bias = self.shares + self.score_bias
        if drawing:
            return self.table.scores(self.unit * asked(h), bias)
        weights = self.unit * functional.embedding(self.own, table)
        if len(index) == len(h):
            return functional.linear(asked(h), weights, bias)
        found = functional.linear(asked(h.index_select(0, index)), weights, bias)
        return found.new_zeros(len(h), len(bias)).index_copy_(0, index, found)

    @classmethod
    def for_preset(
        cls, preset: str, class_sizes: Sequence[int], numbers: int, groups: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The settings of the widest network within the preset's parameters.

        One narrower than 64 gives up rank for width, down to a rank of 4, then features of its numbers for mixtures.

        Raises:
            DiffuseError: an unknown preset, or a table whose smallest network is larger.
        """
        if preset not in PRESETS:
            raise DiffuseError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        most, depth = PRESETS[preset], _DEPTH[preset]
        directions = count_directions(numbers, most)
        passes = _PASSES if numbers + sum((groups or {}).values()) > 1 else 1

        def sized(width: int, rank: int, mixtures: int) -> tuple[int, dict[str, Any]]:
            parts = {"width": width, "hidden": width, "depth": depth, "passes": passes, "rank": rank}
            parts |= {"mixtures": mixtures, "directions": directions if width > _WIDTHS[0] else 0}
            return count_parameters(class_sizes, numbers, groups=groups, **parts), parts

        best: dict[str, Any] | None = None
        for rank, mixtures in _SHAPES:
            if rank > _RANKS[preset]:
                continue
            # the widest network whose gates are as wide as it is; then wider gates from what is left
            fits = (sized(width, rank, mixtures) for width in _WIDTHS)
            count, found = max((f for f in fits if f[0] <= most), key=lambda f: f[0], default=(0, {"width": 0}))
            held = best["width"] if best else 0
            cheap = held < _NARROW and rank >= _LOW  # below, a low rank costs more than a narrow layer
            if found["width"] > (held if cheap else 2 * held):
                hidden = found["width"] + (most - count) // (depth * (3 * found["width"] + 2))
                best = found | {"hidden": hidden}
        if best is None:
            least, variables = sized(_WIDTHS[0], *_SHAPES[-1])[0], len(class_sizes) + numbers + len(groups or ())
            raise DiffuseError(
                f"preset '{preset}' has at most {most:,} parameters, but a table of "
                f"{variables} variables with {sum(class_sizes):,} classes needs {least:,} at the "
                "least; take a larger preset" + (", or lower max_classes in the schema" if class_sizes else "")
            )
        return best


def _without(n: int, left_out: Tensor) -> Tensor:
    kept = torch.ones(n, dtype=torch.bool)
    kept[left_out] = False
    return kept.nonzero()[:, 0]


def count_parameters(
    class_sizes: Sequence[int],
    numbers: int,
    *,
    width: int,
    hidden: int,
    depth: int,
    rank: int,
    passes: int = 1,
    mixtures: int = 0,
    directions: int = 0,
    groups: Mapping[str, int] | None = None,
) -> int:
    """Parameters of a ``TableMLP``, without making it: as many whatever the passes."""

    table = sum(n * width if n <= rank else n * rank + rank * width for n in (size + 1 for size in class_sizes))
    blocks = depth * (width * 2 * hidden + 2 * hidden + hidden * width + width)
    shown = mixtures * (FEATURES + width) or FEATURES * width
    entry = numbers * shown + width if numbers else 0
    asked = width * width + 2 * sum(class_sizes) if class_sizes else 0
    heads = asked + 2 * numbers * (width + 1)
    along = directions * (numbers + 1 + 2 * width + 1)
    return width + table + entry + blocks + heads + along + count_group_parameters(groups or {}, width)
