"""The discrete steppers as transition matrices: the law of a step is enumerated over all states, so that exactness and
order are identities between finite sums; and what a step draws is held to its matrix by chi-square.

The matrices of the masked steppers are written out here from their docstrings; a uniform stepper states its own law
(``transition``), whose rates are compared with the reverse rates Q p(y)/p(x) of the exact marginal."""

import itertools
import math

import pytest
import torch
from scipy.stats import chi2

from de_core import JointProcess, get_modality
from de_core.testing import OracleDenoiser

F64 = torch.float64
LEVEL = 1e-6  # of each chi-square test: a right step fails less than once in a million seeds


def world(kind, elements, classes, schedule="linear", seed=0):
    """A modality of ``elements`` elements, all its clean states under a random law, and the exact network."""
    m = get_modality(kind)((elements,), classes, *([schedule] if kind == "masked" else []))
    atoms = torch.cartesian_prod(*[torch.arange(classes)] * elements).reshape(-1, elements)
    law = torch.rand(len(atoms), generator=torch.Generator().manual_seed(seed), dtype=F64) ** 2
    return m, atoms, law / law.sum(), OracleDenoiser(JointProcess({"m": m}), {"m": atoms}, law)


def states_of(m):
    return m.generator(0.5).states()


def marginal(m, atoms, law, t):
    """p_t over ``states_of(m)``, from the transition density."""
    x = states_of(m)
    when = torch.full((len(x) * len(atoms),), t, dtype=F64)
    pairs = m.log_transition(x.repeat_interleave(len(atoms), 0), atoms.repeat(len(x), 1), when)
    return pairs.exp().reshape(len(x), len(atoms)) @ law


def chance_of(m, method, t, s):
    """How likely a masked element is unmasked between t and s, by its own formula."""
    t, s = torch.tensor(t, dtype=F64), torch.tensor(s, dtype=F64)
    lost = m.clock.lost
    mean = float((t - s) * m.clock.speed(t) / lost(t))
    return {
        "analytic": 1 - float(lost(s) / lost(t)),
        "euler": min(1.0, mean),
        "tau_leaping": 1 - math.exp(-mean),
        "tau_leaping_paper": mean * math.exp(-mean),
    }[method]


def subsets(m, method, probs, masked, t, s):
    """(probability, which elements are drawn at once), for one state with the elements ``masked``."""
    if method in ("systematic", "confidence"):
        total = len(masked) * chance_of(m, "analytic", t, s)
        low = math.floor(total + 1e-12)
        for count, weight in ((low, 1 - (total - low)), (low + 1, total - low)):
            if weight > 1e-12 and method == "systematic":
                every = list(itertools.combinations(masked, count))
                yield from ((weight / len(every), pick) for pick in every)
            elif weight > 1e-12:
                yield weight, tuple(sorted(masked, key=lambda e: (-float(probs[e].max()), e))[:count])
        return
    c = chance_of(m, method, t, s)
    for count in range(len(masked) + 1):
        for pick in itertools.combinations(masked, count):
            yield c**count * (1 - c) ** (len(masked) - count), pick


def matrix(m, oracle, method, t, s):
    """The transition matrix of one step over ``states_of(m)``."""
    x = states_of(m)
    where = {tuple(v): k for k, v in enumerate(x.tolist())}
    full = lambda u: torch.full((len(x),), u, dtype=F64)  # noqa: E731 # one word for one line
    output = oracle({"m": x}, {"m": full(t)})["m"]
    out = torch.zeros(len(x), len(x), dtype=F64)
    if not hasattr(m, "layout"):  # uniform: elements are independent given x_t
        q = m.transition(output, x, full(t), full(s), method=method).exp()
        for k, y in enumerate(x):
            out[:, k] = torch.stack([q[:, e, y[e]] for e in range(len(y))]).prod(0)
        return out
    probs, k = output.softmax(-1), m.num_classes
    for i, state in enumerate(x.tolist()):
        masked = [e for e, v in enumerate(state) if v == k]
        if method == "first_hitting":
            for weight, pick in subsets(m, "analytic", probs[i], masked, t, s):
                for order in itertools.permutations(pick):
                    path = {tuple(state): weight / math.factorial(len(pick))}
                    for e in order:
                        path = {
                            (*y[:e], v, *y[e + 1 :]): w * float(probs[where[y], e, v])
                            for y, w in path.items() for v in range(k)
                        }  # fmt: skip
                    for y, w in path.items():
                        out[i, where[y]] += w
            continue
        for weight, pick in subsets(m, method, probs[i], masked, t, s):
            for values in itertools.product(range(k), repeat=len(pick)):
                y, w = list(state), weight
                for e, v in zip(pick, values, strict=True):
                    y[e], w = v, w * float(probs[i, e, v])
                out[i, where[tuple(y)]] += w
    return out


