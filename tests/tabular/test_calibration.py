"""Marginals brought back: what is wrong in the draws is put right, what is right stays, ends are not lost."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ks_2samp, kstest, norm

from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular._calibration import LEAST, Calibration, with_ends


def test_a_wrong_marginal_is_put_right():
    """Draws are warped and shifted; 20,000 of them fix the map, 20,000 others have the training law: the distance of
    Kolmogorov and Smirnov between two samples of n is below 1.95 sqrt(2/n) = .0195 but once in a thousand."""
    rng = np.random.default_rng(0)
    wrong = [np.sinh(0.7 * rng.normal(size=20_000)) + 0.3 for _ in range(2)]
    moved = Calibration.fit(wrong[0], 0.1, 0.9)(wrong[1])
    assert kstest(moved, norm(loc=-0.1 / 0.9, scale=1 / 0.9).cdf).statistic < 0.0195
    assert kstest(wrong[1], norm(loc=-0.1 / 0.9, scale=1 / 0.9).cdf).statistic > 0.1
    assert (np.diff(moved[np.argsort(wrong[1])]) >= 0).all()  # the order of the rows is the model's


def test_a_right_marginal_is_left_alone():
    """Chance shifts a quantile by more than two standard errors in one of twenty, and then by the little that is left
    over: the mean square shift is less than a tenth of what the raw quantiles would give."""
    z = np.random.default_rng(1).normal(size=20_000)
    found = Calibration.fit(z, 0.0, 1.0)
    inner = np.abs(found.drawn) < 3
    raw = np.quantile(z, norm.cdf(found.drawn[inner])) - found.drawn[inner]
    assert np.mean((found.target - found.drawn)[inner] ** 2) < 0.1 * np.mean(raw**2)


def test_thin_tails_reach_the_ends():
    """Ten rows of 27,000 have an end; of a model whose tails hold .4 of what they should, four. Counts of 27,000 draws
    err by sqrt(4), so that the corrected share is within a factor of (4 +- 4)/4; the mean over twenty fits by a fifth
    of that."""
    n, share = 27_000, 10 / 27_000
    end, rng = norm.isf(share), np.random.default_rng(0)
    thin = end - norm.isf(share / 0.4)  # by which tails fall short
    reached = []
    for _ in range(20):
        z, more = rng.normal(size=(2, n))
        z, more = (x - thin * np.clip((np.abs(x) - 2.5) / (end - 2.5), 0, None) * np.sign(x) for x in (z, more))
        found = Calibration.fit(z, 0.0, 1.0, (share, share))
        reached += [(found(more) >= end).sum(), (found(more) <= -end).sum()]
    assert 6 < np.mean(reached) < 18
    assert np.mean(np.array(reached) == 0) < 0.05


def test_few_draws_say_nothing():
    assert Calibration.fit(np.zeros(LEAST - 1), 0.0, 1.0) is None


def test_a_constant_draw_does_no_harm():
    found = Calibration.fit(np.zeros(LEAST), 0.0, 1.0)
    assert np.isfinite(found(np.linspace(-3, 3, 7))).all()


def test_round_trip_through_tensors():
    found = Calibration.fit(np.random.default_rng(2).normal(1, 2, 5000), 0.0, 1.0)
    again = Calibration.from_tensor(found.tensor())
    x = np.linspace(-9, 9, 50)
    np.testing.assert_array_equal(found(x), again(x))


@pytest.mark.parametrize("low", [0, 3, 12])
def test_ends_get_their_rows(low):
    counts = [low, 20, 100, 5000, 100, 1, 2]
    classes = torch.repeat_interleave(torch.arange(7), torch.tensor(counts))
    out = with_ends(classes, 7, 10.0, torch.Generator().manual_seed(0))
    after = torch.bincount(out, minlength=7)
    assert after[[0, 6]].tolist() == [max(10, low), 10]
    assert after.sum() == sum(counts)
    assert after[3] >= 4990


def test_ends_are_left_where_that_would_take_too_much():
    classes = torch.tensor([0] * 20 + [1])
    assert with_ends(classes, 2, 10.0, torch.Generator().manual_seed(0)).tolist() == classes.tolist()


def test_a_short_training_is_corrected_and_saved(tmp_path):
    """A skewed number after almost no training: its marginal is right all the same, also after loading. 3,000 draws
    against the table: 1.95 sqrt(1/3000 + 1/3000) = .05, and the ends take 0.001 each."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.gamma(0.5, size=3000), "y": rng.choice(["a", "b"], 3000)})
    synth = TableSynthesizer(max_steps=30, minutes=1, seed=0, progress=False).fit(frame)
    fake = synth.sample(3000, rng=5)
    assert np.abs(np.quantile(fake.x, [0.1, 0.5, 0.9]) - np.quantile(frame.x, [0.1, 0.5, 0.9])).max() < 0.15
    assert ks_2samp(fake.x, frame.x).statistic < 0.052
    synth.save(tmp_path / "model")
    pd.testing.assert_frame_equal(TableSynthesizer.load(tmp_path / "model").sample(50, rng=1), synth.sample(50, rng=1))
