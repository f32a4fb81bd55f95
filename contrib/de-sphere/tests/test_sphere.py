"""Closed forms of the sphere, its conformance, and the example. Laws in float64."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from de_sphere import _kernel, de_modalities
from de_sphere.modality import Sphere
from scipy.special import eval_legendre
from scipy.stats import chi2

from de_core import DiffuseError, JointProcess, get_modality, list_modalities, register
from de_core.modality import Noised
from de_core.testing import OracleDenoiser, check_modality

F64 = torch.float64
ROOT = Path(__file__).parents[1]
TIMES = [0.05, 0.3, 0.5, 0.7, 0.9, 0.99]
SIGMAS = 5  # standard errors: chance 6e-7 a check, and the seeds are fixed


@pytest.fixture(autouse=True, scope="module")
def _installed():
    """The plugin as pip would have it; from a checkout that is not installed it is registered by hand."""
    if not any(info.name == "sphere" for info in list_modalities()):
        register(de_modalities()[0])


def unit(n, seed, *shape):
    x = torch.randn(n, *shape, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return x / x.norm(dim=-1, keepdim=True)


def v(t):
    return 1e-4 * math.expm1(2 * math.log(300) * t)


def near(x0, t, seed):
    """Points some two sigma from ``x0``, at most 2 rad."""
    w = _kernel.tangent(x0, unit(len(x0), seed, *x0.shape[1:-1])) * min(2.0, 2 * math.sqrt(v(t)))
    return _kernel.exponential(x0, w)


@pytest.mark.parametrize("variance", [0.01, 0.05, 0.15, 0.1999, 0.2, 0.5, 2.0, 8.0])
def test_the_kernel_is_the_heat_kernel(variance):
    """Both halves against scipy's Legendre polynomials. The sum of 100 terms of at most 2/v cancels to 1e-13 absolute,
    1e-9 of a density above 1e-4."""
    theta = np.linspace(0, math.pi, 60)
    n = np.arange(120)[:, None]
    p = ((2 * n + 1) * np.exp(-n * (n + 1) * variance / 2) * eval_legendre(n, np.cos(theta))).sum(0) / (4 * math.pi)
    u = torch.from_numpy(2 * np.sin(theta / 2) ** 2)
    found = _kernel.log_kernel(u, torch.full_like(u, variance)).exp().numpy()
    seen = p > 1e-4
    assert seen[0]
    np.testing.assert_allclose(found[seen], p[seen], rtol=1e-9)
    np.testing.assert_allclose(found, p, atol=1e-9)


def test_the_two_halves_of_the_kernel_and_its_slope_meet():
    """At v = 0.2, up to 2 rad: the integral leaves out windings of e^{-(pi^2 - 4)/0.4} = 4e-7 of it at most."""
    u = torch.linspace(0, 1.4, 50, dtype=F64)
    for below, above in (
        (_kernel._integral(u, torch.tensor(0.2, dtype=F64)), _kernel._series(u, torch.tensor(0.2, dtype=F64))),
        (_kernel.slope(u, torch.full_like(u, 0.2 - 1e-12)), _kernel.slope(u, torch.full_like(u, 0.2))),
    ):
        assert torch.allclose(below, above, rtol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_the_score_is_the_tangent_gradient_of_the_density(t):
    """Along two great circles through x: central differences at h = 1e-4 sigma err by h^2/6 times a third derivative of
    at most 10/sigma^3, 2e-8/sigma, and by rounding of log p over h, 1e-11/sigma. And it is tangent."""
    sphere, when = Sphere((2, 3)), torch.full((30,), t, dtype=F64)
    x0 = unit(30, 1, 2)
    x = near(x0, t, 2)
    score = sphere.conditional_score(Noised(x0, x, torch.zeros_like(when), when))
    assert float((score * x).sum(-1).abs().max()) < 1e-9 * float(score.abs().max())
    h = 1e-4 * min(1.0, math.sqrt(v(t)))
    for seed in (3, 4):
        d = _kernel.tangent(x, unit(30, seed, 2))
        ahead, behind = (sphere.log_transition(_kernel.exponential(x, k * h * d), x0, when) for k in (1, -1))
        slope = (score * d).flatten(1).sum(1)
        assert torch.allclose(slope, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-5 / math.sqrt(v(t)))


@pytest.mark.parametrize("t", [0.3, 0.5, 0.7, 0.9])
def test_kolmogorov(t):
    """dp/dt = L* p: central difference in t at h = 1e-5, error h^2/6 times 12^3 p, 3e-8 relative to p."""
    sphere, h = Sphere((2, 3)), 1e-5
    x0 = unit(20, 1, 2)
    x = near(x0, t, 2)

    def density(when, y):
        return sphere.log_transition(y, x0, torch.full((20,), when, dtype=F64)).exp()

    rate = (density(t + h, x) - density(t - h, x)) / (2 * h)
    found = sphere.generator(t).adjoint(lambda y: density(t, y), x)
    assert torch.allclose(found, rate, rtol=1e-5, atol=1e-6 * float(density(t, x).max()))


def test_draws_have_the_moments_of_the_kernel_and_compose():
    """E P_l(x_t . x_0) = exp(-l (l + 1) v/2), directly and by way of s, in every regime; E x_t = e^-v x_0."""
    sphere, n = Sphere(), 40_000
    x0 = unit(1, 0).expand(n, 3).contiguous()
    for t in (0.3, 0.6, 0.75, 0.85, 0.95):
        once = sphere.perturb(x0, t, rng=1).xt
        twice = sphere.perturb(sphere.perturb(x0, t - 0.05, rng=2).xt, t, s=t - 0.05, rng=3).xt
        for xt in (once, twice):
            sphere.validate(xt)
            c = (xt * x0).sum(1)
            for k, value in ((1, c), (2, (3 * c**2 - 1) / 2)):
                error = float(value.mean()) - math.exp(-k * (k + 1) / 2 * v(t))
                assert abs(error) < SIGMAS * float(value.std()) / n**0.5
            rest = xt - math.exp(-v(t)) * x0
            assert bool((rest.mean(0).abs() < SIGMAS * rest.std(0) / n**0.5).all())


def test_the_proposals_of_the_draw_dominate_the_kernel():
    theta = torch.linspace(0, math.pi, 2001, dtype=F64)[:-1]
    u = 2 * torch.sin(theta / 2) ** 2
    for variance in (1e-6, 1e-3, 0.05, 0.19, 0.2, 0.5, 1.0, 1.99):
        spread = torch.full_like(theta, variance)
        proposal = -(theta**2) / (2 * spread) - (2 * math.pi * spread * torch.sinc(theta / math.pi)).log()
        assert float((_kernel.log_kernel(u, spread) - proposal).max().exp()) < _kernel._BOUND
    for variance in (2.0, 4.0, 9.0):
        density = 4 * math.pi * _kernel.log_kernel(u, torch.full_like(u, variance)).exp()
        assert float(density.max()) < _kernel._BOUND


def test_a_draw_of_one_row_does_not_depend_on_the_others():
    sphere = Sphere((2, 3))
    x = unit(8, 0, 2)
    other = x.clone()
    other[3:] = unit(5, 1, 2)
    assert torch.equal(sphere.perturb(x, 0.8, rng=4).xt[:3], sphere.perturb(other, 0.8, rng=4).xt[:3])


def test_ends_of_time():
    sphere = Sphere()
    x, x0 = unit(10, 0), unit(10, 1)
    zero, one = torch.zeros(10, dtype=F64), torch.ones(10, dtype=F64)
    assert torch.equal(sphere.perturb(x0, zero, rng=0).xt, x0)
    assert torch.equal(sphere.log_transition(x0, x0, zero), zero)
    assert bool((sphere.log_transition(x, x0, zero) == -torch.inf).all())
    assert torch.allclose(sphere.log_transition(x, x0, one), torch.full((10,), -math.log(4 * math.pi), dtype=F64))
    assert bool((sphere.conditional_score(Noised(x0, x, zero, one)) == 0).all())
    assert torch.equal(sphere.perturb(x0, one, rng=5).xt, sphere.perturb(x, one, rng=5).xt)
    assert torch.equal(sphere.finish(x, x0, zero, rng=0), x0)


def test_an_elementwise_clock_moves_each_vector_by_its_own_time():
    sphere = Sphere((3, 3))
    x0 = unit(6, 4, 3)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=F64).expand(6, 3)
    xt = sphere.perturb(x0, t, rng=0).xt
    assert torch.equal(xt[:, 0], x0[:, 0])
    assert float((xt[:, 1] - x0[:, 1]).norm(dim=-1).max()) < 6 * math.sqrt(v(0.4))
    with pytest.raises(DiffuseError, match="forward"):
        sphere.perturb(x0, torch.full_like(t, 0.3), s=t, rng=0)


def test_the_space():
    for bad in (torch.tensor([[0.0, 0.6, 0.9]]), torch.tensor([[0.0, math.nan, 0.0]])):
        with pytest.raises(DiffuseError, match="length 1"):
            Sphere().validate(bad)
    with pytest.raises(DiffuseError, match="ends in 3"):
        Sphere((2,))
    assert Sphere(**Sphere((4, 3)).config()).config() == {"event_shape": [4, 3]}


def test_the_implicit_integrand_of_a_linear_log_density():
    """beta = exp(k . x): score k - (k . x) x, Laplacian of log beta -2 k . x: g^2 (|score|^2/2 - 2 k . x), exact."""
    sphere, k = Sphere(), torch.tensor([0.3, -1.2, 0.7], dtype=F64)
    x, t = unit(20, 0), torch.full((20,), 0.6, dtype=F64)
    found = sphere.implicit(lambda x: math.sqrt(v(0.6)) * k.expand_as(x), x, t, rng=0, probes=0)
    rate = 1e-4 * 2 * math.log(300) * 300 ** (2 * 0.6)
    truth = rate * (0.5 * _kernel.tangent(x, k.expand_as(x)).square().sum(1) - 2 * x @ k)
    assert torch.allclose(found, truth, rtol=1e-10)


def test_the_bound_of_the_uniform_law_is_its_entropy():
    """Score 0 is exact, and the kernel is the exact decoder: the mean of the bound is log 4 pi, prior's share 2e-8."""
    sphere = Sphere()
    joint, n = JointProcess({"x": sphere}, block=4000), 4000
    x0 = sphere.prior(n, rng=0)
    bound = joint.bound(lambda x, t: {"x": torch.zeros_like(x["x"])}, {"x": x0}, rng=1, draws=16).total
    assert abs(float(bound.mean()) - math.log(4 * math.pi)) < SIGMAS * float(bound.std()) / n**0.5
    assert float(bound.std()) / n**0.5 < 0.1


