"""Scikit-learn's 1,797 handwritten digits as tensors: picture, label and ink shares, split 80/20 by digit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import attrs
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["TILES", "DigitsData", "DigitsPart", "ink_of", "load_digits_joint", "pixels_of"]

SIDE = 8  # a picture is SIDE × SIDE pixels
TILES = 16  # the picture cut into 4 × 4 tiles of 2 × 2 pixels
FULL = 16.0  # the data set's pixels are integers 0..16


@attrs.frozen(eq=False)
class DigitsPart:
    """One part of the split; row i of every tensor is the same handwritten digit.

    Attributes:
        image: (n, 1, 8, 8) float32 in [-1, 1]; -1 is paper, 1 is full ink.
        label: (n,) int64, the digit 0..9.
        ink: (n, 16) float32, non-negative, rows sum to one: the share of the picture's ink in each tile.
    """

    image: Tensor
    label: Tensor
    ink: Tensor

    def __len__(self) -> int:
        return len(self.label)


@attrs.frozen(eq=False)
class DigitsData:
    """The data set: `train` (1,437 digits) is learned from, `held_out` (360) is only measured against."""

    train: DigitsPart
    held_out: DigitsPart


def pixels_of(images: Tensor) -> Tensor:
    """Turn pictures in [-1, 1] into pixels x = 8 (image + 1), clamped to [0, 16]: a sample may stray.

    Args:
        images: (n, 1, 8, 8), any float dtype.

    Returns:
        (n, 8, 8) float64 in [0, 16].

    Raises:
        DiffuseError: the shape is another.
    """
    if images.ndim != 4 or images.shape[1:] != (1, SIDE, SIDE):
        raise DiffuseError(f"images: expected (n, 1, {SIDE}, {SIDE}), got {tuple(images.shape)}")
    return ((images[:, 0].double() + 1) * (FULL / 2)).clamp(0, FULL)


def ink_of(images: Tensor) -> Tensor:
    """The share of a picture's ink in each of its 16 tiles of 2 × 2 pixels, row by row from the upper left.

    ink_k = (sum of the pixels of tile k) / (sum of all pixels), pixels in [0, 16]. A blank picture has no
    shares; it gets the even ones, 1/16 each, so that a bad sample is measured and does not stop the
    measuring.

    Args:
        images: (n, 1, 8, 8) in [-1, 1]; clamped to that range.

    Returns:
        (n, 16) float32, rows sum to one.

    Raises:
        DiffuseError: the shape is another.
    """
    tiles = pixels_of(images).reshape(-1, SIDE // 2, 2, SIDE // 2, 2).sum((2, 4)).reshape(-1, TILES)
    total = tiles.sum(1, keepdim=True)
    return torch.where(total > 0, tiles / total, 1 / TILES).float()


def load_digits_joint(seed: int = 0) -> DigitsData:
    """Load the digits that come inside scikit-learn (nothing is downloaded) and split them 80/20.

    The split keeps each digit's share in both parts and depends on the seed alone.

    Args:
        seed: which of the possible splits.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, doi 10.24432/C50P49
    (test part).
    """
    bunch = cast("Mapping[str, np.ndarray]", load_digits())
    pixels, digits = bunch["images"], bunch["target"]
    rows = train_test_split(np.arange(len(digits)), test_size=0.2, stratify=digits, random_state=seed)

    def part(index: Sequence[int] | np.ndarray) -> DigitsPart:
        index = np.sort(np.asarray(index))
        image = torch.from_numpy(pixels[index] / (FULL / 2) - 1).float().unsqueeze(1)
        return DigitsPart(image, torch.from_numpy(digits[index]).long(), ink_of(image))

    return DigitsData(part(rows[0]), part(rows[1]))
