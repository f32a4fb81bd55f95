"""Closed forms of the chain, the modality's laws, its conformance, and the example. Laws in float64."""

import math
import runpy
from pathlib import Path

import mpmath
import pytest
import torch
from de_ordinal import de_modalities
from de_ordinal._chain import Chain, neighbour_rates
from de_ordinal.modality import Ordinal
from scipy.stats import binom, chi2

from de_core import DiffuseError, JointProcess, Jump, Noised, get_modality, list_modalities, register
from de_core.generator import score_entropy
from de_core.testing import OracleDenoiser, check_modality

F64 = torch.float64
ROOT = Path(__file__).parents[1]
TIMES = [1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999]


@pytest.fixture(autouse=True, scope="module")
def _installed():
    """The plugin as pip would have it; from a checkout that is not installed it is registered by hand."""
    if not any(info.name == "ordinal" for info in list_modalities()):
        register(de_modalities()[0])


def flips(count):
    """Rates of the number of heads among K - 1 coins, each turned at rate 1: Ehrenfest's chain."""
    heads = torch.arange(count, dtype=F64)
    return torch.diag(count - 1 - heads[:-1], 1) + torch.diag(heads[1:], -1)


def rugged(count, seed=0):
    """A random reversible chain with some jumps over a class: a symmetric flow over a law of widely spread weights."""
    rng = torch.Generator().manual_seed(seed)
    flow = torch.rand(count, count, generator=rng, dtype=F64)
    gap = (torch.arange(count) - torch.arange(count)[:, None]).abs()
    flow = torch.where((gap == 1) | ((gap == 2) & (flow + flow.T > 1)), flow + flow.T, 0.0)
    return flow / (0.2 + torch.rand(count, 1, generator=rng, dtype=F64)) ** 3


CHAINS = {"neighbours": neighbour_rates(6), "flips": flips(6), "rugged": rugged(6), "two": neighbour_rates(2)}


def ordinal(name, shape=()):
    return Ordinal(shape, len(CHAINS[name]), CHAINS[name].tolist())


def full(value, n):
    return torch.full((n,), value, dtype=F64)


def kernel(chain, t):
    return chain.kernel(full(t, 1))[0]


def q_matrix(chain):
    return chain.rates - torch.diag(chain.rates.sum(1))


def law(count, seed):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=F64) + 0.01


# --- the chain ------------------------------------------------------------------------------------------------------


def test_the_kernel_of_neighbour_rates_is_the_cosine_series():
    """P(x, y) = (1/K)(1 + 2 sum_k cos cos e^{-2 (1 - cos(pi k/K)) sigma}), the reflected walk. Rounding of 20 terms."""
    k = torch.arange(1, 9, dtype=F64)
    waves = torch.cos(math.pi * k * (torch.arange(9, dtype=F64)[:, None] + 0.5) / 9)
    chain = Chain(neighbour_rates(9))
    for sigma in (1e-3, 0.3, 3.0, 20.0, 300.0):
        decay = torch.exp(-2 * (1 - torch.cos(math.pi * k / 9)) * sigma)
        series = (1 + 2 * (waves * decay) @ waves.T) / 9
        assert torch.allclose(chain.exponential(full(sigma, 1))[0], series, atol=1e-13)


