"""Guidance by a partly noised condition.

    guided = w * strong + (1 - w) * weak,

where "strong" is the network at the condition as given and "weak" at the condition noised further, from its level s to
sigma > s by the forward kernel s -> sigma. w = 1 is no guidance; sigma = 1 is classifier-free guidance. The mix is of
differences of log beta, each modality in its own geometry. Source: Rojas et al. 2025 (2506.07903), Ho and Salimans 2022
(2207.12598), intervals after Kynkaanniemi et al. 2024 (2404.07724).
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from de_core.errors import DiffuseError

__all__ = ["ClassifierFreeGuidance", "NoisyGuidance"]


@attrs.frozen
class NoisyGuidance:
    """Guide by the condition noised to ``sigma``.

    Args:
        weight: w; 1 is no guidance.
        sigma: the level of the weak condition in [0, 1], or one by name of the given modality.
        interval: (a, b): guide where a < t < b, t the clock of the modality that is sampled.
    """

    weight: float
    sigma: float | Mapping[str, float] = 1.0
    interval: tuple[float, float] = attrs.field(default=(0.0, 1.0), converter=lambda pair: tuple(pair))

    def __attrs_post_init__(self) -> None:
        levels = list(self.sigma.values()) if isinstance(self.sigma, Mapping) else [self.sigma]
        for level in levels:
            if not 0 <= level <= 1:
                raise DiffuseError(f"guidance: expected sigma in [0, 1], got {level}")
        if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise DiffuseError(f"guidance: expected an interval 0 <= a < b <= 1, got {self.interval}")

    def level(self, name: str) -> float:
        """sigma of one modality."""
        return self.sigma.get(name, 1.0) if isinstance(self.sigma, Mapping) else self.sigma

    def active(self, t: float) -> bool:
        """Whether a modality at clock ``t`` is guided: w is not 1 and t lies in the interval (its end 1 included)."""
        a, b = self.interval
        return self.weight != 1 and a < t and (t < b or b == t == 1)


def ClassifierFreeGuidance(  # a public name, spelt as the class it stands for
    weight: float, interval: tuple[float, float] = (0.0, 1.0)
) -> NoisyGuidance:
    """Noisy guidance at sigma = 1: the condition is replaced by a draw of its prior."""
    return NoisyGuidance(weight, sigma=1.0, interval=interval)
