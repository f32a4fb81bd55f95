"""Generic steppers of the probability flow, one a file, for any modality with the capability "ode"."""

from de_core.sampling.steppers.euler import euler
from de_core.sampling.steppers.heun import heun

__all__ = ["euler", "heun"]
