"""Sampling with an exact network: the joint law, conditionals, guidance identities, inpainting, and that row i is row
i.

Chi-square tests compare n draws with the truth in c cells at level 1e-6 (scipy's quantile), so a right sampler fails
less than once in a million seeds; the seeds are fixed. A sampler that steps all modalities from one frozen state is
first order in the step, so the number of draws is kept where that bias, a few per cent of a cell at most, stays under
the noise."""

import functools

import pytest
import torch
from scipy.stats import chi2

from de_core import ClassifierFreeGuidance, Given, JointProcess, NoisyGuidance, get_modality
from de_core.testing import OracleDenoiser

LEVEL = 1e-6


def chi_square(counts, expected):
    """The statistic and its quantile at LEVEL; every cell is expected to hold some."""
    expected = expected / expected.sum() * counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic, float(chi2.ppf(1 - LEVEL, len(counts) - 1))


@functools.cache
def mixed(block=2048, shares=False):
    """Three or four spaces, five atoms: number, two masked tokens, class, corner of the simplex.

    The simplex's density is a long series, so it takes part where it is what is tested."""
    spaces = {
        "number": get_modality("gaussian")((1,)),
        "tokens": get_modality("masked")((2,), 2),
        "label": get_modality("uniform")((), 3),
    }
    if shares:
        spaces["shares"] = get_modality("simplex")((3,), "posterior")
    joint = JointProcess(spaces, block=block)
    atoms = {
        "number": torch.tensor([[-2.0], [-2.0], [0.0], [0.0], [2.0]]),
        "tokens": torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]),
        "label": torch.tensor([0, 1, 1, 2, 2]),
        "shares": torch.eye(3)[torch.tensor([0, 1, 2, 2, 1])],
    }
    law = torch.tensor([0.3, 0.2, 0.2, 0.15, 0.15])
    atoms = {name: atoms[name] for name in spaces}
    return joint, atoms, law, OracleDenoiser(joint, atoms, law)


def which(atoms, x, names=None):
    """The atom each row equals (the number by rounding to the nearest atom), -1 where none, (n,)."""
    hit = torch.ones(len(next(iter(x.values()))), len(atoms["label"]), dtype=torch.bool)
    for name in names or atoms:
        value = x[name]
        if name == "number":
            value = 2 * (value / 2).round().clamp(-1, 1)
        same = value[:, None] == atoms[name][None]
        hit &= same.reshape(*same.shape[:2], -1).all(2)
    index = hit.long().argmax(1)
    return torch.where(hit.any(1), index, -1)


def test_the_joint_law_of_all_four():
    """512 draws, 48 steps. Rows that are no atom come from first-order splitting: under 6 %, the rest has the law."""
    joint, atoms, law, oracle = mixed(512, True)
    x = joint.sample(oracle, 512, steps=48, rng=0)
    index = which(atoms, x)
    assert float((index < 0).float().mean()) < 0.06
    statistic, bound = chi_square(torch.bincount(index[index >= 0], minlength=5).float(), law)
    assert statistic < bound
    assert float((x["number"] - 2 * (x["number"] / 2).round()).abs().max()) < 0.2
    assert bool(((x["shares"] == 0) | (x["shares"] == 1)).all())


def test_the_joint_law_is_reached_at_first_order_in_the_step():
    """The share of rows that are no atom falls with the number of steps: four times as many steps, less than half of
    it.

    By 4,000 draws: shares near .08 and .02 with errors .004 and .002."""
    joint, atoms, _, oracle = mixed()
    coarse, fine = (
        float((which(atoms, joint.sample(oracle, 4000, steps=steps, rng=1)) < 0).float().mean()) for steps in (12, 48)
    )
    assert fine < 0.5 * coarse


