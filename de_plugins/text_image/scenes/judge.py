"""The judge of scenes: which digits a picture shows, in which colours and where."""

from __future__ import annotations

from typing import Protocol

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import DigitsData
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.scenes.world import CELLS, PALETTE, Hands, draw_scenes, paint

__all__ = ["Reader", "SceneJudge", "cells_of"]

INK = 4.0  # of the 64 pixels of a cell; the thinnest training digit has 14, an empty cell of a good picture none


class Reader(Protocol):
    """Says which digit a picture shows."""

    def digits(self, images: Tensor) -> Tensor:
        """(n,) int64, of pictures (n, 1, S, S) in [-1, 1]."""
        ...

    def scores(self, images: Tensor) -> Tensor:
        """(n, 10) float64: how much speaks for each digit."""
        ...


def cells_of(images: Tensor) -> Tensor:
    """Pictures (n, 3, 3 S, 3 S) in [-1, 1] to their cells (n, 9, 3, S, S) in [0, 1].

    Raises:
        DiffuseError: the shape is another.
    """
    side = images.shape[-1]
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side) or side % 3:
        raise DiffuseError(f"images: expected (n, 3, 3 S, 3 S), got {tuple(images.shape)}")
    light = ((images + 1) / 2).clamp(0, 1).reshape(-1, 3, 3, side // 3, 3, side // 3)
    return light.permute(0, 2, 4, 1, 3, 5).reshape(-1, CELLS, 3, side // 3, side // 3)


@attrs.frozen(eq=False)
class SceneJudge:
    """Reads each cell: empty below a little ink, else the digit by a reader of digits and the nearest colour.

    Attributes:
        reader: reads one digit.
        accuracy: share of scenes of one and of two held-out digits that it reads wholly right.
        ink: in pixels, of which an empty cell has no more.
    """

    reader: Reader
    accuracy: tuple[float, float] = (0.0, 0.0)
    ink: float = INK

    @classmethod
    def fit(cls, data: DigitsData, rows: int = 2000) -> SceneJudge:
        """Fit on the training digits of scikit-learn, measured on scenes of the held-out ones."""
        return cls(Judge.fit(data)).measured(data.held_out, rows)

    def measured(self, held_out: Hands, rows: int = 2000) -> SceneJudge:
        """The same judge with its accuracy on scenes of these digits."""
        right = []
        for count in (1, 2):
            scenes = draw_scenes(rows, rng=count, count=count)
            seen = self.read(paint(scenes, held_out, rng=10 + count))
            right.append(sum(a == scenes.objects(k) for k, a in enumerate(seen)) / rows)
        return attrs.evolve(self, accuracy=(right[0], right[1]))

    def read(self, images: Tensor) -> list[set[tuple[int, int, int]]]:
        """(digit, colour, cell) of every object of every picture."""
        cells = cells_of(images.float())
        ink = cells.amax(2)
        there = ink.sum((2, 3)) > self.ink
        found: list[set[tuple[int, int, int]]] = [set() for _ in range(len(images))]
        rows, places = there.nonzero(as_tuple=True)
        if not len(rows):
            return found
        mine = ink[rows, places]
        digit = self.reader.digits(2 * mine[:, None] - 1)
        colour = cells[rows, places].sum((2, 3))
        colour = colour / colour.amax(1, keepdim=True)
        nearest = torch.cdist(colour, PALETTE).argmin(1)
        for row, place, d, c in zip(rows.tolist(), places.tolist(), digit.tolist(), nearest.tolist(), strict=True):
            found[row].add((d, c, place))
        return found

    def features(self, images: Tensor) -> Tensor:
        """(n, 55) float64, what the judge goes by: ink, its spread and mean colour of each cell, and what speaks for
        each digit, summed over the cells that hold something."""
        cells = cells_of(images.float())
        ink = cells.amax(2)
        parts = [ink.mean((2, 3))[..., None], ink.std((2, 3))[..., None], cells.mean((3, 4))]
        looks = torch.cat(parts, 2).flatten(1).double()
        rows, places = (ink.sum((2, 3)) > self.ink).nonzero(as_tuple=True)
        told = torch.zeros(len(images), 10, dtype=torch.float64)
        if len(rows):
            told.index_add_(0, rows, self.reader.scores(2 * ink[rows, places][:, None] - 1))
        return torch.cat([looks, told / 10], 1)
