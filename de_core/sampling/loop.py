"""The joint loop: one block of rows, all clocks from 1 down to 0.

Each round is one network call at the present states and times (two where guidance is active); every sampled modality
then moves on its own grid by its own stepper, from the same frozen state. The last round is ``finish``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from de_core.modality import expand
from de_core.sampling.plan import Given, Plan

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["run_block"]

State = dict[str, Tensor]


def run_block(joint: JointProcess, model: Model, plan: Plan, rows: Tensor, rng: torch.Generator) -> State:
    """The samples of one block.

    Args:
        rows: which rows of the given values the block holds, (block,) int64; the last row repeats where the block is
        cut.
        rng: the block's own stream.
    """
    return _Block(joint, model, plan, rows, rng).run()


class _Block:
    """The state of one block while it runs."""

    def __init__(self, joint: JointProcess, model: Model, plan: Plan, rows: Tensor, rng: torch.Generator) -> None:
        self.joint, self.model, self.plan, self.rng = joint, model, plan, rng
        self.size, self.device = len(rows), rng.device
        self.held = {name: g.value[rows].to(self.device) for name, g in plan.held.items()}
        self.known = {name: self._cut(name, g, rows) for name, g in plan.known.items()}
        self.grids = {name: joint.modalities[name].grid(plan.steps).tolist() for name in plan.sampled}
        self.x: State = {}
        for name, modality in joint.modalities.items():
            self.x[name] = self.held[name] if name in self.held else modality.prior(self.size, rng=rng)
        self.t = {name: self._full(name, plan.held[name].level) for name in self.held}
        for name in plan.sampled:
            self.t[name] = self._clock(name, self.grids[name][0])
            self._hold(name)

    def _cut(self, name: str, g: Given, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The known value and which elements of it are known, (block, *event) and (block, *element)."""
        assert g.known is not None  # the plan sorted it by this
        shape = self.joint.modalities[name].element_shape
        known = g.known if g.known.ndim > len(shape) else g.known.expand(self.plan.n, *shape)
        return g.value[rows].to(self.device), known[rows].to(self.device)

    def _full(self, name: str, t: float) -> Tensor:
        """A clock reading for each row, or each element where the clock is elementwise."""
        shape = (self.size, *(self.joint.modalities[name].element_shape if name in self.joint.elementwise else ()))
        x = self.x[name]
        return torch.full(shape, t, dtype=x.dtype if x.is_floating_point() else None, device=self.device)

    def _clock(self, name: str, t: float) -> Tensor:
        """The reading ``t``, with 0 at the known elements of an elementwise clock."""
        full = self._full(name, t)
        if name in self.known and name in self.joint.elementwise:
            full = torch.where(self.known[name][1], 0.0, full)
        return full

    def _hold(self, name: str) -> None:
        """Put the known part of a modality where it belongs at the present time."""
        if name not in self.known:
            return
        value, known = self.known[name]
        if self.joint.replaces(name):
            value = self.joint.modalities[name].perturb(value, self.t[name], rng=self.rng).xt
        self.x[name] = torch.where(expand(known, value), value, self.x[name])

    def run(self) -> State:
        carry: dict[str, Any] = dict.fromkeys(self.plan.sampled)
        for k in range(self.plan.steps - 1):
            passes = self.plan.passes(self.joint)
            for p in range(passes):
                before = dict(self.t)
                carry = self._step({name: grid[k + 1] for name, grid in self.grids.items()}, carry, first=k == p == 0)
                if p < passes - 1:
                    self._back(before)
        self._finish()
        return self.x

    def _back(self, before: State) -> None:
        """From the present time back to ``before`` by the forward kernel."""
        for name in self.plan.sampled:
            modality = self.joint.modalities[name]
            self.x[name] = modality.perturb(self.x[name], before[name], s=self.t[name], rng=self.rng).xt
            self.t[name] = before[name]
            self._hold(name)

    def _step(self, ahead: dict[str, float], carry: dict[str, Any], *, first: bool) -> dict[str, Any]:
        strong = self.joint.call(self.model, self.x, self.t, check=first)
        weak = self._weak()
        x, t, after = dict(self.x), dict(self.t), {}
        for name in self.plan.sampled:
            s = self._clock(name, ahead[name])
            x[name], after[name] = self.joint.modalities[name].step(
                strong[name],
                self.x[name],
                self.t[name],
                s,
                rng=self.rng,
                method=self.plan.methods.get(name),
                weak=weak[name][0][name] if name in weak else None,
                weight=self.plan.guidance.weight if self.plan.guidance and name in weak else 1.0,
                again=self._again(name, weak[name][1:] if name in weak else None),
                carry=carry[name],
            )
            t[name] = s
        self.x, self.t = x, t
        for name in self.known:
            self._hold(name)
        return after

    def _finish(self) -> None:
        strong = self.joint.call(self.model, self.x, self.t, check=True)
        weak, x = self._weak(), dict(self.x)
        for name in self.plan.sampled:
            x[name] = self.joint.modalities[name].finish(
                strong[name],
                self.x[name],
                self.t[name],
                rng=self.rng,
                weak=weak[name][0][name] if name in weak else None,
                weight=self.plan.guidance.weight if self.plan.guidance and name in weak else 1.0,
            )
        self.x = x
        for name, (value, known) in self.known.items():
            self.x[name] = torch.where(expand(known, value), value, self.x[name])

    def _again(self, name: str, weak: tuple[State, State] | None) -> Callable[[Tensor, Tensor], Any]:
        """A second network call for one modality at another state and time; all else, the weak condition too, is as
        it was."""
        x, t = self.x, self.t

        def again(xi: Tensor, ti: Tensor) -> Any:
            output = self.joint.call(self.model, {**x, name: xi}, {**t, name: ti})[name]
            if weak is None:
                return output
            return output, self.joint.call(self.model, {**weak[0], name: xi}, {**weak[1], name: ti})[name]

        return again

    def _weak(self) -> dict[str, tuple[State, State, State]]:
        """The weak call of every guided modality: (outputs, the states, the times that the network saw).

        With something given, the given modalities are noised to sigma and one call serves all; with nothing given,
        one call a guided modality noises the others to max(sigma, their time). No call and no draw where nothing is
        guided.
        """
        guidance = self.plan.guidance
        if guidance is None:
            return {}
        active = [name for name in self.plan.sampled if guidance.active(float(self.t[name].max()))]
        if not active:
            return {}
        if self.held:
            call = self._noised(self.held)
            return dict.fromkeys(active, call)
        return {name: self._noised(other for other in self.plan.sampled if other != name) for name in active}

    def _noised(self, names: Any) -> tuple[State, State, State]:
        assert self.plan.guidance is not None  # only asked for under guidance
        x, t = dict(self.x), dict(self.t)
        for name in names:
            level = self._full(name, self.plan.guidance.level(name)).maximum(self.t[name])
            x[name] = self.joint.modalities[name].perturb(x[name], level, s=t[name], rng=self.rng).xt
            t[name] = level
        return self.joint.call(self.model, x, t), x, t
