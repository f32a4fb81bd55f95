"""The two families of modalities. Subclass one, and what the mathematics fixes is already written."""

from de_core.families.diffusion import Diffusion
from de_core.families.jump import Jump

__all__ = ["Diffusion", "Jump"]
