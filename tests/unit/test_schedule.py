"""Noise schedules: ends, derivatives, kernels between two times."""

import math

import pytest
import torch

from de_core import DiffuseError
from de_core.schedule import PATHS, SURVIVALS, path_schedule, survival_schedule

F64 = torch.float64
INSIDE = torch.linspace(0.02, 0.98, 25, dtype=F64)
H = 1e-6  # central differences: truncation H^2 f''' < 1e-8 where f''' < 1e4, rounding 1e-16 x 80 / H < 1e-8


def t64(value):
    return torch.tensor(value, dtype=F64)


@pytest.mark.parametrize("name", PATHS)
def test_paths(name):
    path = path_schedule(name)
    assert float(path.alpha(t64(0.0))) == 1
    assert float(path.sigma(t64(0.0))) == 0
    for f, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        measured = (f(INSIDE + H) - f(INSIDE - H)) / (2 * H)
        assert (measured - slope(INSIDE)).abs().max() < 1e-6 * max(1.0, float(slope(INSIDE).abs().max()))
    if name != "edm":
        assert (path.alpha(INSIDE) ** 2 + path.sigma(INSIDE) ** 2 - 1).abs().max() < 1e-15
    one = t64(1.0)
    end = {"cosine": (0.0, 1.0), "linear": (math.exp(-5.025), math.sqrt(1 - math.exp(-10.05))), "edm": (1.0, 80.0)}
    end["linear-tabular"] = math.exp(-10.05), math.sqrt(1 - math.exp(-20.1))
    assert float(path.alpha(one)) == pytest.approx(end[name][0], abs=1e-15)
    assert float(path.sigma(one)) == pytest.approx(end[name][1], rel=1e-14)
    for value in (path.drift(one), path.diffusion(one)):
        assert bool(value.isfinite())


@pytest.mark.parametrize("name", PATHS)
def test_the_kernel_between_two_times_solves_the_equation_of_moments(name):
    """d var/dt = 2 f var + g^2 and d mean/dt = f mean from s on; var(s, s) = 0. Differences as above."""
    path = path_schedule(name)
    s = t64(0.3)
    t = torch.linspace(0.35, 0.95, 13, dtype=F64)
    ratio, variance = path.between(s, t)
    up, down = path.between(s, t + H), path.between(s, t - H)
    f, g2 = path.drift(t), path.diffusion(t)
    scale = max(1.0, float(g2.max()))
    assert ((up[0] - down[0]) / (2 * H) - f * ratio).abs().max() < 1e-6
    assert ((up[1] - down[1]) / (2 * H) - 2 * f * variance - g2).abs().max() < 1e-6 * scale
    again = path.between(s, s)
    assert float(again[0]) == pytest.approx(1, abs=1e-15)
    assert float(again[1]) == pytest.approx(0, abs=1e-15)


def test_edm_has_the_ladder_of_karras():
    """sigma_i = (high^(1/rho) + i/(N-1) (low^(1/rho) - high^(1/rho)))^rho at t = 1 - i/(N-1), ends .002 and 80."""
    path, n = path_schedule("edm"), 18
    for i in range(n - 1):
        wanted = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(path.sigma(t64(1 - i / (n - 1)))) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", SURVIVALS)
def test_survivals(name):
    clock = survival_schedule(name)
    assert float(clock.survival(t64(0.0))) == 1
    assert float(clock.survival(t64(1.0))) == 0
    assert float(clock.lost(t64(0.0))) == 0
    assert (clock.survival(INSIDE) + clock.lost(INSIDE) - 1).abs().max() < 1e-15
    # the inverse: arcsin near 1 loses half the digits at most
    assert (clock.time_of(clock.lost(INSIDE)) - INSIDE).abs().max() < 1e-8
    slope = (clock.survival(INSIDE + H) - clock.survival(INSIDE - H)) / (2 * H)
    assert (slope + clock.speed(INSIDE)).abs().max() < 1e-8
    hazard = -(clock.survival(INSIDE + H).log() - clock.survival(INSIDE - H).log()) / (2 * H)
    assert ((hazard - clock.hazard(INSIDE)) / hazard).abs().max() < 1e-5
    reverse = clock.hazard(INSIDE) / torch.expm1(-clock.survival(INSIDE).log())
    assert ((reverse - clock.reverse_hazard(INSIDE)) / reverse).abs().max() < 1e-12
    closed = {"linear": 1 / INSIDE, "cosine": math.pi / 2 * torch.tan(math.pi / 2 * (1 - INSIDE))}[name]
    assert ((closed - clock.reverse_hazard(INSIDE)) / closed).abs().max() < 1e-12
    s, t = t64(0.3), t64(0.8)
    assert float(clock.kept(s, t)) == pytest.approx(float(clock.survival(t) / clock.survival(s)), rel=1e-14)
    by_bayes = (clock.survival(s) - clock.survival(t)) / (1 - clock.survival(t))
    assert float(clock.revealed(t, s)) == pytest.approx(float(by_bayes), rel=1e-12)
    for end in (0.0, 1.0):
        assert math.isfinite(float(clock.hazard(t64(end))))
        assert math.isfinite(float(clock.reverse_hazard(t64(end))))


def test_unknown_names():
    for build in (path_schedule, survival_schedule):
        with pytest.raises(DiffuseError, match="schedule: expected one of"):
            build("square")
