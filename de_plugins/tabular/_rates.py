"""How fast a table's network learns and forgets: the settings of its optimiser."""

from __future__ import annotations

from typing import Any

__all__ = ["rates"]

_LR = {"nano": 4e-3, "small": 2e-3, "base": 1e-3, "paper": 1e-3}  # the last of the authors' network
_PAPER: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.03, "betas": (0.9, 0.9)}  # the authors'
_PASSES = 100, 300  # over the table, that the weights look back on: at the least, and at the most
_LOOKS = 60  # passes times parameters a number of the table, where that is between
_STEPS = 800  # that they look back on at the least


def rates(
    preset: str, lr: float | None, rows: int, batch_size: int, *, parameters: float, paper: bool
) -> dict[str, Any]:
    """Arguments of ``Trainer``: the peak rate, the weight decay, and the betas where they are the authors'.

    The decay is such that weights look back on 300 passes over the table, 1/(lr decay) steps at the peak rate, as
    AdamW's weights are a moving mean of its updates; those by Muon, whose rate is three times that, on a third as many.
    A table, which is passed often, is so held to what all of its rows say; on fewer passes, 100 at the least, where
    there are parameters to learn its numbers by heart.

    Args:
        preset: of the network. lr: in place of the preset's peak rate.
        rows: that are learnt. batch_size: rows a step, at most.
        parameters: of the network, a number of the rows.
        paper: the authors' settings.

    Source: Wang and Aitchison 2024 (2405.13698).
    """
    if paper:
        return _PAPER if lr is None else {**_PAPER, "lr": lr}
    peak = _LR[preset] if lr is None else lr
    least, most = _PASSES
    passes = most if parameters * most <= _LOOKS else max(least, _LOOKS / parameters)
    return {"lr": peak, "weight_decay": 1 / (peak * max(_STEPS, passes * rows / min(batch_size, rows)))}
