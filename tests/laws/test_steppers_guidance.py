"""Guidance inside every stepper, in the stepper's own law: w = 1 and equal outputs change nothing, w = 0 is the weak
output, and the mix has its closed form: gaussian outputs linearly whatever they predict; masked and uniform classes as
p^w q^(1-w), renormalised (analytic and its kin, the schedule as it was) or with their sum Z in the rate (Euler and
tau-leaping); shares by their scores, cut at 0. One step each, no model."""

import math

import pytest
import torch

from de_core import get_modality

F64 = torch.float64
MODALITIES = {
    "gaussian": lambda: get_modality("gaussian")((3,)),
    "masked": lambda: get_modality("masked")((4,), 3),
    "ragged": lambda: get_modality("masked")((3,), [2, 4, 3]),
    "uniform": lambda: get_modality("uniform")((4,), 3),
    "leave one out": lambda: get_modality("uniform")((4,), 3, "leave_one_out"),
    "shares": lambda: get_modality("simplex")((3,)),
    "corners": lambda: get_modality("simplex")((3,), "posterior"),
}
EVERY = [(kind, method) for kind, make in MODALITIES.items() for method in make().methods()]


def moves(kind, method, pairs, t=0.7, s=0.5, n=200):
    """One step of ``n`` rows for each (strong, weak, w) in turn, from one state and one stream; weak None is
    unguided."""
    m = MODALITIES[kind]()
    rng = torch.Generator().manual_seed(0)
    x = m.prior(n, rng=rng)
    x = x.double() if x.is_floating_point() else x
    strong, weak = (torch.randn(n, *m.output_shape, generator=rng, dtype=F64) for _ in range(2))
    pick = {"strong": strong, "weak": weak, None: None}
    out = []
    for first, second, weight in pairs:
        a, b = pick[first], pick[second]
        again = lambda y, when, a=a, b=b: a if b is None else (a, b)  # noqa: E731 # one word for one line
        when, then = torch.full((n,), t, dtype=F64), torch.full((n,), s, dtype=F64)
        moved, _ = m.step(a, x, when, then, rng=1, method=method, weak=b, weight=weight, again=again)
        out.append(moved)
    return x, out


@pytest.mark.parametrize(("kind", "method"), EVERY)
def test_identities_of_the_mix(kind, method):
    """w = 1, and a weak output equal to the strong one, give the unguided step; w = 0 the weak output's own: equal
    draws, and numbers to rounding (1e-9; scores of shares are cut at 1e-12). w = 2 gives another step."""
    _, (plain, one, same, none, weak, two) = moves(
        kind,
        method,
        [
            ("strong", None, 1.0),
            ("strong", "weak", 1.0),
            ("strong", "strong", 3.0),
            ("strong", "weak", 0.0),
            ("weak", None, 1.0),
            ("strong", "weak", 2.0),
        ],
    )
    assert (plain.double() - one).abs().max() < 1e-9
    assert (plain.double() - same).abs().max() < 1e-9
    assert (weak.double() - none).abs().max() < 1e-9
    assert not torch.equal(plain, two)


@pytest.mark.parametrize("method", MODALITIES["gaussian"]().methods())
def test_the_gaussian_mix_does_not_depend_on_what_is_predicted(method):
    """Every prediction is affine in the score at (x_t, t) with the same offset, so a guided step is the same for v, x0,
    eps and score outputs that say the same thing, the second call's too: rounding, 1e-9 at t = .7."""
    base = get_modality("gaussian")((3,), "cosine", "score")
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=rng, dtype=F64)
    shift = torch.randn(2, 5, 3, generator=rng, dtype=F64)
    t, s = torch.full((5,), 0.7, dtype=F64), torch.full((5,), 0.6, dtype=F64)
    found = []
    for prediction in ("score", "v", "x0", "eps"):
        m = get_modality("gaussian")((3,), "cosine", prediction)

        def call(y, when, m=m, to=prediction):
            return tuple(base.convert(-y + k, y, when, to) for k in shift)

        strong, weak = call(x, t)
        found.append(m.step(strong, x, t, s, rng=0, method=method, weak=weak, weight=2.5, again=call)[0])
    assert all((y - found[0]).abs().max() < 1e-9 for y in found)


P, Q = torch.tensor([0.6, 0.3, 0.1], dtype=F64), torch.tensor([0.2, 0.3, 0.5], dtype=F64)


