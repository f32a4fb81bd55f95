"""Law: the implicit form. It trains what the denoising form trains, by gradients of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.report import check, require

__all__ = ["CHECKS"]


@check("implicit_is_denoising", "law", needs=("implicit",), spec="2. Theory")
def implicit_is_denoising(case: Case) -> str:
    """The implicit form differs from the denoising form by what the output does not enter, and random probes leave its
    mean as it is."""
    m, worst = case.m, 0.0
    n = case.count(4000) if case.size <= 8 else 400
    t = case.times[1]
    z = case.noised(n, t, "implicit")
    exact = 0 if case.size <= 24 else 1
    heads = [case.head("implicit", j) for j in range(3)]
    implicit = [m.implicit(h, z.xt, z.t, rng=case.rng("implicit", "exact"), probes=exact).detach() for h in heads]
    loss = [m.loss(h(z.xt), z).detach() for h in heads]
    for j in (1, 2):
        off = (implicit[j] - implicit[0]) - (loss[j] - loss[0])
        gap = zscore(off.mean(), off.std() / n**0.5)
        require(
            gap < SIGMAS,
            f"between two heads the implicit form moves by {float((implicit[j] - implicit[0]).mean()):.3g}, the loss "
            f"by {float((loss[j] - loss[0]).mean()):.3g}; {gap:.1f} standard errors (bound {SIGMAS:g})",
        )
        worst = max(worst, gap)
    if exact == 0:
        probed = m.implicit(heads[0], z.xt, z.t, rng=case.rng("implicit", "probe"), probes=1).detach()
        off = probed - implicit[0]
        gap = zscore(off.mean(), off.std() / n**0.5)
        require(gap < SIGMAS, f"random probes move the implicit form by {gap:.1f} standard errors (bound {SIGMAS:g})")
        worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("implicit_trains", "law", needs=("implicit",), spec="3. Modality, by capability")
def implicit_trains(case: Case) -> str:
    """The gradient of the implicit form in the network is that of finite differences: nothing on the way is detached;
    and at t = 0 the form is exactly 0 with zero gradient."""
    m, n, h = case.m, 16, 1e-4
    t = torch.full((n,), case.times[1], dtype=torch.float64)
    t[: n // 2] = 0.0
    xt = m.perturb(case.clean(n, "trains"), t, rng=case.rng("trains")).xt
    heads = [case.head("trains", j) for j in (0, 1)]
    probes = 0 if case.size <= 24 else 1

    def value(weight: Tensor) -> Tensor:
        def head(x: Tensor) -> Tensor:
            return heads[0](x) + weight * heads[1](x)

        return m.implicit(head, xt, t, rng=3, probes=probes)

    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    here = value(weight)
    require(here.requires_grad, "implicit: it carries no gradient in the network")
    live, still = here[n // 2 :], here[: n // 2]
    require(bool((still == 0).all()), f"implicit: expected exactly 0 at t = 0, got {still.tolist()}")
    (grad,) = torch.autograd.grad(live.sum(), weight, retain_graph=True)
    (zero,) = torch.autograd.grad(still.sum(), weight, allow_unused=True)
    require(zero is None or float(zero) == 0, "implicit: at t = 0 its gradient is not exactly 0")
    ends = [rows(value(torch.tensor(0.7 + side * h, dtype=torch.float64)).detach())[n // 2 :].sum() for side in (1, -1)]
    # central differences err by h^2/6 times a third derivative, of the size of the form for smooth links: 1e-8
    slope = float((ends[0] - ends[1]) / (2 * h))
    off = abs(float(grad) - slope) / (abs(slope) + 1e-3)
    require(off < 1e-3, f"implicit: its gradient is {float(grad):.4g}, finite differences {slope:.4g} (bound 1e-3)")
    return f"gradient off finite differences by {off:.1g} (bound 1e-3)"


CHECKS = (implicit_is_denoising, implicit_trains)
