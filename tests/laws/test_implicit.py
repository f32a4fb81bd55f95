"""The implicit form: its integrand is the one of the theorem, its estimators are unbiased, and training by it finds
the truth."""

import math

import pytest
import torch
from hypothesis import given, settings

from de_core import JointProcess, get_modality
from de_core.testing import OracleDenoiser
from de_core.testing.strategies import clean, modalities, seeds

F64 = torch.float64
laws = settings(max_examples=12)


def linear_head(modality, seed):
    """An output that depends smoothly on every coordinate of x, in float64."""
    rng = torch.Generator().manual_seed(seed)
    inside, outside = math.prod(modality.event_shape), math.prod(modality.output_shape)
    a = 0.5 * torch.randn(inside, outside, generator=rng, dtype=F64)
    return lambda x: torch.sin(x.to(F64).reshape(len(x), -1) @ a).reshape(len(x), *modality.output_shape)


@laws
@given(modalities(), seeds())
def test_random_probes_have_the_exact_sum_as_their_mean(modality, seed):
    """Hutchinson directions and single jumps against ``probes=0``: 600 probes of each of 4 states, five standard
    errors."""
    rng = torch.Generator().manual_seed(seed)
    x0 = clean(modality, 4, rng)
    t = 0.2 + 0.6 * torch.rand(4, generator=rng, dtype=F64)
    x = modality.perturb(x0, t, rng=rng).xt
    head = linear_head(modality, seed)
    exact = modality.implicit(head, x, t, rng=0, probes=0).detach()
    many, when = x.repeat_interleave(600, 0), t.repeat_interleave(600)
    found = modality.implicit(head, many, when, rng=rng, probes=1).detach().reshape(4, 600)
    assert bool(((found.mean(1) - exact).abs() <= 5 * found.std(1) / math.sqrt(600) + 1e-9 * exact.abs() + 1e-12).all())


@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_the_discrete_integrand_has_the_mean_of_the_theorem(kind):
    """E_p[implicit] + E_p[K-part] = E_p[score entropy]: explicit - implicit is one number for every model. The truth
    is an oracle on nine states, the models oracles of wrong laws; full enumeration, rounding: 1e-10."""
    modality = get_modality(kind)((2,), 3)
    joint = JointProcess({"m": modality})
    rng = torch.Generator().manual_seed(0)
    atoms = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    law = torch.rand(9, generator=rng, dtype=F64)
    t = torch.tensor(0.4, dtype=F64)
    states = modality.generator(t).states()
    when = t.expand(len(states))
    pairs = modality.log_transition(
        states.repeat(9, 1), atoms.repeat_interleave(len(states), 0), t.expand(9 * len(states))
    )
    p = (law / law.sum()) @ pairs.exp().reshape(9, -1)
    truth = OracleDenoiser(joint, {"m": atoms}, law)
    score = lambda model: modality.score(model({"m": states}, {"m": when})["m"], states, when)  # noqa: E731
    gaps, forms = [], []
    for _ in range(4):
        model = OracleDenoiser(joint, {"m": atoms}, torch.rand(9, generator=rng, dtype=F64))
        head = lambda x, model=model: model({"m": x}, {"m": t.expand(len(x))})["m"]  # noqa: E731
        implicit = modality.implicit(head, states, when, rng=0, probes=0)
        explicit = modality.generator(t).bregman(score(truth), score(model), states)
        gaps.append(float((p * (explicit - implicit)).sum()))
        forms.append(float((p * explicit).sum()))
    assert max(gaps) - min(gaps) < 1e-10
    assert max(forms) - min(forms) > 1e-3  # the models differ


