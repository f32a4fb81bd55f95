"""T11: the theorem on mixed spaces, continuous times discrete, by quadrature through the public generators.

E_p Phi(p/beta) - E_p [L* beta/beta + L log beta] = -E_p [L log p],
E_p Phi(p/beta) - E Phi(p(. | x_0)/beta)           free of beta.
"""

import math

import numpy as np
import pytest
import torch

from de_core import get_modality
from de_core.generator import SumGenerator

F64 = torch.float64


def smooth_model(seed, grow):
    """log beta(x, y): a smooth random function of x for every class y; x (B,) and y (B,)."""
    rng = torch.Generator().manual_seed(seed)
    c = 0.6 * torch.randn(4, 5, generator=rng, dtype=F64)

    def log_beta(u, y):
        a, b, d, e, f = c[y].unbind(-1)
        return a * torch.sin(u + b) + d * torch.cos(1.3 * u) + e - (grow + 0.1 * torch.tanh(f)) * u**2

    return log_beta


def forms(parts, states, weights, log_p, conditionals, log_beta, scores):
    """The three forms by coordinate: name -> (explicit, implicit, denoising).

    states: name -> (N, ...); weights (N,), quadrature times reference; log_p, log_beta: functions of the state dict;
    conditionals: (probability, log p(. | x_0)) pairs; scores: name -> function (log density, states) -> score.
    """
    out = {}
    p = weights * log_p(states).exp()
    for name, part in parts.items():
        alone = SumGenerator({name: part})
        beta = lambda x: log_beta(x).exp()  # noqa: E731 # one word for one line
        ratio = lambda x: (log_p(x) - log_beta(x)).exp()  # noqa: E731 # one word for one line
        explicit = (p * alone.phi(ratio, states)).sum()
        implicit = (p * (alone.adjoint(beta, states) / beta(states) + alone.apply(log_beta, states))).sum()
        denoising = torch.zeros((), dtype=F64)
        for chance, log_q in conditionals:
            value = part.bregman(scores[name](log_q, states), scores[name](log_beta, states), states[name])
            q = weights * log_q(states).exp()
            denoising = denoising + chance * torch.where(q > 0, q * value, 0.0).sum()
        constant = -(p * alone.apply(log_p, states)).sum()
        out[name] = torch.stack([explicit, implicit, denoising, constant]).detach()
    return out


def jump_score(generator, name):
    def score(log_f, states):
        y, out, into = generator.neighbours(states[name])
        n = y.shape[1]
        others = {k: v.repeat_interleave(n, 0) for k, v in states.items() if k != name}
        there = log_f({**others, name: y.flatten(0, 1)}).reshape(-1, n)
        return torch.where((out > 0) | (into > 0), there - log_f(states)[:, None], 0.0)

    return score


def tangent_score(name):
    def score(log_f, states):
        x = states[name].detach().requires_grad_()
        with torch.enable_grad():
            (grad,) = torch.autograd.grad(log_f({**states, name: x}).sum(), x)
        return grad

    return score


def check(values, tolerance):
    for name in values[0]:
        rows = torch.stack([v[name] for v in values])
        explicit, implicit, denoising, constant = rows.unbind(1)
        scale = max(1.0, float(rows.abs().max()))
        assert float((explicit - implicit - constant).abs().max()) < tolerance * scale, name
        gap = explicit - denoising
        assert float(gap.max() - gap.min()) < tolerance * scale, name
        assert float(explicit.min()) > 0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_gaussian_times_masked(schedule):
    """x in R, y in {0, 1, 2, mask}; x_0, y_0 a correlated law with six atoms. Trapezoid on [-9, 9], 6001 points: the
    integrands are analytic and below e^-30 at the ends, so its error is exponentially small; 1e-8 is asked."""
    gaussian, masked = get_modality("gaussian")((), schedule), get_modality("masked")((), 3)
    t = {"x": torch.tensor(0.45, dtype=F64), "y": torch.tensor(0.6, dtype=F64)}
    parts = {"x": gaussian.generator(t["x"]), "y": masked.generator(t["y"])}
    grid = torch.linspace(-9, 9, 6001, dtype=F64)
    states = {"x": grid.repeat(4), "y": torch.arange(4).repeat_interleave(len(grid))}
    weights = torch.full((4 * len(grid),), float(grid[1] - grid[0]), dtype=F64)
    atoms = {"x": torch.tensor([-1.0, 0.3, 1.2, 0.8, -0.4, 2.0], dtype=F64), "y": torch.tensor([0, 0, 1, 1, 2, 2])}
    chances = torch.tensor([0.1, 0.25, 0.2, 0.15, 0.2, 0.1], dtype=F64)

    def conditional(j):
        def log_q(s):
            n = len(s["x"])
            a = gaussian.log_transition(s["x"], atoms["x"][j].expand(n), t["x"].expand(n))
            return a + masked.log_transition(s["y"], atoms["y"][j].expand(n), t["y"].expand(n))

        return log_q

    conditionals = [(chances[j], conditional(j)) for j in range(6)]

    def log_p(s):
        return torch.stack([c.log() + q(s) for c, q in conditionals]).logsumexp(0)

    assert abs(float((weights * log_p(states).exp()).sum()) - 1) < 1e-12
    values = []
    for seed in range(4):
        model = smooth_model(seed, 0.4)
        values.append(
            forms(
                parts, states, weights, log_p, conditionals, lambda s, m=model: m(s["x"], s["y"]),
                {"x": tangent_score("x"), "y": jump_score(parts["y"], "y")},
            )
        )  # fmt: skip
    check(values, 1e-8)


