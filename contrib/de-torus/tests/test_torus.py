"""Closed forms of the torus, its conformance, and the example. Laws in float64."""

import ast
import math
import runpy
from pathlib import Path

import pytest
import torch
from de_torus import de_modalities
from de_torus.modality import Torus
from scipy.stats import chi2

from de_core import DiffuseError, DiffusionGenerator, JointProcess, get_modality, list_modalities, register
from de_core.modality import Noised
from de_core.testing import OracleDenoiser, check_modality

F64 = torch.float64
ROOT = Path(__file__).parents[1]
TIMES = [0.05, 0.3, 0.5, 0.7, 0.9, 0.99]
SIGMAS = 5  # standard errors: chance 6e-7 a check, and the seeds are fixed


@pytest.fixture(autouse=True, scope="module")
def _installed():
    """The plugin as pip would have it; from a checkout that is not installed it is registered by hand."""
    if not any(info.name == "torus" for info in list_modalities()):
        register(de_modalities()[0])


def pair(n, seed, shape=(2,)):
    rng = torch.Generator().manual_seed(seed)
    return tuple(math.pi * (2 * torch.rand(n, *shape, generator=rng, dtype=F64) - 1) for _ in range(2))


def v(t):
    return 1e-4 * math.expm1(12 * t)


@pytest.mark.parametrize("t", TIMES)
def test_the_kernel_is_the_heat_kernel_of_the_circle(t):
    """Against the other half of Jacobi's identity, (1/2pi)(1 + 2 sum_k e^{-k^2 v/2} cos k x), where its sum is short:
    absolute error, rounding of 400 terms."""
    x, x0 = pair(50, 0, (1,))
    x = Torus((1,)).retract(x0 + min(1.0, 3 * math.sqrt(v(t))) * x)
    k = torch.arange(1, int(10 / math.sqrt(v(t))) + 5, dtype=F64)
    series = (1 + 2 * (torch.exp(-(k**2) * v(t) / 2) * torch.cos(k * (x - x0))).sum(1)) / (2 * math.pi)
    found = Torus((1,)).log_transition(x, x0, torch.full((50,), t, dtype=F64)).exp()
    assert torch.allclose(found, series, rtol=1e-9, atol=1e-11 / math.sqrt(v(t)))


@pytest.mark.parametrize("t", TIMES)
def test_the_score_is_the_gradient_of_the_density(t):
    """Against automatic differentiation (1e-10 relative) and central differences: h^2/6 times a third derivative of
    at most about 10/sigma^3 at h = 1e-4 sigma, 2e-8/sigma."""
    torus, when = Torus((2,)), torch.full((30,), t, dtype=F64)
    x, x0 = pair(30, 1)
    x, x0 = (a.requires_grad_() for a in (torus.retract(x0 + min(1.0, math.sqrt(v(t))) * x), x0))
    (grad,) = torch.autograd.grad(torus.log_transition(x, x0, when).sum(), x)
    score = torus.conditional_score(Noised(x0, x, torch.zeros_like(when), when)).detach()
    assert torch.allclose(score, grad, rtol=1e-10, atol=1e-10)
    h = 1e-4 * math.sqrt(v(t))
    for k in range(2):
        d = h * torch.eye(2, dtype=F64)[k]
        numeric = (torus.log_transition(x + d, x0, when) - torus.log_transition(x - d, x0, when)) / (2 * h)
        assert torch.allclose(score[:, k], numeric.detach(), rtol=1e-6, atol=1e-6 / math.sqrt(v(t)))


@pytest.mark.parametrize("t", [0.3, 0.5, 0.7, 0.9])
def test_kolmogorov(t):
    """dp/dt = L* p: central difference in t at h = 1e-5, error h^2/6 times 12^3 p, 3e-8 relative to p."""
    torus, h = Torus((2,)), 1e-5
    x, x0 = pair(20, 2)
    x = torus.retract(x0 + min(0.6, math.sqrt(v(t))) * x)

    def density(when, y):
        return torus.log_transition(y, x0, torch.full((20,), when, dtype=F64)).exp()

    rate = (density(t + h, x) - density(t - h, x)) / (2 * h)
    found = torus.generator(t).adjoint(lambda y: density(t, y), x)
    assert torch.allclose(found, rate, rtol=1e-5, atol=1e-6 * float(density(t, x).max()))


def test_draws_have_the_moments_of_the_kernel_and_compose():
    """E cos k(x_t - x_0) = e^{-k^2 v/2}, directly and by way of s; the sines vanish."""
    torus, n = Torus(()), 40_000
    x0 = torch.full((n,), 3.0, dtype=F64)  # close to the cut
    for t in (0.5, 0.75, 0.85):
        once = torus.perturb(x0, t, rng=1).xt
        twice = torus.perturb(torus.perturb(x0, t - 0.03, rng=2).xt, t, s=t - 0.03, rng=3).xt
        for xt in (once, twice):
            torus.validate(xt)
            for k in (1, 2):
                value = torch.cos(k * (xt - x0))
                assert abs(float(value.mean()) - math.exp(-(k**2) * v(t) / 2)) < SIGMAS * float(value.std()) / n**0.5
                value = torch.sin(k * (xt - x0))
                assert abs(float(value.mean())) < SIGMAS * float(value.std()) / n**0.5