@pytest.mark.parametrize(
    "given", [{"label": 1}, {"tokens": 0}, {"number": 3}, {"shares": 4}, {"label": 0, "tokens": 0}]
)
def test_conditionals_at_clean_levels(given):
    """p(atom | the given modalities, clean), by Bayes' rule over the atoms that have those values; the given come back
    bit for bit. Atom numbers stand for their values."""
    n = 256 if "shares" in given else 1000
    joint, atoms, law, oracle = mixed(n, "shares" in given)
    held = {name: atoms[name][j].expand(n, *atoms[name].shape[1:]).contiguous() for name, j in given.items()}
    x = joint.sample(oracle, n, given=held, steps=64, rng=2)
    for name, value in held.items():
        assert x[name] is value
    weights = law.clone()
    for name, j in given.items():
        weights = weights * (atoms[name] == atoms[name][j]).reshape(5, -1).all(1)
    index = which(atoms, x)
    assert float((index < 0).float().mean()) < 0.05
    assert bool((weights[index[index >= 0]] > 0).all())
    possible = weights > 0
    if int(possible.sum()) > 1:
        counts = torch.bincount(index[index >= 0], minlength=5).float()[possible]
        statistic, bound = chi_square(counts, weights[possible])
        assert statistic < bound


@pytest.mark.parametrize(
    ("name", "level", "value"),
    [("number", 0.5, [0.7]), ("label", 0.6, 1), ("tokens", 0.5, [0, 2]), ("shares", 0.4, [0.2, 0.3, 0.5])],
)
def test_conditionals_at_a_noisy_level(name, level, value):
    """p(atom | x_name = value at its level): Bayes' rule with the modality's own transition density."""
    n = 256 if name == "shares" else 1000
    joint, atoms, law, oracle = mixed(n, name == "shares")
    noisy = torch.tensor(value).expand(n, *atoms[name].shape[1:]).contiguous()
    x = joint.sample(oracle, n, given={name: Given(noisy, level=level)}, steps=64, rng=3)
    assert x[name] is noisy
    t = torch.full((5,), level, dtype=torch.float64)
    first = noisy[:5].double() if noisy.is_floating_point() else noisy[:5]
    start = atoms[name].double() if noisy.is_floating_point() else atoms[name]
    likelihood = joint.modalities[name].log_transition(first, start, t).exp()
    index = which(atoms, x, [k for k in atoms if k != name])
    assert float((index < 0).float().mean()) < 0.06
    posterior = law * likelihood.float()
    keep = posterior > 1e-12
    counts = torch.bincount(index[index >= 0], minlength=5).float()
    assert float(counts[~keep].sum()) == 0
    # a rare cell's first-order bias is relative: cells of under five expected draws join the largest
    expected = posterior / posterior.sum() * counts.sum()
    rare = expected < 5
    counts[expected.argmax()] += counts[rare].sum()
    expected[expected.argmax()] += expected[rare].sum()
    if int((~rare).sum()) > 1:
        statistic, bound = chi_square(counts[~rare], expected[~rare])
        assert statistic < bound


def test_marginals_by_leaving_the_others_at_the_prior():
    """A modality given at level 1 carries nothing: the others have their joint marginal law."""
    joint, atoms, law, oracle = mixed()
    n = 1000
    absent = joint.modalities["label"].prior(n, rng=5)
    x = joint.sample(oracle, n, given={"label": Given(absent, level=1.0)}, steps=64, rng=4)
    index = which(atoms, x, ["number", "tokens"])
    statistic, bound = chi_square(torch.bincount(index[index >= 0], minlength=5).float(), law)
    assert statistic < bound


def test_shares_given_the_rest_find_the_composition():
    """The scaled score head: the shares given the label lie at the atom's shares. Mean absolute error under .02: the
    last step's spread is sqrt(tau x(1-x)) with tau = .0067, about .037 for one part, and ``finish`` returns the mean
    given that; the prior's error is .2."""
    joint = JointProcess({"label": get_modality("uniform")((), 2), "shares": get_modality("simplex")((3,))})
    atoms = {"label": torch.tensor([0, 1]), "shares": torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])}
    oracle = OracleDenoiser(joint, atoms)
    label = torch.arange(64) % 2
    x = joint.sample(oracle, 64, given={"label": label}, steps=32, rng=0)["shares"]
    assert (x - atoms["shares"][label]).abs().mean() < 0.02
    assert (x.sum(-1) - 1).abs().max() < 1e-6  # rounding of three float32 shares


