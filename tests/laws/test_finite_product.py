"""T3 to T10: the theorem on products of finite spaces, exactly, for random generators, laws and models.

Tolerances: every quantity is a sum of at most 36 states x 6 atoms x 12 neighbours < 3e3 terms, each up to
some 100 (a ratio of
two e^randn, times a rate); rounding adds like 1e-16 x 100 x sqrt(3e3) = 5e-13. 1e-11 of the sum is asked; a
wrong sign or
factor shows at 1e-2.
"""

import itertools

import numpy as np
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from de_core import get_modality
from de_core.generator import SumGenerator
from de_core.testing import FiniteProduct, RateGenerator
from de_core.testing.strategies import finite_products, rate_matrices, seeds

F64 = torch.float64
laws = settings(max_examples=10)


def table(product: FiniteProduct, seed: int) -> torch.Tensor:
    """A random unnormalised model, positive everywhere."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(product.law.numel(), generator=rng, dtype=F64).exp()


def expm(a: torch.Tensor) -> torch.Tensor:
    """scipy's exponential: torch.matrix_exp errs by 7e-12 at a one-norm of 0.04 (a Taylor polynomial of too
    low degree)."""
    return torch.from_numpy(scipy.linalg.expm(a.numpy()))


def log_or_zero(p: torch.Tensor) -> torch.Tensor:
    return torch.where(p > 0, p.clamp_min(1e-300).log(), 0.0)


@laws
@given(finite_products())
def test_t4_the_joint_kernel_is_the_product_of_the_kernels(product):
    """exp(sum t_i L_i), L_i on its own coordinate, is the Kronecker product. 36 x 36 scaling and squaring:
    1e-12."""
    rates = {k: g.matrix() for k, g in product.generators.items()}
    spans = {k: 0.3 + 0.2 * i for i, k in enumerate(rates)}
    total = SumGenerator(product.generators, spans)
    eye = torch.eye(product.law.numel(), dtype=F64)
    kronecker_sum = torch.stack([total.apply(product.function(row), product.states) for row in eye], 1)
    tensor_product = torch.ones(1, 1, dtype=F64)
    for name, q in rates.items():
        tensor_product = torch.kron(tensor_product, expm(spans[name] * q))
    assert (expm(kronecker_sum) - tensor_product).abs().max() < 1e-12
    # and the law that FiniteProduct moves coordinate by coordinate is the one this kernel moves
    spans_done = torch.ones(1, 1, dtype=F64)
    for kernel in product.kernels.values():
        spans_done = torch.kron(spans_done, kernel)
    assert (product.law.reshape(-1) @ spans_done - product.marginal()).abs().max() < 1e-12


@laws
@given(finite_products(), seeds())
def test_adjoint_is_the_adjoint(product, seed):
    """sum p L f = sum f L* p against the counting measure, for each coordinate and the sum."""
    f, p = table(product, seed), table(product, seed + 1)
    for generator in [product.generator, *[SumGenerator({k: g}) for k, g in product.generators.items()]]:
        left = (p * generator.apply(product.function(f), product.states)).sum()
        right = (f * generator.adjoint(product.function(p), product.states)).sum()
        assert abs(left - right) < 1e-11 * max(1.0, abs(float(left)))
    assert abs(float(product.generator.adjoint(product.function(p), product.states).sum())) < 1e-11  # mass is kept


@laws
@given(finite_products(), seeds())
def test_t5_phi_is_linear_in_the_generator_and_positive(product, seed):
    f = table(product, seed)
    parts = [SumGenerator({k: g}).phi(product.function(f), product.states) for k, g in product.generators.items()]
    total = product.generator.phi(product.function(f), product.states)
    assert (total - torch.stack(parts).sum(0)).abs().max() < 1e-11 * max(1.0, float(total.max()))
    assert float(torch.stack(parts).min()) > -1e-11
    # the closed form against the definition, L f/f - L log f
    for name, g in product.generators.items():
        alone = SumGenerator({name: g})
        plain = alone.apply(product.function(f), product.states) / f
        plain = plain - alone.apply(product.function(f.log()), product.states)
        assert (plain - alone.phi(product.function(f), product.states)).abs().max() < 1e-11 * max(
            1.0, float(total.max())
        )
    constant = torch.full_like(f, 3.0)
    assert float(product.generator.phi(product.function(constant), product.states).abs().max()) == 0


@laws
@given(finite_products(), seeds())
def test_t6_each_form_of_the_joint_objective_is_the_sum_of_its_parts(product, seed):
    beta = table(product, seed)
    for form in (product.explicit, product.implicit, product.forward_denoising, product.denoising):
        joint, parts = form(beta), [form(beta, name) for name in product.generators]
        assert abs(joint - sum(parts)) < 1e-11 * max(1.0, abs(float(joint)))


@laws
@given(finite_products(), seeds())
def test_t7_the_three_forms_differ_by_constants_and_t10_the_two_views_agree(product, seed):
    betas = [table(product, seed + k) for k in range(4)]
    explicit, implicit, forward, reverse = (
        torch.stack([form(beta) for beta in betas])
        for form in (product.explicit, product.implicit, product.forward_denoising, product.denoising)
    )
    scale = max(1.0, float(torch.stack([explicit, implicit, forward]).abs().max()))
    spread = lambda v: float(v.max() - v.min())  # noqa: E731 # one word for one line
    assert spread(explicit - implicit) < 1e-10 * scale
    assert spread(explicit - forward) < 1e-10 * scale
    assert float((forward - reverse).abs().max()) < 1e-11 * scale
    p = product.marginal()
    at = p > 0
    inner = product.generator.apply(product.function(log_or_zero(p)), {k: v[at] for k, v in product.states.items()})
    assert float((explicit - implicit + (p[at] * inner).sum()).abs().max()) < 1e-10 * scale
    assert float(explicit.min()) > -1e-11
    if bool((p > 0).all()):  # then explicit is E Phi as it stands, and 0 at the truth
        direct = torch.stack([p @ product.generator.phi(product.function(p / b), product.states) for b in betas])
        assert float((direct - explicit).abs().max()) < 1e-11 * scale
        assert abs(float(product.explicit(p))) < 1e-11


@laws
@given(seeds(), st.integers(2, 3), st.integers(2, 3))
def test_t3_independent_data_and_model_give_independent_losses(seed, n1, n2):
    """With law = law_1 law_2 and beta = beta_1 beta_2 the joint loss is the sum of the losses on each space
    alone, and a part
    does not move with the other's clock."""
    rng = torch.Generator().manual_seed(seed)
    rand = lambda *s: 0.1 + torch.rand(*s, generator=rng, dtype=F64)  # noqa: E731 # one word for one line
    chains = {"a": RateGenerator(rand(n1, n1)), "b": RateGenerator(rand(n2, n2))}
    law, beta = {"a": rand(n1), "b": rand(n2)}, {"a": rand(n1), "b": rand(n2)}

    def product(names, t):
        kernels = {k: expm(t[k] * chains[k].matrix()) for k in names}
        joint = law[names[0]] if len(names) == 1 else torch.outer(law["a"], law["b"])
        return FiniteProduct({k: chains[k] for k in names}, kernels, joint)

    both = torch.outer(beta["a"], beta["b"]).reshape(-1)
    for t in ({"a": 0.3, "b": 0.8}, {"a": 0.3, "b": 0.1}):
        joint = product(["a", "b"], t)
        for form in ("explicit", "implicit", "denoising"):
            alone = {k: getattr(product([k], t), form)(beta[k]) for k in ("a", "b")}
            assert abs(getattr(joint, form)(both) - sum(alone.values())) < 1e-12 * 10
            for k in ("a", "b"):
                assert abs(getattr(joint, form)(both, k) - alone[k]) < 1e-12 * 10


