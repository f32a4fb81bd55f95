"""Closed forms of SO(3), its conformance, and the example. Laws in float64."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from de_so3 import _kernel, de_modalities
from de_so3.modality import SO3
from scipy.spatial.transform import Rotation
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
    if not any(info.name == "so3" for info in list_modalities()):
        register(de_modalities()[0])


def vectors(n, seed, *shape):
    return torch.randn(n, *shape, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


def turned(n, seed, *shape):
    z = torch.randn(n, *shape, 4, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return _kernel.uniform(z)


def v(t):
    return 1e-4 * math.expm1(2 * math.log(300) * t)


def near(x0, t, seed):
    """Rotations some two sigma from ``x0``, at most 2 rad."""
    w = vectors(len(x0), seed, *x0.shape[1:-2])
    return _kernel.exponential(x0, w / w.norm(dim=-1, keepdim=True) * min(2.0, 2 * math.sqrt(v(t))))


def test_rotations_are_those_of_scipy():
    w, z = vectors(20, 0), torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    x = turned(20, 2)
    moved = _kernel.exponential(x, w)
    np.testing.assert_allclose(moved, x.numpy() @ Rotation.from_rotvec(w.numpy()).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(
        _kernel.uniform(z), Rotation.from_quat(z[:, [1, 2, 3, 0]].numpy()).as_matrix(), atol=1e-14
    )
    np.testing.assert_allclose(_kernel.hat(w) @ w[..., None], torch.zeros(20, 3, 1), atol=1e-14)
    assert torch.allclose(_kernel.axial(_kernel.hat(w)), w)


def test_retract_finds_the_nearest_rotation():
    x = turned(20, 0)
    skewed = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    found = SO3().retract(skewed)
    SO3().validate(found)
    for seed in range(5):
        other = _kernel.exponential(found, 0.05 * vectors(20, seed + 2))
        assert bool(((skewed - other).norm(dim=(1, 2)) > (skewed - found).norm(dim=(1, 2))).all())
    assert torch.allclose(SO3().retract(x), x, atol=1e-14)


@pytest.mark.parametrize("variance", [0.02, 0.1, 0.4999, 0.5, 1.0, 3.0, 8.0])
def test_the_kernel_is_igso3(variance):
    """Both halves against the sum of characters at the scale exp(-l (l + 1) v/2). It cancels to 1e-13 times its value
    at 0, at most 3e4 (8 pi^2/(2 pi v)^{3/2} at v = 0.02 is 1.8e3)."""
    omega = np.linspace(1e-6, math.pi, 80)
    n = np.arange(120)[:, None]
    terms = (2 * n + 1) * np.exp(-n * (n + 1) * variance / 2) * np.sin((n + 0.5) * omega) / np.sin(omega / 2)
    f = terms.sum(0)
    u = torch.from_numpy(2 * np.sin(omega / 2) ** 2)
    found = 8 * math.pi**2 * _kernel.log_kernel(u, torch.full_like(u, variance)).exp().numpy()
    seen = f > 1e-3
    assert seen[0]
    np.testing.assert_allclose(found[seen], f[seen], rtol=1e-6)
    np.testing.assert_allclose(found, f, atol=1e-9)
    # the angle has the density f (1 - cos omega)/pi: Gauss and Legendre's rule, smooth integrand of width sqrt(v) > 0.1
    nodes, weights = np.polynomial.legendre.leggauss(200)
    omega = math.pi / 2 * (nodes + 1)
    u = torch.from_numpy(1 - np.cos(omega))
    density = 8 * math.pi * _kernel.log_kernel(u, torch.full_like(u, variance)).exp() * u
    assert abs(float((torch.from_numpy(weights) * density).sum()) * math.pi / 2 - 1) < 1e-10


def test_the_two_halves_of_the_kernel_and_its_slope_meet():
    """At v = 1/2, where k = +-1 left out below 0.5 rad are 4e-14 of the density, times 4 pi/v in the slope."""
    u, half = torch.linspace(0, 1.99, 50, dtype=F64), torch.tensor(0.5, dtype=F64)
    assert torch.allclose(_kernel._windings(u, half), _kernel._series(u, half), atol=1e-12)
    slopes = [_kernel.slope(u, torch.full_like(u, 0.5 - gap)) for gap in (1e-13, 0.0)]
    assert torch.allclose(*slopes, rtol=1e-9)


@pytest.mark.parametrize("t", TIMES)
def test_the_score_is_the_gradient_of_the_density(t):
    """Along R exp(h hat(e_k)): central differences at h = 1e-4 sigma err by h^2/6 times a third derivative of at most
    10/sigma^3, 2e-8/sigma, and by rounding of log p over h, 1e-11/sigma. Body score and matrix score, both signs
    and factors."""
    so3, when = SO3((2, 3, 3)), torch.full((30,), t, dtype=F64)
    x0 = turned(30, 1, 2)
    x = near(x0, t, 2)
    body = so3.body_score(x, x0, when)
    score = so3.conditional_score(Noised(x0, x, torch.zeros_like(when), when))
    assert torch.allclose(so3.score(math.sqrt(v(t)) * body, x, when), score)
    h = 1e-4 * min(1.0, math.sqrt(v(t)))
    for element in range(2):
        for k in range(3):
            w = torch.zeros(30, 2, 3, dtype=F64)
            w[:, element, k] = h
            ahead, behind = (so3.log_transition(_kernel.exponential(x, sign * w), x0, when) for sign in (1, -1))
            slope, atol = (ahead - behind) / (2 * h), 1e-5 / math.sqrt(v(t))
            assert torch.allclose(body[:, element, k], slope, rtol=1e-6, atol=atol)
            assert torch.allclose((score * (x @ _kernel.hat(w / h))).flatten(1).sum(1), slope, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("t", [0.3, 0.5, 0.7, 0.9])
def test_kolmogorov(t):
    """dp/dt = L* p: central difference in t at h = 1e-5, error h^2/6 times 12^3 p, 3e-8 relative to p."""
    so3, h = SO3(), 1e-5
    x0 = turned(10, 1)
    x = near(x0, t, 2)

    def density(when, y):
        return so3.log_transition(y, x0, torch.full((10,), when, dtype=F64)).exp()

    rate = (density(t + h, x) - density(t - h, x)) / (2 * h)
    found = so3.generator(t).adjoint(lambda y: density(t, y), x)
    assert torch.allclose(found, rate, rtol=1e-5, atol=1e-6 * float(density(t, x).max()))


def test_the_loss_is_half_the_squared_error_of_the_body_score():
    """g^2/2 |u - s|^2 in the body frame, which pins the factor between matrices and vectors."""
    so3 = SO3()
    x0, t = turned(10, 0), torch.full((10,), 0.6, dtype=F64)
    noised = so3.perturb(x0, t, rng=0)
    output = vectors(10, 1)
    error = so3.body_score(noised.xt, x0, t) - output / math.sqrt(v(0.6))
    rate = 1e-4 * 2 * math.log(300) * 300 ** (2 * 0.6)
    assert torch.allclose(so3.loss(output, noised), 0.5 * rate * error.square().sum(1), rtol=1e-10)


def test_the_probability_flow_carries_the_kernel():
    """dp/dt = -sum_k V_k(p v_k), v_k the velocity in the body frame: central differences along the fields at h = 1e-4
    err by h^2/6 times a third derivative, below 1e-8 * 10/sigma^3 p |v|, 1e-5 relative at sigma = 0.3."""
    so3, t, h = SO3(), 0.6, 1e-4
    x0, when = turned(10, 1), torch.full((10,), t, dtype=F64)
    x = near(x0, t, 2)

    def flux(y, k):
        output = math.sqrt(v(t)) * so3.body_score(y, x0, when)
        body = _kernel.axial(y.mT @ so3.velocity(output, y, when))
        return so3.log_transition(y, x0, when).exp() * body[:, k]

    total = torch.zeros(10, dtype=F64)
    for k, e in enumerate(torch.eye(3, dtype=F64)):
        ahead, behind = (_kernel.exponential(x, sign * h * e.expand(10, 3)) for sign in (1, -1))
        total = total - (flux(ahead, k) - flux(behind, k)) / (2 * h)
    p = so3.log_transition(x, x0, when).exp()
    found = so3.generator(t).adjoint(lambda y: so3.log_transition(y, x0, when).exp(), x)
    assert torch.allclose(total, found, rtol=1e-4, atol=1e-4 * float(p.max()))


def test_a_walk_from_the_kernel_at_t_lands_on_the_kernel_at_s():
    """For data in one rotation the step is exact but for curvature, 1/12 of v(t) = 0.0095 relative: E omega^2 of both,
    and both are 3 v(s) within v(s)."""
    so3, n, t, s = SO3(), 40_000, 0.4, 0.3
    x0, t, s = turned(1, 0).expand(n, 3, 3), *(torch.full((n,), a, dtype=F64) for a in (t, s))
    xt = so3.perturb(x0, t, rng=1).xt
    output = so3.posterior_output(xt, t, x0[:1], torch.ones(n, 1, dtype=F64))
    for moved in (so3.step(output, xt, t, s, rng=2)[0], so3.perturb(x0, s, rng=3).xt):
        u = (moved - x0).square().sum((1, 2)) / 4
        square = 2 * u * _kernel.stretch(u) / v(0.3)
        assert abs(float(square.mean()) - 3) < SIGMAS * float(square.std()) / n**0.5 + 3 * v(0.4)


def test_the_residue_of_the_last_time_is_its_divergence_from_the_prior():
    """KL by Gauss and Legendre's rule over the angle. log f is right to 1e-15 and the KL is 7e-8: 1e-7 relative; half
    the chi-square is off by its next order, the size of f - 1 at most, 9 e^-9 = 1e-3."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u = 1 - np.cos(math.pi / 2 * (nodes + 1))
    log_f = _kernel.log_kernel(torch.from_numpy(u), torch.full((200,), v(1.0), dtype=F64)).numpy()
    log_f = log_f + math.log(8 * math.pi**2)
    kl = float((weights * (np.exp(log_f) * log_f - np.expm1(log_f)) * u).sum()) / 2
    assert torch.allclose(SO3((2, 3, 3)).prior_kl(turned(3, 0, 2)), torch.full((3,), 2 * kl, dtype=F64), rtol=2e-3)


