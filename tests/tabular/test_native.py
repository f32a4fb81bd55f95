"""Native against forced: codes that come back, networks of one size, and a run of two steps in each arm."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("sklearn")
SIZES = (2, 3, 27, 119)


@pytest.fixture(scope="module")
def bench():
    """The benchmark, which imports its neighbours by their plain names."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("tabular_native")
    sys.path.pop(0)


@pytest.fixture
def shares():
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.rand(size, generator=rng).softmax(0) for size in SIZES)


@pytest.mark.parametrize("arm", ["one-hot", "bits"])
def test_codes_come_back(bench, shares, arm):
    rng = torch.Generator().manual_seed(1)
    code = bench.Code.of(arm, shares)
    assert code.dims == (SIZES if arm == "one-hot" else (1, 2, 5, 7))
    classes = torch.stack([torch.randint(size, (500,), generator=rng) for size in SIZES], 1)
    x = code.encode(classes)
    assert torch.equal(code.decode(x), classes)
    # less than half the least distance of two points, which is at least 2**0.5 (one-hot) and 1 (bits) before scaling
    least = [torch.pdist(at).min() for at in code.points]
    for y, distance in zip(x.split(code.dims, 1), least, strict=True):
        push = torch.randn(y.shape, generator=rng)
        y += 0.49 * distance * push / push.norm(dim=1, keepdim=True)
    assert torch.equal(code.decode(x), classes)


@pytest.mark.parametrize("arm", ["one-hot", "bits"])
def test_a_code_has_mean_0_and_variance_1_over_its_coordinates(bench, shares, arm):
    for p, at in zip(shares, bench.Code.of(arm, shares).points, strict=True):
        # float32 sums of at most 119 terms of order 10: 119 * 10 * 6e-8 < 1e-4
        torch.testing.assert_close(p @ at, torch.zeros(at.shape[1]), atol=1e-4, rtol=0)
        assert float((p @ at.square()).mean()) == pytest.approx(1, abs=1e-4)


def test_one_hot_is_read_back_by_argmax(bench, shares):
    code, rng = bench.Code.of("one-hot", shares), torch.Generator().manual_seed(2)
    x = torch.randn(200, sum(SIZES), generator=rng)
    for d, (p, y) in enumerate(zip(shares, x.split(SIZES, 1), strict=True)):
        scale = 1 / (p * (1 - p)).mean().sqrt()  # of a class's indicator, variance p (1 - p)
        assert torch.equal(code.decode(x)[:, d], (y / scale + p).argmax(1))


@pytest.mark.parametrize("sizes", [SIZES, (2,), (73, 9, 16, 16, 7, 15, 6, 5, 2, 119, 92, 94, 42, 2)])
@pytest.mark.parametrize("numbers", [1, 7])
def test_networks_of_one_size(bench, sizes, numbers):
    shares = tuple(torch.full((size,), 1 / size) for size in sizes)
    codes = [None, bench.Code.of("one-hot", shares), bench.Code.of("bits", shares)]
    models = [bench.network(code, sizes, numbers, torch.cat(shares).log()) for code in codes]
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert max(counts) <= 64_000
    assert min(counts) >= 0.98 * max(counts)


def test_a_coordinate_enters_by_its_own_row(bench):
    """Columns of 2 and 3 coordinates: rows 0, 1 and 3, 4, 5 are theirs, 2 and 6 the noise's; a clean one shows none."""
    model = bench.CodedMLP((2, 3), 1, width=8, hidden=8, depth=1, passes=1, rank=8)
    assert model.rows.tolist() == [0, 1, 3, 4, 5, 2, 6]
    assert model.first.tolist() == [0, 2]
    assert model.column.tolist() == [0, 0, 1, 1, 1]


def test_the_coordinates_of_a_column_share_its_clock(bench):
    shapes = {"numbers": (64, 2), "classes": (64, 5)}
    t = bench.ColumnTimes((2, 3)).draw(shapes, rng=torch.Generator().manual_seed(0))
    classes = t["classes"]
    assert torch.equal(classes[:, [0, 2, 2]], classes[:, [1, 3, 4]])
    assert (classes[:, 0] != classes[:, 2]).any()  # given by themselves


@pytest.mark.parametrize("arm", ["native", "one-hot", "bits"])
def test_two_steps_give_a_table(bench, arm, monkeypatch):
    monkeypatch.setattr(bench, "CALLS", 2)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 60, 100),
            "word": rng.choice(["a", "b", "c"], 100),
            "yes": rng.random(100) < 0.3,
            "size": rng.normal(size=100),
        }
    )
    fake, about = bench.run(arm, table, 0, None, 2)
    assert about["steps"] == 2
    assert len(fake) == 100
    assert fake.dtypes.equals(table.dtypes)
    assert set(fake["word"]) <= set("abc")