STEPPERS = [
    {"number": "euler"}, {"number": "heun"}, {"number": "ancestral"},
    {"tokens": "systematic"}, {"tokens": "tau_leaping"}, {"label": "tau_leaping"},
]  # fmt: skip


@pytest.mark.parametrize("methods", STEPPERS, ids=str)
def test_every_stepper_has_the_law(methods):
    """As above with one stepper in place of the default, number and label and tokens; 1,000 draws in 96 steps."""
    joint, atoms, law, oracle = mixed()
    n = 1000
    x = joint.sample(oracle, n, steps=96, methods=methods, rng=6)
    index = which(atoms, x, ["number", "tokens", "label"])
    assert float((index < 0).float().mean()) < 0.06
    statistic, bound = chi_square(torch.bincount(index[index >= 0], minlength=5).float(), law)
    assert statistic < bound


# --- identities, bit for bit ------------------------------------------------------------------------------------------


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_guidance_identities_bit_for_bit():
    """w = 1 is no guidance; sigma = 1 is classifier-free; sigma at the condition's own level is no guidance in law
    and, the weak call seeing the same state, in value; outside the interval there is no guidance."""
    joint, atoms, _, oracle = mixed(8, True)
    given = {"label": atoms["label"][torch.arange(8) % 5]}
    run = lambda guidance, given=given: joint.sample(oracle, 8, given=given, steps=12, guidance=guidance, rng=7)  # noqa: E731
    plain = run(None)
    assert same(plain, run(NoisyGuidance(1.0, sigma=0.3)))
    assert same(plain, run(ClassifierFreeGuidance(1.0)))
    strong = run(NoisyGuidance(2.5, sigma=1.0))
    assert same(strong, run(ClassifierFreeGuidance(2.5)))
    assert not same(plain, strong)
    assert same(plain, run(NoisyGuidance(3.0, sigma=0.5, interval=(0.0, 1e-6))))
    joined = run(None, {})
    assert same(joined, run(NoisyGuidance(1.0), {}))
    assert not same(joined, run(NoisyGuidance(2.5, sigma=0.7), {}))


@pytest.mark.parametrize("kind", ["number", "tokens", "label", "shares"])
def test_guidance_weight_zero_is_the_weak_model(kind):
    """One step from one state: w = 0 gives the step of the weak output, in the same stream. Discrete steps mix in
    log-probabilities and draw by inverse cumulative sums, so equal laws give equal draws; numbers within rounding,
    1e-5."""
    joint, atoms, _, oracle = mixed(8, True)
    m = joint.modalities[kind]
    x = {k: v.perturb(atoms[k], 0.6, rng=1).xt for k, v in joint.modalities.items()}
    t = {k: torch.full((5,), 0.6) for k in x}
    strong = oracle(x, t)[kind]
    weak = oracle({**x, **{k: v.flip(0) for k, v in x.items() if k != kind}}, t)[kind]
    when, then = torch.full((5,), 0.6), torch.full((5,), 0.55)
    for method in m.methods():
        again, alone = (lambda xi, ti: (strong, weak)), (lambda xi, ti: weak)
        guided, _ = m.step(strong, x[kind], when, then, rng=2, method=method, weak=weak, weight=0.0, again=again)
        plain, _ = m.step(weak, x[kind], when, then, rng=2, method=method, again=alone)
        assert (guided - plain).abs().max() < 1e-5