def test_draws_have_the_moments_of_the_kernel_and_compose():
    """E chi_l(R_0^T R_t) = (2 l + 1) exp(-l (l + 1) v/2), directly and by way of s, in every regime; E R_t = e^-v R_0;
    and E omega^2 -> 3 v: three axes of variance v each."""
    so3, n = SO3(), 40_000
    x0 = turned(1, 0).expand(n, 3, 3).contiguous()
    for t in (0.3, 0.6, 0.75, 0.85, 0.95):
        once = so3.perturb(x0, t, rng=1).xt
        twice = so3.perturb(so3.perturb(x0, t - 0.05, rng=2).xt, t, s=t - 0.05, rng=3).xt
        for xt in (once, twice):
            so3.validate(xt)
            chi = (xt * x0).sum((1, 2))  # 1 + 2 cos omega
            for degree, value in ((1, chi), (2, chi**2 - chi - 1)):  # chi_1^2 = chi_0 + chi_1 + chi_2
                error = float(value.mean()) - (2 * degree + 1) * math.exp(-degree * (degree + 1) / 2 * v(t))
                assert abs(error) < SIGMAS * float(value.std()) / n**0.5
            rest = xt - math.exp(-v(t)) * x0
            assert bool((rest.mean(0).abs() < SIGMAS * rest.std(0) / n**0.5).all())
        if t == 0.3:
            u = (once - x0).square().sum((1, 2)) / 4
            square = 2 * u * _kernel.stretch(u) / v(t)
            assert abs(float(square.mean()) - 3) < SIGMAS * float(square.std()) / n**0.5


