"""The joint loop: blocks of rows, each from all noise down to all data along the plan's path.

Each round is one network call at the present states and times, joined with the weak one where guidance is in force;
every modality whose clock falls in it then moves by its own stepper, from the same frozen state. Its last move is
``finish``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import expand
from de_core.rng import stream
from de_core.sampling.guide import Guide, Query, State
from de_core.sampling.plan import Given, Plan, Round
from de_core.sampling.state import SampleState

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["run"]

Callback = Callable[[SampleState], None]


def run(
    joint: JointProcess,
    model: Model,
    plan: Plan,
    *,
    seed: int,
    device: torch.device,
    first_row: int = 0,
    callback: Callback | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """The sampled modalities of all rows, block after block, each from its own stream of (seed, block index).

    Memory: the sample itself and one block at a time, whose network calls hold at most two blocks of rows.

    Raises:
        DiffuseError: ``first_row`` is no multiple of the block; a network that answers wrongly, as ``call``.
    """
    if isinstance(first_row, bool) or not isinstance(first_row, int) or first_row < 0 or first_row % joint.block:
        raise DiffuseError(f"first_row: expected a multiple of the block, {joint.block}, got {first_row!r}")
    out: State = {}
    for start in range(0, plan.n, joint.block):
        rows = range(start, min(start + joint.block, plan.n))
        x = _Block(joint, model, plan, rows, seed, first_row, device, callback).run()
        for name in plan.sampled:
            if name not in out:
                out[name] = x[name].new_empty(plan.n, *x[name].shape[1:])
            out[name][rows.start : rows.stop] = x[name][: len(rows)]
        if progress is not None:
            progress(rows.stop, plan.n)
    return out


class _Block:
    """The state of one block while it runs. It is always worked whole: the last row's condition repeats."""

    def __init__(
        self,
        joint: JointProcess,
        model: Model,
        plan: Plan,
        rows: range,
        seed: int,
        first_row: int,
        device: torch.device,
        callback: Callback | None,
    ) -> None:
        self.joint, self.model, self.plan, self.device, self.callback = joint, model, plan, device, callback
        self.rows, self.first_row, self.size = rows, first_row, joint.block
        number = (first_row + rows.start) // joint.block
        self.rng = stream(seed, "sample", number, device=device)
        index = torch.arange(rows.start, rows.start + self.size).clamp_max(plan.n - 1)
        self.known = {name: self._cut(name, g, index) for name, g in plan.known.items()}
        self.guide, self.joins = None, True
        if plan.guidance is not None:
            self.guide = Guide(
                joint, plan, self._held, lambda name: stream(seed, "guidance", number, name, device=device)
            )
        self.x: State = {}
        for name, modality in joint.modalities.items():
            held = plan.held.get(name)
            self.x[name] = modality.prior(self.size, rng=self.rng) if held is None else held.value[index].to(device)
        self.shared = {name: self._table(name) for name in plan.sampled if name not in joint.elementwise}
        self.t: State = {name: self._full(name, g.levels()[0]) for name, g in plan.held.items()}
        for name in plan.sampled:
            self.t[name] = self._clock(name, 0)
            self._hold(name, 0)

    def _cut(self, name: str, g: Given, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The known value (block, *event), which elements of it are known and at which level, (block, *element)."""
        assert g.known is not None  # the plan sorted it by this
        whole = (self.plan.n, *self.joint.modalities[name].element_shape)
        level = torch.as_tensor(g.level, dtype=g.value.dtype if g.value.is_floating_point() else None)
        known, level = g.known.expand(whole), level.expand(whole)
        return g.value[index].to(self.device), known[index].to(self.device), level[index].to(self.device)

    # --- clocks -----------------------------------------------------------------------------------------------------

    def _dtype(self, name: str) -> torch.dtype:
        x = self.x[name]
        return x.dtype if x.is_floating_point() else torch.get_default_dtype()

    def _full(self, name: str, t: float) -> Tensor:
        """A clock reading for each row, or each element where the clock is elementwise."""
        shape = (self.size, *(self.joint.modalities[name].element_shape if name in self.joint.elementwise else ()))
        return torch.full(shape, t, dtype=self._dtype(name), device=self.device)

    def _table(self, name: str) -> tuple[Tensor, ...]:
        """The readings of a clock that all elements share, (block,) for each round and after the last.

        No element is known at t = 1, so a modality that holds its known elements under it starts a little below.
        """
        readings = torch.tensor(self.plan.readings[name], dtype=self._dtype(name), device=self.device)
        if name in self.known and not self.joint.replaces(name):
            readings = readings.clamp_max(1 - self.joint.modalities[name].t_min)
        return readings[:, None].repeat(1, self.size).unbind(0)

    def _clock(self, name: str, k: int) -> Tensor:
        """The reading before round ``k``, at most their level at the known elements of an elementwise clock."""
        if name in self.shared:
            return self.shared[name][k]
        full = self._full(name, self.plan.readings[name][k])
        if name not in self.known:
            return full
        _, known, level = self.known[name]
        return torch.where(known, torch.minimum(full, level.to(full)), full)

    def _held(self, name: str, k: int) -> Tensor:
        """Which elements are held at round ``k``, (block, *element): the known ones, until the clock reaches their
        level."""
        _, known, level = self.known[name]
        return known & (level <= self.plan.readings[name][k])

    def _hold(self, name: str, k: int) -> None:
        """Put the known part of a modality where it belongs before round ``k``."""
        if name not in self.known:
            return
        value, known = self.known[name][0], self._held(name, k)
        if self.joint.replaces(name) and self.plan.readings[name][k] > 0:
            value = self.joint.modalities[name].perturb(value, self.t[name], rng=self.rng).xt
        self.x[name] = torch.where(expand(known, value), value, self.x[name])

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> State:
        carry: dict[str, Any] = dict.fromkeys(self.plan.sampled)
        self._report(0)
        for k, moves in enumerate(self.plan.rounds):
            ends = k in (0, len(self.plan.rounds) - 1)
            passes = self.plan.passes(self.joint, [name for name in moves.moving if name not in moves.ending])
            for p in range(passes):
                self._round(k, moves, carry, check=ends and p == 0)
                if p < passes - 1:
                    self._back(k, moves)
            self._report(k + 1)
        return self.x

    def _report(self, step: int) -> None:
        if self.callback is not None:
            rows = range(self.first_row + self.rows.start, self.first_row + self.rows.stop)
            x, t = ({name: v[: len(rows)] for name, v in part.items()} for part in (self.x, self.t))
            self.callback(SampleState(rows, step, len(self.plan.rounds), x, t))

    def _back(self, k: int, moves: Round) -> None:
        """From the time after round ``k`` back to the one before by the forward kernel."""
        for name in moves.moving:
            before = self._clock(name, k)
            self.x[name] = self.joint.modalities[name].perturb(self.x[name], before, s=self.t[name], rng=self.rng).xt
            self.t[name] = before
            self._hold(name, k)

    def _round(self, k: int, moves: Round, carry: dict[str, Any], *, check: bool) -> None:
        """One network call, the moves that follow from it, and the known parts put back."""
        weak, serving = [], {}
        if moves.weights and self.guide is not None:
            weak, serving = self.guide.queries(tuple(moves.weights), k, self.x, self.t)
        strong, *others = self._ask((self.x, self.t), weak, check)
        x, t = dict(self.x), dict(self.t)
        for name in moves.moving:
            guided = name in serving
            modality, output, weight = self.joint.modalities[name], strong[name], moves.weights.get(name, 1.0)
            other = others[serving[name]][name] if guided else None
            t[name] = self._clock(name, k + 1)
            if name in moves.ending:
                x[name] = modality.finish(output, self.x[name], self.t[name], rng=self.rng, weak=other, weight=weight)
                continue
            x[name], carry[name] = modality.step(
                output,
                self.x[name],
                self.t[name],
                t[name],
                rng=self.rng,
                method=self.plan.methods.get(name),
                weak=other,
                weight=weight,
                again=self._again(name, weak[serving[name]] if guided else None),
                carry=carry[name],
            )
        self.x, self.t = x, t
        for name in self.known:
            if name in moves.moving:
                self._hold(name, k + 1)

    # --- network calls ----------------------------------------------------------------------------------------------

    def _again(self, name: str, weak: Query | None) -> Callable[[Tensor, Tensor], Any]:
        """A second network call for one modality at another state and time; all else, the weak condition too, is as
        it was."""
        x, t = self.x, self.t

        def again(xi: Tensor, ti: Tensor) -> Any:
            here = ({**x, name: xi}, {**t, name: ti})
            if weak is None:
                return self.joint.call(self.model, *here)[name]
            strong, other = self._ask(here, [({**weak[0], name: xi}, {**weak[1], name: ti})])
            return strong[name], other[name]

        return again

    def _ask(self, strong: Query, weak: list[Query], check: bool = False) -> list[State]:
        """The outputs at the strong query and at the weak ones.

        Queries of one model are joined in pairs along the batch; where the memory does not suffice, one by one.
        """
        other = self.plan.guidance.model if self.plan.guidance is not None else None
        if other is not None:
            found = [self.joint.call(self.model, *strong, check=check)]
            return found + [self.joint.call(other, *query, check=check) for query in weak]
        queries, found = [strong, *weak], []
        for first in range(0, len(queries), 2):
            found += self._joined(queries[first : first + 2], check)
        return found

    def _joined(self, queries: list[Query], check: bool) -> list[State]:
        if len(queries) == 2 and self.joins:
            (x, t), (y, u) = queries
            try:
                both = self.joint.call(self.model, _cat(x, y), _cat(t, u), check=check)
                halves = slice(0, self.size), slice(self.size, None)
                return [{name: output[half] for name, output in both.items()} for half in halves]
            except torch.OutOfMemoryError:
                self.joins = False
        return [self.joint.call(self.model, *query, check=check) for query in queries]


def _cat(a: State, b: State) -> State:
    return {name: torch.cat([a[name], b[name]]) for name in a}