def test_simplex_times_uniform():
    """x on the simplex with two parts, y in {0, 1, 2}; Gauss-Legendre with 120 nodes against D = Dir(1, 1), flat.

    Up to 1e-12 the kernel's density is a polynomial of degree 2/tau + 8 sqrt(2/(3 tau)) = 13 at tau = .5, and the
    models are entire: the error is below rounding; 1e-8 is asked."""
    simplex, uniform = get_modality("simplex")((2,), "score"), get_modality("uniform")((), 3)
    t = {"x": torch.tensor(0.4, dtype=F64), "y": torch.tensor(0.7, dtype=F64)}
    parts = {"x": simplex.generator(t["x"]), "y": uniform.generator(t["y"])}
    nodes, legendre = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(120))
    nodes = 0.5 + 0.5 * nodes
    states = {
        "x": torch.stack([nodes, 1 - nodes], 1).repeat(3, 1),
        "y": torch.arange(3).repeat_interleave(len(nodes)),
    }
    weights = (0.5 * legendre).repeat(3)
    shares = torch.tensor([0.0, 0.3, 0.9, 0.55, 1.0], dtype=F64)
    atoms = {"x": torch.stack([shares, 1 - shares], 1), "y": torch.tensor([0, 1, 1, 2, 0])}
    chances = torch.tensor([0.15, 0.25, 0.2, 0.3, 0.1], dtype=F64)

    def conditional(j):
        def log_q(s):
            n = len(s["x"])
            a = simplex.log_transition(s["x"], atoms["x"][j].expand(n, 2), t["x"].expand(n))
            return a + uniform.log_transition(s["y"], atoms["y"][j].expand(n), t["y"].expand(n))

        return log_q

    conditionals = [(chances[j], conditional(j)) for j in range(5)]

    def log_p(s):
        return torch.stack([c.log() + q(s) for c, q in conditionals]).logsumexp(0)

    assert abs(float((weights * log_p(states).exp()).sum()) - 1) < 1e-10
    values = []
    for seed in range(4):
        model = smooth_model(seed, 0.0)
        values.append(
            smooth_forms(
                parts, states, weights, log_p, conditionals, lambda s, m=model: m(3 * s["x"][:, 0], s["y"]),
                {"x": tangent_score("x"), "y": jump_score(parts["y"], "y")},
            )
        )  # fmt: skip
    check(values, 1e-8)


def smooth_forms(parts, states, weights, log_p, conditionals, log_beta, scores):
    """As ``forms``, but with no second derivative of log p, which is a series read off by a Fourier transform: Phi
    comes from the scores, and E_p L log p by reversibility."""
    out = {}
    p = weights * log_p(states).exp()
    for name, part in parts.items():
        alone = SumGenerator({name: part})
        beta = lambda x: log_beta(x).exp()  # noqa: E731 # one word for one line
        implicit = (p * (alone.adjoint(beta, states) / beta(states) + alone.apply(log_beta, states))).sum()
        own, model = scores[name](log_p, states), scores[name](log_beta, states)
        explicit = (p * part.bregman(own, model, states[name])).sum()
        denoising = torch.zeros((), dtype=F64)
        for chance, log_q in conditionals:
            q = weights * log_q(states).exp()
            value = part.bregman(scores[name](log_q, states), model, states[name])
            denoising = denoising + chance * (q * value).sum()
        # E_p L log p = E_p [L p/p] - E_p Phi(p) and E_p [L p/p] = sum L p = 0 for a reversible L
        zero = torch.zeros_like(own)
        constant = (p * part.bregman(own, zero, states[name])).sum()
        out[name] = torch.stack([explicit, implicit, denoising, constant]).detach()
    return out