def test_the_proposals_of_the_draw_dominate_the_kernel():
    omega = torch.linspace(0, math.pi, 2001, dtype=F64)
    u = 2 * torch.sin(omega / 2) ** 2
    for variance in (1e-4, 1e-3, 0.05, 0.2, 0.49, 0.5, 1.0, 1.99):
        spread = torch.full_like(omega, variance)
        gaussian = -(omega**2) / (2 * spread) - 1.5 * (2 * math.pi * spread).log()
        proposal = gaussian - 2 * torch.sinc(omega / (2 * math.pi)).log()
        assert float((_kernel.log_kernel(u, spread) - proposal).max().exp()) < _kernel._BOUNDS[0]
    for variance in (2.0, 4.0, 9.0):
        density = 8 * math.pi**2 * _kernel.log_kernel(u, torch.full_like(u, variance)).exp()
        assert float(density.max()) < _kernel._BOUNDS[1]


def test_a_draw_of_one_row_does_not_depend_on_the_others():
    so3 = SO3((2, 3, 3))
    x = turned(8, 0, 2)
    other = x.clone()
    other[3:] = turned(5, 1, 2)
    assert torch.equal(so3.perturb(x, 0.8, rng=4).xt[:3], so3.perturb(other, 0.8, rng=4).xt[:3])