def run(m, oracle, method, p, grid):
    for t, s in itertools.pairwise(grid):
        p = p @ matrix(m, oracle, method, t, s)
    return p


def distance(p, q):
    return 0.5 * float((p - q).abs().sum())


def grid_of(start, end, steps):
    return torch.linspace(start, end, steps + 1, dtype=F64).tolist()


# --- exactness --------------------------------------------------------------------------------------------------------

ALL = {
    "masked": ["analytic", "systematic", "confidence", "first_hitting", "euler", "tau_leaping", "tau_leaping_paper"],
    "uniform": ["analytic", "euler", "tau_leaping", "tau_leaping_paper"],
}


def test_every_discrete_stepper_is_here():
    assert set(ALL["masked"]) == set(get_modality("masked")((1,), 2).methods())
    assert set(ALL["uniform"]) == set(get_modality("uniform")((1,), 2).methods())


@pytest.mark.parametrize(
    ("kind", "method", "elements", "schedule"),
    [
        ("masked", "analytic", 1, "cosine"),
        ("masked", "euler", 1, "linear"),
        ("masked", "first_hitting", 2, "cosine"),
        ("masked", "first_hitting", 3, "linear"),
        ("uniform", "analytic", 1, "linear"),
    ],
)
def test_steps_that_are_exact_for_any_length(kind, method, elements, schedule):
    """p_t M = p_s to rounding (1e-12 over 64 states) for one step of any length: one element analytic; Euler where its
    rate is exact; first-hitting always."""
    m, atoms, law, oracle = world(kind, elements, 3 if elements < 3 else 2, schedule)
    for t, s in ((0.95, 0.9), (0.9, 0.2), (0.5, 0.01)):
        found = run(m, oracle, method, marginal(m, atoms, law, t), [t, s])
        assert (found - marginal(m, atoms, law, s)).abs().max() < 1e-12


@pytest.mark.parametrize("method", ["systematic", "confidence"])
def test_unmasking_one_at_a_time_is_exact_in_any_order(method):
    """1 -> 2/3 -> 1/3 -> 0 on the linear schedule unmasks exactly one of three elements a step: the law at 0 is the
    data's to rounding, for a random order and for the surest first, which depends on the state alone."""
    m, atoms, law, oracle = world("masked", 3, 2)
    found = run(m, oracle, method, marginal(m, atoms, law, 1.0), [1.0, 2 / 3, 1 / 3, 0.0])
    assert (found - marginal(m, atoms, law, 0.0)).abs().max() < 1e-12


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "method", "schedule"),
    [("masked", method, "cosine") for method in ("analytic", "euler", "tau_leaping", "tau_leaping_paper")]
    + [("uniform", method, "linear") for method in ALL["uniform"]],
)
def test_the_order_of_the_discrete_steppers(kind, method, schedule):
    """Two elements from .9 to .1, the distance in total variation to p_{.1}: halving the step halves it, order 1 with
    .15 for the next term. (Away from 0, where the mean number of jumps z is small, dropping double jumps is of first
    order too.)"""
    m, atoms, law, oracle = world(kind, 2, 3 if kind == "uniform" else 2, schedule)
    start, end = marginal(m, atoms, law, 0.9), marginal(m, atoms, law, 0.1)
    errors = [distance(run(m, oracle, method, start, grid_of(0.9, 0.1, steps)), end) for steps in (32, 64, 128)]
    found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.85 < order < 1.15 for order in found), (found, errors)


def test_the_rates_of_the_uniform_steppers_are_the_reverse_rates():
    """(M - I)/(t - s) tends to Q(y, x) p_t(y)/p_t(x) with Q(y, x) = h/K one element apart: at t - s = 1e-6 they agree
    to 1e-4, the second-order term being under 1e-6 times the square of the largest rate, 10."""
    m, atoms, law, oracle = world("uniform", 2, 3)
    t, h = 0.6, 1e-6
    p, x = marginal(m, atoms, law, t), states_of(m)
    near = (x[:, None] != x[None]).sum(2) == 1
    wanted = torch.where(near, float(m.clock.hazard(torch.tensor(t, dtype=F64))) / 3 * p[None] / p[:, None], 0.0)
    assert float(wanted.sum(1).max()) < 10
    for method in ALL["uniform"]:
        rates = (matrix(m, oracle, method, t, t - h) / h).fill_diagonal_(0)
        assert (rates - wanted).abs().max() < 1e-4


# --- what is drawn ----------------------------------------------------------------------------------------------------


