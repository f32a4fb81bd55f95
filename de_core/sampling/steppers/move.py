"""One reverse move as a stepper sees it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Again, Modality, Output, expand

__all__ = ["Move"]

M_co = TypeVar("M_co", bound=Modality, covariant=True)


@attrs.frozen(eq=False)
class Move(Generic[M_co]):
    """What ``Modality.step`` was asked for. A stepper is a function of it that returns (x_s, carry).

    Attributes:
        modality: whose move it is.
        method: the stepper's name.
        output: of the network at (x_t, t), (B, *output).
        xt: the state, (B, *event).
        t, s: times, s <= t, (B,) or (B, *element).
        draw: the stream, on the device of ``xt``.
        weak, weight, again, carry: as in ``Modality.step``.
    """

    modality: M_co
    method: str
    output: Output
    xt: Tensor
    t: Tensor
    s: Tensor
    draw: torch.Generator
    weak: Output | None = None
    weight: float = 1.0
    again: Again | None = None
    carry: Any = None

    def moving(self) -> Tensor:
        """Which elements move, t > s, shaped to multiply ``xt``, bool."""
        return expand(self.t > self.s, self.xt)

    def call(self, x: Tensor, t: Tensor) -> tuple[Output, Output | None]:
        """The second network call: (output, weak) at another state and time of this modality.

        Raises:
            DiffuseError: none was offered.
        """
        if self.again is None:
            raise DiffuseError(f"method '{self.method}' needs a second network call: pass again=(x, t) -> output")
        answer = self.again(x, t)
        return answer if isinstance(answer, tuple) else (answer, None)