def test_the_kernel_of_flips_is_a_sum_of_two_binomials_entry_by_entry():
    """Each coin is as it was with probability (1 + e^{-2 sigma})/2. Relative error 1e-12 down to entries of 1e-24 (the
    binomials of scipy are right to about 1e-13)."""
    chain = Chain(flips(9))
    for sigma in (1e-3, 0.05, 0.7, 5.0):
        found = chain.exponential(full(sigma, 1))[0]
        same, turned = (1 + math.exp(-2 * sigma)) / 2, -math.expm1(-2 * sigma) / 2
        for x in range(9):
            for y in range(9):
                ways = [binom.pmf(k, x, same) * binom.pmf(y - k, 8 - x, turned) for k in range(y + 1)]
                assert float(found[x, y]) == pytest.approx(sum(ways), rel=1e-12, abs=0)
    assert torch.allclose(chain.log_law.exp(), torch.from_numpy(binom.pmf(range(9), 8, 0.5)), rtol=1e-12)


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 0.5, 4.0])
def test_small_entries_are_right_relative_to_themselves(sigma):
    """Against 80 digits, down to 1e-30, where eigenvectors (1e-16 absolute) know nothing. Each product of K terms adds
    K roundings: some 100 of them, 1e-13 in all."""
    chain = Chain(rugged(10, 2))
    mpmath.mp.dps = 80
    q = mpmath.matrix(chain.rates.tolist())
    for x in range(10):
        q[x, x] = -sum(q[x, y] for y in range(10) if y != x)
    step, exact = q * mpmath.mpf(sigma) / 2**16, mpmath.eye(10)
    for n in range(20, 0, -1):  # Horner: the series' rest is below (exit sigma/2^16)^21 < 1e-60
        exact = mpmath.eye(10) + step * exact / n
    for _ in range(16):
        exact = exact * exact
    found = chain.exponential(full(sigma, 1))[0]
    truth = torch.tensor([[float(exact[x, y]) for y in range(10)] for x in range(10)], dtype=F64)
    assert float((found / truth - 1).abs().max()) < 1e-11


@pytest.mark.parametrize("name", CHAINS)
def test_the_chain_is_reversible_and_its_clock_is_the_information(name):
    """tr P over 2 sigma is K^(1 - t); dsigma/dt by central differences (h^2 of a third derivative below 1e3)."""
    chain = Chain(CHAINS[name])
    flow = chain.log_law.exp()[:, None] * chain.rates
    assert torch.allclose(flow, flow.T, rtol=1e-12)
    t = torch.tensor(TIMES, dtype=F64)
    trace = chain.exponential(2 * chain.span(t)).diagonal(dim1=1, dim2=2).sum(1)
    assert torch.allclose(trace.log(), (1 - t) * math.log(len(chain.rates)), rtol=1e-10, atol=1e-12)
    h = 1e-5 * t * (1 - t)
    slope = (chain.span(t + h) - chain.span(t - h)) / (2 * h)
    assert torch.allclose(chain.speed(t), slope, rtol=1e-6)
    assert float(chain.span(full(0.0, 1))) == 0


@pytest.mark.parametrize("name", CHAINS)
def test_kolmogorov(name):
    """dP/dt = sigma' P Q entry by entry, by the generator that the modality gives out. Central differences at h =
    1e-5 t err by h^2/6 times a third logarithmic derivative of at most 6^3/t^3: 4e-9 of the entry."""
    m, chain = ordinal(name), Chain(CHAINS[name])
    states = torch.arange(m.num_classes)
    for t in TIMES[:-1]:
        h = 1e-5 * t
        rate = (kernel(chain, t + h) - kernel(chain, t - h)) / (2 * h)
        generator = m.generator(torch.tensor(t, dtype=F64))
        for x in range(m.num_classes):
            found = generator.adjoint(lambda y, x=x, t=t: kernel(chain, t)[x, y], states)
            assert torch.allclose(found, rate[x], rtol=1e-6, atol=1e-6 * float(found.abs().max()))
        assert torch.allclose(generator.matrix(), chain.speed(full(t, 1)) * q_matrix(chain), rtol=1e-12)


