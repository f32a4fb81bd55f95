"""Numerics: the ends of time, and what a step makes of a network's error."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.modality import Noised
from de_core.testing.case import Case
from de_core.testing.checks.reverse import exact_methods
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("finite_at_ends", "numerics", spec="3. Modality, ends of time")
def finite_at_ends(case: Case) -> str:
    """At 0, below and at t_min, just before 1 and at 1, with outputs large and small and in float32 too: losses,
    gradients, flows, steps short and long, guided ones and last moves are finite."""
    m, n = case.m, 16 if case.dear else 64
    readings = (0.0, 0.1 * m.t_min, m.t_min, 1 - 1e-6, 1.0)
    for dtype in (torch.float64, torch.float32):
        for t in readings:
            x = case.clean(n, "ends")
            x = x.to(dtype) if case.floating else x
            when = torch.full((n,), t, dtype=dtype)
            z = m.perturb(x, when, rng=case.rng("ends", str(t)))
            for scale in (0.0, 1.0, 10.0):
                what = f"t = {t:.7g}, {str(dtype).removeprefix('torch.')}, outputs of size {scale:g}"
                output = case.output(n, "ends", scale=scale, dtype=dtype).requires_grad_()
                loss = m.loss(output, z)
                require(loss.isfinite().all(), f"loss: not finite at {what}")
                (grad,) = torch.autograd.grad(loss.sum(), output)
                require(grad.isfinite().all(), f"loss: its gradient is not finite at {what}")
                with torch.no_grad():
                    for name, x in _moves(case, output, z, when, every=scale == 10.0).items():
                        require(x.isfinite().all(), f"{name}: not finite at {what}")
    return f"{len(readings)} times, three sizes, two precisions"


def _moves(case: Case, output: Tensor, z: Noised, t: Tensor, *, every: bool) -> dict[str, Tensor]:
    """What leads on from x_t: last moves and, where t is not below t_min, the flow and short steps; with ``every``, all
    the way and guided, too."""
    m = case.m
    found = {"finish": m.finish(output, z.xt, t, rng=1)}
    found["finish, guided"] = m.finish(output, z.xt, t, rng=1, weak=-output, weight=3.0)
    if float(t[0]) < m.t_min:
        return found
    if case.has("ode"):
        found["velocity"] = m.velocity(output, z.xt, t)  # type: ignore[attr-defined] # capability "ode"
    far = torch.full_like(t, m.t_min).minimum(t)
    for method in (None, *m.methods()):
        name = f"step, {method or 'default'}"
        for how, s in (("", 0.9 * t), (", all the way", far))[: 2 if every else 1]:
            found[name + how] = m.step(output, z.xt, t, s, rng=1, method=method, again=lambda x, t: output[: len(x)])[0]
        if not every:
            continue
        found[f"{name}, guided"] = m.step(
            output,
            z.xt,
            t,
            0.9 * t,
            rng=1,
            method=method,
            weak=-output,
            weight=3.0,
            again=lambda x, t: (output[: len(x)], -output[: len(x)]),
        )[0]
    return found


@check("error_gain", "numerics", needs=("density",), spec="3. Modality, step")
def error_gain(case: Case) -> str:
    """A step does not blow up a network's error: an error of one part in the output moves the state by at most two
    parts, at every reading of the grid."""
    if not case.floating:
        raise Skipped("errors of a chain change chances, which are bounded")
    m, n = case.m, 64 if case.dear else 200
    grid = [float(r) for r in m.grid(32)]
    worst, at = 0.0, ""
    for k, (now, ahead) in enumerate(zip(grid, [*grid[1:], None], strict=True)):
        z = case.noised(n, now, "gain", k)
        exact = case.oracle(z.xt, z.t)
        size = float(exact.double().square().mean().sqrt()) + 1e-3
        bumped = exact + 0.01 * size * case.output(n, "gain", k)
        spread = max(float(z.xt.double().square().mean().sqrt()), float(case.atoms.square().mean().sqrt()))
        for method in exact_methods(case) if ahead is not None else ("finish",):
            ends = []
            for output in (exact, bumped):
                if ahead is None:
                    ends.append(m.finish(output, z.xt, z.t, rng=2))
                    continue
                s = torch.full((n,), ahead, dtype=torch.float64)
                move = m.step(output, z.xt, z.t, s, rng=2, method=method, again=lambda x, t, o=output: o)
                ends.append(move[0])
            moved = (ends[1] - ends[0]).reshape(n, -1).square().mean(1).sqrt().median()
            gain = float(moved) / spread / 0.01
            if gain > worst:
                worst, at = gain, f"{method or 'default'} at t = {now:.3g}"
    require(worst < 2, f"{at}: an error of the output grows {worst:.3g} times in one step (bound 2)")
    return f"at most {worst:.2g} ({at}; bound 2)"


CHECKS = (finite_at_ends, error_gain)
