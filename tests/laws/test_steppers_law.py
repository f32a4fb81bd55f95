"""What every stepper samples with an exact network: random laws with finite support over a mixed product, at two step
counts, against the truth by chi-square at level 1e-6.

A joint run is first order in its step, whatever the steppers; the number of draws is kept where that bias, a few per
cent of a cell, stays under the noise. Where one modality moves alone, or first-hitting does, nothing is left but the
stepper's own error, and the bounds are sharp."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from de_core import Given, JointProcess, get_modality
from de_core.errors import DiffuseError
from de_core.testing import OracleDenoiser

F64 = torch.float64
LEVEL = 1e-6


def fits(counts, law):
    """Chi-square of the counts against a law; cells of under five expected join the largest, none is impossible."""
    expected = law.double() / law.sum() * counts.sum()
    assert float(counts[law == 0].sum()) == 0
    rare, top = expected < 5, int(expected.argmax())
    counts, expected = counts.double().clone(), expected.clone()
    counts[top] += counts[rare].sum()
    expected[top] += expected[rare].sum()
    counts, expected = counts[~rare], expected[~rare]
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return len(counts) == 1 or statistic < float(chi2.ppf(1 - LEVEL, len(counts) - 1))


def random_law(joint, seed, n=5):
    """``n`` different atoms with random weights; numbers are -2, 0 or 2."""
    rng = torch.Generator().manual_seed(seed)
    atoms = {}
    for name, m in joint.modalities.items():
        shape = (n, *m.event_shape)
        if "num_classes" in m.config():
            atoms[name] = torch.randint(m.config()["num_classes"], shape, generator=rng)
        else:
            atoms[name] = 2.0 * torch.randint(-1, 2, shape, generator=rng)
    law = 0.3 + torch.rand(n, generator=rng)
    flat = torch.cat([v.reshape(n, -1).float() for v in atoms.values()], 1)
    assert len(flat.unique(dim=0)) == n  # the seed was chosen so
    return atoms, law / law.sum()


def which(atoms, x):
    """The atom each row is (a number by rounding), -1 where none."""
    hit = torch.ones(len(next(iter(x.values()))), len(next(iter(atoms.values()))), dtype=torch.bool)
    for name, value in atoms.items():
        here = 2 * (x[name] / 2).round().clamp(-1, 1) if value.is_floating_point() and name == "number" else x[name]
        hit &= (here[:, None] == value[None]).reshape(*hit.shape, -1).all(2)
    return torch.where(hit.any(1), hit.long().argmax(1), -1)


STEPPERS = [
    ("number", method) for method in ("dpm_solver", "euler", "heun", "heun_paper", "ancestral", "churn")
] + [
    ("tokens", method)
    for method in ("analytic", "systematic", "confidence", "first_hitting", "euler", "tau_leaping", "tau_leaping_paper")
] + [("label", method) for method in ("analytic", "euler", "tau_leaping", "tau_leaping_paper")]  # fmt: skip


@pytest.mark.parametrize("steps", [32, 80])
@pytest.mark.parametrize(("name", "method"), STEPPERS)
def test_the_joint_law_of_a_mixed_product(name, method, steps):
    """600 draws over number, two tokens and a label, one stepper in place of the default. Rows that are no atom come
    from first-order splitting: about 1 % at 32 steps and .4 % at 80, so that more than 24 and 15 of the rows are
    rarer than one seed in a million (Poisson, means 6 and 2.4); the rest has the law."""
    joint = JointProcess(
        {
            "number": get_modality("gaussian")((1,), "linear" if method == "heun_paper" else "cosine"),
            "tokens": get_modality("masked")((2,), 3),
            "label": get_modality("uniform")((), 3),
        },
        block=600,
    )
    assert set(joint.modalities[name].methods()) == {m for n, m in STEPPERS if n == name}
    atoms, law = random_law(joint, 3)
    x = joint.sample(OracleDenoiser(joint, atoms, law), 600, steps=steps, methods={name: method}, rng=0)
    index = which(atoms, x)
    assert float((index < 0).float().mean()) < (0.04 if steps == 32 else 0.025)
    assert fits(torch.bincount(index[index >= 0], minlength=5), law)


@pytest.mark.parametrize("steps", [16, 64])
@pytest.mark.parametrize("method", ["dpm_solver", "euler", "heun", "heun_paper", "ancestral", "churn"])
def test_a_number_alone_given_noisy_others(method, steps):
    """p(number | a label at level .6, two masks at level .5) by Bayes: 2,000 draws, three values."""
    spaces = {
        "number": get_modality("gaussian")((1,), "linear" if method == "heun_paper" else "cosine"),
        "tokens": get_modality("masked")((2,), 3),
        "label": get_modality("uniform")((), 3),
    }
    joint, n = JointProcess(spaces, block=2000), 2000
    atoms, law = random_law(joint, 3)
    oracle = OracleDenoiser(joint, atoms, law)
    label, tokens = atoms["label"][:1], torch.tensor([[3, 3]])
    given = {"label": Given(label.expand(n), level=0.6), "tokens": Given(tokens.expand(n, 2), level=0.5)}
    x = joint.sample(oracle, n, given=given, steps=steps, methods={"number": method}, rng=1)["number"][:, 0]
    when = {"number": torch.ones(1), "tokens": torch.full((1,), 0.5), "label": torch.full((1,), 0.6)}
    posterior = oracle.log_posterior({"number": torch.zeros(1, 1), "tokens": tokens, "label": label}, when).exp()[0]
    values = torch.tensor([-2.0, 0.0, 2.0])
    weight = torch.stack([posterior[atoms["number"][:, 0] == v].sum() for v in values])
    assert float((weight > 0.05).sum()) >= 2  # there is something to choose
    nearest = (x[:, None] - values).abs()
    assert float(nearest.amin(1).max()) < 0.3
    assert fits(torch.bincount(nearest.argmin(1), minlength=3), weight)


# --- first-hitting ----------------------------------------------------------------------------------------------------


def tokens_alone(schedule, elements=4):
    """Five atoms over four tokens: what is drawn together, and not one after the other, is mostly no atom."""
    joint = JointProcess({"m": get_modality("masked")((elements,), 3, schedule)})
    atoms, law = random_law(joint, 1)
    return joint.modalities["m"], atoms["m"], law, OracleDenoiser(joint, atoms, law)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("grid", [(1.0, 0.0), (1.0, 0.6, 0.3, 0.0)])
def test_first_hitting_is_exact(schedule, grid):
    """From all masks to the data in one step and in three: every row of 20,000 is an atom, and they have the law. The
    analytic step at the same grid leaves the support in over a tenth of the rows."""
    m, atoms, law, oracle = tokens_alone(schedule)
    n, calls = 20_000, []

    def call(x, t):
        calls.append(t)
        return oracle({"m": x}, {"m": t})["m"]

    share = {}
    for method in ("first_hitting", "analytic"):
        x, rng = m.prior(n, rng=0), torch.Generator().manual_seed(0)
        for t, s in itertools.pairwise(grid):
            t, s = torch.full((n,), t, dtype=F64), torch.full((n,), s, dtype=F64)
            x, _ = m.step(oracle({"m": x}, {"m": t})["m"], x, t, s, rng=rng, method=method, again=call)
        index = which({"m": atoms}, {"m": x})
        share[method] = float((index < 0).double().mean())
        if method == "first_hitting":
            assert fits(torch.bincount(index, minlength=5), law)
    assert share["first_hitting"] == 0 < 0.1 < share["analytic"]
    # one call an event of the busiest row: four in one step; each inside its step, and going down within it
    assert len(calls) >= 4
    assert all(bool(((t >= grid[-1]) & (t <= grid[0])).all()) for t in calls)
    if len(grid) == 2:
        assert len(calls) == 4
        assert all(bool((b < a).all()) for a, b in itertools.pairwise(calls))


def test_first_hitting_with_a_clock_an_element():
    """From p at clocks (.9, .5, .7, .4) to (.3, .5, .1, .3): 20,000 rows against p there, by the transition density
    over all states; the second element does not move."""
    m, atoms, law, oracle = tokens_alone("linear")
    n, rng = 20_000, torch.Generator().manual_seed(0)
    t, s = (torch.tensor(v, dtype=F64).expand(n, 4) for v in ((0.9, 0.5, 0.7, 0.4), (0.3, 0.5, 0.1, 0.3)))
    x0 = atoms[torch.multinomial(law, n, replacement=True, generator=rng)]
    xt = m.perturb(x0, t, rng=rng).xt
    call = lambda x, when: oracle({"m": x}, {"m": when})["m"]  # noqa: E731 # one word for one line
    x, _ = m.step(call(xt, t), xt, t, s, rng=rng, method="first_hitting", again=call)
    assert torch.equal(x[:, 1], xt[:, 1])
    states = m.generator(0.5).states()
    pairs = m.log_transition(
        states.repeat_interleave(5, 0), atoms.repeat(len(states), 1), s[:1].expand(5 * len(states), 4)
    )
    p = pairs.exp().reshape(-1, 5) @ law.double()
    digits = 4 ** torch.arange(4)
    counts = torch.bincount((x * digits).sum(1), minlength=256)[(states * digits).sum(1)]
    assert fits(counts, p)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("masked", "first_hitting"), ("gaussian", "heun"), ("gaussian", "heun_paper"), ("gaussian", "churn")],
)
def test_a_method_that_calls_twice_says_so(kind, method):
    m = get_modality(kind)((2,), *([3] if kind == "masked" else []))
    x, t = m.prior(2, rng=0), torch.full((2,), 0.9)
    with pytest.raises(DiffuseError, match=f"method '{method}' needs a second network call"):
        m.step(torch.zeros(2, *m.output_shape), x, t, t / 99, rng=0, method=method)
