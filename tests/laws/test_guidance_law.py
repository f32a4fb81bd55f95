"""Guidance by its laws: identities bit for bit, the closed form of the guided linear flow, the mix in each space.

**The guided linear flow.** (x_0, y_0) normal, unit variances, correlation rho; cosine schedule, alpha^2 + sigma^2 = 1.
Then x_t and y_s are normal with unit variances and correlation k alpha_t, k = rho alpha_s, so with a = alpha_t

    grad log p(x_t | y_s) = -(x - k a y)/(1 - k^2 a^2).

The probability flow is dx/dt = f x - g^2/2 score with f = a'/a and, the variance being preserved, g^2 = -2f. So
dx/dt = f (x + score), and in a in place of t (da/dt = f a)

    dx/da = (x + score)/a = (k y - k^2 a x)/(1 - k^2 a^2).

Guidance mixes scores, hence the right sides: w for (k_1, y_s), k_1 = rho alpha_s, and 1 - w for (k_2, y_sigma),
k_2 = rho alpha_sigma, y_sigma frozen. The equation is linear. Without the y terms it is solved by

    M(a) = (1 - k_1^2 a^2)^{w/2} (1 - k_2^2 a^2)^{(1-w)/2},   M(0) = 1,

so from x_1 at a = 0 (t = 1) to the data at a = 1 (t = 0)

    x = M(1) [x_1 + w k_1 y_s I_1 + (1 - w) k_2 y_sigma I_2],   I_i = int_0^1 da/((1 - k_i^2 a^2) M(a)).

At sigma = 1 (k_2 = 0) and w = 2, I_1 = 1/(2 (1 - k^2)) + atanh(k)/(2k): int (1 - k^2 a^2)^{-2}."""

import math

import numpy as np
import pytest
import torch

from de_core import ClassifierFreeGuidance, Given, JointProcess, NoisyGuidance, Trajectory, get_modality
from de_core.families.jump import guided_log_probs
from de_core.testing import OracleDenoiser

F64 = torch.float64
RHO = 0.8


# --- the closed form --------------------------------------------------------------------------------------------------


class Exact:
    """The exact network of the normal pair, x_0-predictions: E[x_0 | x_t, y_s] by the normal equations, in float64."""

    def __init__(self, rho=RHO):
        self.rho, self.seen = rho, []

    def __call__(self, x, t):
        a, b = (torch.cos(0.5 * math.pi * t[name].double()) for name in ("x", "y"))
        u, v = (x[name][:, 0].double() for name in ("x", "y"))
        self.seen.append((v, b))
        c = self.rho * a * b  # the correlation of x_t and y_s
        # cov(x_0, x_t) = a, cov(x_0, y_s) = rho b, and the other way round
        first = (a * (u - c * v) + self.rho * b * (v - c * u)) / (1 - c**2)
        second = (b * (v - c * u) + self.rho * a * (u - c * v)) / (1 - c**2)
        return {"x": first[:, None].to(x["x"].dtype), "y": second[:, None].to(x["y"].dtype)}


