"""Law: a short step. Chains move at the rates of the reversed process; diffusions answer the score as their noise
asks."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.generator import Generator, JumpGenerator
from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.checks.reverse import exact_methods
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("step_is_small", "law", needs=("generator",), spec="3. Modality, step")
def step_is_small(case: Case) -> str:
    """Over a short time each stepper moves a chain at the rates of the reversed process, rate into x_t times ratio.
    That of a diffusion answers the score s with (1 + l)/2 sigma sigma^T s, where its noise is l sigma sigma^T: l = 1
    for the reversed process, 0 for the flow, anything between or beyond for a mix."""
    generator = case.m.generator(torch.full((1,), case.times[1], dtype=torch.float64))
    return _rates(case, generator) if isinstance(generator, JumpGenerator) else _response(case)


def _rates(case: Case, generator: JumpGenerator) -> str:
    m, t = case.m, case.times[1]
    z, output = case.noised(64, t, "small"), case.output(64, "small")
    _, _, into = m.generator(z.t).neighbours(z.xt)  # type: ignore[attr-defined] # a chain's generator
    rates = torch.where(into > 0, into * m.score(output, z.xt, z.t).exp(), 0.0).double()
    k = int(rates.sum(1).argmax())  # the state that has most to do
    x, output, rates = z.xt[k : k + 1], output[k : k + 1], rates[k]
    y = generator.neighbours(x)[0]
    total = float(rates.sum())
    if total <= 0:
        raise Skipped("the states have nowhere to go")
    there = z.t[:1].expand(len(y[0]))
    back = generator.neighbours(y[0])[2]
    onward = m.score(output.expand(len(y[0]), *m.output_shape), y[0], there)
    onward = torch.where(back > 0, back * onward.exp(), 0.0).sum(1)
    fastest = float(torch.where(rates > 0, onward, 0.0).max())
    # second jumps are 2 % of the first, and rates move by some 5 % over a twentieth of the clock
    h = min(0.02 / total, 0.02 / fastest if fastest > 0 else 1.0, 0.05 * t)
    n = max(8000, min(200_000, 10_000_000 // rows(y, 2)[0].numel()))
    chance, worst = h * rates, 0.0
    wide = output.expand(n, *m.output_shape)
    for method in exact_methods(case):
        when = torch.full((n,), t, dtype=torch.float64)
        moved, _ = m.step(
            wide,
            x.expand(n, *m.event_shape),
            when,
            when - h,
            rng=case.rng("small", method or "default"),
            method=method,
            again=lambda y, when: wide[: len(y)],
        )
        hit = (moved.reshape(n, 1, -1) == y[0].reshape(1, len(rates), -1)).all(2).double().mean(0)
        hit = torch.where((y[0] == x).reshape(len(rates), -1).all(1), 0.0, hit)  # padding
        away = (moved != x).reshape(n, -1).any(1).double().mean()
        each = zscore(hit - chance, (chance.clamp_min(1e-9) / n).sqrt(), 0.07 * chance + 0.02 * h * total)
        all_of = zscore(away - h * total, torch.tensor((h * total / n) ** 0.5), 0.07 * h * total)
        off, name = max(each, all_of), method or "default"
        found = [round(v, 3) for v in (hit / chance.clamp_min(1e-12))[chance > 0].tolist()][:8]
        require(
            off < SIGMAS,
            f"{name}: jumps over {h:.2g} come {found} times their rate, and {float(away) / h / total:.3f} times in all",
        )
        worst = max(worst, off)
    return f"at most {worst:.1f} standard errors beyond 7 % (bound {SIGMAS:g})"


def _response(case: Case) -> str:
    m, t, h, states = case.m, case.times[1], 0.005 * min(1.0, case.times[1]), 64
    z = case.noised(states, t, "small")
    outputs = [case.output(states, "small", j, scale=2.0) for j in (0, 1)]
    one, two = (m.score(output, z.xt, z.t).detach() for output in outputs)
    u, generator = one - two, m.generator(z.t - h / 2)
    assert isinstance(generator, Generator)
    length = 2 * h * generator.bregman(u, torch.zeros_like(u), z.xt).detach()  # h u^T sigma sigma^T u
    said, worst = [], 0.0
    for method in exact_methods(case):
        name = method or "default"
        reps = 400
        when = z.t.repeat_interleave(reps)
        ends = []
        for output in outputs:
            wide = output.repeat_interleave(reps, 0)
            end, _ = m.step(
                wide,
                z.xt.repeat_interleave(reps, 0),
                when,
                when - h,
                rng=case.rng("small", name),
                method=method,
                again=lambda x, t, o=wide: o,
            )
            ends.append((rows(end) * rows(u).repeat_interleave(reps, 0)).sum(1).reshape(states, reps))
        answers = (ends[0] - ends[1]).mean(1) / length
        noises = 0.5 * (ends[0].var(1) + ends[1].var(1)) / length
        # medians over states: a coordinate may have a cut
        (answer, e1), (noise, e2) = (_median(v) for v in (answers, noises))
        off = abs(answer - 0.5 * (1 + noise))
        error = (e1**2 + e2**2 / 4) ** 0.5
        # sigma sigma^T and the stepper's own coefficients move by some percent over h
        require(
            off < SIGMAS * error + 0.05 * (1 + noise),
            f"{name}: a step answers the score with {answer:.3f} times sigma sigma^T, but its noise, {noise:.3f} times "
            f"that, asks for {0.5 * (1 + noise):.3f} (standard error {error:.2g})",
        )
        worst = max(worst, off)
        said.append(f"{name} {answer:.2f} for noise {noise:.2f}")
    return "; ".join(said)


def _median(values: Tensor) -> tuple[float, float]:
    """The median and its standard error, 1.25 s/sqrt(n) with s = .74 times the gap between the quartiles."""
    low, middle, high = (float(v) for v in values.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)))
    return middle, 1.25 * 0.74 * (high - low) / len(values) ** 0.5


CHECKS = (step_is_small,)
