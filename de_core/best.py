"""The best weights of a run, by a score on held-out rows, and when to stop looking for better ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["Best"]

_CHECKS = 20  # a run


class Best:
    """Keeps the weights with the least score.

    Args:
        score: of a network in evaluation mode, less is better.
        patience: scores in a row that are no better, after which it tires; None never.
    """

    def __init__(self, score: Callable[[torch.nn.Module], float], patience: int | None) -> None:
        self.score, self.patience = score, patience
        self.least, self.since, self.due = math.inf, 0, 1
        self.state: dict[str, Tensor] = {}

    def tires(self, model: torch.nn.Module, share: float) -> bool:
        """Score the network when a twentieth more of the budget is used; whether patience has ended.

        Raises:
            DiffuseError: the score is not a number.
        """
        if share * _CHECKS < self.due:
            return False
        self.due = int(share * _CHECKS) + 1
        learning = model.training
        with torch.no_grad():
            score = float(self.score(model.eval()))
        model.train(learning)
        if math.isnan(score):
            raise DiffuseError("training: the score on held-out rows is not a number")
        if score < self.least:
            self.least, self.since = score, 0
            self.state = {name: x.detach().clone() for name, x in model.state_dict().items()}
            return False
        self.since += 1
        return self.patience is not None and self.since >= self.patience

    def restore(self, model: torch.nn.Module) -> None:
        """Give a network the best weights, where there are any."""
        if self.state:
            model.load_state_dict(self.state)