def closed_form(w, k1, k2, start, y, z):
    """x at a = 1; the integrals by 200-point Gauss-Legendre: the integrands are smooth, 1 - k^2 >= .36, error 1e-15."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(200))
    a = 0.5 * (nodes + 1)

    def m(a):
        return (1 - k1**2 * a**2) ** (w / 2) * (1 - k2**2 * a**2) ** ((1 - w) / 2)

    first, second = (float((0.5 * weights / ((1 - k**2 * a**2) * m(a))).sum()) for k in (k1, k2))
    end = float(m(torch.ones((), dtype=F64)))
    return end * (start + w * k1 * y * first + (1 - w) * k2 * z * second)


def guided_error(method, steps, w, s, sigma):
    """The largest distance of 64 guided samples from the closed form, with the start and the frozen noise as drawn."""
    spaces = {name: get_modality("gaussian")((1,), prediction="x0") for name in ("x", "y")}
    joint = JointProcess(spaces, block=64)
    y = torch.randn(64, 1, generator=torch.Generator().manual_seed(5), dtype=F64)
    model, trajectory = Exact(), Trajectory()
    guidance = NoisyGuidance(w, sigma=sigma, renoise="frozen")
    default = torch.get_default_dtype()
    torch.set_default_dtype(F64)  # the prior is drawn in it
    try:
        found = joint.sample(
            model, 64, given={"y": Given(y, level=s)}, steps=steps, methods={"x": method}, guidance=guidance, rng=0,
            callback=trajectory,
        )["x"][:, 0]  # fmt: skip
    finally:
        torch.set_default_dtype(default)
    weak = torch.stack([v[64:] for v, _ in model.seen])
    assert bool((weak == weak[0]).all())  # one draw for the run
    k1, k2 = (RHO * math.cos(0.5 * math.pi * t) for t in (s, sigma))
    wanted = closed_form(w, k1, k2, trajectory.x["x"][0, :, 0], y[:, 0], weak[0])
    return float((found - wanted).abs().max())


def test_the_closed_form_against_the_one_that_can_be_written_out():
    """sigma = 1, w = 2: the integral by hand, and quadrature, to 1e-13."""
    k, start, y = RHO, 0.7, -1.3
    by_hand = (1 - k**2) * (start + 2 * k * y * (1 / (2 * (1 - k**2)) + math.atanh(k) / (2 * k)))
    assert abs(closed_form(2.0, k, 0.0, start, y, 9.9) - by_hand) < 1e-13


@pytest.mark.parametrize(("method", "least"), [("heun", 15), ("dpm_solver", 6)])
@pytest.mark.parametrize(("w", "s", "sigma"), [(2.0, 0.0, 1.0), (2.0, 0.0, 0.5), (3.5, 0.2, 0.6), (0.5, 0.0, 0.7)])
def test_frozen_noisy_guidance_follows_its_closed_form(method, least, w, s, sigma):
    """From 64 to 256 steps the error falls by 4^order: by 16 for Heun (measured 16.0); for DPM-Solver++, whose step
    from alpha = 0 is of first order, by more than Euler's 4 (measured 8.2 to 9.1). At 256 steps it is under 1e-3 of the
    spread of x, which is about one. Nothing is random: the start and the noise are read from the run."""
    coarse, fine = (guided_error(method, steps, w, s, sigma) for steps in (64, 256))
    assert fine < 1e-3
    assert coarse / fine > least


def test_without_the_frozen_noise_the_closed_form_fails():
    """Fresh noise at each step averages to another flow: the test above can fail."""
    spaces = {name: get_modality("gaussian")((1,), prediction="x0") for name in ("x", "y")}
    joint, model = JointProcess(spaces, block=64), Exact()
    y = torch.randn(64, 1, generator=torch.Generator().manual_seed(5))
    joint.sample(model, 64, given={"y": y}, steps=64, guidance=NoisyGuidance(2.0, sigma=0.5), rng=0)
    weak = torch.stack([v[64:] for v, _ in model.seen])
    assert not bool((weak == weak[0]).all())


def test_the_weak_condition_has_the_forward_law_from_its_own_level():
    """y given at level s = .4 and noised to sigma = .7 from there is N(alpha_.7/alpha_.4 y, 1 - that^2): mean and
    variance of 4,096 fresh draws at one y, within five standard errors. The kernel from 0 would have mean alpha_.7 y,
    off by .17, over 13 standard errors."""
    spaces = {name: get_modality("gaussian")((1,), prediction="x0") for name in ("x", "y")}
    joint, model, n = JointProcess(spaces, block=4096), Exact(), 4096
    y = torch.full((n, 1), 1.5)
    joint.sample(model, n, given={"y": Given(y, level=0.4)}, steps=1, guidance=NoisyGuidance(2.0, sigma=0.7), rng=0)
    weak = model.seen[0][0][n:]
    ratio = math.cos(0.35 * math.pi) / math.cos(0.2 * math.pi)
    variance = 1 - ratio**2
    assert abs(float(weak.mean()) - 1.5 * ratio) < 5 * (variance / n) ** 0.5
    assert abs(float(weak.var()) - variance) < 5 * variance * (2 / n) ** 0.5
    assert bool((model.seen[0][1][n:] - math.cos(0.35 * math.pi)).abs().max() < 1e-6)  # and the clock says sigma


# --- identities, bit for bit ------------------------------------------------------------------------------------------


def mixed(n=8):
    """Four spaces and six atoms, an exact network."""
    joint = JointProcess(
        {
            "number": get_modality("gaussian")((1,)),
            "tokens": get_modality("masked")((2,), 2),
            "label": get_modality("uniform")((), 3),
            "shares": get_modality("simplex")((3,), "posterior"),
        },
        block=n,
    )
    atoms = {
        "number": torch.tensor([[-2.0], [-2.0], [0.0], [0.0], [2.0], [2.0]]),
        "tokens": torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0], [1, 1]]),
        "label": torch.tensor([0, 1, 1, 2, 2, 0]),
        "shares": torch.eye(3)[torch.tensor([0, 1, 2, 2, 1, 0])],
    }
    return joint, atoms, OracleDenoiser(joint, atoms)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


GIVENS = [
    lambda joint, atoms: {},
    lambda joint, atoms: {"label": atoms["label"]},
    lambda joint, atoms: {"tokens": Given(joint.modalities["tokens"].perturb(atoms["tokens"], 0.3, rng=1).xt, 0.3)},
    lambda joint, atoms: {"tokens": Given(atoms["tokens"], known=torch.tensor([True, False])), "label": atoms["label"]},
]


@pytest.mark.parametrize("given", GIVENS, ids=["joint", "clean", "noisy", "part"])
def test_identities(given):
    """w = 1 is no guidance; sigma = 1 is classifier-free; sigma at a condition's own level is no guidance; outside the
    interval there is none; frozen and fresh agree where a condition is replaced by its one prior state."""
    joint, atoms, oracle = mixed(6)
    held = given(joint, atoms)

    def run(guidance):
        return joint.sample(oracle, 6, given=held, steps=6, guidance=guidance, rng=7)

    plain = run(None)
    assert same(plain, run(NoisyGuidance(1.0, sigma=0.4)))
    assert same(plain, run(ClassifierFreeGuidance(1.0)))
    assert same(plain, run(NoisyGuidance(1.0, sigma=0.4, renoise="frozen")))
    assert same(plain, run(NoisyGuidance({"number": 1.0, "shares": 1.0}, sigma=0.4)))
    free = run(ClassifierFreeGuidance(2.5))
    assert same(free, run(NoisyGuidance(2.5, sigma=1.0)))
    assert same(free, run(NoisyGuidance(2.5, sigma={"label": 1.0})))  # 1 for those left out
    assert same(free, run(NoisyGuidance(dict.fromkeys(joint.modalities, 2.5))))
    assert not same(plain, free)
    assert same(plain, run(NoisyGuidance(3.0, sigma=0.5, interval=(0.0, 1e-6))))
    if held:
        own = {name: g.level if isinstance(g, Given) else 0.0 for name, g in held.items()}
        assert same(plain, run(NoisyGuidance(3.0, sigma=own)))


def test_the_model_itself_as_the_weaker_one_is_no_guidance():
    """w strong + (1 - w) weak with the two equal; rounding in float32 and then in the steps: 1e-4 for numbers, and the
    same draws of classes."""
    joint, atoms, oracle = mixed(6)
    given = {"label": atoms["label"]}
    plain = joint.sample(oracle, 6, given=given, steps=6, rng=7)
    guided = joint.sample(oracle, 6, given=given, steps=6, rng=7, guidance=NoisyGuidance(3.0, model=oracle))
    assert (plain["number"] - guided["number"]).abs().max() < 1e-4
    assert torch.equal(plain["tokens"], guided["tokens"])


def test_another_model_at_weight_zero_is_that_model():
    """w = 0 leaves the weak model alone: an oracle of another law. Rounding as above."""
    joint, atoms, oracle = mixed(6)
    other = OracleDenoiser(joint, atoms, torch.arange(1.0, 7.0))
    guided = joint.sample(oracle, 6, steps=6, rng=7, guidance=NoisyGuidance(0.0, model=other))
    alone = joint.sample(other, 6, steps=6, rng=7)
    assert (alone["number"] - guided["number"]).abs().max() < 1e-4
    assert torch.equal(alone["tokens"], guided["tokens"])
    assert torch.equal(alone["label"], guided["label"])


def test_weight_zero_samples_from_the_weak_conditional():
    """w = 0 at sigma = 1: the condition is not looked at. P(label) and not P(label | tokens): 6,000 draws, each class
    of probability 1/3 within five standard errors; given tokens (0, 1) the label would be 1 always."""
    joint, atoms, oracle = mixed(6000)
    joint = JointProcess({name: joint.modalities[name] for name in ("tokens", "label")}, block=6000)
    oracle = OracleDenoiser(joint, {name: atoms[name] for name in joint.modalities})
    tokens = atoms["tokens"][1].repeat(6000, 1)
    for weight, wanted in [(1.0, [0, 1, 0]), (0.0, [1 / 3, 1 / 3, 1 / 3])]:
        guidance = ClassifierFreeGuidance(weight)
        label = joint.sample(oracle, 6000, given={"tokens": tokens}, steps=6, guidance=guidance, rng=1)["label"]
        share = torch.bincount(label, minlength=3) / 6000
        assert (share - torch.tensor(wanted)).abs().max() < 5 * (2 / 9 / 6000) ** 0.5


def test_one_masked_token_is_drawn_from_the_guided_probabilities():
    """With one element the guided probabilities do not change on the way, whatever the steps: the sample's law is
    p_strong^w p_weak^{1-w}, renormalised. 8,000 draws, five standard errors a class."""
    joint = JointProcess(
        {"token": get_modality("masked")((1,), 3), "label": get_modality("uniform")((), 2)}, block=8000
    )
    atoms = {"token": torch.tensor([[0], [1], [2], [0], [1], [2]]), "label": torch.tensor([0, 0, 0, 1, 1, 1])}
    law = torch.tensor([0.2, 0.2, 0.1, 0.1, 0.1, 0.3])
    oracle = OracleDenoiser(joint, atoms, law)
    label, w = torch.zeros(8000, dtype=torch.int64), 2.5
    guidance = ClassifierFreeGuidance(w)
    # sigma = 1 replaces the label by a uniform class at t = 1, of which the network knows nothing: the weak side is p
    strong, weak = torch.tensor([0.4, 0.4, 0.2]), torch.tensor([0.3, 0.3, 0.4])
    wanted = strong**w * weak ** (1 - w)
    wanted = wanted / wanted.sum()
    for steps in (1, 5):
        token = joint.sample(oracle, 8000, given={"label": label}, steps=steps, guidance=guidance, rng=2)["token"]
        share = torch.bincount(token[:, 0], minlength=3) / 8000
        assert ((share - wanted).abs() < 5 * (wanted * (1 - wanted) / 8000).sqrt()).all()
    assert torch.allclose(guided_log_probs(strong.log(), weak.log(), w).exp(), wanted, atol=1e-6)


@pytest.mark.parametrize("elementwise", [[], ["tokens"]])
def test_a_known_token_guides_the_other(elementwise):
    """Two tokens, the first known: the second is drawn from p(second | first)^w p(second)^{1-w}, renormalised, under
    one clock and under a clock an element. 8,000 draws, five standard errors a class."""
    joint = JointProcess({"tokens": get_modality("masked")((2,), 2)}, elementwise, block=8000)
    atoms, law = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([0.3, 0.2, 0.1, 0.4])
    oracle, w = OracleDenoiser(joint, {"tokens": atoms}, law), 2.0
    given = {"tokens": Given(torch.zeros(8000, 2, dtype=torch.int64), known=torch.tensor([True, False]))}
    drawn = joint.sample(oracle, 8000, given=given, steps=4, guidance=ClassifierFreeGuidance(w), rng=3)["tokens"]
    assert bool((drawn[:, 0] == 0).all())
    strong, weak = torch.tensor([0.6, 0.4]), torch.tensor([0.4, 0.6])
    wanted = float((strong**w * weak ** (1 - w))[1] / (strong**w * weak ** (1 - w)).sum())
    assert abs(float(drawn[:, 1].double().mean()) - wanted) < 5 * (wanted * (1 - wanted) / 8000) ** 0.5
    assert abs(wanted - 0.4) > 10 * (wanted * (1 - wanted) / 8000) ** 0.5  # unguided is told from it
