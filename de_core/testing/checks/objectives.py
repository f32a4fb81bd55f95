"""What is trained: each objective that a modality has is one loss a sample, and its least value is at the posterior."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Noised, rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.report import check, require

__all__ = ["CHECKS", "objectives"]

_NAMES = ("elbo", "simple", "paper-tabular", "paper-text-image")


def objectives(case: Case) -> tuple[str, ...]:
    """Those of the framework's objectives that the modality has, "elbo" the first."""
    z, output, found = case.noised(1, 0.6, "objectives"), case.output(1, "objectives"), []
    for name in _NAMES:
        try:
            case.m.loss(output, z, objective=name)
        except DiffuseError:
            continue
        found.append(name)
    return tuple(found)


@check("objectives_answer", "contract", spec="1. Words, loss and objective")
def objectives_answer(case: Case) -> str:
    """Each objective the modality has is one finite number a sample with the gradient of finite differences, and
    exactly 0 with zero gradient at t = 0."""
    m, n, h = case.m, 8, 1e-4
    names = objectives(case)
    require("elbo" in names, "loss: the objective 'elbo' is refused")
    t = torch.full((n,), case.times[1], dtype=torch.float64)
    t[: n // 2] = 0.0
    z = m.perturb(case.clean(n, "objectives"), t, rng=case.rng("objectives"))
    direction = case.output(n, "objectives", "direction")
    for name in names:
        output = case.output(n, "objectives").requires_grad_()
        loss = m.loss(output, z, objective=name)
        require(tuple(loss.shape) == (n,), f"{name}: expected one number a sample, ({n},), got {tuple(loss.shape)}")
        require(loss.requires_grad, f"{name}: the loss carries no gradient")
        (grad,) = torch.autograd.grad(loss.sum(), output)
        require(bool(loss.isfinite().all() and grad.isfinite().all()), f"{name}: loss or gradient is not finite")
        still = rows(grad)[: n // 2].abs().sum(1) + loss[: n // 2].detach().abs()
        require(bool((still == 0).all()), f"{name}: expected loss and gradient 0 at t = 0, got {still.tolist()}")
        with torch.no_grad():
            ends = [m.loss(output + side * h * direction, z, objective=name) for side in (1, -1)]
        slope, found = (ends[0] - ends[1]) / (2 * h), rows(grad * direction).sum(1)
        # central differences err by h^2/6 times a third derivative, of the size of the loss for smooth links: 1e-8
        off = float((found - slope).abs().mean() / (slope.abs().mean() + 1e-12))
        require(off < 1e-3, f"{name}: the gradient is off by {off:.2g} of finite differences (bound 1e-3)")
    return ", ".join(names)


@check("loss_least_at_posterior", "law", needs=("density",), spec="3. Modality, loss and posterior_output")
def loss_least_at_posterior(case: Case) -> str:
    """Over the data law, the loss is least at the perfect network, under "elbo" and under "simple": every slope of its
    mean there is 0, and a step to either side costs."""
    n = case.count(20_000)
    names, worst = [name for name in objectives(case) if name in ("elbo", "simple")], 0.0
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "posterior", k)
        best, wave = case.oracle(z.xt, z.t).detach(), case.waves(4, "posterior", k)(z.xt).detach()
        size = float(best.std()) if best.numel() > 1 else 1.0
        size = min(max(size, 1e-2), 1.0)
        directions = [size * case.output(1, "posterior", k, j) for j in range(6)]
        for j in (1, 3, 5):
            directions[j] = directions[j] * wave[:, j // 2].reshape(-1, *[1] * (best.ndim - 1))
        worst = max(worst, *(_slope(case, name, z, best, directions) for name in names))
    return f"{', '.join(names)}: slopes within {worst:.1f} standard errors of 0 (bound {SIGMAS:g})"


def _slope(case: Case, objective: str, z: Noised, best: Tensor, directions: list[Tensor]) -> float:
    """The largest slope of the mean loss at the posterior's outputs, in standard errors."""
    m, n, t, worst = case.m, len(best), float(z.t[0]), 0.0
    best = best.clone().requires_grad_()
    here = m.loss(best, z, objective=objective)
    (grad,) = torch.autograd.grad(here.sum(), best)
    best, here = best.detach(), here.detach()
    for j, direction in enumerate(directions):
        slope = rows(grad * direction).sum(1)
        gap = zscore(slope.mean(), slope.std() / n**0.5, 1e-6)
        require(
            gap < SIGMAS,
            f"{objective}: at {t:g} the mean loss still slopes by {float(slope.mean()):.3g} at the posterior, "
            f"{gap:.1f} standard errors from 0 (bound {SIGMAS:g})",
        )
        worst = max(worst, gap)
        if j > (1 if objective == "elbo" else 0):
            continue
        sides = [m.loss(best + side * direction, z, objective=objective) for side in (1, -1)]
        far = 0.5 * (sides[0] + sides[1]) - here
        error = float(far.std()) / n**0.5
        require(
            float(far.mean()) > -SIGMAS * error - 1e-9,
            f"{objective}: at {t:g} the mean loss falls away from the posterior",
        )
    return worst


CHECKS = (objectives_answer, loss_least_at_posterior)
