"""Sampling: the plan (who is sampled, who is given), the joint loop, generic steppers of the probability flow."""

from de_core.sampling.plan import Given, Plan
from de_core.sampling.state import SampleState, Trajectory

__all__ = ["Given", "Plan", "SampleState", "Trajectory"]
