"""Law: the forward process. Its ends, its kernel from s to t, its generator."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.generator import Generator, JumpGenerator
from de_core.modality import Noised, rows
from de_core.testing.case import SIGMAS, Case, repeated, zscore
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS", "states_of"]


def states_of(case: Case, most: int = 2000) -> Tensor | None:
    """All states of a finite space of moderate size, else None."""
    if case.floating or not case.has("generator"):
        return None
    generator = case.m.generator(torch.tensor(0.5, dtype=torch.float64))
    if not isinstance(generator, JumpGenerator):
        return None
    # an element has about as many states as ways to go: a product of too many is never laid out
    if (generator.neighbours(case.data[:1])[1].shape[1] / case.size + 1) ** case.size > 20 * most:
        return None
    try:
        states = generator.states()
    except DiffuseError:
        return None
    return states if len(states) <= most else None


@check("time_one_is_prior", "law", spec="3. Modality, prior and perturb")
def time_one_is_prior(case: Case) -> str:
    """At t = 1 the state is a draw of the prior, whatever the data, and the kernel goes there as t goes to 1."""
    m, n = case.m, case.count(8000)
    prior = m.prior(n, rng=case.rng("prior"))
    worst = 0.0
    for k, atom in enumerate(case.atoms):
        x = atom.expand(n, *m.event_shape)
        end = m.perturb(x, torch.ones(n, dtype=torch.float64), rng=case.rng("prior", "end", k)).xt
        gap = case.gap(end, prior, "prior", k)
        require(gap < SIGMAS, f"perturb at t = 1 is not the prior: {gap:.1f} standard errors (bound {SIGMAS:g})")
        near = torch.full((n,), 1 - 1e-4, dtype=torch.float64)
        close = m.perturb(x, near, rng=case.rng("prior", "near", k)).xt
        slack = case.gap(close, prior, "prior", "near", k, slack=0.06)
        require(
            slack < SIGMAS, f"the kernel just before t = 1 is not the prior: means differ by .06 and {slack:.1f} errors"
        )
        worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("semigroup", "law", spec="3. Modality, perturb")
def semigroup(case: Case) -> str:
    """From 0 to s and on to t has the law of 0 to t: the kernel from s knows s. Noisy guidance and resampling rest on
    it."""
    m, n = case.m, (16_000 if case.floating else 40_000) if case.size <= 8 else case.count(8000)
    low, mid, high = case.times
    worst = 0.0
    for k, (s, t) in enumerate(((low, mid), (mid, high), (0.5 * low, high), (mid, 0.5 * (mid + high)), (high, 1.0))):
        at_s = case.noised(n, s, "semigroup", k)
        when = torch.full((n,), t, dtype=torch.float64)
        twice = m.perturb(at_s.xt, when, s=at_s.t, rng=case.rng("semigroup", k, "on")).xt
        once = case.noised(n, t, "semigroup", k, "direct").xt
        gap = case.gap(twice, once, "semigroup", k)
        require(gap < SIGMAS, f"0 to {s:g} to {t:g} is not 0 to {t:g}: {gap:.1f} standard errors (bound {SIGMAS:g})")
        worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("states_in_space", "law", spec="3. Modality, perturb, prior and step")
def states_in_space(case: Case) -> str:
    """Noised states, prior draws and reverse steps lie in the state space: on the manifold, or among the chain's
    states."""
    m, n = case.m, 200
    states = states_of(case)
    if not case.floating and states is None:
        raise Skipped("the chain has no list of states")
    seen = {"prior": m.prior(n, rng=case.rng("space", "prior"))}
    for k, t in enumerate((m.t_min, *case.times, 1.0)):
        z = case.noised(n, t, "space", k)
        seen[f"perturb at {t:g}"] = z.xt
        output = case.output(n, "space", k, scale=3.0)
        for method in (None, *m.methods()):
            seen[f"step from {t:g}, {method or 'default'}"] = m.step(
                output, z.xt, z.t, 0.7 * z.t, rng=case.rng("space", k), method=method, again=lambda x, t, o=output: o
            )[0]
    for what, x in seen.items():
        try:
            m.validate_noised(x)
        except DiffuseError as error:
            require(False, f"{what}: outside the space: {error}")
        off = 0.0 if case.fixed is None else case.fixed(x)
        require(off < 1e-3, f"{what}: off the space, what is constant over it moves by {off:.2g} (bound 1e-3)")
        if states is not None:
            inside = (x.reshape(len(x), 1, -1) == states.reshape(1, len(states), -1)).all(2).any(1)
            require(inside.all(), f"{what}: {int((~inside).sum())} of {len(x)} states are none of the chain's")
    return f"{len(seen)} kinds of states"


def _short(case: Case, z: Noised) -> float:
    """A time after z.t over which states move by .4 of their size at most, in the mean square."""
    t = float(z.t[0])
    h = min(0.05, 0.25 * (1 - t))
    for k in range(20):
        on = case.m.perturb(z.xt, z.t + h, s=z.t, rng=case.rng("short", k)).xt
        if float(((case.faded(rows(on)) - case.faded(rows(z.xt))) / case.scale).square().mean()) < 0.16:
            break
        h /= 2
    return h


@check("kolmogorov", "law", needs=("generator",), spec="3. Modality, generator")
def kolmogorov(case: Case) -> str:
    """d/dt E f(X_t) = E (L f)(X_t), from each state: what perturb draws over a short time is what the generator
    says."""
    m, worst = case.m, 0.0
    count, n = (2, 1500) if case.curved else (6, max(400, 2 * case.count(8000) // (1 if case.size <= 8 else 8)))
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "kolmogorov", k)
        h = _short(case, z)
        # the two-point Gauss rule: error h^5/4320 times a fourth derivative of the rate in t. A test function's phase
        # moves by 3 x .4 at most, so that its mean decays like e^(-r u/h), r < 1.2^2/2, and the error is r^4/4320 of
        # it, 6e-5; where a clock runs e times faster at the end of h than at its start it is (r + 1)^4/4320 < .3 %
        readings = [t, *(t + h * (0.5 + side * 3**-0.5 / 2) for side in (-1, 1)), t + h]
        path = [z.xt]
        for j, (now, ahead) in enumerate(itertools.pairwise(readings)):
            s, u = (torch.full((n,), r, dtype=torch.float64) for r in (now, ahead))
            path.append(m.perturb(path[-1], u, s=s, rng=case.rng("kolmogorov", k, "on", j)).xt)
        generators = [m.generator(torch.full((n,), r, dtype=torch.float64)) for r in readings[1:3]]
        wave = case.waves(count, "kolmogorov", k)
        before, after = wave(z.xt).detach(), wave(path[-1]).detach()
        for j in range(count):

            def f(x: Tensor, j: int = j, wave: Callable[[Tensor], Tensor] = wave) -> Tensor:
                return wave(x)[:, j]

            rate = 0.5 * sum(g.apply(f, x).detach() for g, x in zip(generators, path[1:3], strict=True))
            # f(X_t+h) - f(X_t) - int L f has mean 0 from each state: also weighted by any function of that state. Near
            # the prior E L f is about 0 whatever the rates are; E f L f is not
            for weight in (torch.ones(n, dtype=torch.float64), before[:, j] - before[:, j].mean()):
                moved, said = weight * (after[:, j] - before[:, j]), h * weight * rate
                gap = zscore((moved - said).mean(), (moved - said).std() / n**0.5, 0.01 * float(said.abs().mean()))
                require(
                    gap < SIGMAS,
                    f"at {t:g}, over {h:g}: E f moved by {float(moved.mean()):.3g}, the generator says "
                    f"{float(said.mean()):.3g}; {gap:.1f} standard errors apart (bound {SIGMAS:g})",
                )
                worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("kolmogorov_exact", "law", needs=("generator", "density"), spec="3. Modality, generator")
def kolmogorov_exact(case: Case) -> str:
    """dp/dt = L* p for the density of the kernel, pointwise."""
    m, n = case.m, 24 if case.size <= 8 else 3
    if case.floating and case.size > 24:
        raise Skipped("too many coordinates for exact divergences")
    worst, h = 0.0, 1e-5  # central difference: h^2/6 times a third derivative in t, < 1e-6 of dp/dt for t in [.05, .97]
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "exact", k)
        here = m.log_transition(z.xt, z.x0, z.t)
        found = adjoint_over(case, m.generator(z.t), z.xt, z.x0, z.t)
        sides = [
            (m.log_transition(z.xt, z.x0, torch.full((n,), t + s, dtype=torch.float64)) - here).exp() for s in (h, -h)
        ]
        rate = (sides[0] - sides[1]) / (2 * h)
        off = float((found - rate).abs().max() / (rate.abs().max() + 1e-3))
        require(off < 1e-3, f"at {t:g}: L* p differs from dp/dt by {off:.2g} of it (bound 1e-3)")
        worst = max(worst, off)
    return f"off by at most {worst:.1g} of dp/dt (bound 1e-3)"


def adjoint_over(
    case: Case, generator: Generator, xt: Tensor, x0: Tensor, t: Tensor, g: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """(L* (g p))(x)/p(x) for the kernel's density p from x0, (B,)."""
    here = case.m.log_transition(xt, x0, t).detach()

    def density(y: Tensor) -> Tensor:
        log = case.m.log_transition(y, repeated(x0, y), repeated(t, y))
        if y.requires_grad and not log.requires_grad:
            raise Skipped("log_transition cannot be differentiated in the state")
        value = (log - repeated(here, y)).exp()
        return value if g is None else value * g(y)

    return generator.adjoint(density, xt)


