"""Laws of the Wright-Fisher core: the lineages, the forward kernel, densities, scores and the simplex step.

Quadrature is Gauss-Jacobi against the stationary Beta law of K = 2: exact up to degree 2 n - 1.
"""

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import eval_jacobi, roots_jacobi
from torch import Tensor

from de_plugins.simplex import _wright_fisher as wf
from de_plugins.simplex._counts import MIN_TAU, TABLE_TAU, saddlepoint_log_q
from de_plugins.simplex.dirichlet_euler import shape_of

F64 = torch.float64
DRAWS = 200_000
SIGMAS = 5  # each stochastic check compares with 5 standard errors: two-sided chance 6e-7 at a fresh seed


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def t64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def law_error(tau: float) -> float:
    """What the table's q_m may be off in total variation.

    It starts from a saddlepoint law that is off by order TABLE_TAU / 1000 (its relative error, tau / 10, less
    what normalising removes). A shift of the mean count, about 2 / tau, shrinks like tau^-2, that is
    tau^(-3/2) in standard deviations sqrt(2 / (3 tau)). Interpolation adds under 5e-8: a cell of 0.1 standard
    deviations, to the fourth power, / 384.
    """
    return 1.5e-5 * (TABLE_TAU / tau) ** 1.5 + 5e-8


def exact_counts(tau: float, psi: float, size: int, digits: int) -> Tensor:
    """The alternating series of Jenkins and Spano 2017, eq. 5, with enough digits."""
    with mpmath.workdps(digits):
        t, p = mpmath.mpf(tau), mpmath.mpf(psi)
        last = size + int(math.sqrt(5 * digits / tau)) + 60
        decay = [mpmath.exp(-k * (k + p - 1) * t / 2) for k in range(last)]
        law = []
        for m in range(size):
            total = mpmath.mpf(1 if m == 0 else 0)  # the k = 0 term is 1
            for k in range(max(m, 1), last):
                if k == max(m, 1):
                    term = mpmath.rf(p + m, k - 1) / mpmath.factorial(m)
                total += (-1) ** (k - m) * (p + 2 * k - 1) * term * decay[k]
                term *= (p + m + k - 1) / (k + 1 - m)
            law.append(float(total))
    return torch.tensor(law, dtype=F64)


@pytest.mark.parametrize(
    ("psi", "tau", "digits"),
    [
        (16.0, 0.02, 160),
        (16.0, 0.2, 50),
        (16.0, 1.0, 40),
        (1.0, 0.05, 90),
        (2.0, 1.0, 40),
        (0.5, 0.2, 50),
        (64.0, 0.05, 90),
    ],
)
def test_counts_follow_the_exact_series(psi: float, tau: float, digits: int) -> None:
    law = wf.log_q(t64(tau), psi)[0].exp()
    exact = exact_counts(tau, psi, len(law), digits)
    assert 0.5 * (law - exact).abs().sum() < law_error(tau)
    m = torch.arange(len(law), dtype=F64)
    assert torch.allclose(wf.mean_count(t64(tau), psi), (exact @ m)[None], rtol=1e-6, atol=0)
    # the eigenvalue of the first moment: E[m / (m + psi)] = exp(-psi tau / 2)
    assert abs((law * m / (m + psi)).sum() - math.exp(-psi * tau / 2)) < 1e-6


@pytest.mark.parametrize("psi", [1.0, 16.0])
def test_saddlepoint_law_is_right_in_its_tails(psi: float) -> None:
    exact = exact_counts(0.02, psi, 150, 160)
    law = saddlepoint_log_q(t64(0.02), psi, 150)[0]
    # Relative error of the saddlepoint method is of order tau / 10 (one over the number of exponentials
    # that matter) all the way down to 1e-110; at m <= 1 the midpoint rule adds its own,
    # (pi / e) exp(-1 / 6) = 0.978.
    gap = (law - exact.log()).abs()
    assert gap[2:120].max() < 4e-3
    assert gap[:2].max() < 0.03
    assert 0.5 * (law.exp() - exact).abs().sum() < 5e-5