def test_gaussian_and_simplex_stationary_laws():
    """L* prior = 0, against each reference: the linear path's N(0, 1) to rounding (drift and noise balance:
    1e-10), the flat Dirichlet law (density 1 against D) exactly."""
    gaussian, simplex = get_modality("gaussian")((2,), "linear"), get_modality("simplex")((3,))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, generator=rng, dtype=F64)
    prior = lambda y: (-0.5 * (y**2).sum(1)).exp()  # noqa: E731 # one word for one line
    assert gaussian.generator(torch.tensor(0.7, dtype=F64)).adjoint(prior, x).abs().max() < 1e-10
    shares = simplex.prior(50, rng=rng).double()
    flat = lambda y: 1.0 + 0.0 * y.sum((1,))  # noqa: E731 # one word for one line
    assert simplex.generator(torch.tensor(0.7, dtype=F64)).adjoint(flat, shares).abs().max() == 0


@pytest.mark.parametrize("kind", ["gaussian", "simplex"])
def test_kolmogorov(kind):
    """d/dt p_{t|0} = L_t* p_{t|0}: the kernel against its generator. Central difference in t, h = 1e-4: truncation
    h^2/6 |p'''| < 1e-6 where |p'''| < 600, rounding of the series 1e-11/h = 1e-7; 1e-4 of its own rate is asked."""
    modality = get_modality(kind)((2,)) if kind == "gaussian" else get_modality(kind)((3,))
    rng = torch.Generator().manual_seed(1)
    x0 = torch.tensor([[0.5, -1.0]] if kind == "gaussian" else [[0.2, 0.5, 0.3]], dtype=F64).repeat(30, 1)
    t, h = 0.4, 1e-4
    x = modality.perturb(x0, torch.full((30,), t, dtype=F64), rng=rng).xt

    def density(y, when):
        # unnormalised off the simplex too: the kernel's series is a function of all parts
        return modality.log_transition(y, x0, torch.full((30,), when, dtype=F64)).exp()

    slope = (density(x, t + h) - density(x, t - h)) / (2 * h)
    if kind == "gaussian":
        moved = modality.generator(torch.tensor(t, dtype=F64)).adjoint(lambda y: density(y, t), x)
    else:
        moved = finite_difference_wright_fisher(modality, lambda y: density(y, t), x, t)
    assert (slope - moved).abs().max() < 1e-4 * float(slope.abs().max())


def finite_difference_wright_fisher(modality, f, x, t, h=1e-3):
    """b [psi/2 (pi - x) . grad f + tr(A Hess f)/2] by central differences along the simplex: error about h^2 = 1e-6."""
    k = x.shape[1]
    drift = 0.5 * modality.psi * (1 / k - x)
    total = (f(x + h * drift) - f(x - h * drift)) / (2 * h)
    root = x.sqrt()
    for j in range(k):
        v = torch.zeros_like(x)
        v[:, j] = 1
        v = root * (v - root * (root * v).sum(1, keepdim=True))  # a column of sigma, sigma sigma^T = A
        total = total + 0.5 * (f(x + h * v) - 2 * f(x) + f(x - h * v)) / h**2
    return total * float(modality.rate(torch.tensor(t, dtype=F64)))


def test_simplex_generator_against_finite_differences():
    """apply and phi of the Wright-Fisher generator for a smooth f: differences of step 1e-3, error about 1e-6."""
    simplex = get_modality("simplex")((3,))
    x = simplex.prior(40, rng=2).double().clamp(0.05)
    x = x / x.sum(1, keepdim=True)
    f = lambda y: (torch.sin(3 * y[:, 0]) + y[:, 1] ** 2).exp()  # noqa: E731 # one word for one line
    generator = simplex.generator(torch.tensor(0.3, dtype=F64))
    assert (generator.apply(f, x) - finite_difference_wright_fisher(simplex, f, x, 0.3)).abs().max() < 1e-4
    score = tangent_score("x")(lambda s: f(s["x"]).log(), {"x": x})
    assert (generator.phi(f, x) - generator.bregman(score, torch.zeros_like(score), x)).abs().max() < 1e-10
    assert math.isfinite(float(generator.phi(f, x).sum()))
