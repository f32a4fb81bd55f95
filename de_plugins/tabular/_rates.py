"""How fast a table's network learns and forgets: the settings of its optimiser."""

from __future__ import annotations

from typing import Any

import torch

from de_core.rng import stream
from de_plugins.tabular._encoded import Encoded

__all__ = ["crowding", "rates"]

_LR = {"nano": 4e-3, "small": 2e-3, "base": 1e-3, "paper": 1e-3}  # the last of the authors' network
_PAPER: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.03, "betas": (0.9, 0.9)}  # the authors'
_PASSES = 100, 300  # over the table, that the weights look back on: at the least, and at the most
_LOOKS = 60  # passes times `crowding`, where that is between
_STEPS = 800  # that they look back on at the least


def crowding(coded: Encoded, parameters: int) -> float:
    """Parameters of a network that can learn a number of a table by heart: as many as there are a number, times the
    share of rows whose classes no other row has, which are a name of the row. 0 without numbers.

    Args:
        coded: n rows of C numbers and shares of groups. parameters: of the network.
    """
    beside = coded.numbers.shape[1] + sum(values.shape[1] for values in coded.shares.values())
    if not beside or not coded.classes.shape[1]:
        return 0.0
    # rows by a random sum of their classes modulo 2^64, which no two kinds of row have in common but by rare chance
    odd = torch.randint(2**62, (coded.classes.shape[1],), generator=stream(0, "names"))
    counts = torch.unique((coded.classes * odd).sum(1), return_counts=True)[1]
    return parameters * float((counts == 1).sum()) / (len(coded) ** 2 * beside)


def rates(preset: str, lr: float | None, rows: int, batch_size: int, *, crowded: float, paper: bool) -> dict[str, Any]:
    """Arguments of ``Trainer``: the peak rate, the weight decay, and the betas where they are the authors'.

    The decay is such that weights look back on 300 passes over the table, 1/(lr decay) steps at the peak rate, as
    AdamW's weights are a moving mean of its updates; those by Muon, whose rate is three times that, on a third as many.
    A table, which is passed often, is so held to what all of its rows say; on fewer passes, 100 at the least, where
    there are parameters to learn its numbers by heart (``crowding``).

    Args:
        preset: of the network. lr: in place of the preset's peak rate.
        rows: that are learnt. batch_size: rows a step, at most.
        crowded: ``crowding`` of the table.
        paper: the authors' settings.

    Source: Wang and Aitchison 2024 (2405.13698).
    """
    if paper:
        return _PAPER if lr is None else {**_PAPER, "lr": lr}
    peak = _LR[preset] if lr is None else lr
    least, most = _PASSES
    passes = most if crowded * most <= _LOOKS else max(least, _LOOKS / crowded)
    return {"lr": peak, "weight_decay": 1 / (peak * max(_STEPS, passes * rows / min(batch_size, rows)))}