def test_ends_of_time():
    torus = Torus((2,))
    x, x0 = pair(10, 3)
    zero, one = torch.zeros(10, dtype=F64), torch.ones(10, dtype=F64)
    assert torch.equal(torus.perturb(x0, zero, rng=0).xt, x0)
    assert torch.equal(torus.log_transition(x0, x0, zero), zero)
    assert bool((torus.log_transition(x, x0, zero) == -torch.inf).all())
    assert torch.allclose(torus.log_transition(x, x0, one), torch.full((10,), -2 * math.log(2 * math.pi), dtype=F64))
    assert bool((torus.conditional_score(Noised(x0, x, zero, one)) == 0).all())
    assert torch.equal(torus.perturb(x0, one, rng=5).xt, torus.perturb(x, one, rng=5).xt)
    assert torch.equal(torus.finish(x, x0, zero, rng=0), x0)


def test_an_elementwise_clock_moves_each_angle_by_its_own_time():
    torus = Torus((3,))
    x0 = pair(6, 4, (3,))[0]
    t = torch.tensor([0.0, 0.5, 1.0], dtype=F64).expand(6, 3)
    xt = torus.perturb(x0, t, rng=0).xt
    assert torch.equal(xt[:, 0], x0[:, 0])
    assert float(torus.retract(xt[:, 1] - x0[:, 1]).abs().max()) < 6 * math.sqrt(v(0.5))
    with pytest.raises(DiffuseError, match="forward"):
        torus.perturb(x0, torch.full_like(t, 0.4), s=t, rng=0)


def test_the_space():
    torus = Torus((2,))
    wrapped = torus.retract(torch.tensor([[math.pi + 0.1, -7.0]], dtype=F64))
    assert torch.allclose(wrapped, torch.tensor([[0.1 - math.pi, 2 * math.pi - 7.0]], dtype=F64))
    torus.validate(wrapped)
    for bad in (torch.tensor([[0.0, 120.0]]), torch.tensor([[0.0, math.nan]])):
        with pytest.raises(DiffuseError, match="radians"):
            torus.validate(bad)
    assert Torus(**torus.config()).config() == torus.config()


def test_sampling_with_an_exact_network_finds_the_law():
    """Atoms of unequal weight, one on the cut, coupled with a class: chi-square at level 1e-6 over the four atoms.
    The residue of time 1 (3e-4) and the bias of 64 steps are below the noise of 4,000 draws."""
    joint = JointProcess({"angle": get_modality("torus")((1,)), "label": get_modality("masked")((), 2)}, block=1000)
    atoms = {"angle": torch.tensor([[-1.5], [0.2], [1.5], [3.1]]), "label": torch.tensor([0, 1, 1, 0])}
    law = torch.tensor([0.4, 0.3, 0.2, 0.1])
    oracle = OracleDenoiser(joint, atoms, law)
    x = joint.sample(oracle, 4000, rng=0)
    gap = Torus(()).retract(x["angle"] - atoms["angle"].T).abs()
    assert float(gap.amin(1).max()) < 0.1  # the last sigma is 0.01
    assert torch.equal(atoms["label"][gap.argmin(1)], x["label"])
    counts = gap.argmin(1).bincount(minlength=4)
    assert float(((counts - 4000 * law) ** 2 / (4000 * law)).sum()) < chi2.ppf(1 - 1e-6, 3)


@pytest.mark.slow
def test_conformance():
    for shape in ((2,), (1,)):
        x = pair(400, 7, shape)[0]
        report = check_modality(Torus(shape), torch.where(x > 0, 0.3 * x + 2.5, 0.2 * x).clamp(-math.pi, math.pi))
        assert report.ok, report.to_text()


def test_the_description_says_what_the_class_does():
    (info,) = de_modalities()
    assert (info.name, info.target) == ("torus", f"{Torus.__module__}:{Torus.__name__}")
    assert info.capabilities == Torus.capabilities
    assert get_modality("torus") is Torus


def test_the_class_takes_at_most_60_lines():
    source = (ROOT / "de_torus" / "modality.py").read_text()
    doc = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            doc |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    assert sum(bool(line.strip()) for k, line in enumerate(source.splitlines(), 1) if k not in doc) <= 60


def test_the_example_runs():
    joint, model = runpy.run_path(str(ROOT / "example.py"))["train"](steps=3)
    assert joint.validate(joint.sample(model, 8, rng=0, steps=4)) == 8


@pytest.mark.slow
def test_the_example_learns():
    """A quarter of its training: angles drawn for a label are read back as it, where chance is a third."""
    example = runpy.run_path(str(ROOT / "example.py"))
    joint, model = example["train"](steps=400)
    label = torch.arange(300) % 3
    x = joint.sample(model, 300, rng=0, given={"label": label})
    joint.modalities["angles"].validate(x["angles"])
    assert float((example["log_law"](x["angles"]).argmax(1) == label).float().mean()) > 0.6


class Plain(Torus):
    """The torus with a generator alone: no density says what is smooth across the cut at pi."""

    capabilities = frozenset({"generator"})


class Fast(Plain):
    """Its generator has twice the noise of its kernel."""

    def generator(self, t):
        right = super().generator(t)
        return DiffusionGenerator(right.drift, lambda x, z: 2**0.5 * right.fields(x, z), reference="volume")


def test_the_kit_needs_no_density_on_the_torus():
    data = pair(64, 0)[0]
    assert check_modality(Plain((2,)), data).ok
    assert check_modality(Fast((2,)), data, only=["kolmogorov"]).failed == ("kolmogorov",)
