"""The forward kernels: ends of time, t = s, and s -> u -> t against s -> t."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from de_core import DiffuseError, get_modality
from de_core.testing.strategies import clean, modalities, seeds

F64 = torch.float64
laws = settings(max_examples=25)
DRAWS = 40_000
SIGMAS = 5  # chance 6e-7 a check at a fresh seed, and the seeds are fixed


@laws
@given(modalities(), seeds(), st.booleans(), st.sampled_from([torch.float32, F64]))
def test_t_equal_s_returns_the_state_bit_for_bit_and_inputs_are_untouched(modality, seed, wise, dtype):
    rng = torch.Generator().manual_seed(seed)
    x = clean(modality, 4, rng, dtype)
    if x.is_floating_point():
        assert x.dtype == dtype
    shape = (4, *modality.element_shape) if wise else (4,)
    s = torch.rand(shape, generator=rng, dtype=dtype)
    s[0], s[1] = 0.0, 1.0
    later = modality.perturb(x, torch.maximum(s, 0.5 * torch.ones_like(s)), s=torch.zeros_like(s), rng=rng).xt
    before = later.clone()
    again = modality.perturb(later, s, s=s, rng=rng)
    assert torch.equal(again.xt, later)
    assert torch.equal(later, before)
    assert again.xt.dtype == x.dtype


@laws
@given(modalities(), seeds(), st.floats(0.01, 0.99))
def test_time_does_not_run_back(modality, seed, t):
    x = clean(modality, 2, torch.Generator().manual_seed(seed))
    with pytest.raises(DiffuseError, match="forward"):
        modality.perturb(x, 0.9 * t, s=t, rng=0)


@laws
@given(modalities(), seeds())
def test_the_same_stream_gives_the_same_draw_and_the_global_seed_is_left_alone(modality, seed):
    x = clean(modality, 3, torch.Generator().manual_seed(seed))
    state = torch.get_rng_state()
    first, second = (modality.perturb(x, 0.6, rng=seed).xt for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(modality.prior(3, rng=seed), modality.prior(3, rng=seed))
    assert torch.equal(state, torch.get_rng_state())


MANY = {
    "gaussian cosine": lambda: get_modality("gaussian")((2,)),
    "gaussian linear": lambda: get_modality("gaussian")((2,), "linear"),
    "gaussian edm": lambda: get_modality("gaussian")((2,), "edm"),
    "masked": lambda: get_modality("masked")((2,), 3, "cosine"),
    "uniform": lambda: get_modality("uniform")((2,), 3),
    "simplex": lambda: get_modality("simplex")((3,)),
    "simplex corners": lambda: get_modality("simplex")((3,), "posterior"),
}


def moments(x, scale):
    """Features of a state, (n, features): powers and a product of coordinates, or indicator functions of the
    classes."""
    if not x.is_floating_point():
        return torch.nn.functional.one_hot(x[:, 0] * 4 + x[:, 1], 16).double()
    y = x.double() / scale
    return torch.cat([y, y**2, y**3, y[:, :1] * y[:, 1:2]], 1)


def close(a, b, scale):
    """The means of the features of two samples within SIGMAS standard errors of their difference."""
    first, second = moments(a, scale), moments(b, scale)
    error = ((first.var(0) + second.var(0)) / len(first)).sqrt()
    return bool(((first.mean(0) - second.mean(0)).abs() <= SIGMAS * error + 1e-12).all())


@pytest.mark.parametrize("kind", MANY)
def test_two_steps_have_the_law_of_one(kind):
    """0 -> s -> t against 0 -> t: features' means within five standard errors of 40,000
    draws."""
    modality = MANY[kind]()
    x0 = clean(modality, 1, torch.Generator().manual_seed(1)).expand(DRAWS, *modality.event_shape).contiguous()
    # times at which forgetting s would show: the linear path has lost almost everything by 0.7
    s, t = torch.tensor((0.2, 0.3) if kind == "gaussian linear" else (0.55, 0.7), dtype=F64)
    scale = 1.0 if kind != "gaussian edm" else float(modality.path.sigma(t))
    once = modality.perturb(x0, t, rng=2).xt
    half = modality.perturb(x0, s, rng=3).xt
    twice = modality.perturb(half, t, s=s, rng=4).xt
    assert close(once, twice, scale)
    assert not close(half, once, scale)  # the features see a difference where there is one
    wrong = modality.perturb(half, t, rng=4).xt  # a kernel that forgets s
    assert not close(once, wrong, scale)


@pytest.mark.parametrize("kind", MANY)
def test_time_one_is_the_prior_whatever_the_start(kind):
    modality = MANY[kind]()
    x0 = clean(modality, 1, torch.Generator().manual_seed(1)).expand(DRAWS, *modality.event_shape).contiguous()
    scale = 80.0 if kind == "gaussian edm" else 1.0
    prior = modality.prior(DRAWS, rng=5)
    for s in (0.0, 0.6):
        assert close(modality.perturb(x0, 1.0, s=s, rng=6).xt, prior, scale)
    t = torch.ones(len(x0), dtype=F64)
    if not prior.is_floating_point():
        assert bool(((prior == 3) if kind == "masked" else (prior < 3)).all())
    x0 = clean(modality, 50, torch.Generator().manual_seed(7))
    xt = modality.prior(50, rng=8).to(x0.dtype)
    given_other = modality.log_transition(xt, x0.flip(0), t[:50])
    assert torch.equal(modality.log_transition(xt, x0, t[:50]), given_other)


@pytest.mark.parametrize("kind", MANY)
def test_time_zero_is_the_data(kind):
    """log p_{0|0} is 0 at the state itself and -inf elsewhere, with t = 0 for one element or all."""
    modality = MANY[kind]()
    x0 = clean(modality, 20, torch.Generator().manual_seed(7))
    zero = torch.zeros(20, dtype=F64)
    assert torch.equal(modality.perturb(x0, 0.0, rng=1).xt, x0)
    assert torch.equal(modality.log_transition(x0, x0, zero), zero)
    other = modality.log_transition(x0.flip(0), x0, zero)
    same = (x0.flip(0) == x0).flatten(1).all(1)
    assert torch.equal(other == 0, same)
    assert bool((other[~same] == -torch.inf).all())


@pytest.mark.parametrize("kind", ["gaussian cosine", "gaussian edm", "simplex", "simplex corners"])
def test_the_density_is_the_law_of_the_draws(kind):
    """E[g(x_t)] from draws against E_prior[g p/prior] by importance weights, for a g that is 1: the density integrates
    to one.

    Weights p/q with q a mixture of the kernel at a longer time; five standard errors."""
    modality = MANY[kind]()
    x0 = clean(modality, 1, torch.Generator().manual_seed(1)).expand(DRAWS, *modality.event_shape).contiguous()
    t, wide = torch.full((DRAWS,), 0.4, dtype=F64), torch.full((DRAWS,), 0.5, dtype=F64)
    x = modality.perturb(x0, wide, rng=3).xt
    weight = (modality.log_transition(x, x0, t) - modality.log_transition(x, x0, wide)).exp()
    assert abs(float(weight.mean()) - 1) < SIGMAS * float(weight.std()) / math.sqrt(DRAWS)
    features = moments(x, 1.0)[:, :2]
    direct = moments(modality.perturb(x0, t, rng=4).xt, 1.0)[:, :2]
    weighted = weight[:, None] * features
    error = ((weighted.var(0) + direct.var(0)) / DRAWS).sqrt()
    assert bool(((weighted.mean(0) - direct.mean(0)).abs() < SIGMAS * error).all())
