"""T1, T2, T12, T14: the joint loss is the sum of the unimodal losses, for any set of modalities, by the public
calls."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from de_core import JointProcess, Noised, get_modality
from de_core.testing import OracleDenoiser
from de_core.testing.strategies import clean, modalities, seeds, times

F64 = torch.float64
laws = settings(max_examples=25)


class Mixer(torch.nn.Module):
    """A small network in float64 whose every output reads every modality and every clock."""

    def __init__(self, joint: JointProcess, seed: int) -> None:
        super().__init__()
        self.joint = joint
        rng = torch.Generator().manual_seed(seed)
        width = 4
        sizes = {k: math.prod(m.event_shape) for k, m in joint.modalities.items()}
        clocks = {k: math.prod(m.element_shape) if k in joint.elementwise else 1 for k, m in joint.modalities.items()}

        def weight(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(torch.randn(shape, generator=rng, dtype=F64) / math.sqrt(shape[0]))

        self.inward = torch.nn.ParameterDict({k: weight(sizes[k] + clocks[k], width) for k in sizes})
        self.outward = torch.nn.ParameterDict(
            {k: weight(width, math.prod(m.output_shape)) for k, m in joint.modalities.items()}
        )

    def forward(self, x, t):
        flat = lambda v: v.to(F64).reshape(len(v), -1)  # noqa: E731 # one word for one line
        inputs = {k: torch.cat([flat(x[k]), flat(t[k])], 1) for k in x}
        hidden = torch.tanh(sum(inputs[k] @ self.inward[k] for k in x))
        return {
            k: (hidden @ self.outward[k]).reshape(len(hidden), *m.output_shape)
            for k, m in self.joint.modalities.items()
        }


@st.composite
def processes(draw, max_size=4):
    """Any list of modalities, repeats allowed, in any order, some with elementwise clocks."""
    chosen = draw(st.lists(modalities(), min_size=1, max_size=max_size))
    named = {f"m{k}": m for k, m in enumerate(chosen)}
    wise = [name for name, m in named.items() if m.elements > 1 and draw(st.booleans())]
    return JointProcess(named, wise)


def setting(data, joint, batch=5):
    rng = torch.Generator().manual_seed(data.draw(seeds()))
    x0 = {name: clean(m, batch, rng) for name, m in joint.modalities.items()}
    t = data.draw(times(joint.time_shapes(x0)))
    weights = {name: data.draw(st.floats(0.01, 10.0)) for name in joint.modalities}
    return x0, t, weights, data.draw(seeds())


@laws
@given(st.data(), processes(), st.sampled_from(["elbo", "simple"]))
def test_t1_per_sample_the_joint_loss_is_the_weighted_sum(data, joint, objective):
    """Terms bitwise, in float64; the total within 1e-14 relative of the sum of the terms' sizes (order of summation
    only)."""
    x0, t, weights, seed = setting(data, joint)
    model = Mixer(joint, seed)
    found = joint.loss(model, x0, rng=seed, times=t, objective=objective, weights=weights)
    noised = joint.perturb(x0, t, rng=seed)
    outputs = model({k: n.xt for k, n in noised.items()}, t)
    total, size = 0.0, 0.0
    for name, m in joint.modalities.items():
        alone = m.loss(outputs[name], noised[name], objective=objective)
        assert alone.shape == (5,)
        assert torch.equal(alone, found.terms[name])
        total = total + weights[name] * float(alone.detach().mean())
        size = size + weights[name] * float(alone.detach().abs().mean())
    assert abs(float(found.total.detach()) - total) <= 1e-14 * max(size, 1e-300)
    wise = ["only"] if "m0" in joint.elementwise else []
    single = JointProcess({"only": joint.modalities["m0"]}, wise)
    one = single.loss(
        lambda x, t: {"only": outputs["m0"]}, {"only": x0["m0"]}, rng=seed, times={"only": t["m0"]}, objective=objective
    )
    assert torch.equal(one.terms["only"], found.terms["m0"])  # n = 1 is the modality itself


@laws
@given(st.data(), processes())
def test_t1_holds_under_permutation(data, joint):
    """Given the noise, a term does not care in which order, or beside which others, the modalities stand."""
    x0, t, _, seed = setting(data, joint)
    model = Mixer(joint, seed)
    names = list(joint.modalities)
    turned = JointProcess({k: joint.modalities[k] for k in reversed(names)}, sorted(joint.elementwise))
    noised = joint.perturb(x0, t, rng=seed)
    outputs = model({k: n.xt for k, n in noised.items()}, t)
    for name in names:
        first = joint.modalities[name].loss(outputs[name], noised[name])
        second = turned.modalities[name].loss(outputs[name], noised[name])
        assert torch.equal(first, second)
    assert turned.time_shapes(x0) == {k: joint.time_shapes(x0)[k] for k in reversed(names)}


@laws
@given(st.data(), processes(max_size=3))
def test_t2_gradients_add(data, joint):
    """The gradient of the total is the weighted sum of the terms' gradients: 1e-10 of their size, in float64."""
    x0, t, weights, seed = setting(data, joint)
    model = Mixer(joint, seed)
    found = joint.loss(model, x0, rng=seed, times=t, weights=weights)
    parameters = list(model.parameters())

    def gradient(value):
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                torch.zeros(p.numel(), dtype=F64) if g is None else g.flatten()
                for g, p in zip(grads, parameters, strict=True)
            ]
        )

    whole = gradient(found.total)
    parts = [weights[k] * gradient(found.terms[k].mean()) for k in joint.modalities]
    size = max(float(torch.stack(parts).abs().max()), 1.0)
    assert (whole - torch.stack(parts).sum(0)).abs().max() < 1e-10 * size


