"""The authors' transformer: its size to the parameter, columns that see each other, clocks of their own."""

import numpy as np
import pandas as pd
import pytest
import torch

from de_core import DiffuseError
from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular.dit import TableDiT, _count
from de_plugins.tabular.process import table_process

ADULT = [9, 16, 7, 15, 6, 5, 2, 42, 2]


@pytest.mark.parametrize(("sizes", "numbers", "parameters"), [(ADULT, 6, 70_194), ([2], 10, 55_204)])
def test_the_authors_size(sizes, numbers, parameters):
    """70.2K on Adult and 55.2K on Magic, the mask's logits counted."""
    network = TableDiT(sizes, numbers, **TableDiT.for_preset("paper", sizes, numbers))
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("sizes", "numbers"), [(ADULT, 6), ([], 4), ([3, 70], 0)])
@pytest.mark.parametrize("width", [4, 24])
def test_counted_without_making_it(sizes, numbers, width):
    assert sum(p.numel() for p in TableDiT(sizes, numbers, width=width).parameters()) == _count(sizes, numbers, width)


@pytest.mark.parametrize("preset", ["nano", "small", "base"])
def test_a_preset_is_a_bound(preset):
    most = {"nano": 64_000, "small": 300_000, "base": 2_000_000}[preset]
    width = TableDiT.for_preset(preset, ADULT, 6)["width"]
    assert _count(ADULT, 6, width) <= most < _count(ADULT, 6, width + 4)


def test_a_table_too_wide_for_a_preset_is_refused():
    with pytest.raises(DiffuseError, match="needs 74,533"):
        TableDiT.for_preset("nano", [8000], 0)


def scrambled(sizes, numbers):
    """A network whose gates are open: at the start they are shut, and no column sees another."""
    torch.manual_seed(0)
    network = TableDiT(sizes, numbers, width=8)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.5 * torch.randn_like(p))
    return network.double()


def inputs(batch=5):
    g = torch.Generator().manual_seed(1)
    x = {
        "numbers": torch.randn(batch, 2, generator=g).double(),
        "classes": torch.randint(0, 3, (batch, 2), generator=g),
    }
    t = torch.rand(batch, 1, generator=g)
    return x, {"numbers": t.expand(-1, 2), "classes": t.expand(-1, 2)}


def test_shapes_and_columns_that_see_each_other():
    network, (x, t) = scrambled([3, 4], 2), inputs()
    out = network(x, t)
    assert out["numbers"].shape == (5, 2)
    assert out["classes"].shape == (5, 7)
    moved = {**x, "numbers": x["numbers"] + torch.tensor([0.0, 1.0])}
    again = network(moved, t)
    assert (again["numbers"][:, 0] - out["numbers"][:, 0]).abs().min() > 1e-6
    assert (again["classes"] - out["classes"]).abs().max() > 1e-6


def test_each_column_has_its_own_clock():
    """Tied clocks take the short way and give what the long one does; another clock for one column changes the rest."""
    network, (x, t) = scrambled([3, 4], 2), inputs()
    tied = network(x, t)
    loose = {**t, "classes": t["classes"].clone()}
    loose["classes"][0, 1] += 0.3
    out = network(x, loose)
    assert (out["numbers"][0] - tied["numbers"][0]).abs().min() > 1e-7
    for name in tied:  # rows beside it took the long way with the same clocks
        torch.testing.assert_close(out[name][1:], tied[name][1:], rtol=1e-9, atol=1e-9)


def test_the_papers_recipe_learns():
    """y = x + noise and a class that is the sign of x: 200 steps bring the agreement of class and sign from a half to
    above .8; by chance 1,000 rows reach .55 once in a thousand."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    frame = pd.DataFrame({"x": x, "y": x + 0.1 * rng.normal(size=4000), "c": np.where(x > 0, "up", "down")})
    synth = TableSynthesizer(
        "paper", max_steps=200, minutes=5, batch_size=256, backbone="table-dit", objective="paper-tabular", lr=5e-3
    ).fit(frame)
    fake = synth.sample(1000, rng=0)
    assert ((fake.x > 0) == (fake.c == "up")).mean() > 0.8
    assert synth.joint.modalities["numbers"].config()["prediction"] == "eps"


def test_the_authors_losses_and_schedule():
    """0.1 w(t) times the cross entropy of all columns, w = 1/t; |eps error|^2 summed; alpha = exp(-int beta) with beta
    = .1 + 19.9 t, without the half (THEORY, errata of the authors' tabular code)."""
    joint = table_process((3, 4), 2, "paper-tabular")
    rng = torch.Generator().manual_seed(0)
    x0 = {"classes": torch.tensor([[0, 3], [2, 1], [1, 1]]), "numbers": torch.randn(3, 2, generator=rng).double()}
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None].expand(3, 2)
    noised = joint.perturb(x0, {"classes": t, "numbers": t}, rng=rng)
    scores = torch.randn(3, 7, generator=rng).double()
    found = joint.modalities["classes"].loss(scores, noised["classes"], objective="paper-tabular")
    parts = [
        torch.nn.functional.cross_entropy(part, x0["classes"][:, d], reduction="none")
        for d, part in enumerate(scores.split([3, 4], 1))
    ]
    assert torch.allclose(found, 0.1 / t[:, 0] * (parts[0] + parts[1]), rtol=1e-12)
    alpha = torch.exp(-(0.1 * t + 19.9 * t**2 / 2))
    eps = (noised["numbers"].xt - alpha * x0["numbers"]) / (1 - alpha**2).sqrt()
    assert float(eps.abs().max()) < 5  # so it is the noise
    guess = torch.randn(3, 2, generator=rng).double()
    found = joint.modalities["numbers"].loss(guess, noised["numbers"], objective="paper-tabular")
    assert torch.allclose(found, ((guess - eps) ** 2).sum(1), rtol=1e-9)
