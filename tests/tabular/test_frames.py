"""Frames of polars and pyarrow: through the codec and back, to the type."""

import datetime as dt
import math
import pickle

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings

from de_core.errors import DiffuseError
from de_plugins.tabular import TableSynthesizer, process
from de_plugins.tabular._frames import as_pandas
from de_plugins.tabular.codec import TableCodec

pa = pytest.importorskip("pyarrow")
pl = pytest.importorskip("polars")


def round_trip(frame):
    table, back = as_pandas(frame)
    codec = TableCodec.fit(table)
    encoded = codec.encode(table)
    return back(codec.decode(encoded.classes, encoded.numbers, rng=0))


NUMBER = int | float | dt.timedelta


def _number(x):
    """A duration as the microseconds it is stored in."""
    return x / dt.timedelta(microseconds=1) if isinstance(x, dt.timedelta) else x


def near(was, now):
    """Equal, what is stored as a number up to one part in 2^52 of the largest, as in test_codec.

    Durations drawn here span up to 547 years of microseconds, just beyond the 2^53 that a double counts one by one.
    """
    most = max((abs(_number(x)) for x in was if isinstance(x, NUMBER)), default=0.0)
    for x, y in zip(was, now, strict=True):
        if isinstance(x, NUMBER) and not isinstance(x, bool):
            assert type(y) is type(x)
            assert abs(_number(x) - _number(y)) <= 2.0**-52 * most
        else:
            assert x == y


DATES = st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1))
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))
REALS = st.floats(allow_nan=False, allow_infinity=False, width=32)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)


def whole(bits, signed):
    low = -(2 ** (bits - 1)) if signed else 0
    return st.integers(low, low + 2**bits - 1)


POLARS = {
    **{f"Int{bits}": whole(bits, True) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": whole(bits, False) for bits in (8, 16, 32, 64)},
    "Float32": REALS,
    "Float64": REALS,
    "Boolean": st.booleans(),
    "String": TEXTS,
    "Categorical": st.sampled_from("abc"),
    "Enum": st.sampled_from(["lo", "hi"]),
    "Date": DATES,
    "Datetime": MOMENTS,
    "zoned": MOMENTS,
    "Duration": st.timedeltas(dt.timedelta(-(10**5)), dt.timedelta(10**5)),
    "Null": st.none(),
}
SPECIAL = {
    "Enum": pl.Enum(["lo", "mid", "hi"]),
    "zoned": pl.Datetime("us", "UTC"),
    "Datetime": pl.Datetime("ns"),
    "Duration": pl.Duration("us"),
}
ARROW = {
    "int8": whole(8, True),
    "uint16": whole(16, False),
    "int64": whole(64, True),
    "float": REALS,
    "double": REALS,
    "bool": st.booleans(),
    "string": TEXTS,
    "large_string": TEXTS,
    "string_view": TEXTS,
    "date32": DATES,
    "timestamp[ms]": MOMENTS.map(lambda m: m.replace(microsecond=0)),
    "duration[us]": st.timedeltas(dt.timedelta(-(10**5)), dt.timedelta(10**5)),
    "null": st.none(),
}


@st.composite
def columns(draw, kinds):
    n, out = draw(st.integers(1, 40)), {}
    for k, kind in enumerate(draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=3))):
        cells = st.one_of(st.none(), kinds[kind]) if draw(st.booleans()) else kinds[kind]
        out[f"{kind} {k}"] = draw(st.lists(cells, min_size=n, max_size=n))
    return out


few = settings(max_examples=60)


@few
@given(columns(POLARS))
def test_polars_frames_come_back(cells):
    kinds = {name: name.split()[0] for name in cells}
    frame = pl.DataFrame(
        {n: pl.Series(c, dtype=SPECIAL.get(kinds[n], getattr(pl, kinds[n], None))) for n, c in cells.items()}
    )
    back = round_trip(frame)
    assert back.schema == frame.schema
    for name in frame.columns:
        near(frame[name].to_list(), back[name].to_list())


