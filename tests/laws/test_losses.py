"""Each modality's own closed form against the family's generic one, and the identities that tie the losses together
(T13, V8)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from de_core import Noised, get_modality
from de_core.families import Diffusion, Jump
from de_core.testing.strategies import clean, modalities, seeds
from de_plugins.simplex._wright_fisher import quadratic

F64 = torch.float64
laws = settings(max_examples=25)


def noised_batch(modality, seed, low=0.05, high=0.95, batch=6, wise=False):
    rng = torch.Generator().manual_seed(seed)
    x0 = clean(modality, batch, rng)
    shape = (batch, *modality.element_shape) if wise else (batch,)
    t = low + (high - low) * torch.rand(shape, generator=rng, dtype=F64)
    output = torch.randn(batch, *modality.output_shape, generator=rng, dtype=F64)
    return output, modality.perturb(x0, t, rng=rng), rng


@laws
@given(modalities(), seeds(), st.booleans())
def test_the_closed_form_is_the_generators_own_divergence(modality, seed, wise):
    """loss("elbo") = bregman(target score, score) of ``generator(t)``.

    Sums of fewer than 100 terms in float64. The score entropy's series is off by up to r 8e-13 at |d| = 1e-2, and a
    ratio r is at most K/t = 100: 1e-10 of the value."""
    family = Diffusion if isinstance(modality, Diffusion) else Jump
    output, noised, _ = noised_batch(modality, seed, wise=wise)
    own = modality.loss(output, noised)
    generic = family.loss(modality, output, noised)
    assert own.shape == (6,)
    assert (own - generic).abs().max() < 1e-10 * max(1.0, float(own.abs().max()))
    assert float(own.min()) > -1e-10


@laws
@given(seeds(), st.integers(2, 6), st.floats(0.01, 0.99), st.sampled_from(["linear", "cosine"]))
def test_t13_masked_score_entropy_is_the_weighted_cross_entropy(seed, classes, t, schedule):
    """sum_y Q(y, x) [s - r log s + K(r)] = w sum over masked of -log p(x_0): no constant is left. 1e-10."""
    modality = get_modality("masked")((4,), classes, schedule)
    output, noised, _ = noised_batch(modality, seed, t, t)
    log_p = output.log_softmax(-1)
    truth = log_p.gather(-1, noised.x0[..., None])[..., 0]
    a = {"linear": lambda u: 1 - u, "cosine": lambda u: 1 - math.cos(math.pi / 2 * (1 - u))}[schedule]
    slope = {"linear": lambda u: -1.0, "cosine": lambda u: -math.pi / 2 * math.sin(math.pi / 2 * (1 - u))}[schedule]
    weight = -slope(t) / (1 - a(t))
    by_hand = (weight * torch.where(noised.xt == classes, -truth, 0.0)).sum(1)
    entropy = Jump.loss(modality, output, noised)
    assert (entropy - by_hand).abs().max() < 1e-10 * max(1.0, float(by_hand.max()))
    assert (modality.loss(output, noised) - by_hand).abs().max() < 1e-12 * max(1.0, float(by_hand.max()))


@laws
@given(seeds(), st.integers(2, 6), st.floats(0.01, 0.99), st.sampled_from(["posterior", "leave_one_out"]))
def test_t13_uniform_score_entropy_is_the_integrand_of_udlm(seed, classes, t, head):
    """THEORY 3.c, Schiff et al. 2024: a'/(K a) [K/x_z - K/x'_z - sum_j x_j/x_z log(x'_z x_j / (x'_j x_z))], x = K a
    e_{x_0} + 1 - a and x' from the leave-one-out law. 1e-10 of the largest term, K/(1 - a) <= 600."""
    modality = get_modality("uniform")((3,), classes, head)
    output, noised, _ = noised_batch(modality, seed, t, t)
    a, k = 1 - t, classes
    z = noised.xt[..., None]
    one_hot = torch.nn.functional.one_hot(noised.x0, k).to(F64)
    x_bar = k * a * one_hot + 1 - a
    nu = output.softmax(-1)
    if head == "posterior":  # mu_b proportional to nu_b P_t(b, z), so nu is mu over that, normalised
        kernel = torch.full_like(nu, (1 - a) / k) + a * torch.nn.functional.one_hot(noised.xt, k).to(F64)
        nu = nu / kernel
        nu = nu / nu.sum(-1, keepdim=True)
    model_bar = k * a * nu + 1 - a
    x_z, model_z = x_bar.gather(-1, z), model_bar.gather(-1, z)
    logs = x_bar / x_z * (model_z * x_bar / (model_bar * x_z)).log()
    integrand = -1 / (k * a) * (k / x_z - k / model_z - logs.sum(-1, keepdim=True))
    by_hand = integrand[..., 0].sum(1)
    assert (modality.loss(output, noised) - by_hand).abs().max() < 1e-10 * max(1.0, k / t)


