"""A part of a modality known: exact where its elements are held, near by replacement and nearer with more passes."""

import math

import pytest
import torch

from de_core import Given, JointProcess, get_modality
from de_core.testing import OracleDenoiser

RHO = 0.8


class Pair:
    """The exact network of two numbers of unit variance and correlation rho, x_0-predictions, under the cosine path."""

    def __call__(self, x, t):
        t = t["m"] if t["m"].ndim == 2 else t["m"][:, None].expand(-1, 2)
        (a, b), (u, v) = torch.cos(0.5 * math.pi * t).double().T, x["m"].double().T
        c = RHO * a * b
        first, second = ((p - c * q) / (1 - c**2).clamp_min(1e-12) for p, q in ((u, v), (v, u)))
        found = torch.stack([a * first + RHO * b * second, RHO * a * first + b * second], 1)
        # both at t = 0: the state itself, where the formula is 0/0 only for rho = 1
        return {"m": found.to(x["m"].dtype)}


def second_given_first(elementwise, method, steps, resample, n=8000, value=1.5):
    modality = get_modality("gaussian")((2,), prediction="x0")
    joint = JointProcess({"m": modality}, ["m"] if elementwise else [], block=n)
    given = {"m": Given(torch.tensor([value, 99.0]).repeat(n, 1), known=torch.tensor([True, False]), resample=resample)}
    x = joint.sample(Pair(), n, given=given, steps=steps, methods={"m": method}, rng=0)["m"]
    assert bool((x[:, 0] == value).all())
    return x[:, 1].double()


def test_numbers_with_their_own_clocks_have_the_conditional_law():
    """b | a is N(rho a, 1 - rho^2). Heun at 64 steps errs by under 2e-3 (the closed form of the flow is second order:
    1.2e-3 at 64 steps in test_guidance_law.py); mean and variance of 8,000 draws within five standard errors of it."""
    n, variance = 8000, 1 - RHO**2
    b = second_given_first(True, "heun", 64, 1)
    assert abs(float(b.mean()) - RHO * 1.5) < 5 * (variance / n) ** 0.5 + 2e-3
    assert abs(float(b.var()) - variance) < 5 * variance * (2 / n) ** 0.5 + 4e-3


def test_a_number_known_at_a_level_is_drawn_with_the_rest_from_there_on():
    """Of (a, b) given a_s = alpha a + sigma eps = v: a is N(alpha v, sigma^2) and b | a as ever, so that b is
    N(rho alpha v, 1 - rho^2 alpha^2) and cov(a, b) = rho sigma^2. It needs a stepper of the reversed process: the
    flow has the right law at each time, not over two. Five standard errors, and .02 for the ancestral step's first
    order (measured with 40,000 draws: .011 at 256 steps, .045 at 64).
    """
    n, level, value = 8000, 0.4, 1.5
    alpha, sigma = math.cos(0.5 * math.pi * level), math.sin(0.5 * math.pi * level)
    joint = JointProcess({"m": get_modality("gaussian")((2,), prediction="x0")}, ["m"], block=n)
    given = Given(
        torch.tensor([value, 99.0]).repeat(n, 1), torch.tensor([level, 0.9]), known=torch.tensor([True, False])
    )
    clocks = []

    def model(x, t):
        clocks.append(t["m"][0].tolist())
        return Pair()(x, t)

    a, b = joint.sample(model, n, given={"m": given}, steps=256, methods={"m": "ancestral"}, rng=0)["m"].double().T
    assert max(first for first, _ in clocks) == pytest.approx(level)
    assert clocks[0][1] == 1.0
    mean, var = alpha * value, sigma**2
    assert abs(float(a.mean()) - mean) < 5 * (var / n) ** 0.5 + 0.02
    assert abs(float(a.var()) - var) < 5 * var * (2 / n) ** 0.5 + 0.02
    mean, var = RHO * alpha * value, 1 - RHO**2 * alpha**2
    assert abs(float(b.mean()) - mean) < 5 * (var / n) ** 0.5 + 0.02
    assert abs(float(b.var()) - var) < 5 * var * (2 / n) ** 0.5 + 0.02
    both = float(((a - a.mean()) * (b - b.mean())).mean())
    assert abs(both - RHO * sigma**2) < 5 * (2 * sigma**2 / n) ** 0.5 + 0.02