@few
@given(columns(ARROW))
def test_arrow_tables_come_back(cells):
    def kind(name):
        word = name.split()[0]
        return pa.string_view() if word == "string_view" else pa.type_for_alias(word)

    table = pa.table({name: pa.array(values, kind(name)) for name, values in cells.items()})
    back = round_trip(table)
    assert back.schema == table.schema
    for name in table.column_names:
        near(table[name].to_pylist(), back[name].to_pylist())


def test_other_arrow_types():
    rows = 40
    table = pa.table(
        {
            "dictionary": pa.array(["x", "y", None, "x"] * 10).dictionary_encode(),
            "zoned": pa.array([dt.datetime(2020, 1, 1, k % 24) for k in range(rows)], pa.timestamp("us", "Asia/Tokyo")),
            "half": pa.array([float(k) for k in range(rows)], pa.float16()),
            "time of day": pa.array([dt.time(k % 24) for k in range(rows)], pa.time64("us")),
        }
    )
    assert round_trip(table).equals(table)


def test_what_arrow_or_the_codec_does_not_know_is_said():
    for frame, said in [
        (pl.DataFrame({"a": pl.Series([1, 2], dtype=pl.Int128)}), "a type that Arrow cannot hold"),
        (pl.DataFrame({"a": [[1], [2]]}), "column 'a': expected numbers, text"),
        (pl.DataFrame({"a": [b"x"]}), "column 'a': expected numbers, text"),
        (pl.DataFrame({"a": [1.0, math.inf]}), "column 'a': expected finite numbers"),
        (pl.DataFrame({"a": [1]}).lazy(), "expected a data frame, got LazyFrame"),
        (pl.Series([1]), "expected a data frame, got Series"),
        ([1, 2], "expected a data frame, got list"),
        ({"a": [1]}, "expected a data frame, got dict"),
        (pl.DataFrame(), "at least one row and one column"),
        (pa.table({"a": pa.array([], pa.int64())}), "at least one row and one column"),
    ]:
        with pytest.raises(DiffuseError, match=said):
            round_trip(frame)


def test_the_callers_kind_of_frame_comes_back_from_every_call(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "BLOCK", 64)
    rows = 60
    frame = pl.DataFrame({"a": list(range(rows)), "b": ["x", "y", None] * 20, "d": [dt.date(2020, 1, 1)] * rows})
    synth = TableSynthesizer(max_steps=3, progress=False).fit(frame)
    fake = synth.sample(7, given={"b": ["x", "y"]})
    assert isinstance(fake, pl.DataFrame)
    assert fake.schema == frame.schema
    holes = frame.with_columns(pl.when(pl.col("a") % 2 == 0).then(pl.col("a")).alias("a"))
    for full in synth.impute(holes, draws=2):
        assert full.schema == frame.schema
        assert full["a"].null_count() == 0
        assert full.filter(pl.col("a") % 2 == 0)["a"].to_list()[:1] == [0]
        assert (full["a"].to_numpy()[::2] == frame["a"].to_numpy()[::2]).all()
    assert synth.impute(holes.to_arrow()).schema.names == frame.columns
    assert len(synth.bound(frame.to_arrow())) == rows
    synth.save(tmp_path / "m")
    assert isinstance(TableSynthesizer.load(tmp_path / "m").sample(2), pd.DataFrame)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_a_fitted_synthesizer_survives_a_pickle(kind, monkeypatch):
    monkeypatch.setattr(process, "BLOCK", 64)
    frame = kind({"a": list(range(60)), "b": ["x", "y", "z"] * 20})
    synth = TableSynthesizer(max_steps=3, progress=False).fit(frame)
    fake, again = (one.sample(5, steps=4) for one in (synth, pickle.loads(pickle.dumps(synth))))
    assert type(again) is type(fake) is type(frame)
    assert again.equals(fake)
