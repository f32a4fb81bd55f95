"""A reverse move, and the generic steppers of the probability flow, one a file, for any modality with the capability
"ode"."""

from de_core.sampling.steppers.euler import euler
from de_core.sampling.steppers.heun import heun
from de_core.sampling.steppers.move import Move

__all__ = ["Move", "euler", "heun"]
