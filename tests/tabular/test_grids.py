"""Grids that do not pass through 0, columns narrower than 64 bits, and values that they cannot hold."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from de_core.errors import DiffuseError
from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular.codec import TableCodec

ROWS = 400
OFF_ZERO = {
    "prices": np.arange(ROWS) % 350 + 0.99,
    "middles of cells": (np.arange(ROWS) - 179.5) / 2,
    "halves": np.arange(ROWS) - 20.5,
    "tenths": 0.05 + np.arange(ROWS) / 10,
    "fives": 2.5 + 5.0 * np.arange(ROWS),
}


def fitted(frame, **kwargs):
    return TableSynthesizer(max_steps=2, progress=False, **kwargs).fit(frame)


@pytest.mark.parametrize("dtype", ["float64", "float32", "Float64"])
@pytest.mark.parametrize("name", OFF_ZERO)
def test_a_grid_off_zero_comes_back(name, dtype):
    frame = pd.DataFrame({"x": pd.Series(OFF_ZERO[name].round(2)).astype(dtype)})
    codec = TableCodec.fit(frame)
    assert codec.schema["x"].kind == "number"
    assert codec.schema["x"].resolution > 0
    coded = codec.encode(frame)
    pd.testing.assert_frame_equal(codec.decode(coded.classes, coded.numbers, rng=0), frame)
    drawn = codec.decode(coded.classes, coded.numbers + 1e-4, rng=0)  # beside the knots
    assert drawn.x.isin(frame.x).all()


def test_decimals_off_zero_come_back():
    frame = pd.DataFrame({"x": [Decimal(k) + Decimal("0.10") for k in range(ROWS)]})
    codec = TableCodec.fit(frame)
    coded = codec.encode(frame)
    assert codec.decode(coded.classes, coded.numbers, rng=0).x.tolist() == frame.x.tolist()


def test_what_is_drawn_and_given_lies_on_the_grid():
    frame = pd.DataFrame({"price": OFF_ZERO["prices"], "y": np.arange(ROWS) % 7})
    model = fitted(frame)
    assert model.sample(200, rng=0).price.isin(frame.price).all()
    assert (model.sample(20, given={"price": [7.99]}, rng=0).price == 7.99).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "Int8", "int16", "int32", "Int32"])
def test_a_whole_number_that_a_column_cannot_hold_is_refused(dtype):
    frame = pd.DataFrame({"p": pd.Series(np.arange(100) % 97).astype(dtype), "x": np.linspace(0.0, 1.0, 100) ** 2})
    model = fitted(frame)
    holes = pd.DataFrame({"p": [5e9, np.nan, 3.0], "x": [0.1, 0.2, 0.3]})
    with pytest.raises(DiffuseError, match=f"column 'p': {dtype} holds .* got 5000000000 in row 0"):
        model.impute(holes)
    for value in (5_000_000_000, [5_000_000_000]):
        with pytest.raises(DiffuseError, match=f"column 'p': {dtype} holds"):
            model.sample(2, given={"p": value})


def test_a_value_of_training_of_single_precision_can_be_asked_for():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"p": rng.normal(size=60).astype("float32"), "x": rng.normal(size=60)})
    model = fitted(frame)
    low, high = np.sort(frame.p.to_numpy())[20:22]
    assert set(model.sample(5, given={"p": [low]}, rng=0).p) == {low}
    assert set(model.sample(5, given={"p": (high, high)}, rng=0).p) == {high}
    drawn = model.sample(40, given={"p": (low, high)}, rng=0).p
    assert drawn.between(low, high).all()
    assert drawn.nunique() > 1


@pytest.mark.parametrize(
    ("trained", "asked"),
    [
        (pd.date_range("2020-01-01", periods=100).astype("datetime64[s]"), "2020-01-05 12:34:56.789"),
        (pd.Series(pd.date_range("2020-01-01", periods=100).date), "2020-01-05 12:34"),
    ],
)
def test_a_date_is_not_cut_to_the_unit_of_its_column(trained, asked):
    model = fitted(pd.DataFrame({"d": trained, "x": np.linspace(0.0, 1.0, 100) ** 2}))
    holes = pd.DataFrame({"d": pd.to_datetime([asked, "2020-01-07"], format="mixed"), "x": [np.nan, 0.5]})
    with pytest.raises(DiffuseError, match="column 'd': expected dates or durations"):
        model.impute(holes)
    whole = model.impute(holes.assign(d=pd.to_datetime(["2020-01-05", "2020-01-07"])))
    assert [str(d)[:10] for d in whole.d] == ["2020-01-05", "2020-01-07"]


def test_microseconds_of_two_centuries_come_back():
    ends = [pd.Timestamp(f"{year}-01-01").value for year in (1900, 2100)]
    ticks = np.concatenate([ends, pd.Timestamp("2090-06-05 04:03:02").value + 997_000 * np.arange(1000)])
    codec = TableCodec.fit(pd.DataFrame({"t": ticks.view("M8[ns]")}))
    grid = codec.variables[0].grid
    assert (grid.from_index(grid.to_index(ticks), codec.schema["t"].dtype) == ticks).all()
