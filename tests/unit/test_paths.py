"""Paths through the cube of clocks: as the bound sees them (clocks) and as sampling runs them (readings)."""

import itertools
import math

import pytest
import torch

from de_core import Cascaded, DiffuseError, Matched, Sequential, Synchronous, get_modality

F64 = torch.float64


def spaces():
    return {
        "image": get_modality("gaussian")((2,)),
        "text": get_modality("masked")((3,), 4),
        "label": get_modality("uniform")((), 3),
        "ink": get_modality("simplex")((4,)),
    }


def counts(n=8, **others):
    return {name: others.get(name, n) for name in spaces()}


PATHS = [Synchronous(), Sequential(["label", "text"]), Cascaded(["ink"], lag=0.25), Cascaded(lag=0.7), Matched()]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_clocks_rise_from_data_to_noise_with_the_derivative_they_say(path):
    """Mean of the stated derivative between two points = the clock's rise there; the midpoint rule on 20,000 cells errs
    by one cell at a kink, slope at most 4 (Cascaded, Sequential) or bounded by the schedule (Matched): 1e-3."""
    u = (torch.arange(20_000, dtype=F64) + 0.5) / 20_000
    ends = path.clocks(spaces(), torch.tensor([0.0, 1.0], dtype=F64))
    for name, (t, slope) in path.clocks(spaces(), u).items():
        assert ends[name][0].tolist() == [0.0, 1.0]
        assert bool((t.diff() >= 0).all())
        assert bool((slope >= 0).all())
        rise = (slope / 20_000).cumsum(0)
        assert (rise - t).abs().max() < 1e-3
        assert t.shape == slope.shape == u.shape


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("steps", [counts(1), counts(8), counts(9, text=3, ink=5)])
def test_readings_fall_from_one_to_zero_and_something_moves_in_every_round(path, steps):
    found = path.readings(spaces(), steps)
    rounds = {len(t) for t in found.values()}
    assert len(rounds) == 1
    for name, t in found.items():
        assert (t[0], t[-1]) == (1.0, 0.0)
        assert all(a >= b for a, b in itertools.pairwise(t))
        assert len(set(t)) == steps[name] + 1  # so many moves, the last one to data
    for k in range(rounds.pop() - 1):
        assert any(t[k + 1] < t[k] for t in found.values())


def test_synchronous_runs_each_modality_on_its_own_grid():
    found = Synchronous().readings(spaces(), counts(8))
    for name, m in spaces().items():
        assert found[name] == [*m.grid(8).tolist(), 0.0]
    held = Synchronous().readings(spaces(), counts(8, text=2))
    assert held["text"] == [1.0] * 4 + [0.5] * 4 + [0.0]
    assert held["ink"] == found["ink"]


def test_sequential_finishes_one_before_the_next_starts():
    found = Sequential(["ink", "image"]).readings(spaces(), counts(4, ink=3))
    assert len(found["ink"]) == 3 + 4 + 4 + 4 + 1
    assert found["ink"][3:] == [0.0] * 13
    assert found["image"][:4] == [1.0] * 4
    assert found["image"][7:] == [0.0] * 9
    assert found["text"][:8] == [1.0] * 8  # those left out follow in the order of the process
    assert found["label"][:12] == [1.0] * 12
    # the same order in the clocks: the first of the order is the last to be noised
    t = Sequential(["ink", "image"]).clocks(spaces(), torch.tensor([0.5], dtype=F64))
    assert {name: float(value[0]) for name, value in t.items()} == {"ink": 0, "image": 0, "text": 1, "label": 1}


def test_cascaded_lies_between_the_two():
    steps = counts(8, text=4)
    assert Cascaded(["text"], lag=0).readings(spaces(), steps) == Synchronous().readings(spaces(), steps)
    assert Cascaded(["text"], lag=1).readings(spaces(), steps) == Sequential(["text"]).readings(spaces(), steps)
    pair = {name: spaces()[name] for name in ("image", "text")}
    found = Cascaded(["text"], lag=0.5).readings(pair, {"image": 8, "text": 8})
    assert found["text"] == [*pair["text"].grid(8).tolist(), *[0.0] * 5]
    assert found["image"] == [*[1.0] * 4, *pair["image"].grid(8).tolist(), 0.0]
    # THEORY section 5: t^1 = min(1, (1 + lag) u), t^2 = max(0, (1 + lag) u - lag), the second finished first
    u = torch.linspace(0, 1, 101, dtype=F64)
    t = Cascaded(["text"], lag=0.5).clocks(pair, u)
    assert torch.allclose(t["image"][0], (1.5 * u).clamp_max(1), rtol=0, atol=1e-15)
    assert torch.allclose(t["text"][0], (1.5 * u - 0.5).clamp_min(0), rtol=0, atol=1e-15)