def information(chains, law, t):
    """I(X_0; X_t) of the joint channel, in nats."""
    product = FiniteProduct(chains, {k: expm(t[k] * chains[k].matrix()) for k in chains}, law)
    p = product.marginal()
    total = torch.zeros((), dtype=F64)
    for weight, q in product._conditionals():
        at = q > 0
        total = total + weight * (q[at] * (q[at] / p[at]).log()).sum()
    return total


@laws
@given(rate_matrices(3), rate_matrices(2), seeds())
def test_t8_at_the_optimum_a_part_is_the_rate_of_lost_information(first, second, seed):
    """g_i = -d I(X_0; X_t)/d t_i. Central difference, h = 1e-4: truncation h^2/6 |I'''| < 1e-8 (rates under
    3), rounding
    1e-15/h = 1e-11; 1e-6 is asked."""
    chains = {"a": RateGenerator(first), "b": RateGenerator(second)}
    law = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    t, h = {"a": 0.7, "b": 0.35}, 1e-4
    product = FiniteProduct(chains, {k: expm(t[k] * chains[k].matrix()) for k in chains}, law)
    p = product.marginal()
    for name in chains:
        slope = (
            information(chains, law, {**t, name: t[name] + h}) - information(chains, law, {**t, name: t[name] - h})
        ) / (2 * h)
        assert abs(product.denoising(p, name) + slope) < 1e-6