@check("adjoint", "law", needs=("generator", "density"), spec="3. Modality, generators")
def adjoint(case: Case) -> str:
    """<L f, p> = <f, L* p> against the reference measure, for p = g times the kernel's density."""
    m = case.m
    if case.floating and case.size > 24:
        raise Skipped("too many coordinates for exact divergences")
    n = 2000 if case.size <= 4 and not case.curved else 600
    t = case.times[2]
    z = case.noised(n, t, "adjoint")
    generator, wave = m.generator(z.t), case.waves(4, "adjoint")
    worst = 0.0
    for j in range(2):

        def f(x: Tensor, j: int = j) -> Tensor:
            return wave(x)[:, 2 * j]

        def g(x: Tensor, j: int = j) -> Tensor:
            return 1 + 0.5 * wave(x)[:, 2 * j + 1]

        left = generator.apply(f, z.xt).detach() * g(z.xt)
        right = f(z.xt) * adjoint_over(case, generator, z.xt, z.x0, z.t, g)
        gap = zscore((left - right).mean(), (left - right).std() / n**0.5)
        require(gap < SIGMAS, f"<L f, p> and <f, L* p> are {gap:.1f} standard errors apart (bound {SIGMAS:g})")
        worst = max(worst, gap)
    states = states_of(case, 200)
    if states is not None:
        chain = m.generator(torch.tensor(t, dtype=torch.float64))
        rates = torch.randn(2, len(states), generator=case.rng("adjoint", "tables"), dtype=torch.float64)

        def table(values: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda x: values[
                (x.reshape(len(x), 1, -1) == states.reshape(1, len(states), -1)).all(2).long().argmax(1)
            ]

        one = (chain.apply(table(rates[0]), states) * rates[1]).sum()
        two = (chain.adjoint(table(rates[1]), states) * rates[0]).sum()
        off = float((one - two).abs() / (1 + one.abs()))
        require(off < 1e-9, f"over all states, <L f, p> and <f, L* p> differ by {off:.2g} (bound 1e-9)")
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("prior_is_stationary", "law", needs=("generator",), spec="3. Modality, prior")
def prior_is_stationary(case: Case) -> str:
    """Where the kernel leaves the prior as it is, E_prior L f = 0. A variance-exploding path need not."""
    m, n = case.m, case.count(8000)
    x = m.prior(n, rng=case.rng("stationary"))
    x = x.double() if case.floating else x
    mid, end = (torch.full((n,), t, dtype=torch.float64) for t in (case.times[1], 0.999))
    moved = m.perturb(x, end, s=mid, rng=case.rng("stationary", "on")).xt
    fresh = m.prior(n, rng=case.rng("stationary", "fresh"))
    if case.gap(moved, fresh.to(moved.dtype), "stationary") > SIGMAS:
        raise Skipped("the kernel moves the prior: a path that explodes in variance")
    few, count = (1500, 2) if case.curved else (n if case.size <= 8 else 400, 8)
    wave, worst = case.waves(count, "stationary"), 0.0
    for j in range(count):
        value = m.generator(mid[:few]).apply(lambda y, j=j: wave(y)[:, j], x[:few]).detach()
        gap = zscore(value.mean(), value.std() / few**0.5)
        require(
            gap < SIGMAS,
            f"E_prior L f = {float(value.mean()):.3g}, {gap:.1f} standard errors from 0 (bound {SIGMAS:g})",
        )
        worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("phi", "law", needs=("generator",), spec="2. Theory")
def phi(case: Case) -> str:
    """Phi(f) = L f/f - L log f, is not below 0, and is 0 for a constant; the divergence of equal scores is 0."""
    m, n = case.m, 32 if case.size <= 24 else 4
    worst = 0.0
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "phi", k)
        generator, wave = m.generator(z.t), case.waves(3, "phi", k)

        def f(x: Tensor, wave: Callable[[Tensor], Tensor] = wave) -> Tensor:
            return wave(x).sum(1).exp()

        value = generator.phi(f, z.xt).detach()
        direct = (generator.apply(f, z.xt) / f(z.xt) - generator.apply(lambda x, f=f: f(x).log(), z.xt)).detach()
        off = float(((value - direct).abs() / (1 + direct.abs())).max())
        require(off < 1e-8, f"phi differs from L f/f - L log f by {off:.2g} at {t:g} (bound 1e-8)")
        require(float(value.min()) > -1e-9, f"phi is below 0 at {t:g}: {float(value.min()):.2g}")
        flat = generator.phi(lambda x: 0 * wave(x)[:, 0] + 2.0, z.xt).abs().max()  # noqa: B023 # used at once
        require(float(flat) < 1e-12, f"phi of a constant is {float(flat):.2g}")
        score = m.score(case.output(n, "phi", k), z.xt, z.t)
        same = float(generator.bregman(score, score, z.xt).abs().max())
        require(same < 1e-12, f"the divergence of equal scores is {same:.2g}")
        other = m.score(case.output(n, "phi", k, "other"), z.xt, z.t)
        least = float(generator.bregman(other, score, z.xt).min())
        require(least > -1e-9, f"the divergence of two scores is below 0: {least:.2g}")
        worst = max(worst, off)
    return f"closed form off by {worst:.1g} (bound 1e-8)"


CHECKS = (
    time_one_is_prior,
    semigroup,
    states_in_space,
    kolmogorov,
    kolmogorov_exact,
    adjoint,
    prior_is_stationary,
    phi,
)
