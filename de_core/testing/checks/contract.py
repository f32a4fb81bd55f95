"""Contract: what is declared, shapes and dtypes, one loss a sample, gradients, precision."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from de_core.generator import JumpGenerator
from de_core.modality import CAPABILITIES, Noised
from de_core.testing.case import Case
from de_core.testing.report import check, require

__all__ = ["CHECKS"]


@check("declaration", "contract", spec="3. Modality")
def declaration(case: Case) -> str:
    """Shapes are tuples of whole numbers, an element's shape leads the event's, capabilities are known names, t_min
    lies inside (0, 1), and the default stepper is none of the inexact ones."""
    m = case.m
    for name in ("event_shape", "element_shape", "output_shape"):
        shape = getattr(m, name, None)
        whole = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
        require(whole, f"{name}: expected a tuple of positive whole numbers, got {shape!r}")
    lead = m.event_shape[: len(m.element_shape)]
    require(
        lead == m.element_shape, f"element_shape: expected a leading part of {m.event_shape}, got {m.element_shape}"
    )
    unknown = set(m.capabilities) - CAPABILITIES
    require(not unknown, f"capabilities: unknown {sorted(unknown)}")
    require(0 < m.t_min < 1, f"t_min: expected inside (0, 1), got {m.t_min}")
    spared = m.inexact & ({m.methods()[0]} if m.methods() else m.inexact)
    require(not spared, f"inexact: the default stepper is held to the law, and {sorted(spared)} is named")
    m.validate(case.data)
    return f"event {m.event_shape}, output {m.output_shape}, {len(m.capabilities)} capabilities"


def _same_kind(case: Case, x: Tensor, want: Tensor, what: str) -> None:
    shape, dtype = tuple(want.shape), want.dtype
    require(isinstance(x, Tensor), f"{what}: expected a tensor, got {type(x).__name__}")
    require(tuple(x.shape) == shape, f"{what}: expected shape {shape}, got {tuple(x.shape)}")
    require(x.dtype == dtype, f"{what}: expected {dtype}, got {x.dtype}")


@check("shapes_dtypes", "contract", spec="3. Modality")
def shapes_dtypes(case: Case) -> str:
    """Every method answers in the shape and the precision of what it was given: states (B, *event), losses (B,)."""
    m = case.m
    for dtype in (torch.float64, torch.float32):
        x = case.data[:1].expand(5, *m.event_shape)
        x = x.to(dtype) if case.floating else x
        t = torch.linspace(0.2, 0.9, 5, dtype=dtype)
        s = t / 2
        prior = m.prior(5, rng=0)
        require(
            tuple(prior.shape) == tuple(x.shape), f"prior: expected shape {tuple(x.shape)}, got {tuple(prior.shape)}"
        )
        right = prior.is_floating_point() if case.floating else prior.dtype == torch.int64
        require(right, f"prior: expected {'floating' if case.floating else 'int64'}, got {prior.dtype}")
        z = m.perturb(x, t, rng=0)
        require(isinstance(z, Noised), f"perturb: expected Noised, got {type(z).__name__}")
        _same_kind(case, z.xt, x, "perturb, xt")
        require(torch.equal(z.x0, x), "perturb, x0: expected the state that came in")
        require(torch.allclose(z.t.to(t), t), "perturb, t: expected the time that came in")
        require(bool((z.s == 0).all()), "perturb, s: expected 0 where none was given")
        for key, value in z.aux.items():
            require(isinstance(value, Tensor) and len(value) == 5, f"perturb, aux[{key!r}]: expected 5 rows")
        output = case.output(5, "shapes", dtype=dtype)
        loss = m.loss(output, z)
        require(tuple(loss.shape) == (5,), f"loss: expected one number a sample, (5,), got {tuple(loss.shape)}")
        require(loss.dtype == dtype, f"loss: expected {dtype}, got {loss.dtype}")
        score = m.score(output, z.xt, t)
        want = tuple(x.shape)
        if not case.floating and case.has("generator"):
            want = tuple(m.generator(t).neighbours(z.xt)[1].shape)  # type: ignore[attr-defined] # a chain's generator
        require(tuple(score.shape) == want, f"score: expected shape {want}, got {tuple(score.shape)}")
        for name in (None, *m.methods()):
            answer = m.step(output, z.xt, t, s, rng=0, method=name, again=lambda x, t, o=output: o)
            what = f"step, {name or 'default'}"
            require(isinstance(answer, tuple) and len(answer) == 2, f"{what}: expected the pair (state, carry)")
            _same_kind(case, answer[0], x, what)
        _same_kind(case, m.finish(output, z.xt, t, rng=0), x, "finish")
        if case.has("ode"):
            _same_kind(case, m.velocity(output, z.xt, t), x, "velocity")  # type: ignore[attr-defined] # capability "ode"
    return "prior, perturb, loss, score, every stepper and finish, in float32 and float64"


@check("capabilities", "contract", spec="3. Modality, by capability")
def capabilities(case: Case) -> str:
    """What is declared is there: each capability's methods answer in their shapes."""
    m = case.m
    z = case.noised(6, 0.5, "capabilities")
    output = case.output(6, "capabilities")
    found: dict[str, Tensor] = {}
    if case.has("generator"):
        generator = m.generator(z.t)
        require(isinstance(generator.reference, str), "generator: expected the name of a reference measure")
        wave = case.waves(1, "capabilities")
        found["generator.apply"] = generator.apply(lambda x: wave(x)[:, 0], z.xt)
        if isinstance(generator, JumpGenerator):
            y, out, into = generator.neighbours(z.xt)
            require(y.shape[:2] == out.shape == into.shape, "generator.neighbours: expected rates (B, N) beside y")
            require(bool((out >= 0).all()) and bool((into >= 0).all()), "generator.neighbours: a rate is below 0")
            same = (y == z.xt[:, None]).reshape(*out.shape, -1).all(-1)
            require(
                not bool((same & ((out > 0) | (into > 0))).any()), "generator.neighbours: a jump from x to x itself"
            )
    if case.has("density"):
        found["log_transition"] = m.log_transition(z.xt, z.x0, z.t)
        made = m.posterior_output(z.xt, z.t, case.atoms, case.weights.expand(6, -1))
        want = (6, *m.output_shape)
        require(tuple(made.shape) == want, f"posterior_output: expected shape {want}, got {tuple(made.shape)}")
    if case.has("likelihood"):
        found["prior_kl"] = m.prior_kl(z.x0)
        end = m.perturb(z.x0, torch.full((6,), m.t_min, dtype=torch.float64), rng=1)
        found["reconstruction"] = m.reconstruction(output, end)
    if case.has("implicit"):
        found["implicit"] = m.implicit(case.head("capabilities"), z.xt, z.t, rng=0)
    if case.has("ode"):
        v = m.velocity(output, z.xt, z.t)  # type: ignore[attr-defined] # what the capability promises
        require(v.shape == z.xt.shape, f"velocity: expected shape {tuple(z.xt.shape)}, got {tuple(v.shape)}")
    if case.has("elementwise"):
        t = torch.full((6, *m.element_shape), 0.5, dtype=torch.float64)
        found["loss, elementwise clock"] = m.loss(output, m.perturb(z.x0, t, rng=0))
    if case.has("compile"):
        compiled = torch.compile(m.loss, fullgraph=True)
        found["loss, compiled"] = compiled(output, z)
        require(torch.allclose(found["loss, compiled"], m.loss(output, z)), "compile: the loss changes when compiled")
    for what, value in found.items():
        require(tuple(value.shape) == (6,), f"{what}: expected shape (6,), got {tuple(value.shape)}")
        require(bool(value.isfinite().all()), f"{what}: expected finite numbers, got {value.tolist()}")
    return f"{', '.join(sorted(m.capabilities)) or 'none declared'}"


