"""The seven modes of the poster's figure, x a number and y a text, from one exact network, and every path through the
cube of clocks.

    (x, y);  x | y;  y | x;  x | y_s;  y | x_t;  x alone (y at 1);  y alone (x at 1)

The law has five atoms. Each mode's counts are compared with Bayes' rule by Pearson's statistic at level 1e-6 over the
atoms' values of what is sampled. The text is two masked tokens, so a step of the joint process splits and errs by its
first order; the draws are few enough for that to stay under the noise, and rows that are no atom, which are such
errors, are bounded apart."""

import pytest
import torch
from scipy.stats import chi2

from de_core import Cascaded, Given, JointProcess, Matched, Sequential, Synchronous, get_modality
from de_core.testing import OracleDenoiser

LEVEL = 1e-6
X = torch.tensor([[-2.0], [-2.0], [0.0], [2.0], [2.0]])
Y = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]])
LAW = torch.tensor([0.3, 0.2, 0.2, 0.15, 0.15])


def process(n):
    # a predicted x_0 is an atom to the bit: finished first, x is else a condition of probability 0
    x = get_modality("gaussian")((1,), prediction="x0")
    joint = JointProcess({"x": x, "y": get_modality("masked")((2,), 2)}, block=n)
    return joint, OracleDenoiser(joint, {"x": X, "y": Y}, LAW)


def cells(x, names):
    """Which value of the law each row takes in the sampled modalities, (n,), -1 where none; the values' atoms, (5,)."""
    rounded = {"x": 2 * (x["x"] / 2).round().clamp(-1, 1), "y": x["y"]}
    rows, atoms = (torch.cat([part[name].double() for name in names], 1) for part in (rounded, {"x": X, "y": Y}))
    values, atom = atoms.unique(dim=0, return_inverse=True)
    hit = (rows[:, None] == values).all(2)
    return torch.where(hit.any(1), hit.long().argmax(1), -1), atom


def compare(joint, x, names, posterior, lost=0.04):
    """Pearson's test of the sampled values against the posterior of the atoms, (5,)."""
    found, atom = cells(x, names)
    assert float((found < 0).float().mean()) < lost
    expected = torch.zeros(int(atom.max()) + 1, dtype=torch.float64).index_add(0, atom, posterior.double())
    observed = torch.bincount(found[found >= 0], minlength=len(expected)).double()
    assert float(observed[expected < 1e-9].sum()) == 0  # nothing impossible
    expected = expected / expected.sum() * observed.sum()
    common = expected >= 5
    observed, expected = (torch.cat([v[common], v[~common].sum()[None]]) for v in (observed, expected))
    statistic = float((((observed - expected) ** 2) / expected.clamp_min(1e-9)).sum())
    assert statistic < chi2.ppf(1 - LEVEL, max(int(common.sum()), 1))


def bayes(joint, name, value, level):
    """P(atom | one state of a modality at its level), (5,), with the modality's own transition density."""
    m, atoms = joint.modalities[name], {"x": X, "y": Y}[name]
    value, atoms = ((v.double() if v.is_floating_point() else v) for v in (value.expand(5, -1), atoms))
    t = torch.full((5,), level, dtype=torch.float64)
    return (LAW.double().log() + m.log_transition(value, atoms, t)).softmax(0)


MODES = {
    "(x, y)": {},
    "x | y": {"y": (torch.tensor([[0, 0]]), 0.0)},
    "y | x": {"x": (torch.tensor([[2.0]]), 0.0)},
    "x | y_s": {"y": (torch.tensor([[2, 1]]), 0.4)},  # the first token is masked
    "y | x_t": {"x": (torch.tensor([[0.4]]), 0.6)},
    "x alone": {"y": (torch.tensor([[2, 2]]), 1.0)},
    "y alone": {"x": (torch.tensor([[0.3]]), 1.0)},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_seven_modes(mode):
    n = 1500
    joint, oracle = process(n)
    given = {name: Given(value.repeat(n, 1), level=level) for name, (value, level) in MODES[mode].items()}
    x = joint.sample(oracle, n, given=given, steps=64, rng=0)
    assert list(x) == ["x", "y"]
    for name, g in given.items():
        assert x[name] is g.value  # the given come back as they were
    posterior = LAW
    for name, (value, level) in MODES[mode].items():
        posterior = bayes(joint, name, value, level)
    compare(joint, x, [name for name in joint.modalities if name not in given], posterior)


PATHS = [Synchronous(), Sequential(["x"]), Sequential(["y"]), Cascaded(["x"], 0.5), Cascaded(["y"], 0.3), Matched()]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_every_path_has_the_law(path):
    """With an exact network the order in which modalities are finished does not matter."""
    n = 1500
    joint, oracle = process(n)
    compare(joint, joint.sample(oracle, n, steps=64, path=path, rng=1), ["x", "y"], LAW)


def test_one_modality_after_the_other_splits_nothing_between_them():
    """Sequentially each modality moves alone, and the number sees the finished token: every row agrees in sign, at 6
    steps already. Run together some do not: the last moves see each other still noisy."""
    joint = JointProcess({"x": get_modality("gaussian")((1,)), "y": get_modality("masked")((1,), 2)}, block=3000)
    atoms = {"x": torch.tensor([[-1.0], [1.0]]), "y": torch.tensor([[0], [1]])}
    oracle = OracleDenoiser(joint, atoms)

    def wrong(path):
        x = joint.sample(oracle, 3000, steps=6, path=path, rng=2)
        return float((x["x"].sign() != 2 * x["y"] - 1).float().mean())

    assert wrong(Sequential(["y"])) == 0
    assert wrong(Synchronous()) > 0


def test_fewer_steps_for_the_text_keep_the_law():
    n = 1500
    joint, oracle = process(n)
    compare(joint, joint.sample(oracle, n, steps={"x": 64, "y": 32}, rng=3), ["x", "y"], LAW)


def test_a_network_that_does_not_look_at_the_other_modality_is_found_out():
    """The comparison can fail: x | y from a network that is shown an absent y."""
    n = 1500
    joint, oracle = process(n)
    y = torch.tensor([[0, 0]]).repeat(n, 1)

    def blind(x, t):
        return oracle({**x, "y": torch.full_like(x["y"], 2)}, {**t, "y": torch.ones_like(t["y"])})

    x = joint.sample(blind, n, given={"y": y}, steps=64, rng=0)
    with pytest.raises(AssertionError):
        compare(joint, x, ["x"], bayes(joint, "y", y[:1], 0.0))