def test_matched_keeps_all_at_one_signal():
    """signal(t_i) = cos^2(pi u/2): bisection to the last digit of t, slope of the signal at most 2: 1e-14. The cosine
    gaussian is u itself; a = cos^2 makes the masked clock sin^2(pi u/2); a^2 = cos^2 the uniform one 1 - cos."""
    u = torch.linspace(0.05, 0.95, 19, dtype=F64)
    found = {name: t for name, (t, _) in Matched().clocks(spaces(), u).items()}
    for name, m in spaces().items():
        assert (m.signal(found[name]) - torch.cos(0.5 * math.pi * u) ** 2).abs().max() < 1e-14
    assert torch.allclose(found["image"], u, rtol=0, atol=1e-14)
    assert torch.allclose(found["text"], torch.sin(0.5 * math.pi * u) ** 2, rtol=0, atol=1e-14)
    assert torch.allclose(found["label"], 1 - torch.cos(0.5 * math.pi * u), rtol=0, atol=1e-14)
    edm = {"image": get_modality("gaussian")((2,), "edm")}  # sigma from .002 to 80
    t = Matched().clocks(edm, torch.tensor([0.0005, 0.5, 0.995], dtype=F64))["image"][0]
    assert float(t[2]) == pytest.approx(1, abs=1e-12)  # tan(.995 pi/2) = 127 > 80: at the end of its path
    assert float(edm["image"].path.sigma(t)[1]) == pytest.approx(1, abs=1e-9)
    readings = Matched().readings(spaces(), counts(8))
    assert readings["text"][1:8] == pytest.approx([math.sin(math.pi * (1 - k / 8) / 2) ** 2 for k in range(1, 8)])


@pytest.mark.parametrize("t", [0.2, 0.7])
@pytest.mark.parametrize("kind", ["gaussian", "linear", "masked", "uniform", "simplex"])
def test_signal_is_the_share_of_variance_that_the_noisy_state_explains(kind, t):
    """For data of the reference law E[x_0 | x_t] is linear in x_t's own feature (for masked: x_0 where it is kept), so
    the share is the squared correlation; its standard error is at most 2 rho (1 - rho^2)/sqrt(n) times a factor under 2
    for features that are not normal. Seven of them."""
    n, g = 40_000, torch.Generator().manual_seed(0)
    if kind in ("gaussian", "linear"):
        m = get_modality("gaussian")((), "cosine" if kind == "gaussian" else "linear")
        x0 = torch.randn(n, generator=g)
        a, b = x0, m.perturb(x0, t, rng=g).xt
    elif kind == "uniform":
        m = get_modality("uniform")((), 4)
        x0 = torch.randint(4, (n,), generator=g)
        a, b = (x0 == 0).float(), (m.perturb(x0, t, rng=g).xt == 0).float()
    elif kind == "simplex":
        m = get_modality("simplex")((3,))
        x0 = m.prior(n, rng=g)
        a, b = x0[:, 0], m.perturb(x0, t, rng=g).xt[:, 0]
    else:
        m = get_modality("masked")((), 2)
        x0 = torch.randint(2, (n,), generator=g)
        xt = m.perturb(x0, t, rng=g).xt
        a, b = x0.float(), torch.where(xt == 2, 0.5, xt.float())  # E[x_0 | x_t] for even odds
    share = float(torch.corrcoef(torch.stack([a, b]))[0, 1] ** 2)
    want = float(m.signal(torch.tensor(t, dtype=F64)))
    assert abs(share - want) < 7 * 2 * 2 * want**0.5 * (1 - want) / n**0.5
    assert float(m.signal(torch.tensor(0.0, dtype=F64))) == pytest.approx(1, abs=1e-12)


class _NoSignal(get_modality("gaussian")):
    def signal(self, t):
        return super(get_modality("gaussian"), self).signal(t)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Sequential(["sound"]).readings(spaces(), counts()),
            "unknown modality 'sound'; those that move are image",
        ),
        (lambda: Cascaded(["sound"]).clocks(spaces(), torch.zeros(1)), "path: unknown modality 'sound'"),
        (lambda: Sequential(["text", "text"]).readings(spaces(), counts()), "each modality once, got text, text"),
        (lambda: Sequential("text"), "expected an order of names, such as .'text'., got the text 'text'"),
        (lambda: Cascaded(lag=1.5), r"lag in \[0, 1\], got 1.5"),
        (lambda: Cascaded(lag=float("nan")), r"lag in \[0, 1\], got nan"),
        (lambda: Matched().readings(spaces(), counts(text=[1.0, 0.5])), "'text': the path Matched sets its readings"),
        (lambda: Matched().readings({"x": _NoSignal((2,))}, {"x": 4}), "_NoSignal has no signal"),
        (lambda: Synchronous().readings(spaces(), counts(text=[1.0, 0.5, 0.7])), "'text': expected readings that desc"),
        (lambda: Synchronous().readings(spaces(), counts(text=[0.9, 0.5])), "descend from 1 to above 0"),
        (lambda: Synchronous().readings(spaces(), counts(text=[1.0, 0.0])), "descend from 1 to above 0"),
        (lambda: Synchronous().readings(spaces(), counts(text=[])), "descend from 1 to above 0"),
    ],
)
def test_paths_that_cannot_be(make, words):
    with pytest.raises(DiffuseError, match=words):
        make()