def fits(counts, law):
    """Chi-square of the counts against a law; cells of under five expected join the largest."""
    expected = law / law.sum() * counts.sum()
    rare, top = expected < 5, int(expected.argmax())
    assert float(counts[law < 1e-15].sum()) == 0
    counts, expected = counts.clone(), expected.clone()
    counts[top] += counts[rare].sum()
    expected[top] += expected[rare].sum()
    counts, expected = counts[~rare], expected[~rare]
    return float(((counts - expected) ** 2 / expected).sum()) < float(chi2.ppf(1 - LEVEL, len(counts) - 1))


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind in ALL for method in ALL[kind]])
@pytest.mark.parametrize("steps", [1, 3])
def test_what_a_step_draws_has_the_enumerated_law(kind, method, steps):
    """50,000 rows from the prior to t = .2 in one step and in three: no bias is left out, the law is that of the
    stepper at this very grid."""
    m, atoms, law, oracle = world(kind, 2, 3, seed=1)
    n, grid, rng = 50_000, grid_of(0.98, 0.2, steps), torch.Generator().manual_seed(0)
    start = marginal(m, atoms, law, 0.98)
    x = states_of(m)[torch.multinomial(start, n, replacement=True, generator=rng)]
    table = states_of(m)
    digits = (m.num_classes + 1) ** torch.arange(2)
    place = torch.full(((m.num_classes + 1) ** 2,), -1)
    place[(table * digits).sum(1)] = torch.arange(len(table))
    index = lambda v: place[(v * digits).sum(1)]  # noqa: E731 # one word for one line

    def head(y, when):
        """The oracle, worked once a state: its tokens do not need the clock, and the uniform steps share theirs."""
        return oracle({"m": table}, {"m": when[:1].expand(len(table))})["m"][index(y)]

    for t, s in itertools.pairwise(grid):
        t, s = torch.full((n,), t, dtype=F64), torch.full((n,), s, dtype=F64)
        x, _ = m.step(head(x, t), x, t, s, rng=rng, method=method, again=head)
    assert fits(torch.bincount(index(x), minlength=len(table)).double(), run(m, oracle, method, start, grid))


# --- the joint step ---------------------------------------------------------------------------------------------------


def pair(seed=2):
    """A token and a class, two spaces of one element each, a random joint law."""
    joint = JointProcess({"a": get_modality("masked")((), 3), "b": get_modality("uniform")((), 3)}, block=20_000)
    a, b = (v.reshape(-1) for v in torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij"))
    law = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=F64) ** 3
    return joint, law / law.sum(), OracleDenoiser(joint, {"a": a, "b": b}, law)


def joint_law(joint, oracle, steps):
    """The law of ``joint.sample`` at ``steps`` network calls over (token, class), by enumeration of its 12 states: both
    modalities step from one frozen state by their analytic laws, and the last call is ``finish``."""
    a, b = (v.reshape(-1) for v in torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"))
    p = (a == 3).double() / 3
    for k in range(steps):
        t, s = 1 - k / steps, 1 - (k + 1) / steps
        when = {"a": torch.full((12,), t, dtype=F64), "b": torch.full((12,), t, dtype=F64)}
        out = oracle({"a": a, "b": b}, when)
        first = out["a"].softmax(-1) * (1 - s / t)
        first = torch.cat([first, torch.full((12, 1), s / t, dtype=F64)], 1)
        first = torch.where((a == 3)[:, None], first, torch.nn.functional.one_hot(a, 4).double())
        second = joint.modalities["b"].transition(out["b"], b, when["b"], when["b"] * 0 + s).exp()
        p = (p[:, None, None] * first[:, :, None] * second[:, None, :]).sum(0).reshape(-1)
    return p.reshape(4, 3)


def test_the_joint_step_is_of_first_order_and_sampled_as_enumerated():
    """Total variation of the law to the data's at 8, 16, 32, 64 calls: order 1 with .15 for the next term, and what
    ``joint.sample`` draws at 4 calls, ``finish`` among them, fits its own enumeration: 20,000 rows."""
    joint, law, oracle = pair()
    errors = []
    for steps in (8, 16, 32, 64):
        found = joint_law(joint, oracle, steps)
        assert float(found[3].sum()) == 0  # no mask is left
        errors.append(distance(found[:3].reshape(-1), law))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.85 < order < 1.15 for order in orders), (orders, errors)
    x = joint.sample(oracle, 20_000, steps=4, rng=0)
    counts = torch.bincount(3 * x["a"] + x["b"], minlength=9).double()
    assert fits(counts, joint_law(joint, oracle, 4)[:3].reshape(-1))
    assert not fits(counts, law)  # the test sees a bias of this size
