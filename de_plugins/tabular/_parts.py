"""Groups of which a row knows some parts and not the others: the others are drawn given these.

A group has one clock, so a part of it cannot stand at t = 0 while the rest runs. The known parts are replaced at every
time by a draw of the forward kernel, and an early step is taken again from there a few times, as
``JointProcess.sample`` does with a known part of any modality under one clock (SPEC, section 5; Lugmayr et al. 2022,
2201.09865). Under the Wright-Fisher kernel parts may be lumped: with m lineages, l ~ Multinomial(m, x_0) and x_t ~
Dir(1 + l), the known parts and the sum of the others have a law that does not depend on how the others split it. So
the kernel's draw says what the known parts are at t, and what is left for the others, whose proportions stay the
state's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from de_core import JointProcess
from de_core.joint import Model

__all__ = ["Part", "draw_parts"]

_PASSES = 4
_EARLY = 0.3  # above this time a step is taken again; below, that would only pile up the step's own error
_TINY = 1e-30


@attrs.frozen(eq=False)
class Part:
    """What rows know of one group.

    Args:
        values: (n, k) shares; read where known, and there they sum to at most 1.
        known: (n, k) bool.
        rows: (n,) bool: which rows are drawn; the others keep their state and clock.
    """

    values: Tensor
    known: Tensor
    rows: Tensor

    def complete(self, x: Tensor) -> Tensor:
        """The known parts as they are, and in what they leave of 1 the others in the proportions of ``x``."""
        held = torch.where(self.known, self.values, 0.0)
        rest = (1 - held.sum(1, keepdim=True)).clamp_min(0)
        full = torch.where(self.known, self.values, rest * self._split(x))
        return torch.where(self.rows[:, None], full, x)

    def _split(self, x: Tensor) -> Tensor:
        free = torch.where(self.known, 0.0, x.clamp_min(_TINY))
        return free / free.sum(1, keepdim=True).clamp_min(_TINY)

    def replace(self, x: Tensor, noised: Tensor) -> Tensor:
        """The state ``x`` with the known parts of ``noised``, and the others scaled to what that leaves."""
        rest = torch.where(self.known, 0.0, noised).sum(1, keepdim=True)
        full = torch.where(self.known, noised, rest * self._split(x))
        return torch.where(self.rows[:, None], full, x)


@torch.no_grad()
def draw_parts(
    joint: JointProcess,
    model: Model,
    x: dict[str, Tensor],
    t: dict[str, Tensor],
    parts: Mapping[str, Part],
    steps: int,
    rng: torch.Generator,
    passes: int = _PASSES,
) -> None:
    """Complete groups, in place in (x, t), whose rows are then clean; all else stays as it is.

    Args:
        joint: with one clock a group.
        x, t: states and clocks of a block: what is known at its level, all else noise at 1.
        parts: by name of the group.
        steps: of the reverse process. passes: network calls of an early one.
    """
    grids = {name: [*joint.modalities[name].grid(steps).tolist(), 0.0] for name in parts}
    for k in range(steps):
        early = max(grids[name][k] for name in parts) > _EARLY
        for again in range(passes if early else 1):
            for name, part in parts.items():
                modality, now = joint.modalities[name], _at(t[name], part, grids[name][k])
                if again:  # back to t_k by the kernel from t_(k+1)
                    x[name] = modality.perturb(x[name], now, s=t[name], rng=rng).xt
                noised = modality.perturb(part.complete(x[name]), now, rng=rng).xt
                x[name], t[name] = part.replace(x[name], noised), now
            output = joint.call(model, x, t, check=not k)
            for name, part in parts.items():
                modality, then = joint.modalities[name], _at(t[name], part, grids[name][k + 1])
                if k == steps - 1:
                    moved = modality.finish(output[name], x[name], t[name], rng=rng)
                else:
                    moved = modality.step(output[name], x[name], t[name], then, rng=rng)[0]
                x[name], t[name] = torch.where(part.rows[:, None], moved, x[name]), then
    for name, part in parts.items():
        x[name] = part.complete(x[name])


def _at(t: Tensor, part: Part, reading: float) -> Tensor:
    """The clocks with the drawn rows at a reading."""
    return torch.where(part.rows, torch.tensor(reading, dtype=t.dtype), t)
