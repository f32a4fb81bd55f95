"""The weak side of guidance: what the weak calls of one block see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.plan import Plan

if TYPE_CHECKING:
    from de_core.joint import JointProcess

__all__ = ["Guide", "Query", "State"]

State = dict[str, Tensor]
Query = tuple[State, State]
"""What one network call sees: states and times by name."""


class Guide:
    """Makes the weak queries of one block.

    With something given, every condition is noised from its level to sigma, and one query serves all. With nothing
    given, one query a guided modality shows it the other sampled ones at max(sigma, their time); a modality is noised
    once a round, for all of them.

    Args:
        held: (name, k) -> (block, *element) bool: which elements of a partly given modality are held at round k.
        stream: name -> a new generator for the noise of that modality, the same at every call.
    """

    def __init__(
        self,
        joint: JointProcess,
        plan: Plan,
        held: Callable[[str, int], Tensor],
        stream: Callable[[str], torch.Generator],
    ) -> None:
        assert plan.guidance is not None  # without guidance there is no guide
        self.joint, self.plan, self.guidance, self.held, self.stream = joint, plan, plan.guidance, held, stream
        self._streams: dict[str, torch.Generator] = {}
        self._frozen: dict[str, Tensor] = {}

    def queries(self, names: Sequence[str], k: int, x: State, t: State) -> tuple[list[Query], dict[str, int]]:
        """The weak queries of round ``k`` for the guided ``names``, and which of them serves each name."""
        whole, when = dict(x), dict(t)
        if self.plan.conditions:
            for name in self.plan.conditions:
                self._condition(name, k, whole, when)
            return [(whole, when)], dict.fromkeys(names, 0)
        noised = [name for name in self.plan.sampled if self.plan.noised(name, k) and (*names,) != (name,)]
        if not noised:  # another model, at the same states and times
            return [(whole, when)], dict.fromkeys(names, 0)
        for name in noised:
            when[name] = t[name].clamp_min(self.guidance.level(name) or 0.0)
            whole[name] = self._perturb(name, x[name], when[name], t[name])
        found = [({**whole, name: x[name]}, {**when, name: t[name]}) for name in names]
        return found, {name: index for index, name in enumerate(names)}

    def _condition(self, name: str, k: int, x: State, t: State) -> None:
        """Noise one condition in place: all of a held modality, the elements of another that round ``k`` holds.

        A modality that holds its known elements under one clock for all (masked) keeps that clock.
        """
        level, start = self.guidance.level(name), t[name]
        known = self.held(name, k + 1) if name in self.plan.known else None
        if level is None:
            return
        if known is None:
            later = torch.full_like(start, level)
        elif name in self.joint.elementwise:
            later = torch.where(known, level, start)
        else:
            start, later = torch.zeros_like(start), torch.full_like(start, level)
        noised = self._frozen.get(name)
        if noised is None:
            noised = self._perturb(name, x[name], later, start)
        if self.guidance.renoise == "frozen":
            self._frozen[name] = noised
        x[name] = noised if known is None else torch.where(expand(known, noised), noised, x[name])
        t[name] = t[name] if known is not None and name not in self.joint.elementwise else later

    def _perturb(self, name: str, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The forward kernel s -> t with the modality's own random numbers: fresh ones, or those of the first time."""
        if name not in self._streams or self.guidance.renoise == "frozen":
            self._streams[name] = self.stream(name)
        return self.joint.modalities[name].perturb(x, t, s=s, rng=self._streams[name]).xt