def test_ends_of_time():
    so3 = SO3()
    x, x0 = turned(10, 0), turned(10, 1)
    zero, one = torch.zeros(10, dtype=F64), torch.ones(10, dtype=F64)
    assert torch.equal(so3.perturb(x0, zero, rng=0).xt, x0)
    assert torch.equal(so3.log_transition(x0, x0, zero), zero)
    assert bool((so3.log_transition(x, x0, zero) == -torch.inf).all())
    assert torch.allclose(so3.log_transition(x, x0, one), torch.full((10,), -math.log(8 * math.pi**2), dtype=F64))
    assert bool((so3.conditional_score(Noised(x0, x, zero, one)) == 0).all())
    assert torch.equal(so3.perturb(x0, one, rng=5).xt, so3.perturb(x, one, rng=5).xt)
    assert torch.equal(so3.finish(vectors(10, 2), x0, zero, rng=0), x0)


def test_an_elementwise_clock_moves_each_rotation_by_its_own_time():
    so3 = SO3((3, 3, 3))
    x0 = turned(6, 4, 3)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=F64).expand(6, 3)
    xt = so3.perturb(x0, t, rng=0).xt
    assert torch.equal(xt[:, 0], x0[:, 0])
    assert float((xt[:, 1] - x0[:, 1]).norm(dim=(1, 2)).max()) < 8 * math.sqrt(2 * v(0.4))
    with pytest.raises(DiffuseError, match="forward"):
        so3.perturb(x0, torch.full_like(t, 0.3), s=t, rng=0)


def test_the_space():
    for bad in (1.1 * torch.eye(3), -torch.eye(3), torch.full((3, 3), math.nan)):
        with pytest.raises(DiffuseError, match="expected rotations"):
            SO3().validate(bad[None])
    with pytest.raises(DiffuseError, match="ends in 3, 3"):
        SO3((3,))
    assert SO3(**SO3((4, 3, 3)).config()).config() == {"event_shape": [4, 3, 3]}
    assert SO3((4, 3, 3)).output_shape == (4, 3)


