"""Contract: what is refused. Bad calls, and states outside the space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from de_core.testing.case import Case
from de_core.testing.checks.forward import states_of
from de_core.testing.report import check, require

__all__ = ["CHECKS"]


@check("refusals", "contract", spec="3. Modality, validate and loss")
def refusals(case: Case) -> str:
    """A state of another shape or dtype, a class that does not exist, an objective that does not exist and a kernel run
    backwards are refused."""
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
    """States with a class that the chain does not have, by what is wrong with them."""
    states = states_of(case)
    if states is None:
        return {}
    past, below = case.data[:1].clone(), case.data[:1].clone()
    past.view(1, -1)[0, -1] = states.amax(0).reshape(-1)[-1] + 1
    below.view(1, -1)[0, 0] = -1
    return {"a class past the last": past, "a class below 0": below}


CHECKS = (refusals,)