@laws
@given(st.data(), processes(), st.sampled_from(["denoising", "implicit", "explicit"]))
def test_t14_a_clean_modality_adds_nothing_and_its_head_does_not_matter(data, joint, form):
    """At t = 0 the loss is exactly 0, and so is its gradient, in every form; an element at t = 0 of an elementwise
    clock is held the same way. A head's output there may be anything."""
    x0, t, _, seed = setting(data, joint)
    fixed = data.draw(st.sampled_from(list(joint.modalities)))
    t[fixed] = torch.zeros_like(t[fixed])
    model, truth = Mixer(joint, seed), Mixer(joint, seed + 1)
    extra = {"truth": truth} if form == "explicit" else {}
    for other in joint.modalities:  # explicit and implicit forms read rates, which have no meaning at the end of time
        t[other] = t[other].clamp_max(0.98)
    found = joint.loss(model, x0, rng=seed, times=t, form=form, **extra)
    assert torch.equal(found.terms[fixed], torch.zeros_like(found.terms[fixed]))
    (grad,) = torch.autograd.grad(found.total, [model.outward[fixed]], allow_unused=True)
    assert grad is None or not bool(grad.any())
    with torch.no_grad():
        model.outward[fixed].mul_(-3.0)
    again = joint.loss(model, x0, rng=seed, times=t, form=form, **extra)
    assert torch.equal(found.total, again.total)