def test_the_implicit_integrand_of_a_linear_log_density():
    """beta = exp <A, R>: V_k log beta = <A, R hat(e_k)>, sum_k V_k^2 log beta = -2 <A, R>, so that the integrand is
    g^2 (sum_k <A, R hat(e_k)>^2/2 - 2 <A, R>), exact."""
    so3, a = SO3(), torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=F64)
    x, t = turned(20, 0), torch.full((20,), 0.6, dtype=F64)

    def head(x):  # <A, R hat(e)> = tr(A^T R hat(e)) = 2 axial(R^T A) . e
        return math.sqrt(v(0.6)) * 2 * _kernel.axial(x.mT @ a)

    found = so3.implicit(head, x, t, rng=0, probes=0)
    slopes = [(a * (x @ _kernel.hat(e))).sum((1, 2)) for e in torch.eye(3, dtype=F64)]
    rate = 1e-4 * 2 * math.log(300) * 300 ** (2 * 0.6)
    truth = rate * (0.5 * torch.stack(slopes).square().sum(0) - 2 * (a * x).sum((1, 2)))
    assert torch.allclose(found, truth, rtol=1e-10)


def test_the_bound_of_the_uniform_law_is_its_entropy():
    """Score 0 is exact, and the kernel is the exact decoder: the mean is log 8 pi^2, the prior's share 7e-8."""
    so3 = SO3()
    joint, n = JointProcess({"x": so3}, block=4000), 4000
    x0 = so3.prior(n, rng=0)
    bound = joint.bound(lambda x, t: {"x": torch.zeros(len(x["x"]), 3)}, {"x": x0}, rng=1, draws=16).total
    assert abs(float(bound.mean()) - math.log(8 * math.pi**2)) < SIGMAS * float(bound.std()) / n**0.5
    assert float(bound.std()) / n**0.5 < 0.1


@pytest.mark.parametrize("method", ["walk", "euler", "heun"])
def test_sampling_with_an_exact_network_finds_the_law(method):
    """Atoms of unequal weight coupled with a class: chi-square at level 1e-6 over the four atoms. The residue of time 1
    (1e-4) and the bias of the steps are below the noise of 1,500 draws."""
    joint = JointProcess({"x": get_modality("so3")(), "label": get_modality("masked")((), 2)}, block=1500)
    atoms = {"x": turned(4, 5).float(), "label": torch.tensor([0, 1, 1, 0])}
    law = torch.tensor([0.4, 0.3, 0.2, 0.1])
    oracle = OracleDenoiser(joint, atoms, law)
    x = joint.sample(oracle, 1500, rng=0, methods={"x": method})
    gap = (x["x"][:, None] - atoms["x"]).norm(dim=(2, 3))
    assert float(gap.amin(1).max()) < 0.1  # the last sigma is 0.01
    assert torch.equal(atoms["label"][gap.argmin(1)], x["label"])
    counts = gap.argmin(1).bincount(minlength=4)
    assert float(((counts - 1500 * law) ** 2 / (1500 * law)).sum()) < chi2.ppf(1 - 1e-6, 3)


@pytest.mark.slow
def test_conformance():
    x0 = torch.eye(3).expand(400, 1, 3, 3)
    report = check_modality(SO3((1, 3, 3)), _kernel.exponential(x0, 0.7 * vectors(400, 7, 1).float()))
    assert report.ok, report.to_text()


def test_the_description_says_what_the_class_does():
    (info,) = de_modalities()
    assert (info.name, info.target) == ("so3", f"{SO3.__module__}:{SO3.__name__}")
    assert info.capabilities == SO3.capabilities
    assert get_modality("so3") is SO3


def test_the_example_runs():
    joint, model = runpy.run_path(str(ROOT / "example.py"))["train"](steps=3)
    assert joint.validate(joint.sample(model, 8, rng=0, steps=4)) == 8


@pytest.mark.slow
def test_the_example_learns():
    """A fifth of its training: rotations drawn for a label are read back as it, where chance is a third."""
    example = runpy.run_path(str(ROOT / "example.py"))
    joint, model = example["train"](steps=300)
    label = torch.arange(300) % 3
    x = joint.sample(model, 300, rng=0, given={"label": label})["rotation"]
    joint.modalities["rotation"].validate(x)
    assert float((example["log_law"](x).argmax(1) == label).float().mean()) > 0.6
