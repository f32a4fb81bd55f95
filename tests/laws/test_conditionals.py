"""All conditionals P(x | y at level s), s in {0, .3, .7, 1}, of random finite laws, against Bayes' rule.

Rows are drawn from the law, y is noised to level s by its kernel and given, and x is sampled with an exact network. In
the rows whose y came from one atom, x must fall on value k as often as sum_rows P(x = k | y_s) says,

    P(x = k | y_s) = sum_{j: x_j = k} w_j p(y_s | y_j) / sum_j w_j p(y_s | y_j).

Only x moves, so nothing is split: the discrete steps are exact, the flow errs by its second order, the Dirichlet-Euler
step by its first, and the draws are few enough for both to stay under the noise. Pearson's statistic over the cells
(atom of y, value of x) of at least five expected rows, the others pooled, is compared with the 1 - 1e-6 quantile of
chi-square with one degree less than cells: more degrees than it has, since each atom's rows are given.
"""

import functools
import itertools

import pytest
import torch
from scipy.stats import chi2

from de_core import Given, JointProcess, get_modality
from de_core.testing import OracleDenoiser

LEVEL = 1e-6
ATOMS = 6
KINDS = ("number", "tokens", "label", "shares")
STEPS = {"number": 32, "tokens": 6, "label": 6, "shares": 20}  # where the step is exact few do
ROWS = {"number": 2000, "tokens": 8000, "label": 8000}


@functools.cache
def space(kind):
    """The modality and the values that atoms take."""
    return {
        "number": (lambda: get_modality("gaussian")((1,)), torch.tensor([[-2.0], [0.0], [2.0]])),
        "tokens": (lambda: get_modality("masked")((1,), 3), torch.arange(3)[:, None]),
        "label": (lambda: get_modality("uniform")((), 3), torch.arange(3)),
        "shares": (lambda: get_modality("simplex")((3,), "posterior"), torch.eye(3)),
    }[kind]


def law(names, seed):
    """Six atoms with random values and weights, as value indices by name; the first three differ in every modality."""
    g = torch.Generator().manual_seed(seed)
    index = {
        name: torch.cat([torch.randperm(3, generator=g), torch.randint(3, (ATOMS - 3,), generator=g)]) for name in names
    }
    weights = 0.5 + torch.rand(ATOMS, generator=g)
    return index, weights / weights.sum()


def compare(x, given, n, seed, told=None):
    """Sample x given the others at their levels: Pearson's statistic against Bayes' rule, and its bound.

    ``told``: the levels that the sampler is told, where they are not the true ones.
    """
    names = sorted([x, *given], key=KINDS.index)
    index, weights = law(names, seed)
    joint = JointProcess({name: space(name)[0]() for name in names}, block=n)
    atoms = {name: space(name)[1][index[name]] for name in names}
    oracle = OracleDenoiser(joint, atoms, weights)
    g = torch.Generator().manual_seed(seed + 1)
    row = torch.multinomial(weights, n, replacement=True, generator=g)
    levels = {name: torch.full((n,), level) for name, level in given.items()}
    noisy = {name: joint.modalities[name].perturb(atoms[name][row], t, rng=g).xt for name, t in levels.items()}
    held = {name: Given(value, level=(told or given)[name]) for name, value in noisy.items()}
    drawn = joint.sample(oracle, n, given=held, steps=STEPS[x], rng=seed + 2)[x]
    posterior = weights.double().log().repeat(n, 1)
    for name in given:
        posterior += oracle.log_likelihood(name, noisy[name], levels[name])
    posterior = posterior.softmax(1)
    distance = (drawn[:, None] - space(x)[1]).reshape(n, 3, -1).double().abs().amax(2)
    assert float(distance.amin(1).max()) < 0.1  # each draw is a value of the law
    hit = torch.nn.functional.one_hot(distance.argmin(1), 3).double()
    expected = posterior @ torch.nn.functional.one_hot(index[x], 3).double()
    group = torch.nn.functional.one_hot(row, ATOMS).double()
    observed, expected = (group.T @ hit).flatten(), (group.T @ expected).flatten()
    common = expected >= 5
    observed, expected = (torch.cat([v[common], v[~common].sum()[None]]) for v in (observed, expected))
    assert float(observed[-1]) == 0 or float(expected[-1]) > 1e-9  # nothing impossible
    statistic = float((((observed - expected) ** 2) / expected.clamp_min(1e-9)).sum())
    assert len(expected) > 3
    return statistic, float(chi2.ppf(1 - LEVEL, len(expected) - 1))


FAST = [(x, y) for x, y in itertools.permutations(KINDS, 2) if "shares" not in (x, y)]
SLOW = [(x, y) for x, y in itertools.permutations(KINDS, 2) if "shares" in (x, y)]


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("x", "y"), FAST)
def test_x_given_y_at_a_level(x, y, level):
    statistic, bound = compare(x, {y: level}, ROWS[x], seed=KINDS.index(x) + 4 * KINDS.index(y))
    assert statistic < bound


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("x", "y"), SLOW)
def test_shares_on_either_side(x, y, level):
    """The simplex's density is a long series: 300 rows."""
    statistic, bound = compare(x, {y: level}, 300, seed=KINDS.index(x) + 4 * KINDS.index(y))
    assert statistic < bound


@pytest.mark.parametrize(
    ("x", "given"), [("label", {"number": 0.3, "tokens": 0.7}), ("number", {"tokens": 0.3, "label": 0.3})]
)
def test_several_conditions_each_at_its_own_level(x, given):
    statistic, bound = compare(x, given, ROWS[x], seed=31)
    assert statistic < bound


@pytest.mark.parametrize(("y", "told"), [("number", 0.5), ("label", 0.7)])
def test_a_sampler_that_is_told_another_level_is_found_out(y, told):
    """The comparison can fail: y at level .3, the sampler told .5 or .7."""
    statistic, bound = compare("tokens" if y == "label" else "label", {y: 0.3}, 8000, seed=31, told={y: told})
    assert statistic > bound
