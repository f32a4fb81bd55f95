"""Columns of 16- and 32-bit floats: their own table is possible, and what a file in decimals says of it is the same."""

import numpy as np
import pandas as pd
import pytest
import torch

from de_plugins.tabular import Schema, TableCodec, read_table, write_table
from de_plugins.tabular._plain import describe
from de_plugins.tabular.io import read_like
from de_plugins.tabular.metrics.fidelity import shape
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.validity import exact_matches, validity


def table(dtype: str, n: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "money": np.round(rng.lognormal(2, 1, n), 2),
            "spiked": np.where(rng.random(n) < 0.5, 0.1, rng.normal(size=n)),
            "few": np.tile([0.1, 0.2, 0.3, 0.7], n // 4),
            "two": np.tile([0.1, 0.3], n // 2),
        }
    ).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "Float32", "float64"])
def test_the_training_table_is_possible(dtype):
    frame = table(dtype)
    codec = TableCodec.fit(frame)
    coded = codec.encode(frame)
    for one in (frame, codec.decode(coded.classes, coded.numbers, rng=0)):
        for name, cells in validity(codec, one).items():
            assert not any(cells.get(key) for key in ("outside", "off_grid", "unseen")), name
            assert cells.get("attained", True), name
    assert codec.schema["x"].resolution == 0 or dtype == "float16"  # 16 bits have few decimals to be told apart by
    if dtype != "float16":
        assert codec.schema["money"].resolution == 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_was_written_in_decimals_is_the_same_table(tmp_path, dtype):
    frame = table(dtype)
    codec = TableCodec.fit(frame)
    write_table(frame, tmp_path / "t.csv")
    again = read_like(tmp_path / "t.csv", {name: describe(frame[name], name) for name in frame})
    coded = matrices({"train": frame, "again": again})
    assert exact_matches(coded["train"], coded["again"]) == 1
    assert (shape(coded["train"], coded["again"]) == 1).all()
    for name, cells in validity(codec, again).items():
        assert not any(cells.get(key) for key in ("outside", "off_grid", "unseen")), name
    one, other = codec.encode(frame), codec.encode(again)
    assert (one.classes == other.classes).all()
    assert (one.numbers == other.numbers).all()


def test_floats_of_a_csv_are_read_as_they_were_written(tmp_path):
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(3000), "y": 1 / np.arange(1, 3001)})
    write_table(frame, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), frame, check_exact=True)
    write_table(frame, tmp_path / "U.CSV.GZ")
    pd.testing.assert_frame_equal(read_table(tmp_path / "U.CSV.GZ"), frame, check_exact=True)


@pytest.mark.parametrize("n", [40, 500, 1000, 5000])
def test_draws_are_not_the_training_values(n):
    """A salary of a small table is no more drawn to the cent than one of a large: but for the ends and for ties."""
    rng = np.random.default_rng(0)
    values = rng.lognormal(10, 1, n)
    codec = TableCodec.fit(pd.DataFrame({"salary": values}))
    z = np.random.default_rng(1).normal(size=(2000, 1))

    drawn = codec.decode(torch.zeros(2000, 0, dtype=torch.int64), torch.from_numpy(z), rng=0)["salary"]
    inside = (drawn > values.min()) & (drawn < values.max())
    assert inside.mean() > 0.9
    assert not np.isin(drawn[inside], values).any()
    again = TableCodec.fit(pd.DataFrame({"salary": values})).encode(pd.DataFrame({"salary": values}))
    back = codec.decode(again.classes, again.numbers, rng=0)["salary"]
    assert np.abs(back / values - 1).max() < 1e-12


def test_ties_come_back_as_often_as_they_were():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(300) < 0.3, np.round(rng.normal(size=300), 1), rng.normal(size=300))
    values[:60] = 0.5
    codec = TableCodec.fit(pd.DataFrame({"x": values}), Schema.infer(pd.DataFrame({"x": values})))

    gates = torch.zeros(20_000, len(codec.class_sizes), dtype=torch.int64)
    drawn = codec.decode(gates, torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)), rng=0)["x"]
    counts = pd.Series(values).value_counts()
    tied = counts[(counts > 1) & ~counts.index.isin(codec.schema["x"].spikes)]
    free = len(values) - sum(counts.get(v, 0) for v in codec.schema["x"].spikes)
    for value, count in tied.items():
        share = count / free
        assert abs((drawn == value).mean() - share) < 5 * (share / 20_000) ** 0.5 + 1e-3


@pytest.mark.parametrize("dtype", ["int8", "int32", "Int16"])
@pytest.mark.parametrize("kinds", [5, 200])
def test_whole_numbers_beyond_a_narrow_column_are_outside(dtype, kinds):
    values = np.arange(1000) % kinds - 100
    codec = TableCodec.fit(pd.DataFrame({"k": pd.Series(values, dtype=dtype)}))
    other = pd.DataFrame({"k": np.where(np.arange(1000) < 100, 70_000.0, values)})
    other.loc[500:599, "k"] = np.nan
    found = validity(codec, other)["k"]
    assert found["outside"] == pytest.approx(0.1)
    assert not found["attained"]
