"""What a scene is, which ones training never shows, and how one is drawn."""

from __future__ import annotations

from typing import Protocol

import attrs
import torch
from torch import Tensor

from de_core.rng import Rng, as_generator

__all__ = ["CELLS", "COLOURS", "SIDE", "Hands", "Scenes", "draw_scenes", "held_out_kinds", "paint"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
CELLS = 9  # 3 × 3 places of 8 × 8 pixels, row by row from the top left
SIDE = 24
PALETTE = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=torch.float32)
KINDS = 10 * len(COLOURS) * CELLS  # what an object can be: digit, colour, cell
_HELD_OUT = 54  # of these, a tenth


class Hands(Protocol):
    """Handwritten digits: pictures (n, 1, S, S) in [-1, 1], -1 the ground, and what they show, (n,) int64."""

    @property
    def image(self) -> Tensor: ...

    @property
    def label(self) -> Tensor: ...


@attrs.frozen(eq=False)
class Scenes:
    """Rows of one or two objects.

    Attributes:
        count: (n,) int64, 1 or 2.
        digit, colour, cell: (n, 2) int64; the second entry of a row of one object is -1.
    """

    count: Tensor
    digit: Tensor
    colour: Tensor
    cell: Tensor

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: Tensor | slice) -> Scenes:
        return Scenes(self.count[rows], self.digit[rows], self.colour[rows], self.cell[rows])

    def objects(self, row: int) -> set[tuple[int, int, int]]:
        """(digit, colour, cell) of each object of a row."""
        here = range(int(self.count[row]))
        return {(int(self.digit[row, k]), int(self.colour[row, k]), int(self.cell[row, k])) for k in here}


def held_out_kinds() -> Tensor:
    """(540,) bool: the tenth of all (digit, colour, cell) that no training scene holds, always the same."""
    out = torch.zeros(KINDS, dtype=torch.bool)
    out[torch.randperm(KINDS, generator=torch.Generator().manual_seed(54))[:_HELD_OUT]] = True
    return out


def draw_scenes(n: int, *, rng: Rng, held_out: bool = False, count: int | None = None) -> Scenes:
    """Scenes, drawn evenly over what is allowed.

    Args:
        n: rows.
        rng: of the draw.
        held_out: the first object is one that training never shows; else none is.
        count: 1 or 2 objects; None takes each with one half.
    """
    draw = as_generator(rng, "cpu")
    hidden = held_out_kinds()
    seen, unseen = (~hidden).nonzero()[:, 0], hidden.nonzero()[:, 0]

    def some(kinds: Tensor, rows: int) -> Tensor:
        return kinds[torch.randint(len(kinds), (rows,), generator=draw)]

    first = some(unseen if held_out else seen, n)
    second = some(seen, n)
    while bool((clash := second % CELLS == first % CELLS).any()):  # two objects never share a cell
        second = torch.where(clash, some(seen, n), second)
    number = 1 + torch.randint(2, (n,), generator=draw) if count is None else torch.full((n,), count)
    swap = (torch.rand(n, generator=draw) < 0.5) & (number == 2)  # the unseen one is not always told first
    pair = torch.stack([torch.where(swap, second, first), torch.where(swap, first, second)], 1)
    alone = torch.stack([torch.zeros(n, dtype=torch.bool), number == 1], 1)
    digit, colour, cell = pair // (len(COLOURS) * CELLS), pair // CELLS % len(COLOURS), pair % CELLS
    return Scenes(number, *(torch.where(alone, -1, value) for value in (digit, colour, cell)))


def paint(scenes: Scenes, part: Hands, *, rng: Rng) -> Tensor:
    """The pictures of scenes: (n, 3, 3 S, 3 S) in [-1, 1], S the side of a digit, black ground, each digit one of the
    part's, drawn anew.

    A pixel is -1 + 2 ink colour, ink in [0, 1].
    """
    draw = as_generator(rng, "cpu")
    n, side = len(scenes), part.image.shape[-1]
    canvas = torch.zeros(n, 3, CELLS, side, side)
    order = part.label.argsort()
    sizes = part.label.bincount(minlength=10)
    starts = sizes.cumsum(0) - sizes
    for k in range(2):
        digit, rows = scenes.digit[:, k].clamp_min(0), torch.arange(n)
        pick = starts[digit] + (torch.rand(n, generator=draw) * sizes[digit]).long()
        ink = (part.image[order[pick]] + 1) / 2 * (scenes.count > k).reshape(-1, 1, 1, 1)
        coloured = ink * PALETTE[scenes.colour[:, k].clamp_min(0)].reshape(n, 3, 1, 1)
        canvas[rows, :, scenes.cell[:, k].clamp_min(0)] += coloured
    whole = canvas.reshape(n, 3, 3, 3, side, side).permute(0, 1, 2, 4, 3, 5).reshape(n, 3, 3 * side, 3 * side)
    return 2 * whole - 1
