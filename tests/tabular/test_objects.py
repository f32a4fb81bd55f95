"""Dates, times of day and decimals as Python objects, and what Arrow alone knows: exact to the dtype, given, filled."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.tabular import TableCodec, TableSynthesizer, process
from de_plugins.tabular._plain import DType, describe, from_plain, label, to_plain
from de_plugins.tabular.metrics.matrix import matrices

DAYS = [dt.date(1, 1, 1), dt.date(1999, 12, 31), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]
CLOCK = [dt.time(0, 0), dt.time(7, 5, 1), dt.time(23, 59, 59, 999999)]
PRICES = [Decimal("-0.10"), Decimal("1234567890123.45"), Decimal("3"), Decimal("0")]
COLUMNS = {
    "date": pd.Series(DAYS, dtype=object),
    "date, missing": pd.Series([*DAYS, None], dtype=object),
    "time": pd.Series(CLOCK, dtype=object),
    "decimal": pd.Series(PRICES, dtype=object),
    "decimal, missing": pd.Series([*PRICES, None], dtype=object),
    "arrow date": pd.Series(DAYS, dtype=pd.ArrowDtype(pa.date32())),
    "arrow zone": pd.Series(pd.date_range("2024-03-31", periods=4, freq="h", tz="Europe/Berlin")).convert_dtypes(
        dtype_backend="pyarrow"
    ),
    "arrow decimal": pd.Series(PRICES, dtype=pd.ArrowDtype(pa.decimal128(20, 2))),
    "categories of dates": pd.Series(pd.Categorical(DAYS)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_plain_values_and_back(name):
    column = COLUMNS[name]
    dtype = describe(column, name)
    dtype = DType.from_dict(dtype.to_dict())
    back = from_plain(*to_plain(column, dtype, name), dtype)
    pd.testing.assert_series_equal(back, column, check_names=False)
    there = column.dropna()
    assert [type(cell) for cell in back.dropna()] == [type(cell) for cell in there]


def test_labels_and_resolution():
    assert label(3600 * 7, DType("date[s]", "ticks")).startswith("1970-01-01")
    assert label(1_000_000, DType("time[us]", "ticks")) == "00:00:01"
    days = pd.DataFrame({"d": [dt.date(2020, 1, 1) + dt.timedelta(k) for k in range(300)]})
    assert TableCodec.fit(days).schema["d"].resolution == "1 days 00:00:00"
    cents = pd.DataFrame({"p": [Decimal(k * k).scaleb(-2) for k in range(300)]})
    assert TableCodec.fit(cents).schema["p"].resolution == 0.01


def test_a_table_of_objects_is_drawn_given_and_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "BLOCK", 64)
    k = torch.randperm(400, generator=torch.Generator().manual_seed(0)).numpy()
    frame = pd.DataFrame(
        {
            "day": [dt.date(2020, 1, 1) + dt.timedelta(int(i)) for i in k],
            "price": [Decimal(int(i)).scaleb(-2) for i in k],
            "at": [dt.time(int(i) % 24, int(i) % 60) for i in k],
        }
    )
    synth = TableSynthesizer(max_steps=3, progress=False).fit(frame)
    synth.save(tmp_path / "m")
    wide = TableSynthesizer.load(tmp_path / "m").sample(
        20, {"day": (dt.date(2020, 2, 1), dt.date(2020, 3, 1)), "price": (Decimal("1"), Decimal("2.5"))}, steps=4
    )
    assert all(dt.date(2020, 2, 1) <= day <= dt.date(2020, 3, 1) for day in wide.day)
    assert all(Decimal(1) <= price <= Decimal("2.5") for price in wide.price)
    assert {type(cell) for cell in wide["at"]} == {dt.time}
    assert set(synth.sample(5, {"at": dt.time(1, 1)}, steps=4)["at"]) <= {dt.time(1, 1)}
    holes = frame.head(9).copy()
    holes.loc[::2, "price"] = None
    filled = synth.impute(holes, draws=2, steps=4)
    for part in filled:
        assert part.price.notna().all()
        assert (part.price[1::2] == frame.price.head(9)[1::2]).all()


def test_metrics_read_them_as_numbers():
    frame = pd.DataFrame({"day": DAYS, "price": PRICES})
    coded = matrices({"real": frame, "same": frame.assign(price=frame.price.astype(float))})
    assert coded["real"].numeric.all()
    np.testing.assert_array_equal(coded["real"].values, coded["same"].values)


def test_digits_that_float64_does_not_hold_are_refused():
    with pytest.raises(DiffuseError, match="column 'p': expected decimals of at most 15 digits"):
        TableCodec.fit(pd.DataFrame({"p": [Decimal("12345678901234.567"), Decimal(1)]}))


def test_times_of_day_in_zones_are_refused():
    zones = [dt.timezone(dt.timedelta(hours=k)) for k in range(5)]
    frame = pd.DataFrame({"t": [dt.time(12, tzinfo=zones[k % 5]) for k in range(20)]})
    with pytest.raises(DiffuseError, match=r"column 't': expected times of day without an offset to UTC, got 12:00"):
        TableCodec.fit(frame)
