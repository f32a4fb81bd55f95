"""Scores of imputation in closed form, and the two imputers to compare with."""

import attrs
import numpy as np
import pandas as pd
import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.tabular.metrics.imputation import crps, imputation, random_holes, summary
from de_plugins.tabular.metrics.imputers import iterative, neighbours
from de_plugins.tabular.metrics.matrix import matrices

pytest.importorskip("sklearn")


def test_crps_of_normal_draws_in_closed_form():
    rng = np.random.default_rng(0)
    y = np.array([0.0, 1.0, -2.0])
    got = crps(rng.normal(size=(4000, 3)), y)
    # Gneiting and Raftery (2007), equation 5, for N(0, 1): y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)
    phi = np.exp(-(y**2) / 2) / np.sqrt(2 * np.pi)
    cdf = torch.special.ndtr(torch.from_numpy(y)).numpy()
    # sd of a mean of 4000 terms of order 1: 0.016; four of them
    np.testing.assert_allclose(got, y * (2 * cdf - 1) + 2 * phi - 1 / np.sqrt(np.pi), atol=0.064)
    few = np.stack([crps(rng.normal(size=(2, 1)), y[:1]) for _ in range(20_000)]).mean()
    # unbiased with two draws too; sd of one is about 0.5, of the mean 0.004
    assert few == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi), abs=0.016)


def test_imputation_scores():
    truth = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "c": ["a", "b", "a", "b"]})
    wrong = truth.assign(c=["b", "b", "b", "b"])
    m = matrices({"truth": truth, "right": truth, "wrong": wrong})
    holes = np.array([[True, True], [False, False], [False, True], [False, False]])
    perfect = imputation(m["truth"], [m["right"], m["right"]], holes)
    assert perfect["x"]["crps"] == 0
    assert perfect["c"]["accuracy"] == 1
    half = imputation(m["truth"], [m["right"], m["wrong"]], holes)
    assert half["c"]["accuracy"] == 0.5
    assert half["c"]["nats"] == pytest.approx(-np.log((1 + 1 / 2) / 3))  # one of two draws right, two categories
    assert summary(half) == {"crps": 0.0, "accuracy": 0.5, "nats": half["c"]["nats"]}
    with pytest.raises(DiffuseError, match="at least 2 draws"):
        imputation(m["truth"], [m["right"]], holes)


def test_missing_cells_have_no_truth():
    truth = pd.DataFrame({"x": [0.0, np.nan, 1.0, 2.0], "c": ["a", None, "b", "a"]})
    m = matrices({"truth": truth, "draw": truth.fillna({"x": 9.0, "c": "a"})})
    holes = np.ones((4, 2), dtype=bool)
    found = imputation(m["truth"], [m["draw"]] * 2, holes)
    assert found["x"]["crps"] == 0
    assert found["c"]["accuracy"] == 1


def test_holes_are_random_and_leave_a_cell_in_every_row():
    frame = pd.DataFrame(np.ones((4000, 5)), columns=list("abcde"))
    frame.loc[frame.index % 2 > 0, "a"] = np.nan
    holes = random_holes(frame, 0.2, rng=0)
    assert not (holes & frame.isna().to_numpy()).any()
    # 18,000 cells that are there: sd of the share 0.003, four of them; a row is wholly hidden once in 2000
    assert holes.sum() / 18_000 == pytest.approx(0.2, abs=0.012)
    every = random_holes(frame, 1.0, rng=0)
    assert (every.sum(axis=1) == frame.notna().sum(axis=1) - 1).all()
    assert not random_holes(frame[["b"]], 0.9, rng=0).any()


