"""Noise schedules as functions of the clock t in [0, 1]; t = 0 is data, t = 1 is the prior.

Two kinds. A *path schedule* gives the coefficients of x_t = alpha(t) x_0 + sigma(t) eps and their derivatives. A
*survival schedule* gives the probability a(t) that an element has not been touched by a jump process, with its rates.

Sources: Song et al. 2021 (2011.13456), Karras et al. 2022 (2206.00364), Nichol and Dhariwal 2021 (cosine),
Sahoo et al. 2024 (2406.07524) and Shi et al. 2024 (2406.04329) for the survival schedules.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from functools import partial

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = [
    "EDM",
    "PATHS",
    "SURVIVALS",
    "Cosine",
    "CosineSurvival",
    "LinearSurvival",
    "LinearVP",
    "PathSchedule",
    "SurvivalSchedule",
    "path_schedule",
    "survival_schedule",
]

_HALF_PI = math.pi / 2
_TINY = 1e-6  # the smallest a(t) or 1 - a(t) that a rate divides by
_LEAST_ALPHA = 1e-3  # the smallest alpha that a drift divides by: the cosine path from t = 0.9994 on


class PathSchedule(abc.ABC):
    """alpha, sigma and their derivatives; sigma(0) = 0 and alpha(0) = 1 always: time 0 is the data."""

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Coefficient of the data."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise."""

    @abc.abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt."""

    @abc.abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt, at t > 0."""

    def drift(self, t: Tensor) -> Tensor:
        """f = alpha'/alpha of dX = f X dt + g dW, with alpha floored where it vanishes (t = 1)."""
        return self.alpha_dot(t) / self.alpha(t).clamp_min(_LEAST_ALPHA)

    def diffusion(self, t: Tensor) -> Tensor:
        """g^2 = 2 sigma sigma' - 2 f sigma^2."""
        sigma = self.sigma(t)
        return 2 * sigma * self.sigma_dot(t) - 2 * self.drift(t) * sigma**2

    def between(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The kernel s -> t, x_t ~ N(alpha_ts x_s, var_ts): alpha_t/alpha_s and sigma_t^2 - alpha_ts^2 sigma_s^2."""
        ratio = self.alpha(t) / self.alpha(s).clamp_min(_TINY)
        return ratio, (self.sigma(t) ** 2 - ratio**2 * self.sigma(s) ** 2).clamp_min(0)


@attrs.frozen
class Cosine(PathSchedule):
    """alpha = cos(pi t/2), sigma = sin(pi t/2): variance preserving, prior N(0, I)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.where(t < 1, torch.cos(_HALF_PI * t), 0.0)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(_HALF_PI * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -_HALF_PI * torch.sin(_HALF_PI * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return _HALF_PI * self.alpha(t)


@attrs.frozen
class LinearVP(PathSchedule):
    """dX = -b X/2 dt + sqrt(b) dW with b = low + (high - low) t: alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B =
    int_0^t b."""

    low: float = 0.1
    high: float = 20.0

    def _rate(self, t: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * t

    def _total(self, t: Tensor) -> Tensor:
        return self.low * t + 0.5 * (self.high - self.low) * t**2

    def drift(self, t: Tensor) -> Tensor:
        """f = -b/2: nothing is divided."""
        return -0.5 * self._rate(t)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * self._total(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._total(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -0.5 * self._rate(t) * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return 0.5 * self._rate(t) * torch.exp(-self._total(t)) / self.sigma(t)


@attrs.frozen
class EDM(PathSchedule):
    """Variance exploding, alpha = 1, sigma(t) = (low^(1/rho) + t (high^(1/rho) - low^(1/rho)))^rho for t > 0,
    sigma(0) = 0."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0

    def _root(self, t: Tensor) -> Tensor:
        low, high = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        return low + t * (high - low)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.where(t > 0, self._root(t) ** self.rho, 0.0)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        slope = self.high ** (1 / self.rho) - self.low ** (1 / self.rho)
        return self.rho * slope * self._root(t) ** (self.rho - 1)


class SurvivalSchedule(abc.ABC):
    """a(t) = exp(-int_0^t hazard): the probability that an element has not jumped by t; a(0) = 1, a(1) = 0."""

    @abc.abstractmethod
    def survival(self, t: Tensor) -> Tensor:
        """a(t)."""

    @abc.abstractmethod
    def lost(self, t: Tensor) -> Tensor:
        """1 - a(t), without the cancellation at small t."""

    @abc.abstractmethod
    def time_of(self, lost: Tensor) -> Tensor:
        """The clock at which 1 - a is ``lost``, in [0, 1]."""

    @abc.abstractmethod
    def speed(self, t: Tensor) -> Tensor:
        """-a'(t)."""

    def hazard(self, t: Tensor) -> Tensor:
        """-a'/a, the jump rate of the forward process, with a floored where it vanishes (t = 1)."""
        return self.speed(t) / self.survival(t).clamp_min(_TINY)

    def reverse_hazard(self, t: Tensor) -> Tensor:
        """w(t) = -a'/(1 - a) = hazard/(e^{int hazard} - 1), with 1 - a floored where it vanishes (t = 0)."""
        return self.speed(t) / self.lost(t).clamp_min(_TINY)

    def kept(self, s: Tensor, t: Tensor) -> Tensor:
        """a(t)/a(s), the survival from s to t."""
        return (self.survival(t) / self.survival(s).clamp_min(_TINY)).clamp(0, 1)

    def revealed(self, t: Tensor, s: Tensor) -> Tensor:
        """(a_s - a_t)/(1 - a_t), s < t: the probability that an element lost at t was still there at s."""
        return (1 - self.lost(s) / self.lost(t).clamp_min(_TINY)).clamp(0, 1)


@attrs.frozen
class LinearSurvival(SurvivalSchedule):
    """a = 1 - t (the log-linear schedule of SEDD and MDLM with epsilon = 0): w = 1/t."""

    def survival(self, t: Tensor) -> Tensor:
        return 1 - t

    def lost(self, t: Tensor) -> Tensor:
        return t

    def time_of(self, lost: Tensor) -> Tensor:
        return lost

    def speed(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@attrs.frozen
class CosineSurvival(SurvivalSchedule):
    """a = 1 - cos(pi (1 - t)/2) (MD4): w = (pi/2) tan(pi (1 - t)/2)."""

    def survival(self, t: Tensor) -> Tensor:
        return torch.where(t > 0, 2 * torch.sin(0.5 * _HALF_PI * (1 - t)) ** 2, 1.0)  # 1 - 2e-16 at t = 0 otherwise

    def lost(self, t: Tensor) -> Tensor:
        return torch.sin(_HALF_PI * t)

    def time_of(self, lost: Tensor) -> Tensor:
        return torch.asin(lost) / _HALF_PI

    def speed(self, t: Tensor) -> Tensor:
        return _HALF_PI * torch.where(t < 1, torch.cos(_HALF_PI * t), 0.0)


PATHS: dict[str, Callable[[], PathSchedule]] = {
    "cosine": Cosine,
    "linear": LinearVP,
    "linear-tabular": partial(LinearVP, low=0.2, high=40.0),  # the authors' tabular code: beta without the half
    "edm": EDM,
}
SURVIVALS: dict[str, type[SurvivalSchedule]] = {"linear": LinearSurvival, "cosine": CosineSurvival}


def path_schedule(name: str) -> PathSchedule:
    """The path schedule of that name: "cosine", "linear", "linear-tabular" or "edm"."""
    if name not in PATHS:
        raise DiffuseError(f"schedule: expected one of {', '.join(PATHS)}, got {name!r}")
    return PATHS[name]()


def survival_schedule(name: str) -> SurvivalSchedule:
    """The survival schedule of that name: "linear" or "cosine"."""
    if name not in SURVIVALS:
        raise DiffuseError(f"schedule: expected one of {', '.join(SURVIVALS)}, got {name!r}")
    return SURVIVALS[name]()
