"""The judge and the numbers: each against a value known beforehand."""

import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.captions import VOCABULARY, Captions
from de_plugins.text_image.digits.data import DigitsPart, ink_of, load_digits_joint
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.digits.metrics import (
    MEANINGS,
    agreement,
    ink_mae,
    ink_mae_class_mean,
    ink_mae_same_digit,
    measure,
    nearest_train_ratio,
)

DATA = load_digits_joint()
HELD = DATA.held_out
JUDGE = Judge.fit(DATA)


def test_judge_is_good_honest_and_the_same_each_time():
    assert JUDGE.accuracy >= 0.985
    said = JUDGE.digits(HELD.image)
    assert said.dtype == torch.int64
    assert float((said == HELD.label).double().mean()) == pytest.approx(JUDGE.accuracy, abs=1e-12)
    assert Judge.fit(DATA).accuracy == JUDGE.accuracy
    assert torch.equal(JUDGE.digits(HELD.image * 1.0 + 9 * (HELD.image == 1)), said)  # beyond full ink is full ink
    assert len(JUDGE.digits(HELD.image[:0])) == 0


def test_agreement_counts_equal_digits_and_never_none_named():
    left, right = torch.tensor([1, 2, -1, -1]), torch.tensor([1, 3, -1, 4])
    assert agreement(left, right) == 0.25
    with pytest.raises(DiffuseError, match=r"got \(4,\) and \(3,\)"):
        agreement(left, right[:3])
    with pytest.raises(DiffuseError, match="n > 0"):
        agreement(left[:0], right[:0])


def test_ink_mae_by_hand():
    image = torch.full((2, 1, 8, 8), -1.0)
    image[:, 0, 0, 0] = 1.0  # all ink in tile 0
    ink = torch.zeros(2, 16)
    ink[0, 0] = 1.0
    ink[1, 0], ink[1, 5] = 0.6, 0.4
    # row 0 is exact; row 1 is off by 0.4 twice: (0.4 + 0.4) / 32. float32 0.6 and 0.4 are off by < 2^-24 each
    assert ink_mae(ink, image) == pytest.approx(0.025, abs=1e-8)
    with pytest.raises(DiffuseError, match=r"ink: expected \(2, 16\)"):
        ink_mae(ink[:1], image)


def test_ink_baselines():
    assert ink_mae(HELD.ink, HELD.image) == 0
    mean = ink_mae_class_mean(HELD.image, HELD.label, DATA.train)
    assert mean == pytest.approx(0.018, abs=0.001)  # known of this data set
    by_hand = torch.stack([DATA.train.ink[DATA.train.label == digit].mean(0) for digit in HELD.label])
    # a mean of some 144 float32 shares below 1, here and in float64: apart by less than 144 * 2^-24 = 9e-6
    assert mean == pytest.approx(float((by_hand - HELD.ink).abs().mean()), abs=1e-5)
    same = ink_mae_same_digit(HELD.image, HELD.label, DATA.train, rng=0)
    assert same == ink_mae_same_digit(HELD.image, HELD.label, DATA.train, rng=0)
    # another picture adds its own scatter; normal scatter would give a factor sqrt 2
    assert 1.2 * mean < same < 1.6 * mean
    lone = DigitsPart(HELD.image[:10], torch.arange(10), HELD.ink[:10])
    digits = torch.tensor([3, 0])
    picked = ink_mae_same_digit(HELD.image[:2], digits, lone, rng=0)  # one picture a digit leaves no choice
    assert picked == pytest.approx(ink_mae(HELD.ink[digits], HELD.image[:2]), abs=1e-12)


def test_nearest_ratio_of_copies_fresh_pictures_and_a_known_distance():
    train = DATA.train.image
    assert nearest_train_ratio(train[:50], HELD.image, train) == 0
    assert nearest_train_ratio(HELD.image, HELD.image, train) == 1
    blank = torch.full((1, 1, 8, 8), -1.0)
    near, far = blank.clone(), blank.clone()
    near[0, 0, 0, 0], far[0, 0, :2, :2] = (
        -0.5,
        0.5,
    )  # distances 0.5 and sqrt(4 * 1.5^2) = 3, in units of image
    assert nearest_train_ratio(near, far, blank) == pytest.approx(0.5 / 3, abs=1e-12)
    three = torch.cat([far, near, blank])  # the median of three is the middle one
    assert nearest_train_ratio(three, far, blank) == pytest.approx(0.5 / 3, abs=1e-12)
    with pytest.raises(DiffuseError, match="got none"):
        nearest_train_ratio(near[:0], far, blank)


def test_measure_of_perfect_samples_and_of_spoilt_ones():
    captions = Captions.fit(DATA.train.image)
    real = {
        "image": HELD.image,
        "caption": captions.draw(HELD.label, HELD.image, rng=0),
        "label": HELD.label,
        "ink": HELD.ink,
    }
    masked = {
        **real,
        "caption": real["caption"].masked_fill(torch.arange(360)[:, None] < 90, len(VOCABULARY)),
    }
    spoilt = {**real, "label": (HELD.label + 1) % 10, "caption": masked["caption"]}
    numbers = measure(
        JUDGE,
        captions,
        DATA,
        joint=real,
        from_caption=real,
        from_noisy_caption=masked,
        requested=HELD.label,
        from_image=spoilt,
        rng=0,
    )
    assert set(numbers) == set(MEANINGS) - {"seconds", "parameters"}
    for key in (
        "image_given_caption",
        "image_given_noisy_caption",
        "joint_agreement",
        "joint_label_agreement",
    ):
        assert numbers[key] == pytest.approx(JUDGE.accuracy, abs=1e-12)  # real pictures: the judge's own errors
    assert numbers["noisy_caption_states_digit"] == 0.75
    assert numbers["caption_given_image"] == 0.75
    assert numbers["label_given_image"] == 0
    assert numbers["caption_is_sentence"] == numbers["joint_stroke_agreement"] == 1
    assert numbers["ink_mae"] == 0
    assert numbers["nearest_train_ratio"] == 1
    assert torch.equal(ink_of(HELD.image), HELD.ink)


def test_targets_point_the_right_way():
    assert MEANINGS["joint_agreement"].reached(0.97) is True
    assert MEANINGS["joint_agreement"].reached(0.969) is False
    assert MEANINGS["ink_mae"].reached(0.009) is True
    assert MEANINGS["ink_mae"].reached(0.011) is False
    assert MEANINGS["parameters"].reached(1) is None
    wanted = "judge_accuracy image_given_caption image_given_noisy_caption joint_agreement caption_given_image "
    wanted += "label_given_image ink_mae ink_mae_class_mean nearest_train_ratio seconds parameters"
    assert set(wanted.split()) <= set(MEANINGS)
