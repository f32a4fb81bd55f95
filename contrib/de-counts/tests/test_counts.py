"""Closed forms of the immigration-death process, its conformance, and the example. Laws in float64."""

import itertools
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from de_counts import _kernel, de_modalities
from de_counts.modality import Counts
from scipy.linalg import expm
from scipy.special import logsumexp
from scipy.stats import binom, chi2, poisson

from de_core import DiffuseError, JointProcess, Jump, get_modality, list_modalities, register
from de_core.modality import Noised
from de_core.testing import OracleDenoiser, check_modality

F64 = torch.float64
ROOT = Path(__file__).parents[1]
TIMES = [1e-4, 0.1, 0.5, 0.9, 0.999]
SIGMAS = 5  # standard errors: chance 6e-7 a check, and the seeds are fixed
ATOMS, LAW, MU = torch.tensor([0, 5, 12]), torch.tensor([0.3, 0.4, 0.3], dtype=F64), 5.7


@pytest.fixture(autouse=True, scope="module")
def _installed():
    """The plugin as pip would have it; from a checkout that is not installed it is registered by hand."""
    if not any(info.name == "counts" for info in list_modalities()):
        register(de_modalities()[0])


def at(t, n):
    return torch.full((n,), t, dtype=F64)


def log_marginal(m, x, t):
    """log p_t of the atoms' law, and the posterior of the atoms, (n, 3)."""
    parts = torch.stack([m.log_transition(x, a.expand(len(x)), at(t, len(x))) for a in ATOMS], 1) + LAW.log()
    return parts.logsumexp(1), parts.softmax(1)


def oracle(m, x, t):
    return m.posterior_output(x, at(t, len(x)), ATOMS, log_marginal(m, x, t)[1])


def pairs(k):
    """All (x_t, x_0) below k, flat."""
    x = torch.arange(k)
    return x.repeat_interleave(k), x.repeat(k)


@pytest.mark.parametrize("mu", [0.3, 2.3, 9.0])
@pytest.mark.parametrize("t", TIMES)
def test_the_kernel_is_the_exponential_of_the_rates(t, mu):
    """exp(-log(1 - t) Q) on 0..79 against it on 0..24: the chain cut at 79 is reached with probability below
    P(Poisson(9) + 24 >= 79) = 1e-24; rounding of the exponential, 1e-13."""
    k, few = 80, 25
    q = np.diag(np.full(k - 1, mu), 1) + np.diag(np.arange(1.0, k), -1)
    p = expm(-math.log1p(-t) * (q - np.diag(q.sum(1))))
    x, x0 = pairs(few)
    found = Counts((), mu).log_transition(x, x0, at(t, few**2)).exp().reshape(few, few)
    np.testing.assert_allclose(found, p[:few, :few].T, atol=1e-11)


@pytest.mark.parametrize(
    ("y", "x", "kept", "rate"),
    [
        *((0, 0, 0.5, 1.0), (3, 0, 0.2, 2.0), (0, 7, 0.9, 0.1), (900, 1000, 0.5, 450.0), (1500, 1000, 0.9, 80.0)),
        *((10, 5000, 0.3, 1400.0), (3000, 5000, 0.01, 2970.0), (5000, 5000, 0.999, 0.004), (4000, 4100, 0.97, 20.0)),
    ],
)
def test_density_and_moments_of_large_counts_against_the_full_sum(y, x, kept, rate):
    """Over all survivors. log-gamma of 5000 is 4e4 and rounds to 1e-11; the stretch left out is below 1e-17."""
    b = np.arange(min(x, y) + 1)
    terms = binom.logpmf(b, x, kept) + poisson.logpmf(y - b, rate)
    weight = np.exp(terms - logsumexp(terms))
    value = [torch.tensor([a], dtype=F64) for a in (y, x, kept, 1 - kept, rate)]
    found = [float(a) for a in _kernel.thinned(*value)]
    np.testing.assert_allclose(found[0], logsumexp(terms), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found[1:], [weight @ (x - b), weight @ (y - b), weight @ b], rtol=1e-8, atol=1e-12)