@pytest.mark.parametrize("tau", [0.001, 0.0079, 0.0081, 0.03, 0.2, 1.0, 4.0])
def test_drawn_counts_follow_the_law(tau: float) -> None:
    psi = 3.0
    m = wf.sample_counts(torch.full((DRAWS,), tau), psi, rng())
    law = wf.log_q(t64(tau), psi)[0].exp()
    drawn = torch.bincount(m, minlength=len(law)).to(F64) / DRAWS
    gap = (drawn.cumsum(0)[: len(law)] - law.cumsum(0)).abs().max()
    # Kolmogorov-Smirnov at chance 2 exp(-2 * 2.7^2) = 1e-6. In the table: two grid points 0.1 standard
    # deviations apart are mixed, 0.1^2 / 8. Below: the first Edgeworth term, which the normal law leaves out,
    # is skewness / 6 * 0.4, and the skewness is 0.245 sqrt(tau).
    assert gap < 2.7 / math.sqrt(DRAWS) + (0.1**2 / 8 if tau > TABLE_TAU else 0.02 * math.sqrt(tau))
    assert m.dtype == torch.int64


def test_mean_count_is_smooth_across_the_table_and_beyond() -> None:
    for psi in (0.5, 2.0, 16.0):
        tau = torch.logspace(-4, math.log10(1000 / psi), 4001, dtype=F64)  # exp(-500) is still a float64
        mean = wf.mean_count(tau, psi)
        assert bool((mean > 0).all())
        assert bool((mean.diff() < 0).all())
        edge = wf.mean_count(t64(TABLE_TAU * (1 - 1e-9), TABLE_TAU), psi)
        assert abs(edge[1] - edge[0]) < TABLE_TAU / 10  # the normal mean's next term: order tau
        late = wf.mean_count(t64(80 / psi, 82 / psi), psi)
        assert math.isclose(late[1] / late[0], math.exp(-1), rel_tol=1e-6)  # exp(-psi tau / 2) at the end


def moment_flow(parts: int, psi: float, degree: int) -> tuple[list[tuple[int, ...]], Tensor]:
    """Monomials up to a degree and L's matrix on them: L x^a = sum_b C[a, b] x^b."""
    powers = [a for a in itertools.product(range(degree + 1), repeat=parts) if sum(a) <= degree]
    place = {a: i for i, a in enumerate(powers)}
    matrix = torch.zeros(len(powers), len(powers), dtype=F64)
    for a in powers:
        n = sum(a)
        matrix[place[a], place[a]] -= psi * n / 2 + n * (n - 1) / 2
        for i in range(parts):
            if a[i]:
                lower = (*a[:i], a[i] - 1, *a[i + 1 :])
                matrix[place[a], place[lower]] += psi / parts * a[i] / 2 + a[i] * (a[i] - 1) / 2
    return powers, matrix


@pytest.mark.parametrize("tau", [0.003, 0.1, 0.6, 2.0])
def test_forward_moments_solve_the_moment_equations(tau: float) -> None:
    psi, x0 = 2.4, t64(0.7, 0.3, 0.0)
    xt, counts, m = wf.sample_forward(x0.expand(DRAWS, 3), torch.full((DRAWS,), tau), psi, rng())
    assert torch.equal(counts.sum(-1), m)
    assert bool((counts[:, 2] == 0).all())  # a part with no mass gets no lineage
    powers, matrix = moment_flow(3, psi, 2)
    start = torch.stack([(x0 ** torch.tensor(a)).prod() for a in powers])
    expected = torch.linalg.matrix_exp(matrix * tau) @ start
    values = torch.stack([(xt ** torch.tensor(a)).prod(-1) for a in powers])
    error = SIGMAS * values.std(-1) / math.sqrt(DRAWS)
    # mixing two grid points adds at most 0.1^2 / 8 of the decaying second moment, itself under 0.1 here
    assert bool(((values.mean(-1) - expected).abs() <= error + 1.3e-4).all())
    mean = 1 / 3 + math.exp(-psi * tau / 2) * (x0 - 1 / 3)
    assert bool(((xt.mean(0) - mean).abs() < SIGMAS * xt.std(0) / math.sqrt(DRAWS)).all())


