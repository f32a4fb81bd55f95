"""Rows of a table's process as a network draws them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from de_core import Given, JointProcess, NoisyGuidance
from de_core.joint import Model

__all__ = ["draw_states"]


def draw_states(
    joint: JointProcess | None,
    model: Model | None,
    n: int,
    held: dict[str, Given] | None,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    guidance: NoisyGuidance | None = None,
) -> dict[str, Tensor]:
    """Clean states by name, with "classes" (n, D) and "numbers" (n, C) even where the process has none."""
    x: dict[str, Tensor] = {}
    if joint is not None and model is not None:
        # "systematic" reveals as evenly as can be: one column at a time while there are no more columns than steps,
        # and then each is drawn given all that came before it
        methods = {name: "systematic" for name in joint.modalities if name == "classes"}
        noisy = any(given.levels()[1] > 0 for given in (held or {}).values())
        if noisy and "numbers" in joint.modalities:  # the flow has no law over two times
            methods["numbers"] = "ancestral"
        x = joint.sample(
            model,
            n,
            rng=seed,
            given=held,
            steps=steps,
            methods=methods,
            guidance=guidance,
            progress=progress,
        )
    return {"classes": torch.zeros(n, 0, dtype=torch.int64), "numbers": torch.zeros(n, 0)} | x