def test_ends_of_time():
    m, chain = ordinal("rugged", (2,)), Chain(CHAINS["rugged"])
    rng = torch.Generator().manual_seed(0)
    x, x0 = (torch.randint(6, (40, 2), generator=rng) for _ in range(2))
    zero, one = full(0.0, 40), full(1.0, 40)
    assert torch.equal(m.perturb(x0, zero, rng=0).xt, x0)
    expected = torch.where((x == x0).all(1), 0.0, -torch.inf).double()
    assert torch.equal(m.log_transition(x, x0, zero), expected)
    assert torch.allclose(m.log_transition(x, x0, one), chain.log_law[x].sum(1))
    assert torch.equal(kernel(chain, 1.0), chain.log_law.exp().expand(6, 6))
    assert torch.equal(chain.kernel(full(1.0, 1), full(1.0, 1))[0], torch.eye(6, dtype=F64))
    assert torch.equal(m.perturb(x0, one, rng=5).xt, m.perturb(x, one, rng=5).xt)
    assert torch.equal(m.finish(torch.zeros(40, 2, 6), x0, zero, rng=0), x0)
    late = chain.kernel(full(1 - 2**-24, 1))[0]  # the last reading of float32 before 1
    assert torch.allclose(late, chain.log_law.exp().expand(6, 6), rtol=1e-2)
    assert bool(m.loss(torch.randn(40, 2, 6, generator=rng), m.perturb(x0, one, rng=1)).isfinite().all())
    assert float(m.loss(torch.randn(40, 2, 6, generator=rng), m.perturb(x0, zero, rng=1)).abs().max()) == 0


@pytest.mark.parametrize("name", CHAINS)
def test_draws_have_the_law_of_the_kernel_and_compose(name):
    """Chi-square at level 1e-7, directly and by way of s, from the class of the least weight."""
    m, n = ordinal(name), 20_000
    chain = Chain(CHAINS[name])
    start = int(chain.log_law.argmin())
    x0 = torch.full((n,), start)
    for t in (0.4, 0.8, 1.0):
        once = m.perturb(x0, full(t, n), rng=1).xt
        twice = m.perturb(m.perturb(x0, full(0.3, n), rng=2).xt, full(t, n), s=full(0.3, n), rng=3).xt
        expected = n * kernel(chain, t)[start]
        for xt in (once, twice):
            m.validate(xt)
            check_counts(xt.bincount(minlength=m.num_classes), expected)
    check_counts(m.prior(n, rng=4).bincount(minlength=m.num_classes), n * chain.log_law.exp())


