"""Each built-in modality's small print: shapes, steppers, the last move, and what its own formulas say at a point."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from de_core import DiffuseError, get_modality
from de_core.testing.strategies import clean, modalities, seeds

F64 = torch.float64
laws = settings(max_examples=30)


def times(*values):
    return torch.tensor(values, dtype=F64)


@laws
@given(modalities(), seeds())
def test_shapes_and_rebuilding(modality, seed):
    assert modality.element_shape == modality.event_shape[: len(modality.element_shape)]
    again = type(modality)(**modality.config())
    assert again.config() == modality.config()
    assert repr(again) == repr(modality)
    x = modality.prior(3, rng=seed)
    assert x.shape == (3, *modality.event_shape)
    clean_x = clean(modality, 3, torch.Generator().manual_seed(seed))
    modality.validate(clean_x)
    modality.validate(clean_x[:0])
    output = torch.zeros(3, *modality.output_shape, dtype=F64)
    noised = modality.perturb(clean_x, 0.5, rng=seed)
    assert modality.loss(output, noised).shape == (3,)
    assert modality.prior_kl(clean_x).shape == (3,)
    assert modality.reconstruction(output, modality.perturb(clean_x, modality.t_min, rng=seed)).shape == (3,)
    empty = modality.perturb(clean_x[:0], 0.5, rng=seed)
    assert modality.loss(output[:0], empty).shape == (0,)
    assert modality.log_transition(empty.xt, clean_x[:0], empty.t).shape == (0,)
    assert modality.implicit(lambda x: output[:0], empty.xt, empty.t, rng=seed).shape == (0,)
    modality.validate_noised(noised.xt)
    constant = modality.generator(noised.t).apply(lambda x: torch.ones(len(x), dtype=F64), noised.xt)
    assert bool((constant == 0).all())  # mass is kept: L 1 = 0
    grid = modality.grid(9)
    assert len(grid) == 9
    assert float(grid[0]) == 1
    assert bool((grid[1:] < grid[:-1]).all())
    assert float(grid[-1]) >= modality.t_min * (1 - 1e-9)


@laws
@given(modalities(), seeds())
def test_every_stepper_keeps_to_the_space_and_stays_where_the_clock_stands(modality, seed):
    rng = torch.Generator().manual_seed(seed)
    x0 = clean(modality, 4, rng)
    t, s = times(1.0, 0.7, 0.5, 0.2), times(0.9, 0.7, 0.3, 0.2)
    xt = modality.perturb(x0, t, rng=rng).xt
    output = torch.randn(4, *modality.output_shape, generator=rng, dtype=F64)
    weak = torch.randn(4, *modality.output_shape, generator=rng, dtype=F64)
    for method in [None, *modality.methods()]:
        for extra in ({}, {"weak": weak, "weight": 2.0}):
            answer = (output, weak) if extra else output
            before = xt.clone()
            moved, _ = modality.step(
                output, xt, t, s, rng=seed, method=method, again=lambda x, when, a=answer: a, **extra
            )
            assert torch.equal(xt, before)
            assert moved.dtype == xt.dtype
            assert torch.equal(moved[1], xt[1])
            assert torch.equal(moved[3], xt[3])
            last = modality.finish(output, moved, s, rng=seed, **extra)
            modality.validate(last)
    assert torch.equal(modality.finish(output, x0, torch.zeros(4, dtype=F64), rng=seed), x0)


@laws
@given(modalities(), seeds())
def test_a_sample_of_the_batch_is_alone(modality, seed):
    """Loss and score of a row do not depend on the other rows: 1e-12 (batched reductions may differ in the last
    bit)."""
    rng = torch.Generator().manual_seed(seed)
    x0, t = clean(modality, 4, rng), 0.1 + 0.8 * torch.rand(4, generator=rng, dtype=F64)
    noised = modality.perturb(x0, t, rng=rng)
    output = torch.randn(4, *modality.output_shape, generator=rng, dtype=F64)
    loss, score = modality.loss(output, noised), modality.score(output, noised.xt, t)
    for k in range(4):
        one = type(noised)(x0[k : k + 1], noised.xt[k : k + 1], noised.s[k : k + 1], t[k : k + 1],
                           {name: v[k : k + 1] for name, v in noised.aux.items()})  # fmt: skip
        close = lambda a, b: float((a - b).abs().max()) <= 1e-12 * max(1.0, float(b.abs().max()))  # noqa: E731
        assert close(modality.loss(output[k : k + 1], one), loss[k : k + 1])
        finite = score[k : k + 1].isfinite()
        alone = modality.score(output[k : k + 1], noised.xt[k : k + 1], t[k : k + 1])
        assert close(alone[finite], score[k : k + 1][finite])


@laws
@given(modalities(), seeds())
def test_how_far_a_call_moves_its_stream_depends_on_shapes_alone(modality, seed):
    """Two batches that share their first two rows: these rows' draws are equal, and so is the stream afterwards. A
    call that used more randomness for other values would make row i depend on the rows behind it at the next call."""
    rng = torch.Generator().manual_seed(seed)
    first, other = clean(modality, 40, rng), clean(modality, 40, rng)
    second = torch.cat([first[:2], other[2:]])
    t, s = torch.full((40,), 0.6, dtype=F64), torch.full((40,), 0.5, dtype=F64)
    output = torch.randn(40, *modality.output_shape, generator=rng, dtype=F64)
    answer = torch.cat([output[:2], output[2:].flip(0)])
    ends = []
    for x0, out in ((first, output), (second, answer)):
        draw, seen = torch.Generator().manual_seed(seed), []
        xt = modality.perturb(x0, t, rng=draw).xt
        seen.append(xt[:2])
        for method in modality.methods():
            moved, _ = modality.step(out, xt, t, s, rng=draw, method=method, again=lambda x, when, o=out: o)
            seen.append(moved[:2])
        seen.append(modality.finish(out, xt, t, rng=draw)[:2])
        ends.append((seen, draw.get_state()))
    assert torch.equal(ends[0][1], ends[1][1])
    assert all(torch.equal(a, b) for a, b in zip(ends[0][0], ends[1][0], strict=True))


def test_the_ancestral_step_has_the_posteriors_moments():
    """q(x_s | x_t, x_0) of the linear path by Gauss: precision 1/var_s + ratio^2/var_ts. Mean and variance of 200,000
    draws within five standard errors."""
    m = get_modality("gaussian")((), "linear", "x0")
    t, s, x0, xt = 0.5, 0.2, 0.8, -0.3
    n = 200_000
    full = lambda v: torch.full((n,), v, dtype=F64)  # noqa: E731 # one word for one line
    moved, _ = m.step(full(x0), full(xt), full(t), full(s), rng=0, method="ancestral")
    a_s, v_s = float(m.path.alpha(times(s))), float(m.path.sigma(times(s)) ** 2)
    ratio, v_ts = (float(v) for v in m.path.between(times(s), times(t)))
    variance = 1 / (1 / v_s + ratio**2 / v_ts)
    mean = variance * (a_s * x0 / v_s + ratio * xt / v_ts)
    assert abs(float(moved.mean()) - mean) < 5 * math.sqrt(variance / n)
    assert abs(float(moved.var()) - variance) < 5 * variance * math.sqrt(2 / n)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "edm"])
def test_the_default_solver_is_exact_for_a_fixed_prediction_and_second_order_else(schedule):
    """DPM-Solver++(2M) on N(.5, .3^2) data with the exact head: halving the step of a grid uniform in log snr cuts
    the error by more than 2^1.5 (THEORY's log: order 1.6 to 1.86 on its way to 2)."""
    m = get_modality("gaussian")((1,), schedule, "x0")
    mean, var = 0.5, 0.09

    def head(x, t):
        a, s2 = m.path.alpha(t)[:, None], m.path.sigma(t)[:, None] ** 2
        return mean + a * var / (a**2 * var + s2) * (x - a * mean)

    def spread(t):
        return (m.path.alpha(t) ** 2 * var + m.path.sigma(t) ** 2).sqrt()

    start = torch.linspace(-1.5, 1.5, 5, dtype=F64)[:, None] * float(spread(times(0.9)))
    errors = []
    for steps in (40, 80, 160):
        fine = torch.linspace(0.9, 0.2, 20_001, dtype=F64)
        snr = (m.path.alpha(fine) / m.path.sigma(fine)).log()
        wanted = torch.linspace(float(snr[0]), float(snr[-1]), steps + 1, dtype=F64)
        grid = fine[torch.searchsorted(snr, wanted).clamp_max(20_000)]
        x, carry = start, None
        for t, s in itertools.pairwise(grid):
            x, carry = m.step(head(x, t.expand(5)), x, t.expand(5), s.expand(5), rng=0, carry=carry)
        first, last = grid[:1], grid[-1:]
        exact = m.path.alpha(last) * mean + spread(last) / spread(first) * (start - m.path.alpha(first) * mean)
        errors.append(float((x - exact).abs().max()))
    assert all(a / b > 2**1.5 for a, b in itertools.pairwise(errors))
    x0 = torch.full((5, 1), 0.7, dtype=F64)
    moved, _ = m.step(x0, start, times(0.9).expand(5), times(0.4).expand(5), rng=0)
    a, b = m.path.alpha(times(0.9)), m.path.alpha(times(0.4))
    eps = (start - a * x0) / m.path.sigma(times(0.9))
    assert (moved - b * x0 - m.path.sigma(times(0.4)) * eps).abs().max() < 1e-12


@pytest.mark.parametrize("head", ["posterior", "leave_one_out"])
def test_the_uniform_step_is_bayes_rule(head):
    """q(x_s | x_t) = sum_b mu_b P_s(b, j) P_{t|s}(j, z)/P_t(b, z), by the matrices; rounding, 1e-12."""
    m = get_modality("uniform")((), 4, head)
    rng = torch.Generator().manual_seed(0)
    output, xt = torch.randn(6, 4, generator=rng, dtype=F64), torch.arange(6) % 4
    t, s = times(0.8).expand(6), times(0.3).expand(6)
    kernel = lambda kept: kept * torch.eye(4, dtype=F64) + (1 - kept) / 4  # noqa: E731 # one word for one line
    early, late, whole = kernel(0.7), kernel(0.2 / 0.7), kernel(0.2)
    mu = m.posterior(output, xt, t).exp()
    wanted = torch.einsum("nb,bj,jn,bn->nj", mu, early, late[:, xt], 1 / whole[:, xt])
    assert (m.transition(output, xt, t, s).exp() - wanted).abs().max() < 1e-12
    if head == "leave_one_out":
        nu = output.softmax(-1) * whole[:, xt].T
        assert (nu / nu.sum(1, keepdim=True) - mu).abs().max() < 1e-12


def test_tau_leaping_with_guidance_scales_the_rate_by_z():
    """Masked, raw mixing of log-rates: Z = sum_y p^w q^(1-w); the share that moves in one step, 200,000 elements."""
    m = get_modality("masked")((200_000,), 3)
    p, q = torch.tensor([0.6, 0.3, 0.1], dtype=F64), torch.tensor([0.3, 0.3, 0.4], dtype=F64)
    x = m.prior(1, rng=0)
    strong, weak = (v.log().expand(1, 200_000, 3) for v in (p, q))
    moved, _ = m.step(strong, x, times(0.5), times(0.4), rng=0, method="tau_leaping", weak=weak, weight=2.0)
    z = float((p**2 / q).sum())
    chance = 1 - math.exp(-0.1 / 0.5 * z)
    share = moved[moved != 3]
    assert abs(len(share) / 200_000 - chance) < 5 * math.sqrt(chance / 200_000)
    wanted = p**2 / q / z
    found = torch.bincount(share, minlength=3) / len(share)
    assert (found - wanted).abs().max() < 5 * 0.5 / math.sqrt(len(share))


def test_systematic_unmasking_has_the_chances_and_no_scatter():
    m = get_modality("masked")((50,), 2)
    x = m.prior(4000, rng=0)
    moved, _ = m.step(torch.zeros(4000, 50, 2), x, times(1.0), times(0.71), rng=1, method="systematic")
    count = (moved != 2).sum(1)
    assert set(count.tolist()) == {14, 15}  # floor and ceiling of 50 x .29 = 14.5
    each = (moved != 2).double().mean(0)
    assert (each - 0.29).abs().max() < 5 * math.sqrt(0.29 * 0.71 / 4000)


@pytest.mark.parametrize("head", ["score", "posterior"])
def test_the_simplex_flow_and_the_simplex_noise_have_the_same_marginals(head):
    """From the prior to t_min by the noisy step and by the flow (Heun), exact head: the means of x and x^2 agree
    within five standard errors of 2,000 rows, and .03 for the steps' first order."""
    from de_core import JointProcess
    from de_core.testing import OracleDenoiser

    m = get_modality("simplex")((3,), head)
    joint = JointProcess({"m": m}, block=2000)
    atoms = torch.eye(3)[:2] if head == "posterior" else torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    oracle = OracleDenoiser(joint, {"m": atoms}, torch.tensor([0.7, 0.3]))
    start = m.prior(300, rng=0)
    grid = m.grid(16)
    grid = grid[grid > 0.3]

    def run(method):
        x = start
        for t, s in zip(grid[:-1].float(), grid[1:].float(), strict=True):
            call = lambda y, when: oracle({"m": y}, {"m": when})["m"]  # noqa: E731 # one word for one line
            when = t.expand(300)
            x, _ = m.step(call(x, when), x, when, s.expand(300), rng=1, method=method, again=call)
        return x

    noisy, flow = run("dirichlet_euler"), run("heun")
    for power in (1, 2):
        gap = (noisy**power).mean(0) - (flow**power).mean(0)
        error = (((noisy**power).var(0) + (flow**power).var(0)) / 300).sqrt()
        assert bool((gap.abs() < 5 * error + 0.03).all())


@pytest.mark.parametrize("parts", [3, 30, 300])
def test_one_hot_data_of_any_number_of_parts_are_resolved_at_t_min(parts):
    """The last move draws from p(x_0 | x_t) at t_min, so that must know x_0: -log of the truth under the exact law,
    G(x_b) normalised, is under 1e-3 nats. At tau = 0.04 whatever K, 300 parts are left with 5.3 of log 300 = 5.7."""
    from de_plugins.simplex._wright_fisher import one_hot_log_G

    m = get_modality("simplex")((parts,), "posterior")
    t = torch.full((64,), m.t_min, dtype=torch.float64)
    x0 = torch.nn.functional.one_hot(torch.arange(64) % parts, parts).double()
    log_mu = one_hot_log_G(m.perturb(x0, t, rng=0).xt, m.tau(t), m.psi)[0].log_softmax(-1)
    assert float(-(log_mu * x0).sum(-1).mean()) < 1e-3


@pytest.mark.parametrize("elements", [5, 70])
@pytest.mark.parametrize("objective", ["elbo", "simple"])
def test_the_loss_of_classes_of_many_sizes_is_that_of_each_by_itself(objective, elements):
    """Of few elements and of many, scores far apart, and rows in which nothing is masked."""
    generator = torch.Generator().manual_seed(0)
    sizes = [2 + k % 7 for k in range(elements)]
    masked = get_modality("masked")((elements,), num_classes=sizes)
    x0 = torch.stack([torch.randint(0, size, (8,), generator=generator) for size in sizes], 1)
    t = torch.rand(8, elements, generator=generator, dtype=torch.float64)
    t[:3] = 0.0
    noised = masked.perturb(x0, t, rng=1)
    output = 40 * torch.randn(8, sum(sizes), generator=generator, dtype=torch.float64)
    output.requires_grad_()
    entropy = torch.stack(
        [
            torch.nn.functional.cross_entropy(part, x0[:, k], reduction="none")
            for k, part in enumerate(output.split(sizes, 1))
        ],
        1,
    )
    hidden = noised.xt == torch.tensor(sizes)
    if objective == "elbo":  # the linear schedule: rate 1/t
        weights = hidden / torch.where(t > 0, t, 1.0)
    else:
        live = t > 0
        weights = hidden * ((live.sum(1) + 1).double() / hidden.sum(1).clamp_min(1))[:, None]
    wanted = (weights * entropy).sum(1)
    found = masked.loss(output, noised, objective=objective)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(loss.sum(), output, retain_graph=True)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
    assert not found[:3].any()
    assert found[3:].min() > 0


@pytest.mark.parametrize("name", ["masked", "uniform"])
def test_a_number_of_classes_of_numpy_is_a_number(name):
    modality = get_modality(name)((2,), num_classes=np.int64(3))
    assert json.loads(json.dumps(modality.config()))["num_classes"] == 3


@pytest.mark.parametrize("name", ["gaussian", "masked", "uniform", "simplex"])
@pytest.mark.parametrize("shape", [3, "ab", (2.0,), (-1,), None])
def test_shapes_that_are_none_are_refused(name, shape):
    more = {"num_classes": 3} if name in ("masked", "uniform") else {}
    with pytest.raises(DiffuseError, match="event_shape: expected a tuple of whole numbers"):
        get_modality(name)(shape, **more)


@pytest.mark.parametrize("name", ["masked", "uniform"])
@pytest.mark.parametrize("classes", ["ab", 2.5, None, (2, 2.5), 0])
def test_numbers_of_classes_that_are_none_are_refused(name, classes):
    with pytest.raises(DiffuseError, match="num_classes: expected"):
        get_modality(name)((2,), num_classes=classes)
