"""The judge of scenes: which digits a picture shows, in which colours and where."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import DigitsData
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.scenes.world import CELLS, PALETTE, SIDE, draw_scenes, paint

__all__ = ["SceneJudge", "cells_of"]

_INK = 4.0  # of the 64 pixels of a cell; the thinnest training digit has 14, an empty cell of a good picture none


def cells_of(images: Tensor) -> Tensor:
    """Pictures (n, 3, 24, 24) in [-1, 1] to their cells (n, 9, 3, 8, 8) in [0, 1].

    Raises:
        DiffuseError: the shape is another.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIDE, SIDE):
        raise DiffuseError(f"images: expected (n, 3, {SIDE}, {SIDE}), got {tuple(images.shape)}")
    light = ((images + 1) / 2).clamp(0, 1)
    return light.reshape(-1, 3, 3, 8, 3, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, CELLS, 3, 8, 8)


@attrs.frozen(eq=False)
class SceneJudge:
    """Reads each cell: empty below four pixels of ink, else the digit by the digits' judge and the nearest colour.

    Attributes:
        digits: reads one digit.
        accuracy: share of scenes of one and of two held-out digits that it reads wholly right.
    """

    digits: Judge
    accuracy: tuple[float, float]

    @classmethod
    def fit(cls, data: DigitsData, rows: int = 2000) -> SceneJudge:
        """Fit on the training digits, measured on scenes of the held-out ones."""
        judge = cls(Judge.fit(data), (0.0, 0.0))
        right = []
        for count in (1, 2):
            scenes = draw_scenes(rows, rng=count, count=count)
            seen = judge.read(paint(scenes, data.held_out, rng=10 + count))
            right.append(sum(a == scenes.objects(k) for k, a in enumerate(seen)) / rows)
        return attrs.evolve(judge, accuracy=(right[0], right[1]))

    def read(self, images: Tensor) -> list[set[tuple[int, int, int]]]:
        """(digit, colour, cell) of every object of every picture."""
        cells = cells_of(images.float())
        ink = cells.amax(2)
        there = ink.sum((2, 3)) > _INK
        found: list[set[tuple[int, int, int]]] = [set() for _ in range(len(images))]
        rows, places = there.nonzero(as_tuple=True)
        if not len(rows):
            return found
        mine = ink[rows, places]
        digit = self.digits.digits(2 * mine[:, None] - 1)
        colour = cells[rows, places].sum((2, 3))
        colour = colour / colour.amax(1, keepdim=True)
        nearest = torch.cdist(colour, PALETTE).argmin(1)
        for row, place, d, c in zip(rows.tolist(), places.tolist(), digit.tolist(), nearest.tolist(), strict=True):
            found[row].add((d, c, place))
        return found