def check_counts(found, expected, level=1e-7):
    """Pearson's statistic, classes expected fewer than 10 times put together."""
    rare = expected < 10
    found = torch.cat([found[~rare], found[rare].sum()[None]]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = expected > 1e-9
    value = float(((found - expected)[keep] ** 2 / expected[keep]).sum())
    assert float(found[~keep].sum()) == 0
    assert value < chi2.ppf(1 - level, max(1, int(keep.sum()) - 1)) + 2  # 2: a lump of few is not yet chi-square


def test_an_elementwise_clock_moves_each_element_by_its_own_time():
    m = ordinal("flips", (3,))
    x0 = torch.randint(6, (400, 3), generator=torch.Generator().manual_seed(4))
    t = torch.tensor([0.0, 0.01, 1.0], dtype=F64).expand(400, 3)
    xt = m.perturb(x0, t, rng=0).xt
    assert torch.equal(xt[:, 0], x0[:, 0])
    assert 0 < int((xt[:, 1] != x0[:, 1]).sum()) < 80  # 2 % expected
    parts = sum(ordinal("flips").log_transition(xt[:, k], x0[:, k], t[:, k]) for k in range(3))
    assert torch.allclose(m.log_transition(xt, x0, t), parts)
    with pytest.raises(DiffuseError, match="forward"):
        m.perturb(x0, torch.full_like(t, 0.3), s=t, rng=0)


# --- what a network says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("t", TIMES)
def test_the_posterior_gives_the_ratios_and_the_reverse_step_of_bayes(name, t):
    """For every state z: log p_t(j)/p_t(z), and p(x_s = j | x_t = z) = p_s(j) P_{t|s}(j, z)/p_t(z), by the matrices.
    The posterior itself is divided by P(b, z), so the error is that of an entry, 1e-11 relative."""
    m, chain = ordinal(name), Chain(CHAINS[name])
    k, p0, states = m.num_classes, law(m.num_classes, 1), torch.arange(m.num_classes)
    p_t = p0 @ kernel(chain, t)
    output = (p0[:, None] * kernel(chain, t) / p_t).T.log()  # (z, b)
    ratios = (p_t.log() - p_t.log()[:, None]).expand(k, k)
    assert torch.allclose(m.log_ratios(output, states, full(t, k)), ratios, atol=1e-9)
    score = m.score(output, states, full(t, k))
    assert torch.allclose(score, ratios.gather(1, m.chain.nearby), atol=1e-9)
    for s in (0.0, t / 3, 0.98 * t):
        between = chain.kernel(full(t, 1), full(s, 1))[0]
        bayes = (p0 @ kernel(chain, s))[:, None] * between / p_t
        found = m.transition(output, states, full(t, k), full(s, k)).exp()
        assert torch.allclose(found, bayes.T, rtol=1e-8, atol=1e-12)


def test_equal_rates_are_the_uniform_modality():
    """Rates 1/K between all classes: the built-in's ratios and reverse probabilities at the clock with the same
    survival e^-sigma. Its ratios are written another way; both are right to about 1e-10 here."""
    k, n = 5, 60
    m, uniform = Ordinal((3,), k, (torch.ones(k, k) / k).tolist()), get_modality("uniform")((3,), k)
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(n, 3, k, generator=rng, dtype=F64)
    x = torch.randint(k, (n, 3), generator=rng)
    t = torch.linspace(0.02, 0.98, n, dtype=F64)
    s = 0.7 * t
    same = [-torch.expm1(-m.chain.span(a)) for a in (t, s)]  # 1 - t of the built-in is e^-sigma
    assert torch.allclose(m.log_ratios(output, x, t), uniform.log_ratios(output, x, same[0]), atol=1e-8)
    theirs = uniform.transition(output, x, *same)
    assert torch.allclose(m.transition(output, x, t, s), theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CHAINS)
def test_the_loss_is_the_score_entropy_of_the_family(name):
    """The closed form against ``Jump.loss``, which goes by the generator and the density; and it is 0 at the truth."""
    m = ordinal(name, (2,))
    rng = torch.Generator().manual_seed(1)
    x0 = torch.randint(m.num_classes, (50, 2), generator=rng)
    output = torch.randn(50, 2, m.num_classes, generator=rng, dtype=F64)
    noised = m.perturb(x0, torch.linspace(0.01, 0.99, 50, dtype=F64), rng=2)
    assert torch.allclose(m.loss(output, noised), Jump.loss(m, output, noised), rtol=1e-9)
    one_clean = torch.stack([noised.t, torch.zeros_like(noised.t)], 1)
    mixed = Noised(x0, torch.stack([noised.xt[:, 0], x0[:, 1]], 1), torch.zeros_like(one_clean), one_clean)
    alone = Noised(x0[:, 0], noised.xt[:, 0], noised.s, noised.t)
    assert torch.allclose(m.loss(output, mixed), ordinal(name).loss(output[:, 0], alone), rtol=1e-9)
    sure = torch.nn.functional.one_hot(x0, m.num_classes).double().clamp_min(1e-300).log()
    assert float(m.loss(sure, noised).abs().max()) < 1e-9
    crossed = -output.log_softmax(-1).gather(-1, x0[..., None]).sum((1, 2))
    assert torch.allclose(m.loss(output, noised, objective="simple"), crossed)


def test_the_expected_loss_is_least_at_the_posterior():
    """Over all (x_0, x_t) of a law: the gradient vanishes at the posterior's logits, and the value is -dI/dt, the speed
    at which x_t forgets x_0 (central difference, h^2 of a third derivative below 1e4)."""
    m, chain, t = ordinal("rugged"), Chain(CHAINS["rugged"]), 0.4
    p0 = law(6, 3) / law(6, 3).sum()
    joint = p0[:, None] * kernel(chain, t)
    output = (joint / joint.sum(0)).T.log().clone().requires_grad_()
    x0, xt = (a.reshape(-1) for a in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    value = (joint.reshape(-1) * m.loss(output[xt], Noised(x0, xt, full(0.0, 36), full(t, 36)))).sum()
    (slope,) = torch.autograd.grad(value, output)
    assert float(slope.abs().max()) < 1e-10

    def information(when):
        joint = p0[:, None] * kernel(chain, when)
        return float((joint * (joint / joint.sum(0) / p0[:, None]).log()).sum())

    assert float(value.detach()) == pytest.approx((information(t - 1e-5) - information(t + 1e-5)) / 2e-5, rel=1e-6)


def test_the_score_entropy_counts_rates_into_the_state():
    """Two classes, rates 3 and 1, by hand: at z = 1 the way in is Q(0, 1) = 3."""
    m = Ordinal((), 2, [[0, 3.0], [1.0, 0]])
    assert torch.allclose(m.chain.log_law.exp(), torch.tensor([0.25, 0.75], dtype=F64))
    t, output = full(0.5, 1), torch.tensor([[0.3, -0.4]], dtype=F64)
    p, mu = kernel(m.chain, 0.5), output.softmax(1)[0]
    s = (mu[0] * p[0, 0] / p[0, 1] + mu[1] * p[1, 0] / p[1, 1]).log()
    by_hand = m.chain.speed(t) * 3 * score_entropy(s, (p[0, 0] / p[0, 1]).log())
    found = m.loss(output, Noised(torch.tensor([0]), torch.tensor([1]), full(0.0, 1), t))
    assert torch.allclose(found, by_hand, rtol=1e-12)


def test_guidance_mixes_log_probabilities_and_renormalises():
    m, n = ordinal("flips"), 40_000
    rng = torch.Generator().manual_seed(2)
    strong, weak = torch.randn(2, 1, 6, generator=rng, dtype=F64)
    x, t, s = torch.full((n,), 3), full(0.6, n), full(0.3, n)
    logs = [m.transition(o, x[:1], t[:1], s[:1])[0] for o in (strong, weak)]
    outputs = [o.expand(n, 6) for o in (strong, weak)]
    drawn, _ = m.step(outputs[0], x, t, s, rng=1, weak=outputs[1], weight=2.0)
    check_counts(drawn.bincount(minlength=6), n * (2 * logs[0] - logs[1]).softmax(0))
    last = m.finish(outputs[0], x, t, rng=1, weak=outputs[1], weight=2.0)
    check_counts(last.bincount(minlength=6), n * (2 * strong[0].log_softmax(0) - weak[0].log_softmax(0)).softmax(0))
    with pytest.raises(DiffuseError, match="stepper"):
        m.step(outputs[0], x, t, s, rng=1, method="leap")


# --- the space ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([[0, 1], [1, 0]], r"shape \(3, 3\), got \(2, 2\)"),
        ([[0, 1, "a"], [1, 0, 1], [0, 1, 0]], "3 rows of 3 numbers"),
        ([[0, 1], [1, 0, 1]], "3 rows of 3 numbers"),
        ([[0, 1, 0], [-1, 0, 1], [0, 1, 0]], "at least 0, got -1.0 from 1 to 0"),
        ([[0, 1, 0], [1, 0, math.nan], [0, 1, 0]], "got nan from 1 to 2"),
        ([[0, 1, 1], [1, 0, 1], [0, 1, 0]], "jumps from 0 to 2 and never back"),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], "reaches every class from every other, but not 2 from 0"),
        ([[0, 2, 1], [1, 0, 2], [2, 1, 0]], "product of the rates is 8 times"),
        ([[0, 1, 0], [1, 0, 1e-11], [0, 1e-11, 0]], "1e10 times slower"),
    ],
)
def test_rates_that_are_refused(rates, words):
    with pytest.raises(DiffuseError, match=words) as caught:
        Ordinal((), 3, rates)
    assert str(caught.value).startswith("rates: ")
    assert "\n" not in str(caught.value)


