"""Sampling: the plan (who is sampled, who is given), the joint loop, generic steppers of the probability flow, and
samples shared between processes."""

from de_core.sampling.plan import Given, Plan
from de_core.sampling.shards import load_samples, sample_shards
from de_core.sampling.state import SampleState, Trajectory

__all__ = ["Given", "Plan", "SampleState", "Trajectory", "load_samples", "sample_shards"]