def test_the_prior_is_reversible_for_the_rates_and_the_space_has_no_end():
    """pi(x) Q(x, y) = pi(y) Q(y, x) for pi = Poisson(mu), elementwise, and the rates as they stand in THEORY."""
    mean = torch.tensor([0.5, 3.0], dtype=F64)
    m = Counts((2,), mean.tolist())
    x, t = torch.tensor([[0, 4]]), torch.tensor([0.6], dtype=F64)
    y, out, into = m.generator(t).neighbours(x)
    assert y.tolist() == [[[1, 4], [0, 4], [0, 5], [0, 3]]]
    hazard = 1 / (1 - 0.6)
    assert torch.allclose(out, hazard * torch.tensor([[0.5, 0.0, 3.0, 4.0]], dtype=F64))
    assert torch.allclose(into, hazard * torch.tensor([[1.0, 0.0, 5.0, 3.0]], dtype=F64))

    def log_pi(z):
        return torch.from_numpy(poisson.logpmf(z.numpy(), mean.numpy())).sum(-1)

    flow = out * (log_pi(x)[:, None]).exp() - into * log_pi(y).exp()
    assert float(flow.abs().max()) < 1e-15
    with pytest.raises(DiffuseError, match="not finite"):
        m.generator(t).matrix()


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_kolmogorov(t):
    """dp/dt = L* p: central difference in t at h = 1e-6, error h^2/6 times a third derivative of at most p (x + x_0 +
    mu)^3/(t (1 - t))^3, 3e-6 of p at worst; rounding of log p, 1e-14 p/h."""
    m, h = Counts((2,), [0.7, 3.0]), 1e-6
    x0 = torch.tensor([[0, 5], [2, 1], [1, 8]])
    x = torch.tensor([[0, 4], [1, 3], [2, 0]])
    p = m.log_transition(x, x0, at(t, 3)).exp()

    def density(y):
        return m.log_transition(y, x0.repeat_interleave(len(y) // 3, 0), at(t, len(y))).exp()

    rate = (m.log_transition(x, x0, at(t + h, 3)).exp() - m.log_transition(x, x0, at(t - h, 3)).exp()) / (2 * h)
    assert torch.allclose(m.generator(at(t, 3)).adjoint(density, x), rate, rtol=1e-5, atol=1e-5 * float(p.max()))


@pytest.mark.parametrize("t", [1e-4, 0.2, 0.6, 0.97, 0.9999])
def test_the_perfect_network_has_the_ratios_of_the_noised_law(t):
    """score(posterior_output) = log p_t(y)/p_t(x), to rounding of log p, 1e-13, over 1 - a at the worst; what g means;
    and g_up at x is g_down at x + 1."""
    m, x = Counts((), MU), torch.arange(18)
    here, weights = log_marginal(m, x, t)
    output = oracle(m, x, t)
    score = m.score(output, x, at(t, 18))
    up, down = log_marginal(m, x + 1, t)[0] - here, log_marginal(m, (x - 1).clamp_min(0), t)[0] - here
    assert torch.allclose(score[:, 0], up, rtol=1e-9, atol=1e-9)
    assert torch.allclose(score[1:, 1], down[1:], rtol=1e-9, atol=1e-9)
    assert torch.allclose(output[:-1, 0], output[1:, 1], rtol=1e-7, atol=1e-7)
    dead = torch.zeros(18, dtype=F64)  # E[x_0 - B | x], by the sum over survivors
    for j, x0 in enumerate(ATOMS.tolist()):
        for k in range(18):
            b = np.arange(min(x0, k) + 1)
            w = np.exp(binom.logpmf(b, x0, 1 - t) + poisson.logpmf(k - b, MU * t))
            dead[k] += float(weights[k, j] * (w @ (x0 - b)) / w.sum())
    assert torch.allclose(output[:, 0].exp(), dead / (MU * t), rtol=1e-7)


def test_an_output_of_zero_is_the_prior():
    m, x = Counts((), 2.5), torch.arange(9)
    score = m.score(torch.zeros(9, 2, dtype=F64), x, at(0.4, 9))
    log_pi = torch.from_numpy(poisson.logpmf(np.arange(-1, 10), 2.5))
    assert torch.allclose(score[:, 0], log_pi[2:] - log_pi[1:-1])
    assert torch.allclose(score[1:, 1], log_pi[1:-2] - log_pi[2:-1])


def test_the_loss_is_the_score_entropy_of_the_chain():
    """The closed form is the family's own, from densities at the neighbours, per sample; "simple" is 1 - a times it,
    here with one time a row."""
    m = Counts((2, 2), 3.0)
    rng = torch.Generator().manual_seed(0)
    x0 = torch.randint(12, (60, 2, 2), generator=rng)
    t = torch.linspace(0, 0.99, 60, dtype=F64)
    noised = m.perturb(x0, t, rng=1)
    output = torch.randn(60, 2, 2, 2, generator=rng, dtype=F64)
    loss = m.loss(output, noised)
    assert torch.allclose(loss, Jump.loss(m, output, noised), rtol=1e-8, atol=1e-10)
    assert float(loss[0]) == 0
    assert float(loss[1:].min()) > 0
    assert torch.allclose(m.loss(output, noised, objective="simple"), t * loss)
    with pytest.raises(DiffuseError, match="no objective"):
        m.loss(output, noised, objective="paper")


def test_the_drawn_survivors_give_the_same_expected_loss():
    """The score entropy is linear in the target, so that the ratios given the drawn survivors B are valid targets: the
    loss uses the means over B of mu (1 - a) + a (x_0 - B)/(1 - a), up, and of (x - B)/(1 - a), down."""
    mu, t, x0, x = 4.0, 0.3, 9, 7
    b = np.arange(8)
    weight = np.exp(binom.logpmf(b, x0, 1 - t) + poisson.logpmf(x - b, mu * t))
    weight /= weight.sum()
    m, one = Counts((), mu), torch.tensor([[0.3, -0.4]], dtype=F64)
    up = mu * t + (1 - t) * weight @ (x0 - b) / t
    down = weight @ (x - b) / t
    gain = np.exp(m.log_gain(one, at(t, 1))[0].numpy())
    hats = mu * gain[0], x / gain[1]
    truth = sum(hat - u * math.log(hat) + u * math.log(u) - u for hat, u in zip(hats, (up, down), strict=True)) / (
        1 - t
    )
    noised = Noised(torch.tensor([x0]), torch.tensor([x]), at(0.0, 1), at(t, 1))
    assert float(m.loss(one, noised)) == pytest.approx(truth, rel=1e-10)


def chi_square(x, law):
    """Of draws against a law on 0..len(law) - 1, classes of few merged into one; its threshold at 1e-6."""
    expected = len(x) * law
    seen = x.clamp_max(len(law) - 1).bincount(minlength=len(law)).double()
    many = expected >= 20
    parts = [((seen - expected)[many] ** 2 / expected[many]).sum()]
    rest = expected[~many].sum()
    if rest >= 20:
        parts.append((seen[~many].sum() - rest) ** 2 / rest)
    return float(sum(parts)), chi2.ppf(1 - 1e-6, int(many.sum()))


@pytest.mark.parametrize("t", [0.01, 0.5, 0.95, 1.0])
def test_draws_are_of_the_kernel_and_compose(t):
    """Directly and by way of s, and the prior."""
    m, n, k = Counts((), 3.0), 60_000, 60
    x0 = torch.full((n,), 11)
    law = m.log_transition(torch.arange(k), torch.full((k,), 11), at(t, k)).exp()
    once = m.perturb(x0, t, rng=1).xt
    twice = m.perturb(m.perturb(x0, 0.6 * t, rng=2).xt, t, s=0.6 * t, rng=3).xt
    for xt in (once, twice, *([m.prior(n, rng=4)] if t == 1 else [])):
        m.validate(xt)
        value, bound = chi_square(xt, law)
        assert value < bound


def test_a_reverse_step_has_the_exact_mean_whatever_its_length():
    """E[x_s | x_t] by Bayes' rule, p_s(y) p_{t|s}(x | y), summed over y < 90, beyond which there is less than 1e-30."""
    m, x, y = Counts((), MU), torch.arange(16), torch.arange(90)
    for t, s in ((1.0, 0.9), (1.0, 0.2), (0.8, 0.75), (0.5, 0.1), (0.02, 0.001)):
        prior = log_marginal(m, y, s)[0]
        kept = (1 - t) / (1 - s)
        into = [torch.full((16, 90), a, dtype=F64) for a in (kept, 1 - kept, MU * (1 - kept))]
        joint = (prior + _kernel.thinned(x[:, None], y[None], *into)[0]).softmax(1)
        lost, came = m.reverse(oracle(m, x, t), x, at(t, 16), at(s, 16))
        assert torch.allclose(x * (1 - lost) + came, joint @ y.double(), rtol=1e-9, atol=1e-9)


def test_a_step_draws_the_law_of_its_reversal():
    m, n, k = Counts((), MU), 60_000, 60
    x, t, s = torch.full((n,), 6), at(0.6, n), at(0.35, n)
    output = oracle(m, x[:1], 0.6)
    lost, came = m.reverse(output, x[:1], t[:1], s[:1])
    law = _kernel.thinned(torch.arange(k), x[:k], 1 - lost, lost, came)[0].exp()
    moved, _ = m.step(output.expand(n, 2), x, t, s, rng=0)
    value, bound = chi_square(moved, law)
    assert value < bound
    with pytest.raises(DiffuseError, match="no stepper"):
        m.step(output, x[:1], t[:1], s[:1], rng=0, method="heun")


def test_the_reconstruction_is_the_law_of_the_last_move():
    """-log p(x_0 | x_t) from any t: sums to 1 over x_0 < 90, has the step's mean, and is what ``finish`` draws."""
    m, n, k = Counts((), MU), 60_000, 90
    x, t = torch.full((k,), 6), at(0.4, k)
    output = oracle(m, x, 0.4)
    law = (-m.reconstruction(output, Noised(torch.arange(k), x, at(0.0, k), t))).exp()
    lost, came = m.reverse(output[:1], x[:1], t[:1], at(0.0, 1))
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)
    assert float(law @ torch.arange(k, dtype=F64)) == pytest.approx(float(6 * (1 - lost) + came), rel=1e-10)
    drawn = m.finish(output[:1].expand(n, 2), x[:1].expand(n), t[:1].expand(n), rng=0)
    value, bound = chi_square(drawn, law)
    assert value < bound


def run_down(steps: int) -> float:
    """The law at the end of a run with the perfect network, by the steps' own matrices on 0..39: total variation."""
    m, k = Counts((), MU), 40
    x = torch.arange(k)
    law = torch.from_numpy(poisson.pmf(np.arange(k), MU))
    readings = [*m.grid(steps).tolist(), 0.0]
    for t, s in itertools.pairwise(readings):
        lost, came = m.reverse(oracle(m, x, t), x, at(t, k), at(s, k))
        law = law @ _kernel.thinned(x[None], x[:, None], 1 - lost[:, None], lost[:, None], came[:, None])[0].exp()
    return 0.5 * float((law - torch.zeros(k, dtype=F64).index_add(0, ATOMS, LAW)).abs().sum())


def test_runs_with_a_perfect_network_find_the_data_at_first_order():
    """Exact, nothing is drawn. Measured .0591, .0107, .0026: four times the steps, a quarter of the error or less."""
    found = [run_down(steps) for steps in (16, 64, 256)]
    assert found[0] < 0.065
    assert found[1] < 0.3 * found[0]
    assert found[2] < 0.3 * found[1]


def test_guidance_mixes_log_rates_and_is_cut_where_a_law_ends():
    """As s -> t the rates are R^w R_weak^(1-w), to (t - s) times a rate, 1e-5; over long steps chances stay chances."""
    m, t, s = Counts((), 2.0), 0.5, 0.5 - 1e-7
    x = torch.arange(1, 8)
    strong, weak = (torch.randn(7, 2, generator=torch.Generator().manual_seed(k), dtype=F64) for k in (0, 1))
    for weight in (0.0, 0.5, 1.0, 3.0):
        lost, came = m.reverse(strong, x, at(t, 7), at(s, 7), weak, weight)
        score = weight * m.score(strong, x, at(t, 7)) + (1 - weight) * m.score(weak, x, at(t, 7))
        into = m.generator(at(t, 7)).neighbours(x)[2]
        rates = into * score.exp() * (t - s)
        assert torch.allclose(torch.stack([came, lost * x], 1), rates, rtol=1e-5)
    lost, came = m.reverse(strong, x, at(0.9, 7), at(0.1, 7), weak + 9, 4.0)
    assert bool(((lost >= 0) & (lost <= 1) & (came >= 0)).all())


def test_ends_of_time():
    m = Counts((2,), [1.0, 6.0])
    x0, x = torch.tensor([[3, 0], [2, 9]]), torch.tensor([[3, 1], [2, 9]])
    zero, one = at(0.0, 2), at(1.0, 2)
    assert torch.equal(m.perturb(x0, zero, rng=0).xt, x0)
    assert m.log_transition(x, x0, zero).tolist() == [-math.inf, 0.0]
    prior = poisson.logpmf(x.numpy(), [1.0, 6.0]).sum(1)
    np.testing.assert_allclose(m.log_transition(x, x0, one), prior, rtol=1e-12)
    assert torch.equal(m.perturb(x0, one, rng=5).xt, m.perturb(x, one, rng=5).xt)
    output = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert m.loss(output, Noised(x0, x0, zero, zero)).tolist() == [0.0, 0.0]
    assert float(m.loss(output, Noised(x0, x, zero, one)).abs().max()) < 1e-40  # all outputs are the prior's
    assert torch.equal(m.finish(output, x, zero, rng=0), x)
    for steps in (1, 2, 50):
        grid = m.grid(steps)
        assert float(grid[0]) == 1
        assert len(grid) == steps
    assert float(grid[-1]) == pytest.approx(m.t_min)
    wild = torch.full((2, 2, 2), 60.0, dtype=F64)  # an output no training gives: the draw stays a count
    m.validate(m.finish(wild, x, one, rng=0))


def test_an_elementwise_clock_moves_each_count_by_its_own_time():
    m = Counts((3,), 40.0)
    x0 = torch.tensor([[7, 7, 7]]).expand(50, 3)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=F64).expand(50, 3)
    noised = m.perturb(x0, t, rng=0)
    assert torch.equal(noised.xt[:, 0], x0[:, 0])
    assert float(noised.xt[:, 2].double().mean()) > 30
    alone = sum(Counts((), 40.0).log_transition(noised.xt[:, k], x0[:, k], t[:, k]) for k in range(3))
    assert torch.allclose(m.log_transition(noised.xt, x0, t), alone)
    output = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    parts = [
        Counts((), 40.0).loss(output[:, k], Noised(x0[:, k], noised.xt[:, k], at(0.0, 50), t[:, k])) for k in range(3)
    ]
    assert torch.allclose(m.loss(output, noised), sum(parts))
    with pytest.raises(DiffuseError, match="forward"):
        m.perturb(x0, 0.5 * t, s=t, rng=0)


