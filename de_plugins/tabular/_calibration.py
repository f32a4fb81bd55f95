"""Marginals as they were: drawn scores brought to the training law, and ends of a range that are not lost."""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch
from torch import Tensor

from de_plugins.tabular._numeric import ndtr, ndtri

__all__ = ["LEAST", "Calibration", "with_ends"]

LEAST = 1000  # fewer draws than this say too little about a law's tails


@attrs.frozen(eq=False)
class Calibration:
    r"""Quantiles of what a model draws, and what each is moved to: :math:`z \mapsto F^{-1}(F_{model}(z))`.

    A network leaves small errors in the marginals, most of all in the tails, which few rows show. Training scores have
    a known law (normal, then standardised), so those errors are read off the model's own draws once, after training.
    The shift at each quantile is shrunk by what chance alone explains: with a standard error e it is multiplied by
    max(0, 1 - (2 e/shift)^2) (James and Stein's rule for one coordinate), so that a right marginal stays as it is. In
    the mass of an end of the range, which some ten rows have, chance explains all but the largest shifts, and a tail
    that is too thin by half would lose the end one time in a hundred: there a shift outwards is not shrunk.
    It moves marginals only: the order of the rows in every column, and so their ranks' dependence, is the model's.

    Args:
        drawn: (k,) float64 increasing. target: (k,) float64, not decreasing.
    """

    drawn: np.ndarray
    target: np.ndarray

    @classmethod
    def fit(cls, z: np.ndarray, mean: float, sd: float, ends: tuple[float, float] = (0.0, 0.0)) -> Calibration | None:
        """From draws (n,); the training scores are (Phi^-1(U) - mean)/sd.

        Args:
            ends: chances of U in the least and in the greatest value of the range.

        Returns:
            None for fewer than `LEAST` draws.
        """
        n = len(z)
        if n < LEAST:
            return None
        normal = np.concatenate([np.linspace(-4.5, 4.5, 181), ndtri(np.linspace(0.02, 0.98, 97))])
        normal = np.unique(normal[(ndtr(normal) > 0.5 / n) & (ndtr(-normal) > 0.5 / n)])
        p = ndtr(normal)
        drawn, target = np.quantile(z.astype(np.float64), p), (normal - mean) / sd
        shift = target - drawn
        error = np.sqrt(p * (1 - p) / n) * math.sqrt(2 * math.pi) * np.exp(normal**2 / 2) / sd
        kept = np.clip(1 - (2 * error / np.where(shift == 0, np.inf, shift)) ** 2, 0.0, 1.0)
        kept = np.where((p <= ends[0]) & (shift < 0) | (1 - p <= ends[1]) & (shift > 0), 1.0, kept)
        drawn, first = np.unique(drawn, return_index=True)
        return cls(drawn, np.maximum.accumulate(drawn + (kept * shift)[first]))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Scores (n,) moved; beyond the outermost quantiles by as much as these."""
        ends = np.clip(z, self.drawn[0], self.drawn[-1])
        return np.interp(ends, self.drawn, self.target) + (z - ends)

    def tensor(self) -> Tensor:
        """(2, k) float64."""
        return torch.from_numpy(np.stack([self.drawn, self.target]))

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Calibration:
        """The inverse of `tensor`."""
        return cls(*tensor.to(torch.float64).cpu().numpy())


def with_ends(classes: Tensor, size: int, least: float, rng: torch.Generator) -> Tensor:
    """Classes in the order of their numbers (n,), where each end has at least ``least`` rows: what is missing comes
    from the rows nearest to it, a quarter of these at most. As `QuantileMap` does for numbers, and for its reason."""
    for order in (torch.arange(size), torch.arange(size).flip(0)):
        counts = torch.bincount(classes, minlength=size)[order]
        lack = int(least - counts[0])
        near = order[1 : 2 + int((counts[1:].cumsum(0) < 4 * least).sum())]
        rows = torch.isin(classes, near).nonzero()[:, 0]
        if 0 < lack <= len(rows) / 4:
            picked = rows[torch.randperm(len(rows), generator=rng)[:lack]]
            classes = classes.index_fill(0, picked, int(order[0]))
    return classes