def test_the_space():
    for bad in (torch.tensor([[0, 6]]), torch.tensor([[-1, 0]])):
        with pytest.raises(DiffuseError, match="from 0 to 5"):
            ordinal("flips", (2,)).validate(bad)
    with pytest.raises(DiffuseError, match="int64"):
        ordinal("flips", (2,)).validate(torch.zeros(1, 2))
    with pytest.raises(DiffuseError, match="at least 2"):
        Ordinal((), 1)
    for m in (Ordinal((2,), 4), ordinal("rugged", (1,))):
        again = Ordinal(**m.config())
        assert again.config() == m.config()
        assert torch.equal(again.chain.rates, m.chain.rates)
    diagonal = q_matrix(Chain(flips(6)))
    assert Ordinal((), 6, diagonal.tolist()).config() == ordinal("flips").config()
    with pytest.raises(DiffuseError, match="objective"):
        m.loss(torch.zeros(1, 1, 6), m.perturb(torch.zeros(1, 1).long(), 0.5, rng=0), objective="other")


# --- with an exact network ------------------------------------------------------------------------------------------


def test_sampling_with_an_exact_network_finds_the_law():
    """Atoms of unequal weight coupled with a class: chi-square at level 1e-6. A step is exact for each element alone:
    with 64 steps a few rows in a thousand land between atoms, and the shares' bias is below the noise."""
    joint = JointProcess({"grade": ordinal("flips", (2,)), "label": get_modality("masked")((), 2)}, block=2000)
    atoms = {"grade": torch.tensor([[0, 5], [2, 2], [5, 1], [3, 3]]), "label": torch.tensor([0, 1, 1, 0])}
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    x = joint.sample(OracleDenoiser(joint, atoms, weights), 2000, rng=0)
    match = (x["grade"][:, None] == atoms["grade"]).all(2) & (x["label"][:, None] == atoms["label"])
    found = match.sum(0)
    assert int(found.sum()) > 1980
    expected = found.sum() * weights
    assert float(((found - expected) ** 2 / expected).sum()) < chi2.ppf(1 - 1e-6, 3)