def test_the_space():
    m = Counts((2,))
    for bad, sentence in (
        (torch.tensor([[0, -3]]), "expected counts, 0 or more, got -3"),
        (torch.tensor([[0.0, 1.0]]), "int64"),
        (torch.tensor([0, 1]), "expected"),
    ):
        with pytest.raises(DiffuseError, match=sentence):
            m.validate(bad)
    for bad in (0.0, -1.0, math.nan, math.inf, [1.0, 2.0, 3.0]):
        with pytest.raises(DiffuseError, match="mean: expected"):
            Counts((2,), bad)
    for mean in (2.5, [1.0, 3.0]):
        twin = Counts(**Counts((2,), mean).config())
        assert twin.config() == {"event_shape": [2], "mean": mean}


def test_the_bound_of_a_perfect_network_is_the_entropy():
    """Discrete data: KL at the end 0, the integral the information that is lost, and the decoder's share, which is not
    exact: it draws from t_min, where 12 counts have moved with a chance of 2e-3, 0.01 nats at the most."""
    joint = JointProcess({"n": Counts((), MU)}, block=3000)
    rows = {"n": ATOMS[torch.multinomial(LAW, 3000, replacement=True, generator=torch.Generator().manual_seed(0))]}
    bound = joint.bound(OracleDenoiser(joint, {"n": ATOMS}, LAW), rows, rng=1, draws=32).total
    entropy = -float((LAW * LAW.log()).sum())
    error = float(bound.std()) / 3000**0.5
    assert error < 0.05
    assert abs(float(bound.mean()) - entropy) < SIGMAS * error + 0.01