@check("empty_batch", "contract", spec="3. Modality")
def empty_batch(case: Case) -> str:
    """A batch of no rows gives no rows."""
    m, t = case.m, torch.zeros(0, dtype=torch.float64)
    x, output = case.data[:0], case.output(0, "empty")
    z = m.perturb(x, t, rng=0)
    sizes = {
        "prior": len(m.prior(0, rng=0)),
        "perturb": len(z.xt),
        "loss": len(m.loss(output, z)),
        "step": len(m.step(output, x, t, t, rng=0)[0]),
        "finish": len(m.finish(output, x, t, rng=0)),
    }
    for what, size in sizes.items():
        require(size == 0, f"{what}: expected no rows, got {size}")
    return ", ".join(sizes)


@check("gradients", "contract", spec="3. Modality, loss")
def gradients(case: Case) -> str:
    """The gradient of the loss in the output is that of finite differences: nothing is detached, nothing is NaN."""
    m, n = case.m, 64
    # central differences at h: error h^2/6 times a third derivative, of the size of the loss for smooth links; 1e-8
    h = 1e-4
    worst, size = 0.0, 0.0
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "gradients", k)
        output = case.output(n, "gradients", k).requires_grad_()
        direction = case.output(n, "gradients", k, "direction")
        loss = m.loss(output, z)
        require(loss.requires_grad, f"loss: it carries no gradient at t = {t}")
        (grad,) = torch.autograd.grad(loss.sum(), output)
        require(bool(grad.isfinite().all()), f"loss: its gradient is not finite at t = {t}")
        with torch.no_grad():
            slope = (m.loss(output + h * direction, z) - m.loss(output - h * direction, z)) / (2 * h)
        found = (grad * direction).reshape(n, -1).sum(1)
        scale = float(slope.abs().mean()) + 1e-12
        worst = max(worst, float((found - slope).abs().mean()) / scale)
        size = max(size, scale)
        if m.score(output, z.xt, z.t).numel():
            require(m.score(output, z.xt, z.t).requires_grad, "score: it carries no gradient")
    require(size > 1e-9, "loss: it does not depend on the output")
    require(worst < 1e-3, f"loss: its gradient is off by {worst:.2g} of finite differences (bound 1e-3)")
    return f"gradient off finite differences by {worst:.1g} (bound 1e-3)"


