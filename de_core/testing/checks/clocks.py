"""Law: a clock for each row and for each element. What one reads moves nothing but its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from de_core.modality import Noised, expand
from de_core.testing.case import SIGMAS, Case
from de_core.testing.checks.reverse import exact_methods
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


def _count(case: Case) -> int:
    """How many rows: draws are cheap, where densities may not be."""
    return (1000 if case.dear else 2000) if case.floating else case.count(20_000)


def _readings(case: Case) -> tuple[float, float]:
    """Two readings of the clock, far apart."""
    return max(case.m.t_min, 0.4 * case.times[0]), case.times[2]


@check("rows_have_own_times", "law", spec="3. Modality")
def rows_have_own_times(case: Case) -> str:
    """Each row has times of its own: beside rows at other times, perturb, each stepper and finish draw as among rows at
    the same."""
    m, n = case.m, _count(case)
    low, high = _readings(case)
    t = torch.full((n,), high, dtype=torch.float64)
    t[1::2] = low  # the rows that are looked at; the first row is none of them, nor has it their time
    s = torch.where(t == high, 0.5 * high, 0.5 * low)
    even = torch.arange(n) % 2 == 1
    z, output = case.noised(n, t, "rows"), case.output(1, "rows").expand(n, *m.output_shape)
    clean = case.clean(n, "rows", "clean")

    def step(name: str | None, t: Tensor, s: Tensor, x: Tensor, seed: int) -> Tensor:
        wide, rng = output[: len(x)], case.rng("rows", name or "default", seed)
        return m.step(wide, x, t, s, rng=rng, method=name, again=lambda y, when: wide[: len(y)])[0]

    calls: dict[str, tuple[Callable[[Tensor, Tensor, Tensor, int], Tensor], Tensor]] = {
        "perturb": (lambda t, s, x, k: m.perturb(x, t, s=s, rng=case.rng("rows", "perturb", k)).xt, clean),
        "finish": (lambda t, s, x, k: m.finish(output[: len(x)], x, t, rng=case.rng("rows", "finish", k)), z.xt),
    }
    for name in exact_methods(case):
        calls[f"step, {name or 'default'}"] = (lambda t, s, x, k, name=name: step(name, t, s, x, k), z.xt)
    worst = 0.0
    for what, (call, x) in calls.items():
        beside, alone = call(t, s, x, 0)[even], call(t[even], s[even], x[even], 1)
        gap = case.gap(beside, alone, "rows", what, paired=True)
        require(
            gap < SIGMAS,
            f"{what}: rows at {low:g} beside rows at {high:g} move otherwise than among their like, by {gap:.1f} "
            f"standard errors (bound {SIGMAS:g})",
        )
        worst = max(worst, gap)
    zero = torch.where(even, 0.0, t)
    done = m.finish(output, torch.where(expand(even, clean), clean, z.xt), zero, rng=case.rng("rows", "zero"))
    require(torch.equal(done[even], clean[even]), "finish: rows at t = 0 beside others were changed")
    return f"{', '.join(calls)}: at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("elements_have_own_times", "law", needs=("elementwise",), spec="3. Modality, by capability")
def elements_have_own_times(case: Case) -> str:
    """Each element has a clock of its own: beside elements at other readings, it is noised, weighed, moved and finished
    as among elements at the same, and held by every stepper where its two times are equal."""
    m, n = case.m, _count(case)
    if m.elements < 2:
        raise Skipped("an event is one element")
    low, high = _readings(case)
    first = (torch.arange(m.elements) % 2 == 0).reshape(m.element_shape)

    def clock(a: float, b: float, n: int = n) -> Tensor:
        pattern = torch.where(first, torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64))
        return pattern.expand(n, *m.element_shape)

    here = expand(first[None], case.clean(1, "elements own", "one"))
    x, output = case.clean(n, "elements own"), case.output(n, "elements own")
    mixed = m.perturb(x, clock(low, high), rng=case.rng("elements own", "mixed")).xt
    worst = 0.0
    for side, t in ((True, low), (False, high)):
        same = m.perturb(x, clock(t, t), rng=case.rng("elements own", "same", str(t))).xt
        keep = (here == side).expand_as(x)
        gap = case.gap(torch.where(keep, mixed, 0), torch.where(keep, same, 0), "elements own", str(side), paired=True)
        require(
            gap < SIGMAS,
            f"perturb: elements at {t:g} beside others are not noised as among their like, by {gap:.1f} standard "
            f"errors (bound {SIGMAS:g})",
        )
        worst = max(worst, gap)
    _sums(case, mixed[:16], x[:16], output[:16], lambda a, b: clock(a, b, 16))
    _moves(case, mixed, output, clock, here)
    return f"noised within {worst:.1f} standard errors (bound {SIGMAS:g}); loss and density are sums over elements"


def _sums(case: Case, xt: Tensor, x0: Tensor, output: Tensor, clock: Callable[[float, float], Tensor]) -> None:
    """What is a sum over elements, each at its own reading: f(a, b) + f(b, a) = f(a, a) + f(b, b)."""
    m, (low, high) = case.m, _readings(case)
    aux = m.perturb(x0, clock(low, high), rng=case.rng("elements own", "aux")).aux
    zero = torch.zeros_like(clock(0.0, 0.0))
    sums = {"loss": lambda t: m.loss(output, Noised(x0, xt, zero, t, aux))}
    if case.has("density"):
        sums["log_transition"] = lambda t: m.log_transition(xt, x0, t)
    for what, f in sums.items():
        crossed = f(clock(low, high)) + f(clock(high, low))
        plain = f(clock(low, low)) + f(clock(high, high))
        finite = crossed.isfinite() & plain.isfinite()
        off = float(torch.where(finite, (crossed - plain).abs() / (1 + plain.abs()), 0.0).max())
        require(
            off < 1e-8,
            f"{what}: with elements at {low:g} and {high:g} it is off the sum over the elements by {off:.2g} (bound "
            f"1e-8)",
        )


def _moves(case: Case, xt: Tensor, output: Tensor, clock: Callable[[float, float], Tensor], here: Tensor) -> None:
    """Reverse moves: held elements stay, whoever steps, and finish leaves what is at t = 0."""
    m, n, high = case.m, len(xt), _readings(case)[1]
    keep = (~here).expand_as(xt)
    for name in (None, *m.methods()):
        moved, _ = m.step(
            output,
            xt,
            clock(high, high),
            clock(0.5 * high, high),
            rng=case.rng("elements own", "hold"),
            method=name,
            again=lambda x, t: output[: len(x)],
        )
        require(torch.equal(moved[keep], xt[keep]), f"step, {name or 'default'}: an element with s = t moved")
    low, _ = _readings(case)

    def move(a: float, b: float, seed: int) -> Tensor:
        rng = case.rng("elements own", "step", seed)
        t, s = clock(a, b), clock(0.5 * a, 0.5 * b)
        return m.step(output, xt, t, s, rng=rng, again=lambda x, t: output[: len(x)])[0]

    mixed = move(low, high, 0)
    for side, t in ((True, low), (False, high)):
        own = (here == side).expand_as(xt)
        pair = (torch.where(own, mixed, 0), torch.where(own, move(t, t, 1), 0))
        gap = case.gap(*pair, "elements own", "step", str(side), paired=True)
        require(
            gap < SIGMAS,
            f"step: elements at {t:g} beside others do not move as among their like, by {gap:.1f} standard errors "
            f"(bound {SIGMAS:g})",
        )
    x = torch.where(here, xt, case.clean(n, "elements own", "still"))
    done = m.finish(output, x, clock(high, 0.0), rng=case.rng("elements own", "finish"))
    require(torch.equal(done[keep], x[keep]), "finish: an element at t = 0 was changed")


CHECKS = (rows_have_own_times, elements_have_own_times)
