"""The conformance kit on this modality, and what is known of it in closed form. Laws in float64."""

import math

import pytest
import torch

from de_core import get_modality
from de_core.testing import ModalityConformance

# as a user gets it: the plugin must be installed
Mine = get_modality("de-newthing:newthing")


class TestConformance(ModalityConformance):
    """Every check of the kit, a test for each level."""

    def modality(self):
        return Mine.examples()[0][0]

    def data(self):
        return Mine.examples()[0][1]


@pytest.mark.parametrize("t", [0.05, 0.2, 0.5, 0.9])
def test_draws_have_the_moments_of_the_kernel(t):
    """x_t = a x_0 + sigma eps from x_0 = 2: mean 2 a and variance 1 - a^2, a = exp(-8 t^2), within five standard
    errors, sigma/sqrt(n) and sigma^2 sqrt(2/n): chance 1e-6, and the seed is fixed."""
    n, a = 40_000, math.exp(-8 * t**2)
    xt = Mine(()).perturb(torch.full((n,), 2.0, dtype=torch.float64), t, rng=0).xt
    variance = 1 - a**2
    assert abs(float(xt.mean()) - 2 * a) < 5 * math.sqrt(variance / n)
    assert abs(float(xt.var()) - variance) < 5 * variance * math.sqrt(2 / n)


@pytest.mark.parametrize("t", [0.05, 0.2, 0.5, 0.9])
def test_a_normal_law_has_its_own_score(t):
    """Data N(m, d^2) are N(a m, v) at t, v = a^2 d^2 + sigma^2, so the score is -(x - a m)/v; what the network then
    says is v = E[a eps - sigma x_0 | x_t]. Rounding of a few operations, divided by sigma >= 0.19."""
    m, d, a = 0.7, 0.4, math.exp(-8 * t**2)
    sigma, v = math.sqrt(1 - a**2), 1 - a**2 + a**2 * d**2
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)
    mean = m + a * d**2 / v * (x - a * m)  # of x_0 given x_t
    said = a * (x - a * mean) / sigma - sigma * mean
    found = Mine(()).score(said, x, torch.full((25,), t, dtype=torch.float64))
    assert torch.allclose(found, -(x - a * m) / v, rtol=0, atol=1e-12)