def test_replacement_is_pulled_to_the_truth_by_resampling():
    """Under one clock the known number is drawn afresh at each level, and the mean of b falls short of rho a = 1.2:
    with one pass by half (measured .52), with ten by a tenth (1.09). Standard errors are .01."""
    one, ten = (float(second_given_first(False, "dpm_solver", 32, passes).mean()) for passes in (1, 10))
    assert abs(one - 1.2) > 0.5
    assert abs(ten - 1.2) < 0.2


@pytest.mark.parametrize(("kind", "elementwise"), [("masked", False), ("masked", True), ("uniform", True)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_unknown_class_is_exact_in_any_number_of_steps(kind, elementwise, steps):
    """P(second | first = 0) = (.6, .4) and one element moves: no splitting. 8,000 draws, five standard errors."""
    joint = JointProcess({"m": get_modality(kind)((2,), 2)}, ["m"] if elementwise else [], block=8000)
    atoms, law = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0.3, 0.2, 0.1, 0.4])
    known, value = torch.tensor([True, False]), torch.zeros(8000, 2, dtype=torch.int64)
    oracle = OracleDenoiser(joint, {"m": atoms}, law)
    x = joint.sample(oracle, 8000, given={"m": Given(value, known=known)}, steps=steps, rng=0)["m"]
    assert bool((x[:, 0] == 0).all())
    assert abs(float(x[:, 1].double().mean()) - 0.4) < 5 * (0.24 / 8000) ** 0.5


def test_a_composition_with_its_own_clock():
    """Two one-hot elements, the first known: the second follows it with probability .8. 300 draws, five standard errors
    and .03 for the first-order step at 24 steps."""
    joint = JointProcess({"m": get_modality("simplex")((2, 2), "posterior")}, ["m"], block=300)
    corner = torch.eye(2)
    atoms = torch.stack([torch.stack([corner[i], corner[j]]) for i in (0, 1) for j in (0, 1)])
    oracle = OracleDenoiser(joint, {"m": atoms}, torch.tensor([0.4, 0.1, 0.3, 0.2]))
    given = Given(atoms[:1].repeat(300, 1, 1), known=torch.tensor([True, False]))
    x = joint.sample(oracle, 300, given={"m": given}, steps=24, rng=0)["m"]
    assert torch.equal(x[:, 0], atoms[0, 0].expand(300, 2))
    assert abs(float(x[:, 1, 0].mean()) - 0.8) < 5 * (0.16 / 300) ** 0.5 + 0.03


def test_known_in_one_modality_and_another_given_whole():
    """Known part and condition together: token 1 known, the label given; token 2 by Bayes' rule over the atoms."""
    joint = JointProcess({"m": get_modality("masked")((2,), 2), "label": get_modality("uniform")((), 2)}, block=8000)
    atoms = {
        "m": torch.tensor([[0, 0], [0, 1], [0, 0], [0, 1], [1, 1]]),
        "label": torch.tensor([0, 0, 1, 1, 1]),
    }
    oracle = OracleDenoiser(joint, atoms, torch.tensor([0.1, 0.3, 0.25, 0.05, 0.3]))
    given = {
        "m": Given(torch.zeros(8000, 2, dtype=torch.int64), known=torch.tensor([True, False])),
        "label": torch.zeros(8000, dtype=torch.int64),
    }
    x = joint.sample(oracle, 8000, given=given, steps=3, rng=0)["m"]
    assert abs(float(x[:, 1].double().mean()) - 0.75) < 5 * (0.1875 / 8000) ** 0.5
