"""The codec's Jacobian: densities of numbers in their own units, or a refusal that names the column."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.tabular._numeric import QuantileMap
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.synthesizer import TableSynthesizer


def log_normal_of(mapping, z):
    """log-density of scores whose values before standardisation are standard normal, as the column's own are."""
    return math.log(mapping.sd) - 0.5 * (mapping.mean + mapping.sd * z) ** 2 - 0.5 * math.log(2 * math.pi)


def test_whole_numbers_have_probabilities_that_sum_to_one():
    """20,000 whole numbers with three ties: under the law of the scores, the probability of an atom is its share,
    whatever score was drawn, and all others are a density times the width of a cell. Shares are of 20,000 rows and at
    most 20 that the ends are given: 1e-3 of them. The sum is 1 but for the half cells beside the 5 atoms (3 ties and 2
    ends; a cell holds at most 20 rows), a twentieth of both ends, and the curvature over cells in the tails: 0.01."""
    rng = np.random.default_rng(0)
    x = np.rint(rng.normal(size=20_000) * 1000)
    x[:3000], x[3000:5000], x[5000:5100] = 500, -200, 1500
    mapping = QuantileMap.fit(x)
    values = np.arange(x.min(), x.max() + 1)
    z = mapping.forward(values, torch.Generator().manual_seed(0))
    mass = np.exp(log_normal_of(mapping, z) + mapping.log_jacobian(values, z, 1.0))
    assert np.isfinite(mass).all()
    assert abs(mass.sum() - 1) < 0.01
    for value in (500, -200, 1500):
        share = (x == value).mean()
        assert abs(mass[values == value][0] - share) < 1e-3 * share
    again = mapping.forward(values, torch.Generator().manual_seed(1))
    other = np.exp(log_normal_of(mapping, again) + mapping.log_jacobian(values, again, 1.0))
    np.testing.assert_allclose(other, mass, rtol=1e-9)


def test_real_numbers_have_the_slope_of_the_map():
    """Against central differences, which are exact on a piecewise linear map in steps of a quarter of the narrower gap
    beside a point; at a knot they are the mean of the two slopes. Scores of size 3 are rounded to 2^-52 over gaps of
    1e-5 and more: relative 1e-9."""
    mapping = QuantileMap.fit(np.random.default_rng(0).normal(size=3000))
    gaps = np.diff(mapping.value)
    assert gaps.min() > 1e-6
    middles = (mapping.value[1:] + mapping.value[:-1]) / 2
    points = np.concatenate([middles, mapping.value[1:-1]])
    width = np.concatenate([gaps, np.minimum(gaps[1:], gaps[:-1])]) / 4
    slope = (mapping.forward(points + width) - mapping.forward(points - width)) / (2 * width)
    found = np.exp(mapping.log_jacobian(points, mapping.forward(points), 0.0))
    np.testing.assert_allclose(found, slope, rtol=1e-9)


def test_missing_and_shut_numbers_add_nothing_and_others_are_by_column():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=3000), "b": rng.normal(size=3000), "c": ["x", "y"] * 1500})
    frame.loc[::5, "b"] = np.nan
    codec = TableCodec.fit(frame)
    coded = codec.encode(frame, rng=0)
    found = codec.log_jacobian(frame, coded)
    assert found.shape == (3000, 2)
    assert found.dtype == torch.float64
    assert bool(found.isfinite().all())
    assert torch.equal(found[:, 1] == 0, ~coded.present[:, 1])
    shuffled = codec.log_jacobian(frame[["c", "b", "a"]], coded)
    assert torch.equal(shuffled, found)


def test_what_has_no_jacobian_is_refused_by_column():
    """Outside the range, off the grid, between two neighbours that own all scores, scores that were not drawn."""
    age = pd.DataFrame({"age": np.repeat(np.arange(0, 400, 2), 10), "pay": np.random.default_rng(0).normal(size=2000)})
    age.loc[0, "age"] = 7  # so that the grid is of whole numbers, and 7 is one knot between atoms
    codec = TableCodec.fit(age)
    codec.log_jacobian(age, codec.encode(age, rng=0))

    def refused(words, **cells):
        row = age.iloc[[10]].assign(**cells)
        with pytest.raises(DiffuseError, match=words):
            codec.log_jacobian(row, codec.encode(row, rng=0))

    refused(r"column 'age': the score of '420' in row 0", age=420)
    refused(r"column 'age': the score of '-3' in row 0", age=-3)
    refused(r"column 'age': the score of '31' in row 0 .* invertible", age=31)
    refused(r"column 'pay': the score of '50.0' in row 0", pay=50.0)
    with pytest.raises(DiffuseError, match=r"column 'age': expected scores that were drawn"):
        codec.log_jacobian(age, codec.encode(age))


def test_the_bound_in_table_units_knows_the_units():
    """Ten times the numbers: the same scores, so the same bound of scores up to float32, and log 10 more in the
    table's units, save at the two ends, which are probabilities. One training step at no rate: nothing is learned."""
    x = np.random.default_rng(0).normal(size=3000)
    options = {"max_steps": 1, "lr": 1e-9, "progress": False}
    plain, scaled = (pd.DataFrame({"x": k * x}) for k in (1.0, 10.0))
    one = TableSynthesizer(**options).fit(plain)
    ten = TableSynthesizer(**options).fit(scaled)
    ends = (x == x.min()) | (x == x.max())
    scores = ten.bound(scaled, rng=0) - one.bound(plain, rng=0)
    units = ten.bound(scaled, rng=0, table_units=True) - one.bound(plain, rng=0, table_units=True)
    assert np.abs(scores).max() < 1e-2  # float32 scores in a float32 network, up to 1/t_min in a weight
    np.testing.assert_allclose(units[~ends], math.log(10), atol=1e-2)
    np.testing.assert_allclose(units[ends], 0.0, atol=1e-2)