def test_row_i_depends_on_the_seed_and_not_on_how_many_rows():
    """5 rows and 16 rows: the first five agree bit for bit, whatever the other rows are given, over two blocks too."""
    joint, atoms, _, oracle = mixed(8, True)
    label = atoms["label"][torch.randint(5, (16,), generator=torch.Generator().manual_seed(0))]
    for given in ({}, {"label": label}):
        many = joint.sample(oracle, 16, given=given, steps=10, rng=9)
        few = joint.sample(oracle, 5, given={k: v[:5] for k, v in given.items()}, steps=10, rng=9)
        assert same({k: v[:5] for k, v in many.items()}, few)
    known = torch.rand(16, 2, generator=torch.Generator().manual_seed(1)) < 0.5
    tokens = atoms["tokens"][torch.arange(16) % 5]
    many = joint.sample(oracle, 16, given={"tokens": Given(tokens, known=known)}, steps=10, rng=9)
    few = joint.sample(oracle, 5, given={"tokens": Given(tokens[:5], known=known[:5])}, steps=10, rng=9)
    assert same({k: v[:5] for k, v in many.items()}, few)
    assert not same(joint.sample(oracle, 5, steps=10, rng=10), joint.sample(oracle, 5, steps=10, rng=11))


# --- inpainting -------------------------------------------------------------------------------------------------------


def line(kind, wise):
    """Three elements that are all equal or alternate, four atoms: knowing the first leaves a choice that is not
    even."""
    modality = get_modality(kind)((3,), 2)
    joint = JointProcess({"m": modality}, ["m"] if wise else [], block=2048)
    atoms = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]])
    law = torch.tensor([0.35, 0.15, 0.1, 0.4])
    return joint, atoms, law, OracleDenoiser(joint, {"m": atoms}, law)


@pytest.mark.parametrize(("kind", "wise"), [("masked", False), ("masked", True), ("uniform", True)])
def test_inpainting_is_exact_where_the_known_part_is_held(kind, wise):
    """p(rest | first element = 0) = (.7, .3): 2,000 draws; the known part comes back as it was."""
    joint, atoms, law, oracle = line(kind, wise)
    n = 2000
    known = torch.tensor([True, False, False])
    value = torch.tensor([0, 1, 1]).repeat(n, 1)  # the unknown part is never read
    x = joint.sample(oracle, n, given={"m": Given(value, known=known)}, steps=64, rng=0)["m"]
    assert bool((x[:, 0] == 0).all())
    hit = (x[:, None] == atoms[None, :2]).all(2)
    assert float((~hit.any(1)).float().mean()) < 0.02
    statistic, bound = chi_square(hit.float().sum(0), law[:2])
    assert statistic < bound


def test_inpainting_by_replacement_is_near_and_resampling_brings_it_nearer():
    """A uniform chain without its own clocks: approximate. The chance of the likelier completion is within .1 of .7."""
    joint, atoms, _, oracle = line("uniform", False)
    n = 1000
    value, known = torch.zeros(n, 3, dtype=torch.int64), torch.tensor([True, False, False])
    given = Given(value, known=known, resample=5)
    x = joint.sample(oracle, n, given={"m": given}, steps=32, rng=0)["m"]
    assert bool((x[:, 0] == 0).all())
    share = float((x == atoms[0]).all(1).float().mean())
    assert abs(share - 0.7) < 0.1


def test_inpainting_numbers_with_their_own_clocks():
    """(a, b) = (1, 1) or (-1, -1), a known: b follows it, in sign always."""
    joint = JointProcess({"m": get_modality("gaussian")((2,))}, ["m"])
    oracle = OracleDenoiser(joint, {"m": torch.tensor([[1.0, 1.0], [-1.0, -1.0]])})
    value = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(50, 1)
    x = joint.sample(oracle, 100, given={"m": Given(value, known=torch.tensor([True, False]))}, steps=24, rng=0)["m"]
    assert torch.equal(x[:, 0], value[:, 0])
    assert (x[:, 1] - value[:, 0]).abs().max() < 1e-3  # the oracle's mean at t_min is the atom to e^-1000