@pytest.mark.parametrize("name", CHAINS)
def test_the_bound_of_an_exact_network_is_the_entropy(name):
    """The mean of the bound over draws of the law, within 5 standard errors (chance 6e-7): prior, integral and
    reconstruction add up."""
    m, n = ordinal(name), 3000
    p0 = law(m.num_classes, 5) / law(m.num_classes, 5).sum()
    joint = JointProcess({"x": m}, block=n)
    x0 = torch.multinomial(p0, n, replacement=True, generator=torch.Generator().manual_seed(0))
    oracle = OracleDenoiser(joint, {"x": torch.arange(m.num_classes)}, p0)
    gap = joint.bound(oracle, {"x": x0}, rng=1, draws=16).total + p0.log()[x0]
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / n**0.5
    assert float(gap.std()) / n**0.5 < 0.05


@pytest.mark.slow
def test_conformance():
    for m, x in Ordinal.examples():
        report = check_modality(m, x)
        assert report.ok, report.to_text()


def test_the_description_says_what_the_class_does():
    (info,) = de_modalities()
    assert (info.name, info.target) == ("ordinal", f"{Ordinal.__module__}:{Ordinal.__name__}")
    assert info.capabilities == Ordinal.capabilities
    assert get_modality("ordinal") is Ordinal


def test_the_example_runs():
    joint, model = runpy.run_path(str(ROOT / "example.py"))["train"](steps=3)
    assert joint.validate(joint.sample(model, 8, rng=0, steps=4)) == 8


@pytest.mark.slow
def test_the_example_learns():
    """A quarter of its training: grades drawn from a patient's measures are nearer than those of another patient."""
    example = runpy.run_path(str(ROOT / "example.py"))
    joint, model = example["train"](steps=400)
    test = example["patients"]()[1]
    drawn = joint.sample(model, 1000, rng=0, given={"measures": test["measures"].repeat_interleave(10, 0)})["grade"]
    joint.modalities["grade"].validate(drawn)
    truth = test["grade"].repeat_interleave(10)
    off, chance = ((drawn - x).abs().double().mean() for x in (truth, truth.roll(370)))
    assert float(off) < 0.8 * float(chance)
