"""Rows of a table's process as a network draws them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from de_core import Given, JointProcess, NoisyGuidance
from de_core.joint import Model
from de_core.paths import Steps
from de_plugins.tabular.process import draw_order, draw_path

__all__ = ["STEPS", "draw_states"]

STEPS = 50
"""Network calls a row, where nothing else is said."""


def draw_states(
    joint: JointProcess | None,
    model: Model | None,
    n: int,
    held: dict[str, Given] | None,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    guidance: NoisyGuidance | None = None,
    tied: bool = False,
) -> dict[str, Tensor]:
    """Clean states by name, with "classes" (n, D) and "numbers" (n, C) even where the process has none.

    Args:
        steps: network calls a row, at most. tied: whether all clocks fall together, as in a network that was trained
            so; else, where there are calls enough, one modality after the other (``draw_order``).
    """
    x: dict[str, Tensor] = {}
    if joint is not None and model is not None:
        # "systematic" reveals as evenly as can be: one column at a time while there are no more columns than steps,
        # and then each is drawn given all that came before it
        methods = {name: "systematic" for name in joint.modalities if name == "classes"}
        noisy = any(given.levels()[1] > 0 for given in (held or {}).values())
        if noisy and "numbers" in joint.modalities:  # the flow has no law over two times
            methods["numbers"] = "ancestral"
        order = draw_order(joint.modalities)
        tied = tied or steps < len(order)
        x = joint.sample(
            model,
            n,
            rng=seed,
            given=held,
            steps=steps if tied else _shares(joint, order, steps, flows=not noisy),
            methods=methods,
            guidance=guidance,
            path=draw_path(order, tied),
            progress=progress,
        )
    return {"classes": torch.zeros(n, 0, dtype=torch.int64), "numbers": torch.zeros(n, 0)} | x


def _shares(joint: JointProcess, order: tuple[str, ...], steps: int, flows: bool) -> dict[str, Steps]:
    """The calls of each modality: at most one a class column and an even share; the others take the rest, but a single
    number, where it ``flows``, a third of all, which lie closer at low noise, at t = u^2: along a line so many are
    enough.

    What is given is not looked at: the number of calls would hang on all rows, and a row with it on the others.
    """
    if len(order) == 1:
        return {order[0]: steps}
    counts: dict[str, Steps] = {}
    left = steps
    for k, name in enumerate(order):
        columns, most = joint.modalities[name].event_shape[0], steps
        alone = name == "numbers" and columns == 1 and flows
        if name == "classes":
            most = columns
        elif alone:
            most = max(1, steps // 3)
        count = min(left // (len(order) - k), most)
        counts[name] = [(1 - i / count) ** 2 for i in range(count)] if alone else count
        left -= count
    return counts
