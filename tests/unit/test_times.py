"""Time policies: shapes, ranges, marginals, spread, faces, stages."""

import math

import pytest
import torch

from de_core import (
    Bell,
    DiffuseError,
    Faces,
    Independent,
    JointProcess,
    Mixed,
    Staged,
    Stratified,
    Tied,
    get_modality,
)
from de_core.times import default_times

SHAPES = {"a": (4000,), "b": (4000, 2, 3), "c": (4000,)}
POLICIES = [Independent(), Stratified(), Tied(), Faces(), Staged([(0.5, Tied(), {}), (1.0, Stratified(), {})])]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)
def test_shapes_range_and_obedience(policy):
    t = policy.draw(SHAPES, rng=rng())
    assert {k: tuple(v.shape) for k, v in t.items()} == SHAPES
    for value in t.values():
        assert float(value.min()) >= 0
        assert float(value.max()) <= 1
    again = policy.draw(SHAPES, rng=rng())
    assert all(torch.equal(t[k], again[k]) for k in t)
    for n in (0, 1, 2):
        small = policy.draw({"a": (n,), "b": (n, 2)}, rng=rng())
        assert small["a"].shape == (n,)


@pytest.mark.parametrize("policy", [Independent(), Stratified(), Tied()], ids=lambda p: type(p).__name__)
def test_each_time_is_uniform(policy):
    """The empirical distribution function of 4,000 draws is within 2.7/sqrt(n) of the identity: Kolmogorov, chance
    1e-6."""
    for value in policy.draw(SHAPES, rng=rng(1)).values():
        flat = value.reshape(4000, -1)[:, 0].sort().values
        gap = (flat - (torch.arange(4000) + 0.5) / 4000).abs().max()
        assert float(gap) < 2.7 / math.sqrt(4000)


def test_stratified_times_are_evenly_spread_and_independent():
    """One time in each cell of width 1/n, and correlations between modalities and elements under 5/sqrt(n)."""
    t = Stratified().draw(SHAPES, rng=rng(2))
    columns = torch.cat([v.reshape(4000, -1) for v in t.values()], 1)
    for column in columns.T:
        counts = torch.bincount((column.sort().values * 4000 - column.min() * 4000).round().long(), minlength=4000)
        assert int(counts.max()) == 1
    correlation = torch.corrcoef(columns.T) - torch.eye(columns.shape[1])
    assert float(correlation.abs().max()) < 5 / math.sqrt(4000)


def test_tied_times_are_one_time():
    t = Tied().draw(SHAPES, rng=rng(3))
    assert torch.equal(t["a"], t["c"])
    assert bool((t["b"] == t["a"][:, None, None]).all())


def test_faces_have_the_mass_they_promise():
    """share 0.4, ends 0.6, three modalities: t = 0 with probability .4 (.3 - .3^3), for not all are clean; t = 1 with
    .4 x .3. Five standard errors of 4,000 draws."""
    t = Faces(share=0.4, ends=0.6).draw(SHAPES, rng=rng(4))
    for value in t.values():
        flat = value.reshape(4000, -1)
        clean, absent = (flat == 0).all(1).float().mean(), (flat == 1).all(1).float().mean()
        for found, wanted in ((clean, 0.4 * (0.3 - 0.3**3)), (absent, 0.4 * 0.3)):
            assert abs(float(found) - wanted) < 5 * math.sqrt(wanted / 4000)
    everything = torch.stack([v.reshape(4000, -1).eq(0).all(1) for v in t.values()]).all(0)
    assert not bool(everything.any())  # a row of clean modalities would teach nothing


def test_default_times_reach_every_face():
    t = default_times().draw({"a": (2000,), "b": (2000,)}, rng=rng(5))
    for first, second in (("a", "b"), ("b", "a")):
        given_clean = (t[first] == 0) & (t[second] > 0)
        given_nothing = (t[first] == 1) & (t[second] < 1)
        assert int(given_clean.sum()) > 50
        assert int(given_nothing.sum()) > 50