def test_posterior_taken_for_leave_one_out_has_wrong_rates():
    """The trap of THEORY 3.c: the two heads differ by a factor of order one wherever the classes are not settled."""
    t, xt = torch.tensor([0.5], dtype=F64), torch.tensor([0])
    logits = torch.tensor([[0.2, -0.4, 0.1]], dtype=F64)
    scores = [get_modality("uniform")((), 3, head).score(logits, xt, t) for head in ("posterior", "leave_one_out")]
    assert (scores[0] - scores[1]).abs().max() > 0.2


@laws
@given(seeds(), st.floats(0.05, 0.95), st.integers(2, 5))
def test_uniform_heads_agree_through_the_kernel(seed, t, classes):
    """mu_b proportional to nu_b P_t(b, z): with outputs related so, both heads have one score, one loss (rounding)."""
    posterior, loo = (get_modality("uniform")((2,), classes, head) for head in ("posterior", "leave_one_out"))
    output, noised, _ = noised_batch(loo, seed, t, t)
    kernel = (1 - (1 - t)) / classes + (1 - t) * torch.nn.functional.one_hot(noised.xt, classes).to(F64)
    other = output.log_softmax(-1) + kernel.log()
    first, second = loo.score(output, noised.xt, noised.t), posterior.score(other, noised.xt, noised.t)
    assert (first - second).abs().max() < 1e-11
    assert (loo.loss(output, noised) - posterior.loss(other, noised)).abs().max() < 1e-9
    # and by the definition: sum_b mu_b P(b, j)/P(b, z)
    mu = other.softmax(-1)
    p = torch.full((classes, classes), t / classes, dtype=F64) + (1 - t) * torch.eye(classes, dtype=F64)
    ratio = torch.einsum("nlb,bj->nlj", mu / p[:, noised.xt].permute(1, 2, 0), p)
    rolled = (noised.xt[..., None] + 1 + torch.arange(classes - 1)) % classes
    assert (ratio.gather(-1, rolled).log().flatten(1) - first).abs().max() < 1e-11


@laws
@given(seeds(), st.integers(1, 3), st.integers(2, 3))
def test_masked_simple_has_the_bounds_expectation_under_uniform_tied_times(seed, elements, classes):
    """E_t E_mask [w(t) CE] = E_t E_mask [(M+1)/m CE], a = 1 - t: all masks enumerated, outputs fixed, the mask's
    law t^m (1-t)^(M-m) integrated by 4-point Gauss-Legendre, exact to degree 7: 1e-12."""
    modality = get_modality("masked")((elements,), classes)
    rng = torch.Generator().manual_seed(seed)
    x0 = torch.randint(classes, (elements,), generator=rng)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    totals = dict.fromkeys(("elbo", "simple"), 0.0)
    for bits in range(2**elements):
        masked = torch.tensor([bool(bits >> k & 1) for k in range(elements)])
        m = int(masked.sum())
        output = torch.randn(1, elements, classes, generator=rng, dtype=F64)  # a model may answer anything to each mask
        xt = torch.where(masked, classes, x0)[None]
        for u, w in zip(0.5 + 0.5 * nodes, 0.5 * weights, strict=True):
            t = torch.tensor([u], dtype=F64)
            noised = Noised(x0[None], xt, torch.zeros_like(t), t)
            chance = u**m * (1 - u) ** (elements - m)
            for objective in totals:
                totals[objective] += w * chance * float(modality.loss(output, noised, objective=objective))
    assert abs(totals["elbo"] - totals["simple"]) < 1e-12 * max(1.0, totals["elbo"])