@check("precision", "contract", spec="3. Modality")
def precision(case: Case) -> str:
    """float64 means float64, for times too, and float32 agrees with it."""
    m, n = case.m, 64
    t = case.times[1]
    z, output = case.noised(n, t, "precision"), case.output(n, "precision")

    def at(shift: float) -> Tensor:
        when = torch.full((n,), t + shift, dtype=torch.float64)
        value = m.loss(output, Noised(z.x0, z.xt, z.s, when, z.aux))
        return value + m.log_transition(z.xt, z.x0, when) if case.has("density") else value

    coarse, fine = (at(1e-5) - at(-1e-5)) / 2e-5, [(at(h) - at(-h)) / (2 * h) for h in (1e-9, 2e-9, 3e-9)]
    moved = ""
    if float(coarse.abs().max()) > 1e-3:  # rounding of the difference: 1e-16 * |value| / 1e-9
        row = int(coarse.abs().argmax())
        for slope in fine:
            ratio = float(slope[row] / coarse[row])
            require(
                0.5 < ratio < 2, f"times are rounded: the slope in t is {ratio:.3g} of the true one at steps of 1e-9"
            )
        moved = "the slope in t is right at steps of 1e-9; "
    full = m.loss(output, z)
    aux = {key: _single(value) for key, value in z.aux.items()}
    single = Noised(_single(z.x0), _single(z.xt), _single(z.s), _single(z.t), aux)
    gap = float((m.loss(output.float(), single) - full).abs().mean() / full.abs().mean().clamp_min(1e-9))
    require(gap < 1e-2, f"loss: float32 differs from float64 by {gap:.2g} of its size (bound 1e-2)")
    return f"{moved}float32 differs by {gap:.1g} of the loss (bound 1e-2)"


def _single(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x


@check("config_round_trip", "contract", spec="3. Modality, config")
def config_round_trip(case: Case) -> str:
    """config() is JSON and rebuilds a modality that draws and scores the same."""
    m = case.m
    config = json.loads(json.dumps(m.config()))
    twin = type(m)(**config)
    require(json.loads(json.dumps(twin.config())) == config, f"config: {config} becomes {twin.config()}")
    for name in ("event_shape", "element_shape", "output_shape", "t_min"):
        require(getattr(m, name) == getattr(twin, name), f"config: {name} is another after a round trip")
    z, other = (
        k.perturb(case.data[:4], torch.linspace(0.3, 0.9, 4, dtype=torch.float64), rng=case.rng("config"))
        for k in (m, twin)
    )
    require(torch.equal(z.xt, other.xt), "config: perturb draws other states after a round trip")
    output = case.output(len(z.xt), "config")
    require(torch.equal(m.loss(output, z), twin.loss(output, other)), "config: the loss is another after a round trip")
    return f"{config}"


CHECKS = (
    declaration,
    shapes_dtypes,
    capabilities,
    empty_batch,
    gradients,
    precision,
    config_round_trip,
)