@pytest.mark.parametrize("weight", [2.0, -0.5])
@pytest.mark.parametrize("method", MODALITIES["masked"]().methods())
def test_the_masked_mix_in_each_methods_law(method, weight):
    """100,000 masked elements, .5 -> .45 (500 rows of 200; first-hitting 10,000 of 4, its calls being one an event).
    The share that moves: .1 whatever w in the analytic step and its kin; by z = .1 Z, Z = sum p^w q^(1-w), in Euler
    and tau-leaping. The classes: p^w q^(1-w)/Z in all. Five standard errors."""
    n, width = (10_000, 4) if method == "first_hitting" else (500, 200)
    m = get_modality("masked")((width,), 3)
    x, when = m.prior(n, rng=0), torch.full((n,), 0.5, dtype=F64)
    strong, weak = (v.log().expand(n, width, 3) for v in (P, Q))
    moved, _ = m.step(strong, x, when, 0.9 * when, rng=0, method=method, weak=weak, weight=weight,
                      again=lambda y, t: (strong, weak))  # fmt: skip
    mixed = P**weight * Q ** (1 - weight)
    z = 0.1 * float(mixed.sum())
    chance = {"euler": z, "tau_leaping": 1 - math.exp(-z), "tau_leaping_paper": z * math.exp(-z)}.get(method, 0.1)
    got = moved[moved != 3]
    assert abs(len(got) / (n * width) - chance) < 5 * math.sqrt(chance * (1 - chance) / (n * width))
    law = mixed / mixed.sum()
    share = torch.bincount(got, minlength=3) / len(got)
    assert bool(((share - law).abs() < 5 * (law * (1 - law) / len(got)).sqrt()).all())


def test_confidence_ranks_by_the_guided_law():
    """Two elements, one unmasked (.5 -> .25, two times a half): the first is surer by the strong output, the second by
    the mix at w = 2."""
    m = get_modality("masked")((2,), 2)
    strong = torch.tensor([[0.8, 0.2], [0.7, 0.3]], dtype=F64).log().expand(4, 2, 2)
    weak = torch.tensor([[0.8, 0.2], [0.4, 0.6]], dtype=F64).log().expand(4, 2, 2)
    x, t = m.prior(4, rng=0), torch.full((4,), 0.5, dtype=F64)
    plain, _ = m.step(strong, x, t, t / 2, rng=0, method="confidence")
    guided, _ = m.step(strong, x, t, t / 2, rng=0, method="confidence", weak=weak, weight=2.0)
    assert bool(((plain != 2) == torch.tensor([True, False])).all())
    assert bool(((guided != 2) == torch.tensor([False, True])).all())  # .7^2/.4 : .3^2/.6 = .89 : .11


@pytest.mark.parametrize("head", ["posterior", "leave_one_out"])
@pytest.mark.parametrize("method", MODALITIES["uniform"]().methods())
def test_the_uniform_mix_in_each_methods_law(method, head):
    """The guided transition law from the two unguided ones, in float64, w = 2.5: analytic, q_strong^w q_weak^(1-w)
    renormalised. The others through their jump means z_j: unguided each class has chance(z) z_j/z, guided
    chance(z') z'_j/z' with z'_j = z_j^w y_j^(1-w)."""
    m, w = get_modality("uniform")((), 4, head), 2.5
    rng = torch.Generator().manual_seed(0)
    x = torch.arange(4)
    strong, weak = torch.randn(2, 4, 4, generator=rng, dtype=F64)
    t, s = torch.full((4,), 0.6, dtype=F64), torch.full((4,), 0.55, dtype=F64)
    first, second = (m.transition(o, x, t, s, method=method) for o in (strong, weak))
    guided = m.transition(strong, x, t, s, method=method, weak=weak, weight=w)
    assert (guided.exp().sum(-1) - 1).abs().max() < 1e-12
    if method == "analytic":
        assert (guided - (w * first + (1 - w) * second).log_softmax(-1)).abs().max() < 1e-12
        return
    away = ~torch.eye(4, dtype=torch.bool)
    hazard = 0.05 * float(m.clock.hazard(t[0])) / 4
    means = [torch.where(away, hazard * m.log_ratios(o, x, t).exp(), 0.0) for o in (strong, weak)]
    mixed = torch.where(away, means[0] ** w * means[1].clamp_min(1e-300) ** (1 - w), 0.0)
    chance = {
        "euler": lambda z: z.clamp_max(1),
        "tau_leaping": lambda z: 1 - torch.exp(-z),
        "tau_leaping_paper": lambda z: z * torch.exp(-z),
    }[method]
    for mean, found in ((means[0], first), (mixed, guided)):
        z = mean.sum(-1, keepdim=True)
        wanted = torch.where(away, chance(z) * mean / z, 1 - chance(z))
        assert (found.exp() - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("head", ["score", "posterior"])
def test_the_mix_of_shares_is_of_their_scores(head):
    """The score of the blended output is w s + (1 - w) s', cut at 0: to 1e-9 of the largest (the cut leaves 1e-12 of
    the scale). For corners s_i = mu_i g_i(x), linear in mu."""
    m = get_modality("simplex")((4,), head)
    rng = torch.Generator().manual_seed(0)
    x, t = m.prior(50, rng=rng).double(), torch.full((50,), 0.6, dtype=F64)
    strong, weak = torch.randn(2, 50, 4, generator=rng, dtype=F64)
    s, other = m.score(strong, x, t), m.score(weak, x, t)
    wanted = (2.5 * s - 1.5 * other).clamp_min(0)
    if head == "posterior":  # the network's classes are normalised, which moves the score along itself
        mu = (2.5 * strong.softmax(-1) - 1.5 * weak.softmax(-1)).clamp_min(1e-12)
        wanted = wanted / mu.sum(-1, keepdim=True)
    found = m.score(m.blend(strong, weak, 2.5), x, t)
    assert bool((wanted == 0).any())
    assert (found - wanted).abs().max() < 1e-9 * float(wanted.max())
