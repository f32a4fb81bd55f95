"""Contract: randomness, untouched inputs, the ends of time, elementwise clocks, steppers and grid."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from de_core.modality import Noised, expand
from de_core.testing.case import Case
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


def _calls(case: Case, n: int, *path: str) -> dict[str, Callable[[torch.Generator | int], Tensor]]:
    """Everything that draws, as a function of rng, over rows that are all alike: what differs among them was drawn."""
    m = case.m
    one, t = case.output(1, *path), torch.full((n,), 0.6, dtype=torch.float64)
    clean = [atom.expand(n, *m.event_shape) for atom in case.atoms]
    moved = [m.perturb(x, t, rng=case.rng(*path, "noise", k)).xt for k, x in enumerate(clean)]
    best = max(range(len(clean)), key=lambda k: len(moved[k].unique(dim=0)))  # a count of 0 may stay as it is
    x0, xt = clean[best], moved[best][:1].expand(n, *m.event_shape)

    def output(x: Tensor) -> Tensor:
        return one.expand(len(x), *m.output_shape)

    calls: dict[str, Callable[[torch.Generator | int], Tensor]] = {
        "prior": lambda rng: m.prior(n, rng=rng),
        "perturb": lambda rng: m.perturb(x0, t, rng=rng).xt,
        "finish": lambda rng: m.finish(output(xt), xt, t, rng=rng),
    }
    for name in (None, *m.methods()):
        calls[f"step, {name or 'default'}"] = lambda rng, name=name: m.step(
            output(xt), xt, t, t / 2, rng=rng, method=name, again=lambda x, when: output(x)
        )[0]
    if case.has("implicit"):
        head = case.head(*path)
        few = 16 if case.floating else n  # probes of numbers are numbers: no two draw the same by chance
        calls["implicit"] = lambda rng: m.implicit(head, xt[:few], t[:few], rng=rng).detach()
    return calls


def _draws(x: Tensor) -> bool:
    """Whether at least eight rows differ from the first: then two seeds give the same 64 rows less than once in a
    million, 2^-64 over continuous values and at most max_p (p^p (1 - p)^(1-p))^64 = e^-24 where a row moves with p =
    1/8."""
    rows = x.reshape(len(x), -1).double()
    return int(((rows - rows[:1]).abs() > 1e-6).any(1).sum()) >= 8


@check("rng_decides", "contract", spec="1. Words, rng")
def rng_decides(case: Case) -> str:
    """Draws are a function of rng: the same rng draws the same, another draws otherwise, a generator moves on, and no
    global seed is read or moved."""
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()

    def restore() -> None:
        torch.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(numpy)

    drawn = []
    try:
        for what, call in _calls(case, 64, "rng").items():
            first = call(11)
            torch.manual_seed(torch.initial_seed() + 1)
            random.seed(1)
            np.random.seed(1)
            require(torch.equal(first, call(11)), f"{what}: the same seed drew otherwise under other global seeds")
            generators = [torch.Generator().manual_seed(11) for _ in range(2)]
            a, b = call(generators[0]), call(generators[1])
            require(torch.equal(a, b), f"{what}: two generators of one seed drew otherwise")
            restore()
            others = [call(k) for k in (12, 13)]
            again = call(generators[0])
            require(torch.equal(torch.get_rng_state(), state), f"{what}: it moved torch's global seed")
            require(random.getstate() == python, f"{what}: it moved Python's global seed")
            moved = np.random.get_state()
            same = all(np.array_equal(x, y) for x, y in zip(numpy, moved, strict=True))
            require(same, f"{what}: it moved NumPy's global seed")
            if _draws(first):
                require(not any(torch.equal(first, x) for x in others), f"{what}: another seed drew the same")
                require(not torch.equal(a, again), f"{what}: a generator that was used before drew the same again")
                drawn.append(what)
    finally:
        restore()
    require("perturb" in drawn, "perturb: 64 rows alike, noised to .6, came out alike")
    return f"{', '.join(drawn)}"


@check("inputs_untouched", "contract", spec="3. Modality")
def inputs_untouched(case: Case) -> str:
    """No method changes what it was given."""
    m, n = case.m, 5
    x = case.clean(n, "inputs").clone()
    t = torch.linspace(0.0, 1.0, n, dtype=torch.float64)
    s = t / 2
    output, weak = case.output(n, "inputs"), case.output(n, "inputs", "weak")
    z = m.perturb(x, t, rng=0)
    low = m.perturb(x, torch.full_like(t, m.t_min), rng=2)
    held = {"x": x, "t": t, "s": s, "output": output, "weak": weak, "x0": z.x0, "xt": z.xt, **dict(z.aux)}
    held |= {"x0 at t_min": low.x0, "xt at t_min": low.xt}
    before = {name: value.clone() for name, value in held.items()}
    mid = torch.full_like(t, 0.5)
    calls: dict[str, Callable[[], object]] = {
        "validate": lambda: m.validate(x),
        "perturb": lambda: m.perturb(x, t, rng=1),
        "perturb from s": lambda: m.perturb(z.xt, t, s=s, rng=1),
        "loss": lambda: m.loss(output, z),
        "score": lambda: m.score(output, z.xt, mid),
        "step, guided": lambda: m.step(output, z.xt, t, s, rng=1, weak=weak, weight=2.0),
        "finish": lambda: m.finish(output, z.xt, t, rng=1, weak=weak, weight=2.0),
    }
    for name in (None, *m.methods()):
        calls[f"step, {name or 'default'}"] = lambda name=name: m.step(
            output, z.xt, t, s, rng=1, method=name, again=lambda x, t: output
        )
    if case.has("implicit"):
        calls["implicit"] = lambda: m.implicit(case.head("inputs"), z.xt, mid, rng=1)
    if case.has("ode"):
        calls["velocity"] = lambda: m.velocity(output, z.xt, mid)  # type: ignore[attr-defined] # capability "ode"
    if case.has("likelihood"):
        calls["prior_kl"] = lambda: m.prior_kl(x)
        calls["reconstruction"] = lambda: m.reconstruction(output, low)
    if case.has("density"):
        calls["log_transition"] = lambda: m.log_transition(z.xt, x, mid)
        calls["posterior_output"] = lambda: m.posterior_output(z.xt, mid, case.atoms, case.weights.expand(n, -1))
    for what, call in calls.items():
        call()
        for name, value in held.items():
            same = torch.equal(value, before[name]) or bool(((value == before[name]) | (value != value)).all())
            require(same, f"{what}: it changed its input {name} in place")
    return ", ".join(calls)


@check("time_zero_is_data", "contract", spec="3. Modality, perturb, loss and finish")
def time_zero_is_data(case: Case) -> str:
    """At t = 0 the state is the data bit for bit, the loss is exactly 0 with zero gradient, and finish returns the
    state."""
    m, n = case.m, 8
    x = case.clean(n, "zero")
    t = torch.zeros(n, dtype=torch.float64)
    t[n // 2 :] = 0.5
    z = m.perturb(x, t, rng=case.rng("zero"))
    still = z.xt[: n // 2]
    require(torch.equal(still, x[: n // 2]), "perturb: the state at t = 0 is not the data")
    output = case.output(n, "zero", scale=3.0).requires_grad_()
    loss = m.loss(output, z)
    require(bool((loss[: n // 2] == 0).all()), f"loss: expected exactly 0 at t = 0, got {loss[: n // 2].tolist()}")
    (grad,) = torch.autograd.grad(loss.sum(), output)
    require(bool((grad[: n // 2] == 0).all()), "loss: its gradient at t = 0 is not exactly 0")
    require(bool(grad.isfinite().all()), "loss: a row at t = 0 makes the gradient NaN")
    done = m.finish(output.detach(), x, torch.zeros_like(t), rng=case.rng("zero", "finish"))
    require(torch.equal(done, x), "finish: at t = 0 it changed the state")
    return f"{n // 2} rows at t = 0 beside {n - n // 2} at .5"


@check("equal_times_hold", "contract", spec="3. Modality, perturb and step")
def equal_times_hold(case: Case) -> str:
    """Where the two times are equal, perturb and every step return the state bit for bit, row by row."""
    m, n = case.m, 8
    z = case.noised(n, 0.6, "hold")
    t = z.t.clone()
    ahead, back = t.clone(), t.clone()
    ahead[n // 2 :], back[n // 2 :] = 0.8, 0.4
    held = m.perturb(z.xt, ahead, s=t, rng=case.rng("hold", 1)).xt[: n // 2]
    require(torch.equal(held, z.xt[: n // 2]), "perturb: rows with t = s moved")
    output = case.output(n, "hold")

    def again(x: Tensor, when: Tensor) -> Tensor:
        return output

    for method in (None, *m.methods()):
        x, _ = m.step(output, z.xt, t, back, rng=case.rng("hold", 2), method=method, again=again)
        require(torch.equal(x[: n // 2], z.xt[: n // 2]), f"step, {method or 'default'}: rows with t = s moved")
    return f"perturb and {max(1, len(m.methods()))} steppers"


@check("elementwise_times", "contract", needs=("elementwise",), spec="3. Modality, by capability")
def elementwise_times(case: Case) -> str:
    """A clock for each element: equal readings are the shared clock, elements at t = 0 keep their data and add no
    loss, and the loss is the sum over the elements that run."""
    m, n = case.m, 16
    if m.element_shape == ():
        raise Skipped("an event is one element")
    x, output = case.clean(n, "elements"), case.output(n, "elements")
    t = torch.full((n, *m.element_shape), case.times[1], dtype=torch.float64)
    z = m.perturb(x, t, rng=case.rng("elements"))
    shared = Noised(z.x0, z.xt, torch.zeros(n, dtype=torch.float64), t.reshape(n, -1)[:, 0], z.aux)
    whole, together = m.loss(output, z), m.loss(output, shared)
    require(torch.allclose(whole, together, rtol=1e-9, atol=1e-12), "loss: equal readings are not the shared clock")
    if case.has("density"):
        per, all_one = m.log_transition(z.xt, x, t), m.log_transition(z.xt, x, shared.t)
        require(torch.allclose(per, all_one, rtol=1e-9, atol=1e-9), "log_transition: equal readings are not one clock")
    coin = torch.rand(t.shape, generator=case.rng("elements", "coin"), dtype=torch.float64) < 0.5
    parts = []
    for keep in (coin, ~coin):
        when = torch.where(keep, t, 0.0)
        moved = m.perturb(x, when, rng=case.rng("elements", 2)).xt
        still = expand(~keep, x).expand_as(x)
        require(torch.equal(moved[still], x[still]), "perturb: an element at t = 0 moved")
        back, _ = m.step(output, z.xt, t, torch.where(keep, t / 2, t), rng=case.rng("elements", 3))
        require(torch.equal(back[still], z.xt[still]), "step: an element with s = t moved")
        parts.append(m.loss(output, Noised(x, torch.where(still, x, z.xt), z.s, when, z.aux)))
    gap = float((parts[0] + parts[1] - whole).abs().max() / (1 + whole.abs().max()))
    require(gap < 1e-8, f"loss: two halves of the elements sum to another loss, off by {gap:.2g} (bound 1e-8)")
    return f"halves sum to the whole within {gap:.1g} (bound 1e-8)"


@check("steppers_answer", "contract", spec="3. Modality, step, methods and grid")
def steppers_answer(case: Case) -> str:
    """Each name in methods() is a stepper, the first is the default, another name is refused, and the grid descends
    from 1 in as many readings as there are calls."""
    m, n = case.m, 8
    z, output = case.noised(n, 0.6, "steppers"), case.output(n, "steppers")
    names = m.methods()
    require(isinstance(names, tuple), f"methods: expected a tuple of names, got {names!r}")

    def take(method: str | None) -> Tensor:
        return m.step(output, z.xt, z.t, z.t / 2, rng=5, method=method, again=lambda x, t: output)[0]

    for name in names:
        require(take(name).shape == z.xt.shape, f"step, {name}: the shape of the state changed")
    if names:
        require(torch.equal(take(None), take(names[0])), f"step: the default is not the first method, {names[0]}")
        try:
            take("no-such-method")
        except Exception:  # any exception is a refusal
            pass
        else:
            require(False, "step: the method 'no-such-method' was accepted")
    for steps in (1, 2, 17):
        grid = m.grid(steps)
        good = tuple(grid.shape) == (steps,) and float(grid[0]) == 1 and bool((grid.diff() <= 0).all())
        require(good, f"grid({steps}): expected {steps} readings that descend from 1, got {grid.tolist()[:5]}")
        require(float(grid[-1]) >= m.t_min - 1e-9, f"grid({steps}): it ends below t_min, at {float(grid[-1])}")
    return f"{', '.join(names) or 'one stepper'}; grid"


CHECKS = (
    rng_decides,
    inputs_untouched,
    time_zero_is_data,
    equal_times_hold,
    elementwise_times,
    steppers_answer,
)
