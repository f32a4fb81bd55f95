"""The conformance kit on this modality, and what is known of it in closed form. Laws in float64."""

import math

import pytest
import torch

from de_core import DiffuseError, get_modality
from de_core.testing import ModalityConformance

# as a user gets it: the plugin must be installed
Mine = get_modality("de-newthing:newthing")


class TestConformance(ModalityConformance):
    """Every check of the kit, a test for each level."""

    def modality(self):
        return Mine.examples()[0][0]

    def data(self):
        return Mine.examples()[0][1]


@pytest.mark.parametrize("t", [0.01, 0.3, 0.7, 0.99])
def test_two_classes_have_a_closed_form(t):
    """With two classes and rates u < w the prior is p = (w, u)/(u + w), the one decay rate is u + w, and
    P_t = 1 p^T + e^{-(u + w) tau(t)} (I - 1 p^T), tau = (e^(kappa t) - 1)/2w, tau(1) = 7/(u + w).
    Rounding of a matrix exponential."""
    u, w = 0.7, 2.0
    tau = (math.exp(t * math.log1p(14 * w / (u + w))) - 1) / (2 * w)
    law = torch.tensor([w, u], dtype=torch.float64) / (u + w)
    expected = law + math.exp(-(u + w) * tau) * (torch.eye(2, dtype=torch.float64) - law)
    x0, xt = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    found = Mine((), [[0, u], [w, 0]]).log_transition(xt, x0, torch.full((4,), t, dtype=torch.float64))
    assert torch.allclose(found.exp(), expected.flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.7, 0.99])
def test_the_kernel_obeys_kolmogorov(t):
    """dP/dt = P L by a central difference at h = 1e-5. Its error is h^2/6 times a third derivative of the order of the
    rate cubed, about 1e-9 rates at a rate of 10, and rounding adds 1e-16/h = 1e-11. L is the generator's own matrix."""
    one, h = Mine(), 1e-5
    k = one.num_classes
    x0, xt = torch.arange(k).repeat_interleave(k), torch.arange(k).repeat(k)

    def kernel(when):
        return one.log_transition(xt, x0, torch.full((k * k,), when, dtype=torch.float64)).exp().reshape(k, k)

    rates = one.generator(t).matrix()
    difference = (kernel(t + h) - kernel(t - h)) / (2 * h)
    assert torch.allclose(difference, kernel(t) @ rates, rtol=0, atol=1e-7 * float(rates.abs().max()))


@pytest.mark.parametrize("rates", [[[0, 1]], [[0, -1], [1, 0]], [[0, 1], [0, 0]], [[0]]])
def test_rates_that_are_none_are_refused(rates):
    """Not square, negative, a class that cannot be left, a single class."""
    with pytest.raises(DiffuseError, match="rates: expected"):
        Mine((), rates)
