"""Which of two families of settings trades accuracy against variety better, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError

__all__ = ["Cell", "compare", "front"]

_LEVELS = 20  # of accuracy, at which fronts are compared
_RESAMPLES = 500


@attrs.frozen(eq=False)
class Cell:
    """One setting, asked for several pictures of every caption.

    Args:
        weight, sigma, interval: of the guidance; sigma None is none.
        right: (captions, draws) bool, the judge's verdicts.
        apart: (captions,) the summed distances of all pairs of right pictures of one caption.
        pairs: (captions,) how many such pairs there are.
    """

    weight: float
    sigma: float | None
    interval: tuple[float, float]
    right: np.ndarray
    apart: np.ndarray
    pairs: np.ndarray

    def accuracy(self, rows: np.ndarray | slice = slice(None)) -> float:
        """The share of right pictures, over some captions."""
        return float(self.right[rows].mean())

    def variety(self, rows: np.ndarray | slice = slice(None)) -> float:
        """The mean distance of two right pictures of one caption; 0 where there are no two."""
        pairs = self.pairs[rows].sum()
        return float(self.apart[rows].sum() / pairs) if pairs else 0.0


def front(accuracy: np.ndarray, variety: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The most variety that a family has at an accuracy of at least each level; NaN where it has no such setting.

    Args:
        accuracy, variety: (settings,).
        levels: (L,).
    """
    reached = accuracy[None, :] >= levels[:, None]
    most = np.where(reached, variety[None, :], -np.inf).max(1)
    return np.where(np.isfinite(most), most, np.nan)


def _gap(none: Cell, ours: Sequence[Cell], theirs: Sequence[Cell], rows: np.ndarray) -> float:
    """Mean difference of the two fronts between the accuracy without guidance and the highest that both reach."""
    points = [
        np.array([(cell.accuracy(rows), cell.variety(rows)) for cell in (none, *cells)]).T for cells in (ours, theirs)
    ]
    top = min(float(p[0].max()) for p in points)
    low = points[0][0, 0]
    if top <= low:
        return float("nan")
    levels = np.linspace(low, top, _LEVELS)
    a, b = (front(p[0], p[1], levels) for p in points)
    return float((a - b).mean())


def compare(cells: Sequence[Cell], seed: int = 0) -> dict[str, Any]:
    """Noisy (sigma below 1) against classifier-free guidance (sigma 1), both over the same weights and intervals.

    The best sigma is chosen on every other caption; the gap between its front and the classifier-free one is measured
    on the others, so that choosing among several earns nothing. Its standard error is that of a bootstrap over
    captions, which are kept whole.

    Returns:
        "sigma" that was chosen; "gap" in variety at equal accuracy, above 0 where noisy guidance is better; "stderr";
        "verdict": "holds", "does not hold" (two standard errors) or "undecided", which it is too where guidance of
        either kind makes nothing more accurate.

    Raises:
        DiffuseError: no setting without guidance, none of either kind, or fewer than four captions.
    """
    none = [cell for cell in cells if cell.sigma is None]
    free = [cell for cell in cells if cell.sigma == 1]
    sigmas = sorted({cell.sigma for cell in cells if cell.sigma is not None and cell.sigma < 1})
    if not none or not free or not sigmas:
        raise DiffuseError(
            f"guidance: expected settings without, with classifier-free and with noisy guidance, got {len(none)}, "
            f"{len(free)} and {sum(c.sigma is not None and c.sigma < 1 for c in cells)}"
        )
    captions = len(none[0].right)
    if captions < 4:
        raise DiffuseError(f"guidance: expected at least 4 captions to compare, got {captions}")
    choose, judge = np.arange(0, captions, 2), np.arange(1, captions, 2)
    families = {sigma: [cell for cell in cells if cell.sigma == sigma] for sigma in sigmas}
    scores = {sigma: _gap(none[0], family, free, choose) for sigma, family in families.items()}
    sigma = max(sigmas, key=lambda s: -np.inf if np.isnan(scores[s]) else scores[s])
    gap = _gap(none[0], families[sigma], free, judge)
    draw = np.random.default_rng(seed)
    again = [_gap(none[0], families[sigma], free, draw.choice(judge, len(judge))) for _ in range(_RESAMPLES)]
    kept = [g for g in again if not np.isnan(g)]
    stderr = float(np.std(kept, ddof=1)) if len(kept) > 1 else float("nan")
    verdict = "undecided"
    if len(kept) > 0.9 * _RESAMPLES and abs(gap) > 2 * stderr:
        verdict = "holds" if gap > 0 else "does not hold"
    told = {"gap": gap, "stderr": stderr}
    return {
        "sigma": sigma,
        **{name: None if np.isnan(value) else round(value, 5) for name, value in told.items()},
        "verdict": verdict,
    }
