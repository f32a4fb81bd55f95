"""The trainer's optimiser: AdamW, and Muon for the matrices of hidden layers where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from de_core.errors import DiffuseError

__all__ = ["Optimizer"]

_MATRIX_RATE = 3.0  # a matrix's rate over AdamW's; an orthogonal step's entries are 0.2 rates in the root mean square


class Optimizer:
    """One optimiser over all parameters of a model: some matrices by Muon, everything else by AdamW.

    Muon steps along the nearest orthogonal matrix to the momentum, so that every direction of a layer learns at one
    pace (Jordan et al. 2024, "Muon: an optimizer for hidden layers"); its step is scaled to the size that AdamW's have
    (Liu et al. 2025, 2502.16982, section 2.2), times ``_MATRIX_RATE``. Parameters that need no gradient are left out.

    Args:
        model: whose parameters are stepped.
        lr, betas, weight_decay: as of AdamW.
        orthogonal: names of submodules; the matrices below them go by Muon. Meant for hidden layers: entries, heads and
            embeddings learn better by AdamW.

    Raises:
        DiffuseError: no matrix lies below one of the names.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        orthogonal: Sequence[str] = (),
    ) -> None:
        self.parameters = list(model.parameters())
        hidden: dict[int, nn.Parameter] = {}
        for below in orthogonal:
            found = {id(p): p for n, p in model.named_parameters() if n.startswith(f"{below}.") and p.ndim == 2}
            if not found:
                raise DiffuseError(f"training: orthogonal= names '{below}', below which the model has no matrix")
            hidden |= found
        rest = [p for p in self.parameters if id(p) not in hidden]
        self.parts: list[torch.optim.Optimizer] = []
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay, fused=True))
        if hidden:
            matrices = list(hidden.values())
            self.parts.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    def set_rate(self, lr: float) -> None:
        """The rate of the next step."""
        for part in self.parts:
            own = lr * _MATRIX_RATE if isinstance(part, torch.optim.Muon) else lr
            for group in part.param_groups:
                group["lr"] = own

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Step all parameters that have a gradient."""
        for part in self.parts:
            part.step()

    def state(self) -> dict[int, dict[str, Any]]:
        """Place of a parameter in the model -> what is kept of it; only of those that were stepped."""
        kept = {id(p): state for part in self.parts for p, state in part.state.items()}
        return {k: kept[id(p)] for k, p in enumerate(self.parameters) if id(p) in kept}

    def load_state(self, state: dict[int, dict[str, Any]]) -> None:
        """The inverse of `state`."""
        place = {id(p): k for k, p in enumerate(self.parameters)}
        for part in self.parts:
            own = [p for group in part.param_groups for p in group["params"]]
            found = {i: state[place[id(p)]] for i, p in enumerate(own) if place[id(p)] in state}
            part.load_state_dict({**part.state_dict(), "state": found})
