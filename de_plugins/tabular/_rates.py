"""How fast a table's network learns and forgets: the settings of its optimiser."""

from __future__ import annotations

from typing import Any

__all__ = ["rates"]

_LR = {"nano": 4e-3, "small": 2e-3, "base": 1e-3, "paper": 1e-3}  # the last of the authors' network
_PAPER: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.03, "betas": (0.9, 0.9)}  # the authors'
_MEMORY = 300, 800  # passes over the table that the weights look back on, and steps at the least


def rates(preset: str, lr: float | None, rows: int, batch_size: int, *, paper: bool) -> dict[str, Any]:
    """Arguments of ``Trainer``: the peak rate, the weight decay, and the betas where they are the authors'.

    The decay is such that weights look back on the steps of ``_MEMORY`` passes: 1/(lr decay) of them, at the peak rate,
    as AdamW's weights are a moving mean of its updates; those by Muon, whose rate is three times that, on a third as
    many. A table, which is passed often, is so held to what all of its rows say.

    Args:
        preset: of the network. lr: in place of the preset's peak rate.
        rows: that are learnt. batch_size: rows a step, at most.
        paper: the authors' settings.

    Source: Wang and Aitchison 2024 (2405.13698).
    """
    if paper:
        return _PAPER if lr is None else {**_PAPER, "lr": lr}
    peak = _LR[preset] if lr is None else lr
    passes, least = _MEMORY
    return {"lr": peak, "weight_decay": 1 / (peak * max(least, passes * rows / min(batch_size, rows)))}
