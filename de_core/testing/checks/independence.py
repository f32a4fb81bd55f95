"""Contract: no sample sees another, and no call sees the calls before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from de_core.modality import Noised, expand
from de_core.testing.case import Case, pick
from de_core.testing.checks.objectives import objectives
from de_core.testing.report import check, require

__all__ = ["CHECKS"]


@check("batch_independence", "contract", spec="3. Modality, loss")
def batch_independence(case: Case) -> str:
    """No sample sees another: a row alone gives what it gives in the batch."""
    m, n = case.m, 6
    t = torch.linspace(0.2, 0.9, n, dtype=torch.float64)
    z, output = case.noised(n, t, "independence"), case.output(n, "independence")
    worst, everything = 0.0, torch.arange(n)
    for rows in ([0], [4], [5, 1, 1]):
        i = torch.tensor(rows)
        part = pick(z, i)
        pairs = {"loss": (m.loss(output, z)[i], m.loss(output[i], part))}
        pairs["score"] = (m.score(output, z.xt, t)[i], m.score(output[i], part.xt, t[i]))
        if case.has("density"):
            pairs["log_transition"] = (m.log_transition(z.xt, z.x0, t)[i], m.log_transition(part.xt, part.x0, t[i]))
        for what, call in _by_row(case).items():
            pairs[what] = (call(z, output, everything)[i], call(part, output[i], i))
        for what, (whole, alone) in pairs.items():
            require(whole.shape == alone.shape, f"{what}: another shape for a part of the batch, {tuple(alone.shape)}")
            whole, alone = whole.detach(), alone.detach()
            gap = float(torch.where(whole == alone, 0.0, (whole - alone).abs() / (1 + whole.abs())).max())
            require(gap < 1e-8, f"{what}: a row differs by {gap:.2g} when the batch is another (bound 1e-8)")
            worst = max(worst, gap)
    _later_rows(case)
    return f"rows alone differ by at most {worst:.1g} (bound 1e-8); steps of early rows do not see late ones"


def _by_row(case: Case) -> dict[str, Callable[[Noised, Tensor, Tensor], Tensor]]:
    """What else answers row by row, as functions of a draw, the outputs and which rows these are."""
    m = case.m
    found: dict[str, Callable[[Noised, Tensor, Tensor], Tensor]] = {}
    for objective in objectives(case):
        found[f"loss, {objective}"] = lambda z, o, i, name=objective: m.loss(o, z, objective=name)
    if case.has("generator"):
        wave = case.waves(1, "independence")
        found["generator"] = lambda z, o, i: m.generator(z.t).apply(lambda x: wave(x)[:, 0], z.xt)
    if case.has("density"):
        weights = torch.rand(6, len(case.atoms), generator=case.rng("independence", "weights"), dtype=torch.float64)
        weights = weights / weights.sum(1, keepdim=True)
        found["posterior_output"] = lambda z, o, i: m.posterior_output(z.xt, z.t, case.atoms, weights[i])
    if case.has("likelihood"):
        low = case.noised(6, m.t_min, "independence", "low")
        found["prior_kl"] = lambda z, o, i: m.prior_kl(z.x0)
        found["reconstruction"] = lambda z, o, i: m.reconstruction(o, pick(low, i))
    if case.has("ode"):
        found["velocity"] = lambda z, o, i: m.velocity(o, z.xt, z.t)  # type: ignore[attr-defined] # capability "ode"
    if case.has("implicit") and case.size <= 24:
        head = case.head("independence")
        found["implicit"] = lambda z, o, i: m.implicit(head, z.xt, z.t, rng=0, probes=0)
    return found


def _later_rows(case: Case) -> None:
    """What stands in the last rows of a batch moves nothing in the rows before them, whatever is drawn."""
    m, n = case.m, 8
    z, output = case.noised(n, 0.6, "later"), case.output(n, "later")
    other = case.noised(n, 0.6, "later", "other")
    late = torch.arange(n) >= n // 2
    x0, xt = (torch.where(expand(late, a), b, a) for a, b in ((z.x0, other.x0), (z.xt, other.xt)))
    bent = torch.where(expand(late, output), 5 * case.output(n, "later", "other"), output)

    def step(x: Tensor, o: Tensor, method: str | None) -> Tensor:
        return m.step(o, x, z.t, 0.8 * z.t, rng=3, method=method, again=lambda y, t: o)[0]

    pairs = {
        "perturb": (m.perturb(z.x0, z.t, rng=3).xt, m.perturb(x0, z.t, rng=3).xt),
        "finish": (m.finish(output, z.xt, z.t, rng=3), m.finish(bent, xt, z.t, rng=3)),
    }
    for name in (None, *m.methods()):
        pairs[f"step, {name or 'default'}"] = (step(z.xt, output, name), step(xt, bent, name))
    for what, (a, b) in pairs.items():
        gap = float((a[: n // 2] - b[: n // 2]).double().abs().max())
        require(gap < 1e-8, f"{what}: rows move by {gap:.2g} when the rows after them change (bound 1e-8)")


@check("no_hidden_state", "contract", spec="3. Modality")
def no_hidden_state(case: Case) -> str:
    """What a method returns depends on its arguments alone: not on the calls before it, and on no draw of its own."""
    m, n = case.m, 6
    t = torch.linspace(0.2, 0.9, n, dtype=torch.float64)
    z, output = case.noised(n, t, "hidden"), case.output(n, "hidden")
    calls: dict[str, Callable[[], Tensor]] = {
        "loss": lambda: m.loss(output, z),
        "score": lambda: m.score(output, z.xt, t),
    }
    calls["step"] = lambda: m.step(output, z.xt, t, t / 2, rng=5)[0]
    for name in m.methods():
        calls[f"step, {name}"] = lambda name=name: m.step(
            output, z.xt, t, t / 2, rng=5, method=name, again=lambda x, t: output
        )[0]
    calls["perturb"] = lambda: m.perturb(z.x0, t, rng=5).xt
    calls["finish"] = lambda: m.finish(output, z.xt, t, rng=5)
    if case.has("density"):
        calls["log_transition"] = lambda: m.log_transition(z.xt, z.x0, t)
    first = {what: call() for what, call in calls.items()}
    for k in range(3):
        other = case.noised(n, 1 - t, "hidden", k)
        m.loss(case.output(n, "hidden", k), other)
        for what, call in calls.items():
            require(torch.equal(call(), first[what]), f"{what}: the same call returned another value later")
    return f"{', '.join(calls)}"


CHECKS = (batch_independence, no_hidden_state)
