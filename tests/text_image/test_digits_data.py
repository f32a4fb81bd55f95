"""The digits as tensors: ranges, split, ink shares."""

import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import ink_of, load_digits_joint, pixels_of

DATA = load_digits_joint()


def test_sizes_types_and_ranges():
    assert (len(DATA.train), len(DATA.held_out)) == (1437, 360)
    for part in (DATA.train, DATA.held_out):
        assert part.image.shape == (len(part), 1, 8, 8)
        assert part.image.dtype == torch.float32
        assert (float(part.image.min()), float(part.image.max())) == (-1.0, 1.0)
        assert part.label.dtype == torch.int64
        assert part.ink.dtype == torch.float32
        assert bool((part.ink >= 0).all())
        # sixteen float32 shares, each rounded once (2^-24 relative), summed: at most 16 * 2^-24 < 1e-6
        torch.testing.assert_close(part.ink.sum(1), torch.ones(len(part)), atol=1e-6, rtol=0)


def test_pixels_are_the_data_sets_integers():
    # x / 8 - 1 is exact in float32 for integers 0..16, and so is the way back
    pixels = pixels_of(DATA.train.image)
    assert torch.equal(pixels, pixels.round())
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 16.0)


def test_split_is_stratified_disjoint_and_fixed_by_the_seed():
    both = torch.cat([DATA.train.label, DATA.held_out.label])
    for digit in range(10):
        share = int((DATA.held_out.label == digit).sum()) - 0.2 * int((both == digit).sum())
        assert abs(share) <= 1  # counts are whole numbers
    again, other = load_digits_joint(seed=0), load_digits_joint(seed=1)
    assert torch.equal(again.train.image, DATA.train.image)
    assert not torch.equal(other.train.label, DATA.train.label)
    # no two digits of the data set have equal pixels, so that equal pixels would mean a shared row
    pictures = torch.cat([DATA.train.image, DATA.held_out.image]).flatten(1)
    assert len(pictures.unique(dim=0)) == len(pictures) == 1797


def test_ink_by_hand():
    pixels = torch.zeros(1, 1, 8, 8)
    pixels[0, 0, 0, 1] = 4.0  # tile 0: rows 0-1, columns 0-1
    pixels[0, 0, 3, 6] = 12.0  # tile row 1, tile column 3: tile 7
    expected = torch.zeros(1, 16)
    expected[0, 0], expected[0, 7] = 0.25, 0.75
    assert torch.equal(ink_of(pixels / 8 - 1), expected)


def test_ink_clamps_and_survives_a_blank_picture():
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 0, 0], image[0, 0, 7, 7], image[0, 0, 4, 0] = 5.0, 1.0, -3.0  # counted as full, full, none
    assert ink_of(image)[0, [0, 15, 8]].tolist() == [0.5, 0.5, 0.0]
    assert torch.equal(ink_of(torch.full((2, 1, 8, 8), -1.0)), torch.full((2, 16), 1 / 16))


def test_wrong_shape_is_named():
    with pytest.raises(DiffuseError, match=r"images: expected \(n, 1, 8, 8\), got \(3, 8, 8\)"):
        ink_of(torch.zeros(3, 8, 8))
