"""What ``callback`` sees, and a collector of it."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["SampleState", "Trajectory"]


@attrs.frozen(eq=False)
class SampleState:
    """One block of rows between two rounds. The tensors are the loop's own: to be read, and kept, not written to.

    Attributes:
        rows: which rows of the sample these are.
        step: rounds that are done: 0 at the prior, ``of`` at the data.
        of: rounds of the run.
        x: name -> (rows, *event), given modalities too.
        t: name -> their clocks, (rows,) or (rows, *element).
    """

    rows: range
    step: int
    of: int
    x: dict[str, Tensor]
    t: dict[str, Tensor]


class Trajectory:
    """Collects the states of a run: ``joint.sample(..., callback=trajectory)``.

    Args:
        every: keep the states after 0, every, 2 every, ... rounds, and the last.

    Attributes:
        steps: the rounds that were kept, ascending.
        x: name -> (len(steps), n, *event).
        t: name -> (len(steps), n) or (len(steps), n, *element).

    Raises:
        DiffuseError: ``every`` below 1; (when read) no run was collected.
    """

    def __init__(self, every: int = 1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise DiffuseError(f"every: expected a whole number of at least 1, got {every!r}")
        self.every = every
        self._kept: dict[int, list[SampleState]] = {}

    def __call__(self, state: SampleState) -> None:
        """Keep a state if its step is due."""
        if state.step % self.every == 0 or state.step == state.of:
            self._kept.setdefault(state.step, []).append(state)

    @property
    def steps(self) -> list[int]:
        return list(self._kept)

    @property
    def x(self) -> dict[str, Tensor]:
        return self._stacked([[state.x for state in states] for states in self._kept.values()])

    @property
    def t(self) -> dict[str, Tensor]:
        return self._stacked([[state.t for state in states] for states in self._kept.values()])

    def _stacked(self, frames: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
        if not frames:
            raise DiffuseError("trajectory: nothing was collected; pass it as callback= to sample")
        return {
            name: torch.stack([torch.cat([block[name] for block in blocks]) for blocks in frames])
            for name in frames[0][0]
        }