@pytest.mark.parametrize("method", ["walk", "euler", "heun"])
def test_sampling_with_an_exact_network_finds_the_law(method):
    """Atoms of unequal weight coupled with a class: chi-square at level 1e-6 over the four atoms. The residue of time 1
    (1e-4) and the bias of the steps are below the noise of 1,500 draws."""
    joint = JointProcess({"x": get_modality("sphere")(), "label": get_modality("masked")((), 2)}, block=1500)
    atoms = {"x": unit(4, 5).float(), "label": torch.tensor([0, 1, 1, 0])}
    law = torch.tensor([0.4, 0.3, 0.2, 0.1])
    oracle = OracleDenoiser(joint, atoms, law)
    x = joint.sample(oracle, 1500, rng=0, methods={"x": method})
    gap = (x["x"][:, None] - atoms["x"]).norm(dim=2)
    assert float(gap.amin(1).max()) < 0.1  # the last sigma is 0.01
    assert torch.equal(atoms["label"][gap.argmin(1)], x["label"])
    counts = gap.argmin(1).bincount(minlength=4)
    assert float(((counts - 1500 * law) ** 2 / (1500 * law)).sum()) < chi2.ppf(1 - 1e-6, 3)


@pytest.mark.slow
def test_conformance():
    for shape in ((3,), (2, 3)):
        x = unit(400, 7, *shape[:-1]).float() + torch.tensor([0.0, 0.5, 1.0])
        report = check_modality(Sphere(shape), x / x.norm(dim=-1, keepdim=True))
        assert report.ok, report.to_text()


def test_the_description_says_what_the_class_does():
    (info,) = de_modalities()
    assert (info.name, info.target) == ("sphere", f"{Sphere.__module__}:{Sphere.__name__}")
    assert info.capabilities == Sphere.capabilities
    assert get_modality("sphere") is Sphere


def test_the_example_runs():
    joint, model = runpy.run_path(str(ROOT / "example.py"))["train"](steps=3)
    assert joint.validate(joint.sample(model, 8, rng=0, steps=4)) == 8


@pytest.mark.slow
def test_the_example_learns():
    """A quarter of its training: directions drawn for a colour are read back as it, where chance is a third."""
    example = runpy.run_path(str(ROOT / "example.py"))
    joint, model = example["train"](steps=400)
    colour = torch.arange(300) % 3
    x = joint.sample(model, 300, rng=0, given={"colour": colour})["direction"]
    joint.modalities["direction"].validate(x)
    assert float((example["log_law"](x).argmax(1) == colour).float().mean()) > 0.6