def test_forward_keeps_the_stationary_law() -> None:
    alpha, parts = 0.6, 4
    x0 = wf.dirichlet(torch.full((DRAWS, parts), alpha), rng(1), F64)
    xt, _, _ = wf.sample_forward(x0, torch.full((DRAWS,), 0.2), alpha * parts, rng())
    for x in (x0, xt):
        square = alpha * (alpha + 1) / (alpha * parts * (alpha * parts + 1))
        assert bool(((x.mean(0) - 1 / parts).abs() < SIGMAS * x.std(0) / math.sqrt(DRAWS)).all())
        assert bool((((x**2).mean(0) - square).abs() < SIGMAS * (x**2).std(0) / math.sqrt(DRAWS)).all())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_forward_at_the_edges(dtype: torch.dtype) -> None:
    x0 = torch.eye(5, dtype=dtype).expand(7, 5, 5)
    for tau in (0.0, 1e-9, 1e-4, 0.02, 50.0, 1e6):
        xt, counts, _ = wf.sample_forward(x0, torch.full((7,), tau), 1.0, rng())
        assert xt.dtype == dtype
        assert xt.shape == counts.shape == x0.shape
        assert bool((xt > 0).all())
        assert torch.allclose(xt.sum(-1), torch.ones(7, 5, dtype=dtype), atol=1e-6)
        assert bool((counts[x0 == 0] == 0).all())
    again = wf.sample_forward(x0, torch.full((7, 5), 1e6), 1.0, rng())[0]
    assert torch.equal(again, xt)  # one time per sample or per element, the same draws


def test_multinomial_moments() -> None:
    p = t64(0.0, 0.25, 0.6, 0.15, 0.0)
    counts = wf.multinomial(torch.full((DRAWS,), 12), p.expand(DRAWS, 5), rng()).to(F64)
    assert bool((counts.sum(-1) == 12).all())
    error = SIGMAS * (12 * p * (1 - p) / DRAWS).sqrt()
    assert bool(((counts.mean(0) - 12 * p).abs() <= error).all())
    products = counts[:, 1] * counts[:, 2]  # E[l_i l_j] = n (n - 1) p_i p_j
    assert abs(products.mean() - 12 * 11 * 0.25 * 0.6) < SIGMAS * products.std() / math.sqrt(DRAWS)


def brute_force(x: Tensor, x0: Tensor, tau: float, psi: float) -> tuple[float, Tensor]:
    """log p / D and E[l | x] by summing over every (l_1, l_2, l_3)."""
    log_q = wf.log_q(t64(tau), psi)[0]
    size, alpha = len(log_q), psi / 3
    counts = torch.cartesian_prod(*[torch.arange(size)] * 3)
    counts = counts[counts.sum(-1) < size]
    m = counts.sum(-1).to(F64)
    terms = log_q[counts.sum(-1)] + torch.lgamma(psi + m) - math.lgamma(psi) + torch.lgamma(m + 1)
    terms = terms + torch.xlogy(counts, x * x0).sum(-1)
    terms = terms - (torch.lgamma(counts.to(F64) + 1) + torch.lgamma(alpha + counts.to(F64)) - math.lgamma(alpha)).sum(
        -1
    )
    return torch.logsumexp(terms, 0).item(), torch.softmax(terms, 0) @ counts.to(F64)


@pytest.mark.parametrize("x0", [(0.1, 0.6, 0.3), (1.0, 0.0, 0.0), (0.9, 0.1, 0.0), (0.001, 0.001, 0.998)])
@pytest.mark.parametrize(("tau", "psi"), [(0.15, 3.0), (0.5, 1.2), (2.0, 9.0)])
def test_density_and_score_equal_brute_force(x0: tuple[float, ...], tau: float, psi: float) -> None:
    x, start, time = t64(0.2, 0.5, 0.3)[None], t64(*x0)[None], t64(tau)
    log_density, counts = brute_force(x[0], start[0], tau, psi)
    # sums of under 1e6 positive float64 terms, each with a logarithm of at most a few hundred: 1e-11
    assert abs(wf.conditional_log_density(x, start, time, psi).item() - log_density) < 1e-10
    score = wf.conditional_score(x, start, time, psi)
    assert torch.allclose(score[0], counts / x[0], rtol=1e-9, atol=1e-9)
    assert bool((score[start == 0] == 0).all())
    if max(x0) == 1:
        log_g, slope = wf.one_hot_log_G(x, time, psi)
        assert abs(log_g[0, 0].item() - log_density) < 1e-10
        assert abs(slope[0, 0].item() - score[0, 0].item()) < 1e-9 * (1 + slope[0, 0].item())


