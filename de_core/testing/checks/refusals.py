"""Contract: what is refused. Bad calls, and states outside the space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from de_core.modality import rows
from de_core.testing.case import Case
from de_core.testing.checks.forward import states_of
from de_core.testing.report import check, require

__all__ = ["CHECKS"]


@check("refusals", "contract", spec="3. Modality, validate and loss")
def refusals(case: Case) -> str:
    """A state of another shape or dtype, one outside the space (a class that does not exist, NaN, off a manifold), an
    objective that does not exist and a kernel run backwards are refused."""
    m, x, half = case.m, case.data[:2], torch.full((2,), 0.5, dtype=torch.float64)
    noised = m.perturb(x, half, rng=case.rng("refusals"))
    output = case.output(2, "refusals")
    wrong: dict[str, Any] = {
        "validate: a state with one more axis": lambda: m.validate(x[..., None]),
        "validate: a state of another dtype": lambda: m.validate(x.long() if case.floating else x.double()),
        "loss: the objective 'no-such'": lambda: m.loss(output, noised, objective="no-such"),
        "perturb: t below s": lambda: m.perturb(x, half, s=half + 0.25, rng=0),
    }
    for what, state in _outside(case).items():
        wrong[f"validate: {what}"] = lambda state=state: m.validate(state)
        wrong[f"validate_noised: {what}"] = lambda state=state: m.validate_noised(state)
    for what, call in wrong.items():
        try:
            call()
        except Exception:  # any exception is a refusal; which one is the author's affair
            continue
        require(False, f"{what}: expected an error, none was raised")
    return f"{len(wrong)} bad calls and states refused"


def _outside(case: Case) -> dict[str, Tensor]:
    """States that are not in the space, by what is wrong with them."""
    x = case.data[:1]
    if case.floating:
        return {"a state that is not a number": torch.full_like(x, torch.nan), **_off(case)}
    states = states_of(case)
    if states is None:
        return {}
    top = states.amax(0)
    past, below = x.clone(), x.clone()
    past.view(1, -1)[0, -1] = top.reshape(-1)[-1] + 1
    below.view(1, -1)[0, 0] = -1
    return {"a class past the last": past, "a class below 0": below}


def _off(case: Case) -> dict[str, Tensor]:
    """States off a manifold. Where some quadratic function of the coordinates is constant over data, noised states and
    draws of the prior (a sphere, a simplex, a group of matrices), so it is over the space."""
    if case.size > 12:  # 91 quadratic functions
        return {}
    m, n = case.m, 400
    prior = m.prior(n, rng=case.rng("off", "prior")).double()
    seen = torch.cat([rows(prior), *(rows(case.noised(n, t, "off", str(t)).xt) for t in (m.t_min, *case.times))])
    if not bool(seen.isfinite().all()):
        return {}
    scale = seen.abs().amax(0).clamp_min(1e-9)
    pairs = torch.triu_indices(case.size, case.size)

    def quadratics(x: Tensor) -> Tensor:
        y = rows(x) / scale
        return torch.cat([torch.ones(len(y), 1, dtype=y.dtype), y, y[:, pairs[0]] * y[:, pairs[1]]], 1)

    _, sizes, functions = torch.linalg.svd(quadratics(seen), full_matrices=False)
    fixed = functions[sizes < 1e-5 * len(seen) ** 0.5]  # draws of the prior may be in single precision
    if len(fixed) == 0:
        return {}
    x = case.data[:1]
    noise = torch.randn(x.shape, generator=case.rng("off", "noise"), dtype=x.dtype)
    tried: dict[str, Callable[[Tensor], Tensor]] = {
        "a state 5 % too long": lambda x: 1.05 * x,
        "a state moved off by 5 %": lambda x: x + 0.05 * noise,
    }
    states = {what: move(x) for what, move in tried.items()}
    return {what: y for what, y in states.items() if float((quadratics(y) @ fixed.T).norm()) > 1e-2}


CHECKS = (refusals,)