@settings(laws, max_examples=3)
@given(rate_matrices(3), rate_matrices(2), seeds())
def test_t9_at_the_optimum_the_line_integral_does_not_depend_on_the_path(first, second, seed):
    """Diagonal and both staircases from (.2, .2) to (1.1, .9), 24-point Gauss-Legendre a segment: the
    integrand is analytic with
    its nearest singularity (t = 0) at 1.4 half-widths from the centre, so the error is about 2.4^-48 <
    1e-17; 1e-8 is asked.
    It equals I(start) - I(end)."""
    chains = {"a": RateGenerator(first), "b": RateGenerator(second)}
    law = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    nodes, weights = np.polynomial.legendre.leggauss(24)

    def along(corners):
        total = torch.zeros((), dtype=F64)
        for (a0, b0), (a1, b1) in itertools.pairwise(corners):
            for u, w in zip(0.5 + 0.5 * nodes, 0.5 * weights, strict=True):
                t = {"a": a0 + u * (a1 - a0), "b": b0 + u * (b1 - b0)}
                kernels = {k: expm(t[k] * chains[k].matrix()) for k in chains}
                product = FiniteProduct(chains, kernels, law)
                p = product.marginal()
                for name, speed in (("a", a1 - a0), ("b", b1 - b0)):
                    if speed:
                        total = total + w * speed * product.denoising(p, name)
        return total

    start, end = (0.2, 0.2), (1.1, 0.9)
    paths = [along([start, end]), along([start, (1.1, 0.2), end]), along([start, (0.2, 0.9), end])]
    lost = information(chains, law, dict(zip("ab", start, strict=True))) - information(
        chains, law, dict(zip("ab", end, strict=True))
    )
    for value in paths:
        assert abs(value - lost) < 1e-8


@laws
@given(st.sampled_from(["masked", "uniform"]), st.floats(0.02, 0.98), st.floats(0.0, 1.0), seeds())
def test_kernels_of_the_finite_modalities_are_the_exponentials_of_their_generators(kind, t, share, seed):
    """log_transition is exp(-log a Q/h), two elements; and s -> t composes with 0 -> s to 0 -> t (exactly,
    by matrices)."""
    modality = get_modality(kind)((2,), 3)
    now = torch.tensor(t, dtype=F64)
    generator = modality.generator(now)
    states, q = generator.states(), generator.matrix() / modality.clock.hazard(now)
    exact = expm(-torch.log(modality.clock.survival(now)) * q)
    data = states[(states < 3).all(1)]
    pairs = modality.log_transition(
        states.repeat(len(data), 1),
        data.repeat_interleave(len(states), 0),
        now.expand(len(states) * len(data)),
    ).exp()
    rows = [int((states == row).all(1).nonzero()) for row in data]
    assert (pairs.reshape(len(data), -1) - exact[rows]).abs().max() < 1e-12
    s = share * now
    first = expm(-torch.log(modality.clock.survival(s)) * q)
    second = expm(-torch.log(modality.clock.kept(s, now)) * q)
    assert (first @ second - exact).abs().max() < 1e-12
