"""Law: the reverse process with an exact network: its law on the way and at the end, and its order."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS", "exact_methods", "run_back"]


def exact_methods(case: Case) -> tuple[str | None, ...]:
    """The steppers that are held to the law: all but those the modality calls inexact."""
    names = tuple(name for name in case.m.methods() if name not in case.m.inexact)
    return names or (None,)


def run_back(
    case: Case, x: Tensor, readings: list[float], method: str | None, rng: torch.Generator
) -> tuple[Tensor, int]:
    """The state at the last reading, from ``x`` at the first, with the perfect network; and how often a step asked the
    network a second time."""
    calls, carry = 0, None

    def again(y: Tensor, when: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return case.oracle(y, when)

    for now, ahead in itertools.pairwise(readings):
        t, s = (torch.full((len(x),), r, dtype=torch.float64) for r in (now, ahead))
        x, carry = case.m.step(case.oracle(x, t), x, t, s, rng=rng, method=method, again=again, carry=carry)
    return x, calls


@check("reversal", "law", needs=("density",), spec="3. Modality, step and finish")
def reversal(case: Case) -> str:
    """With a perfect network, each stepper runs the process backwards: half-way the states have the law of noised data,
    at the end the atoms come back with their weights. A stepper may need many steps for it, but not more and more."""
    most = (200 if case.dear else 400) if case.floating else 2000
    worst, said = 0.0, []
    for k, method in enumerate(exact_methods(case)):
        name, n = method or "default", most if k == 0 else most // 2
        steps = 32 if case.floating else 64
        gap, wrong = _run_through(case, method, steps, n)
        if wrong:
            steps *= 4
            gap, wrong = _run_through(case, method, steps, n)
        require(not wrong, f"{name}, {steps} steps: {wrong}")
        worst = max(worst, gap)
        said.append(f"{name} ({steps})")
    return f"{', '.join(said)} steps: at most {worst:.1f} standard errors (bound {SIGMAS:g})"


def _run_through(case: Case, method: str | None, steps: int, n: int) -> tuple[float, str]:
    """The largest error, in standard errors, and what is wrong, if anything is."""
    m, name = case.m, method or "default"
    grid = [float(r) for r in m.grid(steps)]
    half = next(k for k, r in enumerate(grid) if r <= case.times[1] or k == steps - 2)
    rng = case.rng("reversal", name)
    x = m.prior(n, rng=case.rng("reversal", name, "prior"))
    x = x.double() if case.floating else x
    x, _ = run_back(case, x, grid[: half + 1], method, rng)
    forward = case.noised(n, grid[half], "reversal", name).xt
    # a first-order scheme errs by some percent of a test function's size, 1
    gap = case.gap(x, forward, "reversal", name, slack=0.05)
    if gap >= SIGMAS:
        return gap, f"at {grid[half]:.2f} the law is not that of noised data: .05 and {gap:.1f} standard errors apart"
    x, _ = run_back(case, x, grid[half:], method, rng)
    t = torch.full((n,), grid[-1], dtype=torch.float64)
    x = m.finish(case.oracle(x, t), x, t, rng=case.rng("reversal", name, "finish"))
    nearest, stray = case.nearest(x)
    counts = nearest.bincount(minlength=len(case.atoms)).double() / n
    error = (case.weights * (1 - case.weights) / n).sqrt()
    off = zscore(counts - case.weights, error, 0.04)
    shares = ", ".join(f"{c:.3f}" for c in counts.tolist())
    true = ", ".join(f"{c:.3f}" for c in case.weights.tolist())
    if off >= SIGMAS:
        return off, f"the atoms come back with shares {shares}, not {true}"
    lost = float(stray.double().mean())
    if lost > 0.1:
        return off, f"{lost:.1%} of the samples end far from every atom (bound 10 %)"
    return max(gap, off), ""


@check("stepper_order", "law", needs=("density",), spec="3. Modality, step")
def stepper_order(case: Case) -> str:
    """A stepper without noise converges, at first order or better; one that asks the network twice a step at second."""
    if not case.floating:
        raise Skipped("chains jump")
    n = 24
    low, _, high = case.times
    x = case.noised(n, high, "order").xt
    found = {}
    for method in exact_methods(case):
        first, second = (run_back(case, x, [high, 0.5 * (high + low)], method, case.rng("order", k))[0] for k in (1, 2))
        if not torch.allclose(first, second, rtol=1e-9, atol=1e-12):
            continue
        ends, asks = [], 0
        for steps in (8, 16, 32):
            readings = torch.linspace(high, low, steps + 1, dtype=torch.float64).tolist()
            end, asks = run_back(case, x, readings, method, case.rng("order"))
            ends.append(end)
        # the median row: a row near a watershed between atoms converges late
        errors = [(a - b).reshape(n, -1).square().sum(1).sqrt() for a, b in itertools.pairwise(ends)]
        order = float((errors[0] / errors[1].clamp_min(1e-300)).log2().median()) if float(errors[1].max()) > 0 else 9.0
        bound = 1.5 if asks else 0.7
        name = method or "default"
        require(order > bound, f"{name}: its error falls by 2^{order:.2f} when steps are halved (bound 2^{bound})")
        found[name] = order
    if not found:
        raise Skipped("every stepper draws noise")
    return ", ".join(f"{name} {order:.2f}" for name, order in found.items())


CHECKS = (reversal, stepper_order)