def test_sampling_with_an_exact_network_finds_the_law():
    """Atoms of unequal weight coupled with a class: chi-square at level 1e-6 over the atoms nearest to the samples. In
    128 steps the law is off by .0051, which adds less than 2 to the square, and strays are as rare."""
    joint = JointProcess({"n": get_modality("counts")((), MU), "label": get_modality("masked")((), 2)}, block=1500)
    atoms = {"n": ATOMS, "label": torch.tensor([0, 1, 1])}
    x = joint.sample(OracleDenoiser(joint, atoms, LAW), 1500, rng=0, steps=128)
    gap = (x["n"][:, None] - ATOMS).abs()
    assert float((gap.amin(1) > 0).double().mean()) < 0.03
    counts = gap.argmin(1).bincount(minlength=3)
    assert float(((counts - 1500 * LAW) ** 2 / (1500 * LAW)).sum()) < chi2.ppf(1 - 1e-6, 2) + 2
    assert float((atoms["label"][gap.argmin(1)] == x["label"]).double().mean()) > 0.97


@pytest.mark.slow
def test_conformance():
    rng = torch.Generator().manual_seed(3)
    rate = torch.tensor([1.0, 6.0, 12.0])[torch.randint(3, (400, 2), generator=rng)] * torch.tensor([1.0, 4.0])
    report = check_modality(Counts((2,), [2.0, 30.0]), torch.poisson(rate, generator=rng).long())
    assert report.ok, report.to_text()


def test_the_description_says_what_the_class_does():
    (info,) = de_modalities()
    assert (info.name, info.target) == ("counts", f"{Counts.__module__}:{Counts.__name__}")
    assert info.capabilities == Counts.capabilities
    assert get_modality("counts") is Counts


def test_the_example_runs():
    joint, model = runpy.run_path(str(ROOT / "example.py"))["train"](steps=3)
    assert joint.validate(joint.sample(model, 8, rng=0, steps=4)) == 8


@pytest.mark.slow
def test_the_example_learns():
    """A fifth of its training: digits drawn for a label are read back as it, where chance is a tenth."""
    example = runpy.run_path(str(ROOT / "example.py"))
    joint, model = example["train"](steps=300)
    label = torch.arange(200) % 10
    x = joint.sample(model, 200, rng=0, given={"label": label})["ink"]
    joint.modalities["ink"].validate(x)
    assert example["reader"]().score(x.flatten(1), label) > 0.4