def test_stages_follow_progress_and_hold():
    policy = Staged([(0.25, Independent(), {"a": 1.0}), (1.0, Tied(), {"b": 0.0})])
    early, late, end = (policy.draw(SHAPES, rng=rng(), progress=p) for p in (0.1, 0.25, 1.0))
    assert bool((early["a"] == 1).all())
    assert bool((late["b"] == 0).all())
    assert bool((end["b"] == 0).all())
    for wrong in ([], [(0.5, Tied(), {})], [(0.7, Tied(), {}), (0.5, Tied(), {}), (1.0, Tied(), {})]):
        with pytest.raises(DiffuseError, match="stages"):
            Staged(wrong)
    with pytest.raises(DiffuseError, match="no modality"):
        Staged([(1.0, Tied(), {"z": 0.0})]).draw(SHAPES, rng=rng())


def test_the_process_brings_times_to_where_training_stops():
    """(0, 1] goes to [t_min, 1], 0 stays 0, in the precision of each modality's data."""
    joint = JointProcess({"x": get_modality("gaussian")((2,)), "s": get_modality("simplex")((3,))}, ["x"])
    x0 = {"x": torch.zeros(500, 2, dtype=torch.float64), "s": torch.full((500, 3), 1 / 3)}
    t = joint.draw_times(x0, Faces(), rng=rng(6))
    assert t["x"].shape == (500, 2)
    assert t["x"].dtype == torch.float64
    assert t["s"].dtype == torch.float32
    for name, m in joint.modalities.items():
        moving = t[name][t[name] > 0]
        assert float(moving.min()) >= m.t_min * (1 - 1e-6)
        assert float(t[name].max()) == 1
        assert bool((t[name] == 0).any())


def test_a_bell_is_logit_normal_in_its_share():
    """Mean and deviation of logit t within five standard errors of 4,000 draws; the other names keep their times."""
    t = Bell({"a": (0.9, 1.0)}, share=1.0).draw(SHAPES, rng=rng(6))
    logit = t["a"].double().logit()
    assert abs(float(logit.mean()) - 0.9) < 5 / math.sqrt(4000)
    assert abs(float(logit.std()) - 1.0) < 5 / math.sqrt(8000)
    assert abs(float(t["c"].mean()) - 0.5) < 5 * 0.29 / math.sqrt(4000)
    kept = Bell({"a": (0.9, 1.0)}, share=0.0).draw(SHAPES, rng=rng(6))["a"]
    assert torch.equal(kept, Stratified().draw(SHAPES, rng=rng(6))["a"])


def test_a_mixture_holds_what_it_promises_in_every_batch():
    parts = [(0.3, Tied(), {"a": 0.0}), (0.1, Tied(), {"c": 1.0}), (0.6, Tied(), {})]
    t = Mixed(parts).draw({"a": (40,), "c": (40,)}, rng=rng(7))
    clean, absent = t["a"] == 0, t["c"] == 1
    assert (int(clean.sum()), int(absent.sum())) == (12, 4)
    assert not bool((clean & absent).any())
    rest = ~clean & ~absent
    assert torch.equal(t["a"][rest], t["c"][rest])
    assert bool((t["a"][rest].sort().values.diff() < 2 / 24).all())  # evenly spread within its part


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Bell({"a": (0.0, 0.0)}), "bell: expected a spread above 0 for 'a', got 0.0"),
        (lambda: Bell({}, share=2.0), "bell: expected share in"),
        (lambda: Mixed([]), "mixed: expected parts of shares above 0"),
        (lambda: Mixed([(1.0, Tied(), {"a": 2.0})]), "mixed: expected 'a' held at a time in"),
        (lambda: Mixed([(1.0, Tied(), {"z": 0.0})]).draw(SHAPES, rng=rng(8)), "mixed: no modality"),
    ],
)
def test_mixtures_and_bells_that_cannot_be(make, words):
    with pytest.raises(DiffuseError, match=words):
        make()