def test_slopes_are_derivatives() -> None:
    parts, step = 5, 1e-5
    x = wf.dirichlet(torch.full((6, parts), 2.0), rng(3), F64)
    x0 = wf.dirichlet(torch.full((6, parts), 1.0), rng(4), F64)
    tau = t64(0.001, 0.01, 0.05, 0.2, 1.0, 5.0)
    shift = step * torch.eye(parts, dtype=F64)
    score, slope = wf.conditional_score(x, x0, tau, 5.0), wf.one_hot_log_G(x, tau, 5.0)[1]
    for i in range(parts):
        ends = [wf.conditional_log_density(x + sign * shift[i], x0, tau, 5.0) for sign in (1, -1)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        # central difference: relative error of order (step / x)^2, x > 0.01, and 1e-13 * |log p| / step
        assert torch.allclose(numeric, score[:, i], rtol=1e-5, atol=1e-5)
        ends = [wf.one_hot_log_G(x + sign * shift[i], tau, 5.0)[0][:, i] for sign in (1, -1)]
        assert torch.allclose((ends[0] - ends[1]) / (2 * step), slope[:, i], rtol=1e-5, atol=1e-5)


def beta_quadrature(psi: float, nodes: int = 120) -> tuple[Tensor, Tensor]:
    """Points (n, 2) of the simplex of two parts, and weights of the stationary law Beta(psi / 2, psi / 2)."""
    z, weights = roots_jacobi(nodes, psi / 2 - 1, psi / 2 - 1)
    y = torch.from_numpy((z + 1) / 2)
    return torch.stack([y, 1 - y], -1), torch.from_numpy(weights / weights.sum())


@pytest.mark.parametrize("psi", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("tau", [0.03, 0.2, 1.0])
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_density_has_unit_mass_and_solves_kolmogorov(psi: float, tau: float, start: float) -> None:
    x, weights = beta_quadrature(psi)
    x0 = t64(start, 1 - start)
    density = wf.conditional_log_density(x, x0.expand_as(x), t64(tau).expand(len(x)), psi).exp()
    powers, matrix = moment_flow(2, psi, 3)  # d/dtau E f = E L f on every polynomial up to degree 3
    expected = torch.linalg.matrix_exp(matrix * tau) @ torch.stack([(x0 ** torch.tensor(a)).prod() for a in powers])
    moments = torch.stack([(weights * density * (x ** torch.tensor(a)).prod(-1)).sum() for a in powers])
    # the series' effective degree is under 2 * 120 for tau >= 0.03; the law of m as above
    assert torch.allclose(moments, expected, rtol=0, atol=law_error(tau))


@pytest.mark.parametrize("psi", [1.0, 3.0])
def test_density_equals_the_jacobi_series(psi: float) -> None:
    x, weights = beta_quadrature(psi)
    tau, x0 = 0.2, 0.35
    a, n = psi / 2 - 1, np.arange(60)[:, None]  # exp(-60 * 60 * 0.1) = 1e-156 is left out
    modes = torch.from_numpy(eval_jacobi(n, a, a, 2 * x[:, 0].numpy()[None] - 1))
    at_start = torch.from_numpy(eval_jacobi(n[:, 0], a, a, 2 * x0 - 1))
    decay = torch.exp(-torch.from_numpy(n[:, 0] * (n[:, 0] + psi - 1.0)) * tau / 2)
    series = ((decay * at_start / (weights * modes**2).sum(-1))[:, None] * modes).sum(0)
    density = wf.conditional_log_density(x, t64(x0, 1 - x0).expand_as(x), t64(tau).expand(len(x)), psi).exp()
    # both are of order 1 to 10; the law of m is good to 7e-8 in total variation here, 2e-6 relative
    assert torch.allclose(density, series, rtol=5e-6, atol=1e-6)


def test_chapman_kolmogorov() -> None:
    psi, first, second = 3.0, 0.1, 0.25
    x, weights = beta_quadrature(psi)
    start, end = t64(0.8, 0.2).expand_as(x), t64(0.3, 0.7).expand_as(x)
    time = torch.ones(len(x), dtype=F64)
    there = wf.conditional_log_density(x, start, first * time, psi).exp()
    onward = wf.conditional_log_density(end, x, second * time, psi).exp()
    whole = wf.conditional_log_density(end[:1], start[:1], t64(first + second), psi).exp()
    # the law of m is good to 3e-7 at 0.1 and 7e-8 at 0.25; where the densities are small, some ten times that
    assert abs((weights * there * onward).sum() / whole - 1).item() < 5e-6


def test_count_target_identity() -> None:
    g = rng(5)
    x = wf.dirichlet(torch.full((50, 6), 1.5), g, F64)
    counts = torch.randint(0, 9, (50, 6), generator=g).to(F64)
    s = torch.randn(50, 6, generator=g, dtype=F64)
    m, u = counts.sum(-1, keepdim=True), counts / x
    assert torch.allclose(wf.apply_A(u, x), counts - m * x, atol=1e-11)  # A u = l - m x
    assert torch.allclose(wf.apply_A(s, x).sum(-1), torch.zeros(50, dtype=F64), atol=1e-14)
    matrix = torch.diag_embed(x) - x[:, :, None] * x[:, None, :]
    assert torch.allclose(wf.apply_A(s, x), (matrix @ s[..., None])[..., 0], atol=1e-14)
    left = 0.5 * wf.quadratic(u - s, x)
    right = 0.5 * wf.quadratic(s, x) - (s * (counts - m * x)).sum(-1)
    right = right + 0.5 * ((counts**2 / x).sum(-1) - m[:, 0] ** 2)
    assert torch.allclose(left, right, rtol=1e-10, atol=1e-9)  # terms up to 1e5 in float64


def test_dirichlet_euler_has_its_mean_and_covariance() -> None:
    h, mu = 0.07, t64(0.5, 0.3, 0.2)
    x = wf.dirichlet(shape_of(mu.expand(DRAWS, 3), h), rng(), F64)
    assert bool(((x.mean(0) - mu).abs() < SIGMAS * x.std(0) / math.sqrt(DRAWS)).all())
    products = (x - mu)[:, :, None] * (x - mu)[:, None, :]
    covariance = h * (torch.diag(mu) - mu[:, None] * mu[None])
    assert bool(((products.mean(0) - covariance).abs() < SIGMAS * products.std(0) / math.sqrt(DRAWS)).all())


def test_dirichlet_euler_at_the_edges() -> None:
    x = torch.eye(3)
    for h in (1e-7, 0.5, 1 - 1e-7, torch.tensor([0.1, 0.2, 0.3])):
        out = wf.dirichlet(shape_of(x + torch.tensor([-1e-3, 0.0, 1e-3]), h), rng(), x.dtype)
        assert out.dtype == x.dtype
        assert bool((out > 0).all())
        assert torch.allclose(out.sum(-1), torch.ones(3), atol=1e-6)
    with pytest.raises(ValueError, match=r"expected steps h in \(0, 1\)"):
        shape_of(x, 1.0)


@pytest.mark.parametrize("parts", [2, 16])
def test_series_stay_finite_at_the_smallest_times_and_on_faces(parts: int) -> None:
    tau = t64(0.0, MIN_TAU, 0.00125, 0.02, 3.0, 1e4)
    x0 = torch.eye(parts, dtype=F64)[0].expand(len(tau), parts)
    x = x0.clamp(min=torch.finfo(torch.float32).tiny)
    for start in (x0, x0.roll(1, -1), torch.full_like(x0, 1 / parts)):
        assert bool(wf.conditional_log_density(x, start, tau, float(parts)).isfinite().all())
        assert bool(wf.conditional_score(x, start, tau, float(parts)).isfinite().all())
    for value in wf.one_hot_log_G(x0, tau, float(parts)):
        assert bool(value.isfinite().all())


def test_times_of_a_batch_do_not_mix() -> None:
    g = rng(6)
    x = wf.dirichlet(torch.ones(9, 2, 4), g, F64)
    x0 = wf.dirichlet(torch.ones(9, 2, 4), g, F64)
    tau = 10 ** (4 * torch.rand(9, 2, generator=g, dtype=F64) - 3)
    whole = wf.conditional_log_density(x, x0, tau, 4.0)
    single = [wf.conditional_log_density(x[i : i + 1], x0[i : i + 1], tau[i : i + 1], 4.0) for i in range(9)]
    assert torch.allclose(whole, torch.cat(single), rtol=1e-11, atol=1e-11)  # only the series' length differs
    whole, single = wf.one_hot_log_G(x, tau, 4.0), wf.one_hot_log_G(x[4:5], tau[4:5], 4.0)
    assert torch.allclose(whole[1][4:5], single[1], rtol=1e-11)