def linear(seed, n):
    """y and z given x are normal; the word says which side of 0 x lies on."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": 2 * x + rng.normal(size=n), "word": np.where(x > 0, "up", "down")})


@pytest.fixture(scope="module")
def linear_holes():
    train, truth = linear(0, 4000), linear(1, 1000)
    m = matrices({"train": train, "truth": truth})
    holes = np.zeros((1000, 3), dtype=bool)
    holes[:500, 1] = True
    holes[500:, 2] = True
    return m["train"], m["truth"], holes


@pytest.mark.parametrize("impute", [iterative, neighbours])
def test_imputers_reach_what_the_law_allows(linear_holes, impute):
    train, truth, holes = linear_holes
    draws = impute(train, truth, holes, draws=20, seed=0)
    for draw in draws:
        np.testing.assert_array_equal(draw.values[~holes], truth.values[~holes])
    found = imputation(truth, draws, holes)
    # y given x is N(2x, 1), whose expected CRPS is 1 / sqrt(pi) = 0.564; sd of y is sqrt 5, and of the mean of 500
    # terms of order 0.5: 0.022. Four of these, and as much for neighbours that are not at x itself
    assert found["y"]["crps"] * 5**0.5 == pytest.approx(0.564, abs=0.13)
    # x tells it all. A line through the step 0 / 1 has slope phi(0) = 0.4, residual variance 1/4 - 0.4^2 = 0.09 and
    # crosses 1/2 at 0: a draw is right with probability E Phi(0.4 |x| / 0.3) = 1/2 + atan(4/3) / pi = 0.795
    right = found["word"]["accuracy"]
    assert right == pytest.approx(0.795, abs=0.07) if impute is iterative else right > 0.95


def test_one_round_repeated_is_the_chain_of_scikit_learn(linear_holes):
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    train, truth, holes = linear_holes
    holes = holes.copy()
    holes[:, 1] = True
    holes[:, 2] = False
    ours = np.stack([d.values[:, 1] for d in iterative(train, truth, holes, draws=40, seed=0)])

    # its own ten rounds on the same coding: standardised numbers, an indicator over sqrt 2
    def code(t):
        x, y, word = t.values.T
        z = [(c - v.mean()) / v.std() for c, v in ((x, train.values[:, 0]), (y, train.values[:, 1]))]
        return np.column_stack([*z, (word == 0) / 2**0.5])

    imputer = IterativeImputer(sample_posterior=True, max_iter=10, random_state=1).fit(code(train))
    blank = code(truth)
    blank[:, 1] = np.nan
    theirs = np.stack([imputer.transform(blank)[:, 1] for _ in range(40)])
    theirs = theirs * train.values[:, 1].std() + train.values[:, 1].mean()
    # means of 40 draws of sd 1 in 1000 rows: sd of their difference sqrt(2/40) a row; of its mean square 0.05 (1 + 4 of
    # sqrt(2/1000)) a bound
    assert np.mean((ours.mean(0) - theirs.mean(0)) ** 2) < 0.05 * (1 + 4 * (2 / 1000) ** 0.5)
    assert ours.std(0).mean() == pytest.approx(theirs.std(0).mean(), rel=0.02)


def test_neighbours_give_their_own_cells():
    train = pd.DataFrame({"x": [0.0, 1.0, 2.0, 50.0], "c": ["a", "b", "c", "d"]})
    truth = pd.DataFrame({"x": [0.9, 49.0], "c": ["a", "d"]})
    m = matrices({"train": train, "truth": truth})
    holes = np.array([[False, True], [False, True]])
    first, second = neighbours(m["train"], m["truth"], holes, draws=2)
    words = np.array(m["train"].words[1])
    assert words[first.values[:, 1].astype(int)].tolist() == ["b", "d"]
    assert words[second.values[:, 1].astype(int)].tolist() == ["a", "c"]


def test_tables_with_their_own_missing_cells_and_empty_columns():
    train = linear(0, 300).assign(void=np.nan)
    train.loc[::7, "y"] = np.nan
    train.loc[::5, "word"] = None
    m = matrices({"train": train, "truth": train.iloc[:50]})
    holes = random_holes(train.iloc[:50], rng=0)
    for impute in (iterative, neighbours):
        filled = impute(m["train"], m["truth"], holes, draws=2, seed=0)[0]
        assert not np.isnan(filled.values[:, 0]).any()


def test_a_column_whose_donors_all_lack_the_cell_has_no_score():
    """Neighbours that are missing themselves leave NaN; the column is left out, not scored NaN."""
    truth = matrices({"t": pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [0.0, 1.0, 3.0]})})["t"]
    holes = np.array([[True, False], [False, True], [False, False]])
    lost = attrs.evolve(truth, values=np.where(np.array([True, False]) & holes, np.nan, truth.values))
    found = imputation(truth, [lost, lost], holes)
    assert list(found) == ["y"]
    assert summary(found) == {"crps": 0.0}