@laws
@given(st.sampled_from(["cosine", "linear", "edm"]), seeds(), st.booleans())
def test_gaussian_loss_is_one_number_in_four_predictions(schedule, seed, wise):
    """g^2/2 |s + eps/sigma|^2 whichever way the network speaks, and ``convert`` goes round. Conditioning: x_0 from
    eps loses 1/alpha, eps from x_0 alpha/sigma; both below 1e3 on [.05, .9], squared: 1e-9 relative."""
    heads = {p: get_modality("gaussian")((3,), schedule, p) for p in ("v", "x0", "eps", "score")}
    output, noised, _ = noised_batch(heads["v"], seed, 0.05, 0.9, wise=wise)
    values = {}
    for name, m in heads.items():
        same = heads["v"].convert(output, noised.xt, noised.t, name)
        values[name] = m.loss(same, noised)
        for back, other in heads.items():
            there = m.convert(same, noised.xt, noised.t, back)
            home = other.convert(there, noised.xt, noised.t, name)
            assert (home - same).abs().max() < 1e-9 * max(1.0, float(same.abs().max()), float(there.abs().max()))
    for value in values.values():
        assert (value - values["v"]).abs().max() < 1e-9 * max(1.0, float(values["v"].max()))
    t = noised.t
    path = heads["v"].path
    sigma = path.sigma(t)
    g2 = path.diffusion(t)
    score = heads["v"].score(output, noised.xt, t)
    shaped = (lambda v: v) if wise else (lambda v: v[:, None])
    by_hand = (0.5 * shaped(g2) * (score + noised.aux["eps"] / shaped(sigma)) ** 2).sum(1)
    assert (by_hand - values["v"]).abs().max() < 1e-9 * max(1.0, float(values["v"].max()))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "edm"])
def test_gaussian_rate_is_minus_half_the_slope_of_the_log_snr(schedule):
    """g^2/(2 sigma^2) = -lambda'/2, lambda = log(alpha^2/sigma^2). Central difference with h = 1e-5: h^2 lambda''' <
    1e-6."""
    path = get_modality("gaussian")((), schedule).path
    t, h = torch.linspace(0.05, 0.95, 19, dtype=F64), 1e-5
    snr = lambda u: (path.alpha(u) ** 2 / path.sigma(u) ** 2).log()  # noqa: E731 # one word for one line
    slope = (snr(t + h) - snr(t - h)) / (2 * h)
    assert (path.diffusion(t) / (2 * path.sigma(t) ** 2) + slope / 2).abs().max() < 1e-5
    drift = ((path.alpha(t + h).log() - path.alpha(t - h).log()) / (2 * h)) - path.drift(t)
    assert drift.abs().max() < 1e-5


@laws
@given(seeds(), st.integers(2, 5), st.floats(0.1, 0.9))
def test_v8_the_simplex_count_loss_is_the_divergence_up_to_what_s_does_not_enter(seed, parts, t):
    """(u-s)^T A (u-s)/2 - [s^T A s/2 - s^T(l - m x)] = [sum l^2/x - m^2]/2, u = l/x. A part may be as small as 1e-4
    and a count as large as 100, so l^2/x up to 1e8 cancels: 1e-9 of the largest of them."""
    modality = get_modality("simplex")((parts,), "score")
    output, noised, rng = noised_batch(modality, seed, t, t)
    assume(float(noised.xt.min()) > 1e-4)
    other = torch.randn(output.shape, generator=rng, dtype=F64)
    counts, x = noised.aux["counts"].to(F64), noised.xt
    free = (counts**2 / x).sum(-1) - counts.sum(-1) ** 2
    scale = max(1.0, float((counts**2 / x).max()))
    losses, gaps = [], []
    for o in (output, other):
        s = modality.score(o, x, noised.t)
        full = 0.5 * quadratic(counts / x - s, x)
        simple = 0.5 * quadratic(s, x) - (s * (counts - counts.sum(-1, keepdim=True) * x)).sum(-1)
        assert (full - simple - 0.5 * free).abs().max() < 1e-9 * scale
        losses.append(modality.loss(o, noised, objective="simple"))
        gaps.append(simple)
    # "simple" is that, times a weight in t alone
    ratio = losses[0] / gaps[0]
    assert bool((ratio > 0).all())
    assert (losses[1] - ratio * gaps[1]).abs().max() < 1e-9 * max(1.0, float(losses[1].abs().max()))