@laws
@given(st.data(), modalities(), st.sampled_from(["denoising", "implicit", "explicit"]))
def test_an_element_at_time_zero_is_held_in_every_form(data, modality, form):
    """With an elementwise clock, the loss is the sum over the elements that move: changing the output of a clean
    element alone changes nothing. The heads here answer element by element, so each output touches one element."""
    assume(modality.elements > 1 and len(modality.output_shape) >= len(modality.element_shape))
    joint = JointProcess({"m": modality}, ["m"])
    rng = torch.Generator().manual_seed(data.draw(seeds()))
    x0 = {"m": clean(modality, 6, rng)}
    t = 0.1 + 0.8 * torch.rand((6, *modality.element_shape), generator=rng, dtype=F64)
    t = torch.where(torch.rand(t.shape, generator=rng) < 0.5, 0.0, t)
    base = torch.randn((6, *modality.output_shape), generator=rng, dtype=F64)
    if len(modality.output_shape) == 1 and modality.output_shape != modality.element_shape:  # ragged: flat classes
        still = torch.repeat_interleave(t == 0, torch.tensor(modality.config()["num_classes"]), 1)
    else:
        still = (t == 0).reshape(t.shape + (1,) * (base.ndim - t.ndim)).expand(base.shape)
    noise = torch.randn(base.shape, generator=rng, dtype=F64)

    def run(shift):
        # a little dependence on x, so that the divergence of the implicit form is not zero
        def model(x, _):
            own = x["m"].to(F64) if x["m"].shape == base.shape else torch.zeros_like(base)
            return {"m": base + 0.3 * own + torch.where(still, shift * noise, 0.0)}

        extra = {"truth": lambda x, _: {"m": base.flip(0)}} if form == "explicit" else {}
        return joint.loss(model, x0, rng=3, times={"m": t}, form=form, **extra).terms["m"]

    assert torch.equal(run(0.0), run(5.0))
    everything = t.reshape(6, -1).eq(0).all(1)
    assert not bool(run(0.0)[everything].any())


@laws
@given(st.data(), modalities(), st.sampled_from(["elbo", "simple"]))
def test_losses_are_finite_at_the_ends_of_time(data, modality, objective):
    """t = 0, t_min and 1, float32 as in training, at the oracle-free worst: a random output. Zero at 0, with zero
    gradient."""
    rng = torch.Generator().manual_seed(data.draw(seeds()))
    x0 = clean(modality, 4, rng, torch.float32)
    for t in (0.0, modality.t_min, 1.0):
        noised = modality.perturb(x0, t, rng=rng)
        output = torch.randn(4, *modality.output_shape, generator=rng).requires_grad_()
        value = modality.loss(output, noised, objective=objective)
        (grad,) = torch.autograd.grad(value.sum(), output)
        assert bool(value.isfinite().all())
        assert bool(grad.isfinite().all())
        if t == 0:
            assert not bool(value.any())
            assert not bool(grad.any())


@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_t12_the_training_estimator_has_the_exact_mean(kind):
    """E of joint.loss over x_0, t and x_t, by the trainer's own call, against full enumeration, for a model that is
    wrong.

    Two elements, three classes, times on a grid of 8 drawn independently with the data: 10^5 draws. The sample mean
    is within 4 standard errors (its own, chance 6e-5 at a fresh seed; the seed is fixed)."""
    modality = get_modality(kind)((2,), 3)
    joint = JointProcess({"m": modality})
    rng = torch.Generator().manual_seed(0)
    law = torch.rand(9, generator=rng, dtype=F64)
    law = law / law.sum()
    atoms = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    wrong = OracleDenoiser(joint, {"m": atoms}, law.flip(0))
    clocks = torch.linspace(0.1, 0.9, 8, dtype=F64)
    states = modality.generator(clocks[0]).states()
    exact = torch.zeros((), dtype=F64)
    for t in clocks:
        for x0, p0 in zip(atoms, law, strict=True):
            when, start = t.expand(len(states)), x0.expand(len(states), 2)
            log_p = modality.log_transition(states, start, when)
            at = log_p > -torch.inf
            noised = Noised(start[at], states[at], torch.zeros(int(at.sum()), dtype=F64), when[at])
            output = wrong({"m": states[at]}, {"m": when[at]})["m"]
            exact = exact + p0 / 8 * (log_p[at].exp() * modality.loss(output, noised)).sum()
    draws = 100_000
    rows = torch.multinomial(law, draws, replacement=True, generator=rng)
    t = clocks[torch.randint(8, (draws,), generator=rng)]
    found = joint.loss(wrong, {"m": atoms[rows]}, rng=rng, times={"m": t}).terms["m"]
    assert abs(found.mean() - exact) < 4 * found.std() / math.sqrt(draws)
