"""Guidance by a partly noised condition, or by a weaker model.

    guided = w * strong + (1 - w) * weak,

where "strong" is the network at the condition as given and "weak" at the condition noised further, from its level s to
sigma > s by the forward kernel s -> sigma. w = 1 is no guidance; sigma = 1 is classifier-free guidance. The mix is of
differences of log beta, each modality in its own geometry. Source: Rojas et al. 2025 (2506.07903), Ho and Salimans 2022
(2207.12598), intervals after Kynkaanniemi et al. 2024 (2404.07724), a weaker model after Karras et al. 2024
(2406.02507).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from de_core.errors import DiffuseError

__all__ = ["ClassifierFreeGuidance", "NoisyGuidance"]


@attrs.frozen
class NoisyGuidance:
    """Guide by the condition noised to ``sigma``.

    Args:
        weight: w, or one by name of the sampled modality (1 for those left out); 1 is no guidance.
        sigma: the level of the weak condition in [0, 1], or one by name of the given modality (1 for those left out).
            With ``model`` the default is None, which noises nothing, as it does for names left out.
        interval: (a, b): guide where a < t < b, t the clock of the modality that is sampled.
        renoise: "fresh" draws the noise of the weak condition anew at each step; "frozen" has the same noise throughout
            a run.
        model: another model for the weak call, (x, t) -> outputs; the sampled one by default.

    Raises:
        DiffuseError: a weight that is no finite number, sigma outside [0, 1] (or None without ``model``), an interval
            that is reversed or leaves [0, 1], another ``renoise``, a ``model`` that cannot be called.
    """

    model: Callable[..., Any] | None = attrs.field(default=None, kw_only=True)
    weight: float | Mapping[str, float]
    sigma: float | Mapping[str, float] | None = attrs.field(
        default=attrs.Factory(lambda self: 1.0 if self.model is None else None, takes_self=True)
    )
    interval: tuple[float, float] = attrs.field(default=(0.0, 1.0), converter=lambda pair: tuple(pair))
    renoise: str = attrs.field(default="fresh", kw_only=True)

    def __attrs_post_init__(self) -> None:
        for weight in _values(self.weight):
            if isinstance(weight, bool) or not isinstance(weight, float | int) or not math.isfinite(weight):
                raise DiffuseError(f"guidance: expected a weight that is a finite number, got {weight!r}")
        for level in _values(self.sigma):
            if level is None and self.model is None:
                raise DiffuseError("guidance: expected sigma in [0, 1], or another model, got neither")
            if level is not None and not 0 <= level <= 1:
                raise DiffuseError(f"guidance: expected sigma in [0, 1], got {level}")
        if len(self.interval) != 2 or not 0 <= self.interval[0] < self.interval[1] <= 1:
            raise DiffuseError(f"guidance: expected an interval 0 <= a < b <= 1, got {self.interval}")
        if self.renoise not in ("fresh", "frozen"):
            raise DiffuseError(f"guidance: expected renoise 'fresh' or 'frozen', got {self.renoise!r}")
        if self.model is not None and not callable(self.model):
            raise DiffuseError(f"guidance: expected a model (x, t) -> outputs, got {type(self.model).__name__}")

    def level(self, name: str) -> float | None:
        """sigma of one modality; None leaves it as it is."""
        if isinstance(self.sigma, Mapping):
            return self.sigma.get(name, 1.0 if self.model is None else None)
        return self.sigma

    def weight_at(self, name: str, t: float) -> float:
        """The weight in force for a modality at clock ``t``: 1 outside the interval (whose end 1 belongs to it)."""
        a, b = self.interval
        if not (a < t and (t < b or b == t == 1)):
            return 1.0
        return self.weight.get(name, 1.0) if isinstance(self.weight, Mapping) else self.weight


def ClassifierFreeGuidance(  # a public name, spelt as the class it stands for
    weight: float | Mapping[str, float], interval: tuple[float, float] = (0.0, 1.0)
) -> NoisyGuidance:
    """Noisy guidance at sigma = 1: the condition is replaced by a draw of its prior."""
    return NoisyGuidance(weight, sigma=1.0, interval=interval)


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]