@pytest.mark.parametrize("kind", ["gaussian", "simplex", "simplex corners"])
def test_the_continuous_integrand_has_the_mean_of_the_theorem(kind):
    """As above by Monte Carlo over (x_0, x_t): denoising - implicit has one mean for every model. Differences of two
    models on the same 20,000 draws, five standard errors, which are a fraction of the losses."""
    modality = {
        "gaussian": lambda: get_modality("gaussian")((2,)),
        "simplex": lambda: get_modality("simplex")((3,)),
        "simplex corners": lambda: get_modality("simplex")((3,), "posterior"),
    }[kind]()
    rng = torch.Generator().manual_seed(0)
    n = 20_000
    x0 = clean(modality, n, rng)
    t = 0.3 + 0.6 * torch.rand(n, generator=rng, dtype=F64)
    noised = modality.perturb(x0, t, rng=rng)
    values = []
    for seed in (1, 2):
        head = linear_head(modality, seed)
        implicit = modality.implicit(head, noised.xt, t, rng=0, probes=0).detach()
        denoising = modality.loss(head(noised.xt), noised)
        values.append((denoising, implicit))
    gap = (values[0][0] - values[0][1]) - (values[1][0] - values[1][1])
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(n)
    size = float(values[0][0].mean().abs() + values[1][0].mean().abs())
    assert 5 * float(gap.std()) / math.sqrt(n) < 0.2 * size  # tight enough that a factor of two in one term would show


class Small(torch.nn.Module):
    """One hidden layer over (x, one-hot y, t_x, t_y) with heads for both."""

    def __init__(self, joint, seed):
        super().__init__()
        self.joint = joint
        torch.manual_seed(seed)
        self.classes = joint.modalities["y"].num_classes
        inside = 3 + self.classes + 1
        self.body = torch.nn.Sequential(
            torch.nn.Linear(inside, 48), torch.nn.SiLU(), torch.nn.Linear(48, 48), torch.nn.SiLU()
        )
        self.x, self.y = torch.nn.Linear(48, 1), torch.nn.Linear(48, self.classes)

    def forward(self, x, t):
        hot = torch.nn.functional.one_hot(x["y"][:, 0], self.classes + 1)
        h = self.body(torch.cat([x["x"], hot, t["x"][:, None], t["y"][:, None]], 1))
        return {"x": self.x(h), "y": self.y(h)[:, None]}


@pytest.mark.parametrize("kind", ["masked", "uniform"])
def test_training_by_the_implicit_form_finds_the_optimum_of_the_denoising_form(kind):
    """One real number and one class, correlated: x_0 = -1 with class 0, +1 with class 1, nine times in ten.

    Measured by the explicit divergence from the truth, E Phi(p/beta) over fresh draws, per unit time, by modality. The
    threshold is half of what the best model pays that ignores the other modality (the oracle of the product of the
    marginal laws): below it a head has learned its own law and most of the coupling. The other form's optimum is the
    same: 0, within that threshold."""
    modality = get_modality(kind)((1,), 2)
    joint = JointProcess({"x": get_modality("gaussian")((1,), "cosine", "v"), "y": modality})
    atoms = {"x": torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]), "y": torch.tensor([[0], [1], [0], [1]])}
    law = torch.tensor([0.45, 0.05, 0.05, 0.45])
    oracle = OracleDenoiser(joint, atoms, law)
    rng = torch.Generator().manual_seed(0)

    def batch(n):
        rows = torch.multinomial(law, n, replacement=True, generator=rng)
        t = {k: 0.3 + 0.55 * torch.rand(n, generator=rng) for k in joint.modalities}
        return {k: v[rows] for k, v in atoms.items()}, t

    def divergence(model):
        with torch.no_grad():
            x0, t = batch(8000)
            found = joint.loss(model, x0, rng=1, times=t, form="explicit", truth=oracle)
        return {k: float(v.mean()) for k, v in found.terms.items()}

    def train(form, steps):
        model = Small(joint, 0)
        start = sum(divergence(model).values())
        optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
        for _ in range(steps):
            x0, t = batch(512)
            optimiser.zero_grad()
            joint.loss(model, x0, rng=rng, times=t, form=form).total.backward()
            optimiser.step()
            schedule.step()
        return start, divergence(model)

    blind = divergence(OracleDenoiser(joint, atoms))
    start, implicit = train("implicit", 1300)
    _, denoising = train("denoising", 700)
    for found in (implicit, denoising):
        assert sum(found.values()) < 0.1 * start
        for name in found:
            assert found[name] < blind[name] / 2, (name, implicit, denoising, blind)
