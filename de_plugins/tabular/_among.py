"""Columns drawn from a set of their values, under the law of the model and without rejection.

The columns that have a set are drawn first, one by one, while all others are noise (t = 1) or given; the rest of the
row is then drawn given them. For a class the chances of its column are known, and are cut to the set. A number c with
all else fixed moves on the probability flow, and in one dimension paths of a flow do not cross: c = F(z) increases in
its noise z ~ N(0, 1). So a <= c <= b just where F^-1(a) <= z <= F^-1(b), which is run forward in time, and z is drawn
from the normal law inside.

With P_j the chance that column j lies in its set, given those drawn before it, a row drawn so has the law p(x | all in
their sets) up to the factor 1/(P_2 ... P_k). One set is exact. For several the rows of a block are drawn again in
proportion to P_2 ... P_k (sampling/importance resampling, whose error falls like one over the rows of the block), and
then each of the columns once more given the others, which keeps the law and parts the copies (resample-move, Gilks and
Berzuini 2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from de_core import JointProcess
from de_core.families import Diffusion
from de_core.joint import Model

__all__ = ["Among", "draw_among"]

State = dict[str, Tensor]

_LEAST = 1e-30  # chance left to what the set allows, so that there is something to draw where the model gives it none
_EDGE = 1e-12  # of a uniform draw, from 0 and 1: the normal quantile stays below 7.1


@attrs.frozen(eq=False)
class Among:
    """The set of one column, in the model's terms.

    Args:
        place: of its class variable among all, or -1: the column itself, or the gate of its number.
        chances: (classes,) float64: the share of each class that lies in the set; empty without a class variable.
        number: of its number among all, or -1. It is there where the class is 0.
        scores: (m, 2) float64 increasing: the stretches of scores in the set; an end may be infinite.
    """

    place: int
    chances: Tensor
    number: int
    scores: Tensor


@torch.no_grad()
def draw_among(
    joint: JointProcess, model: Model, x: State, t: State, sets: Sequence[Among], steps: int, rng: torch.Generator
) -> list[Tensor]:
    """Draw each column that has a set, in place in (x, t), for a block of rows.

    Args:
        joint: of "classes" and "numbers", with elementwise clocks.
        x, t: states and clocks: what is given at its level, all else noise at 1.
        sets: one a column.
        steps: intervals of the flow, two network calls each; a stretch with two ends costs three flows.

    Returns:
        For each set (rows,) int64: the stretch that the number lies in; -1 where it is a class that decides.
    """
    rows = len(next(iter(x.values())))
    block = _Block(joint, model, x, t, steps, rng)
    order = sorted(range(len(sets)), key=lambda i: block.chance(sets[i]))  # the rarest first: the weights vary least
    found = [torch.full((rows,), -1)] * len(sets)
    log_weight = torch.zeros(rows, dtype=torch.float64)
    for turn, i in enumerate(order):
        found[i], log_chance = block.draw(sets[i])
        log_weight += log_chance if turn else 0.0
    if len(sets) == 1:
        return found
    first, share = torch.rand((), generator=rng, dtype=torch.float64), log_weight.softmax(0).cumsum(0)
    again = torch.searchsorted(share, (torch.arange(rows) + first) / rows).clamp_max(rows - 1)
    again = again[torch.rand(rows, generator=rng).argsort()]  # systematic resampling leaves copies side by side
    for part in (x, t):
        part.update({name: value[again] for name, value in part.items()})
    for i in order:
        found[i] = block.draw(sets[i])[0]
    return found


@attrs.frozen(eq=False)
class _Block:
    joint: JointProcess
    model: Model
    x: State
    t: State
    steps: int
    rng: torch.Generator

    def chance(self, among: Among) -> float:
        """About how likely the set is: by the classes' own chances, and a normal law of the scores."""
        inside = (torch.special.ndtr(among.scores[:, 1]) - torch.special.ndtr(among.scores[:, 0])).sum()
        if among.place < 0:
            return float(inside)
        self._forget(among)
        p = self._probabilities(among).mean(0) * among.chances
        return float(p[1:].sum() + p[0] * inside if among.number >= 0 else p.sum())

    def draw(self, among: Among) -> tuple[Tensor, Tensor]:
        """One column given what else is known; (stretch (rows,), log of the chance of its set (rows,))."""
        self._forget(among)
        rows = len(next(iter(self.x.values())))
        weight = torch.ones(rows, 1, dtype=torch.float64)  # of class 0, where there is nothing to choose
        if among.place >= 0:
            weight = (self._probabilities(among) + _LEAST) * among.chances
        if among.number < 0:
            self._set_class(among, _draw(weight, self.rng))
            return torch.full((rows,), -1), weight.sum(1).log()
        self._set_class(among, torch.zeros(rows, dtype=torch.int64))
        below = torch.stack([self._noise_below(among, edges, rows) for edges in among.scores.unbind(1)])
        mass = (below[1] - below[0]).clamp_min(0.0)
        weight = torch.cat([weight[:, 1:], weight[:, :1] * (mass + _LEAST)], 1)
        stretch = _draw(weight, self.rng) - (weight.shape[1] - mass.shape[1])  # below 0: another class
        self._set_number(among, stretch, below[0], mass)
        self._set_class(among, torch.where(stretch < 0, stretch + weight.shape[1] - mass.shape[1] + 1, 0))
        return stretch.clamp_min(-1), weight.sum(1).log()

    def _set_class(self, among: Among, value: Tensor) -> None:
        if among.place >= 0:
            self.x["classes"][:, among.place] = value
            self.t["classes"][:, among.place] = 0.0

    def _forget(self, among: Among) -> None:
        """All of the column is noise."""
        if among.place >= 0:
            self.x["classes"][:, among.place] = len(among.chances)
            self.t["classes"][:, among.place] = 1.0
        if among.number >= 0:
            rows = len(self.x["numbers"])
            self.x["numbers"][:, among.number] = torch.randn(rows, generator=self.rng)
            self.t["numbers"][:, among.number] = 1.0

    def _probabilities(self, among: Among) -> Tensor:
        """Of the classes of the column, (rows, classes) float64."""
        output = self.joint.call(self.model, self.x, self.t, check=True)["classes"]
        sizes = self.joint.modalities["classes"].config()["num_classes"]
        start = sum(sizes[: among.place])
        return output[:, start : start + sizes[among.place]].double().softmax(1)

    # --- numbers ----------------------------------------------------------------------------------------------------

    def _noise_below(self, among: Among, edges: Tensor, rows: int) -> Tensor:
        """The chance that the number lies below each edge, (rows, m)."""
        out = torch.special.ndtr(edges).repeat(rows, 1)  # right for infinite ones
        for j, edge in enumerate(edges):
            if bool(edge.isfinite()):
                z = self._flow(among.number, edge.float().expand(rows), torch.linspace(0, 1, self.steps + 1))
                out[:, j] = torch.special.ndtr(z.double())
        return out

    def _set_number(self, among: Among, stretch: Tensor, low: Tensor, mass: Tensor) -> None:
        """Draw the number in its stretch of each row; where that is below 0, it stays noise."""
        at = stretch.clamp_min(0)
        low, mass = (part.gather(1, at[:, None])[:, 0] for part in (low, mass))
        u = low + mass * torch.rand(len(at), generator=self.rng, dtype=torch.float64)
        z = torch.special.ndtri(u.clamp(_EDGE, 1 - _EDGE)).float()
        y = self._flow(among.number, z, torch.linspace(1, 0, self.steps + 1))
        inside = among.scores.float()[at]  # the two flows are each other's inverse up to their steps
        y = torch.minimum(torch.maximum(y, inside[:, 0]), inside[:, 1])
        for part, value in ((self.x["numbers"], y), (self.t["numbers"], torch.zeros(()))):
            part[:, among.number] = torch.where(stretch < 0, part[:, among.number], value)

    def _flow(self, number: int, y: Tensor, grid: Tensor) -> Tensor:
        """The probability flow of one number along the times of ``grid``, all else fixed, by Heun's method."""
        numbers, when, gaussian = self.x["numbers"].clone(), self.t["numbers"].clone(), self.joint.modalities["numbers"]
        assert isinstance(gaussian, Diffusion)  # as table_process made it

        def velocity(y: Tensor, t: Tensor) -> Tensor:
            numbers[:, number], when[:, number] = y, t
            output = self.joint.call(self.model, self.x | {"numbers": numbers}, self.t | {"numbers": when})
            return gaussian.velocity(output["numbers"], numbers, when)[:, number]

        for t, s in pairwise(grid):
            slope = velocity(y, t)
            y = y + (s - t) * (slope + velocity(y + (s - t) * slope, s)) / 2
        return y


def _draw(weight: Tensor, rng: torch.Generator) -> Tensor:
    """A column of each row in proportion to its weight, (rows,)."""
    upto = weight.cumsum(1)
    u = torch.rand(len(weight), 1, generator=rng, dtype=torch.float64) * upto[:, -1:]
    return torch.searchsorted(upto, u, right=True)[:, 0].clamp_max(weight.shape[1] - 1)
