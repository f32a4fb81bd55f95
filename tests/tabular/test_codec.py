"""The codec: exact to the dtype over generated frames, and the law of a column from normal draws."""

import json
import os
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings

from de_core.errors import DiffuseError
from de_plugins.tabular._numeric import Grid, QuantileMap
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.io import read_table
from de_plugins.tabular.schema import Schema

DATA = os.environ.get("DIFFUSE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DIFFUSE_DATA does not name the folder of the tables")


def round_trip(frame, codec=None):
    codec = TableCodec.fit(frame) if codec is None else codec
    encoded = codec.encode(frame)
    return codec.decode(encoded.classes, encoded.numbers, rng=0)


# --- generated frames ---

wide = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
moments = st.integers(-(2**62), 2**62)  # ticks; the ends of int64 are NaT and its neighbours


def holes_in(values, n):
    return st.lists(st.one_of(st.none(), values), min_size=n, max_size=n)


def full(values, n):
    return st.lists(values, min_size=n, max_size=n)


def column(n):
    """A column of n cells in any dtype the codec knows; floats that the map tells apart."""
    reals = st.floats(allow_nan=False, allow_infinity=False, width=32)
    return st.one_of(
        full(wide, n).map(lambda v: pd.Series(v, dtype="int64")),
        full(st.integers(0, 2**64 - 1), n).map(lambda v: pd.Series(v, dtype="uint64")),
        full(st.integers(-128, 127), n).map(lambda v: pd.Series(v, dtype="int8")),
        holes_in(st.integers(-5, 5), n).map(lambda v: pd.Series(pd.array(v, dtype="Int32"))),
        holes_in(wide, n).map(lambda v: pd.Series(pd.array(v, dtype="Int64"))),
        holes_in(reals, n).map(lambda v: pd.Series(v, dtype="float64")),
        holes_in(reals, n).map(lambda v: pd.Series(v, dtype="float32")),
        holes_in(st.decimals(-100, 100, places=2).map(float), n).map(lambda v: pd.Series(v, dtype="float64")),
        holes_in(reals, n).map(lambda v: pd.Series(pd.array(v, dtype="Float64"))),
        full(st.booleans(), n).map(lambda v: pd.Series(v, dtype="bool")),
        holes_in(st.booleans(), n).map(lambda v: pd.Series(pd.array(v, dtype="boolean"))),
        holes_in(st.booleans(), n).map(lambda v: pd.Series(v, dtype=object)),
        holes_in(texts, n).map(lambda v: pd.Series(v, dtype=object)),
        holes_in(texts, n).map(lambda v: pd.Series(v, dtype="string[python]")),
        holes_in(texts, n).map(lambda v: pd.Series(v, dtype=pd.StringDtype("pyarrow", na_value=np.nan))),
        holes_in(st.sampled_from("abc"), n).map(
            lambda v: pd.Series(pd.Categorical(v, ["c", "unused", "b", "a"], ordered=True))
        ),
        holes_in(st.integers(0, 3), n).map(lambda v: pd.Series(pd.Categorical(v, [3, 2, 1, 0]))),
        full(st.floats(0, 1), n).map(lambda v: pd.Series(pd.cut(v, [-1, 0.25, 0.5, 2]))),
        holes_in(moments, n).map(lambda v: pd.Series([pd.NaT if x is None else np.datetime64(x, "ns") for x in v])),
        holes_in(st.integers(0, 20000), n).map(
            lambda v: pd.Series([None if x is None else np.datetime64(x, "D") for x in v], dtype="datetime64[s]")
        ),
        holes_in(st.integers(0, 10**12), n).map(
            lambda v: pd.Series(pd.to_datetime(pd.Series(v, dtype="Int64"), unit="ms", utc=True)).dt.tz_convert(
                "Europe/Berlin"
            )
        ),
        holes_in(moments, n).map(lambda v: pd.Series(v, dtype="Int64").astype("timedelta64[us]")),
    )


@st.composite
def frames(draw):
    n = draw(st.integers(1, 60))
    columns = draw(st.lists(column(n), min_size=1, max_size=4))
    return pd.DataFrame({f"c{i}": c for i, c in enumerate(columns)})


def as_whole(series):
    """Cells that are there, as float64 for comparison by size."""
    present = series.dropna()
    if pd.api.types.is_datetime64_any_dtype(series) or pd.api.types.is_timedelta64_dtype(series):
        return present.astype("int64").to_numpy(dtype=float)
    return present.to_numpy(dtype=float)


@settings(max_examples=80)
@given(frames())
def test_round_trip_over_generated_frames(frame):
    codec = TableCodec.fit(frame)
    back = round_trip(frame, codec)
    assert list(back.columns) == list(frame.columns)
    for name in frame.columns:
        assert back[name].dtype == frame[name].dtype, name
        assert (back[name].isna() == frame[name].isna()).all(), name
        if codec.schema[name].kind != "number":
            pd.testing.assert_series_equal(back[name], frame[name], check_exact=True)
            continue
        was, now = as_whole(frame[name]), as_whole(back[name])
        # At most 60 distinct values, so every one is a knot, which maps to itself; whole numbers beyond 2^53
        # and what pandas rounds on conversion to float for this comparison are exact to one part in 2^52 of
        # the largest.
        assert np.abs(was / 2 - now / 2).max() <= 2.0**-52 * np.abs(was).max(), name
        assert now.min() >= was.min()
        assert now.max() <= was.max()


@settings(max_examples=20)
@given(frames())
def test_state_is_json_and_tensors(frame):
    codec = TableCodec.fit(frame)
    config, tensors = codec.state()
    twin = TableCodec.from_state(json.loads(json.dumps(config)), tensors)
    assert twin.schema == codec.schema
    a, b = codec.encode(frame), twin.encode(frame)
    assert torch.equal(a.classes, b.classes)
    assert torch.equal(a.numbers, b.numbers)
    pd.testing.assert_frame_equal(round_trip(frame, codec), round_trip(frame, twin), check_exact=True)
    assert Schema.from_toml(codec.schema.to_toml()) == codec.schema


# --- the tensors ---


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(1)
    n = 4000
    gain = np.where(rng.random(n) < 0.6, 0.0, np.round(rng.lognormal(3, 1, n), 2))
    gain[rng.random(n) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "job": rng.choice(["a", "b", "c"], n),
            "gain": gain,
            "size": rng.normal(size=n),
            "same": 7,
            "age": rng.integers(20, 60, n),
        }
    )


def test_layout(mixed):
    codec = TableCodec.fit(mixed)
    assert codec.class_names == ("job", "gain", "age")
    assert codec.class_sizes == (3, 3, 40)
    assert codec.class_labels[1] == ["(number)", "0.0", "(missing)"]
    assert codec.number_names == ("gain", "size")
    assert (codec.num_numbers, codec.gate_of, codec.gate_open) == (2, (1, -1), (1, 1))
    encoded = codec.encode(mixed)
    assert (encoded.classes.dtype, encoded.numbers.dtype) == (torch.int64, torch.float64)
    free = torch.from_numpy((mixed["gain"].notna() & (mixed["gain"] != 0)).to_numpy())
    assert torch.equal(encoded.present[:, 0], free)
    assert encoded.present[:, 1].all()
    assert (encoded.numbers[~encoded.present] == 0).all()
    assert encoded.numbers_known.all()
    for c in range(2):
        z = encoded.numbers[:, c][encoded.present[:, c]].double()
        # the ends of stretches are float32: each is off by at most 2^-24 of |z| <= 5
        assert abs(z.mean()) < 1e-6
        assert abs(z.std(correction=0) - 1) < 1e-6


def test_holes_are_unknown_whatever_they_hold(mixed):
    codec = TableCodec.fit(mixed)
    frame = mixed.copy()
    frame.loc[0, "job"] = "never seen"
    frame.loc[1, "size"] = np.nan
    frame.loc[2, "gain"] = 0.0
    holes = pd.DataFrame(False, index=frame.index, columns=["gain", "size", "job"])
    holes.loc[0, "job"] = holes.loc[1, "size"] = holes.loc[2, "gain"] = True
    encoded = codec.encode(frame, holes=holes)
    assert not encoded.classes_known[0, 0]
    assert not encoded.numbers_known[1, 1]
    assert not encoded.classes_known[2, 1]
    assert not encoded.numbers_known[2, 0]
    assert not encoded.present[2, 0]
    assert int((~encoded.classes_known).sum()) == 2
    with pytest.raises(DiffuseError, match="column 'job': 'never seen' in row 0 did not occur in training"):
        codec.encode(frame)


def test_column_order_does_not_matter_and_dtypes_may_be_wider(mixed):
    codec = TableCodec.fit(mixed)
    other = mixed[["size", "age", "same", "gain", "job"]].astype({"age": "float64", "job": "category"})
    assert torch.equal(codec.encode(other).classes, codec.encode(mixed).classes)


def test_errors_name_the_column(mixed):
    codec = TableCodec.fit(mixed)
    for change, said in [
        (lambda f: f.drop(columns="age"), "column 'age' is missing from the table"),
        (lambda f: f.assign(extra=1), "column 'extra' was not in training"),
        (lambda f: f.assign(age="old"), "column 'age': expected whole numbers"),
        (lambda f: f.assign(age=20.5), "column 'age': expected whole numbers"),
        (lambda f: f.assign(age=19), "column 'age': '19' in row 0 did not occur in training"),
        (lambda f: f.assign(job=1), "column 'job': expected text"),
        (lambda f: f.assign(size=np.inf), "column 'size': expected finite numbers"),
        (lambda f: f.assign(size=np.nan), "column 'size': the cell in row 0 is missing"),
        (lambda f: f.assign(same=8), "column 'same': every cell was 7 in training"),
        (lambda f: f.iloc[:0], "at least one row"),
    ]:
        with pytest.raises(DiffuseError, match=said):
            codec.encode(change(mixed))
    encoded = codec.encode(mixed)
    with pytest.raises(DiffuseError, match="expected shapes"):
        codec.decode(encoded.classes[:, :1], encoded.numbers, rng=0)
    with pytest.raises(DiffuseError, match="column 'job': expected classes 0 to 2"):
        codec.decode(encoded.classes + 2, encoded.numbers, rng=0)
    with pytest.raises(DiffuseError, match="column 'size': expected finite numbers"):
        codec.decode(encoded.classes, encoded.numbers * torch.tensor([1.0, torch.nan]), rng=0)


def test_no_rows_decode_to_an_empty_table_of_the_same_dtypes(mixed):
    codec = TableCodec.fit(mixed)
    back = codec.decode(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 2), rng=0)
    assert (back.dtypes == mixed.dtypes).all()


def test_an_edited_schema_is_obeyed(mixed):
    text = Schema.infer(mixed).to_toml()
    schema = Schema.from_toml(text.replace("resolution = 0.0\n", "resolution = 0.5\n"))
    back = round_trip(mixed, TableCodec.fit(mixed, schema))
    steps = (back["size"] - mixed["size"].min()) / 0.5
    offset = steps - np.floor(steps)
    # every value is on one lattice of step 0.5, up to rounding of numbers below 10
    assert np.minimum(abs(offset - offset[0]), 1 - abs(offset - offset[0])).max() < 1e-12


def test_rare_text_keeps_its_law_and_bounds_the_vocabulary():
    n = 200_000  # a thousand values of half of the rows, and 100,000 that occur once
    rng = np.random.default_rng(0)
    head = np.array([f"h{i}" for i in range(999)] + ["h999"])
    who = np.array([f"id{i}" for i in range(n)], dtype=object)
    who[: n // 2] = rng.choice(head, n // 2)
    frame = pd.DataFrame({"who": who})
    codec = TableCodec.fit(frame)
    assert codec.class_sizes == (1001,)
    back = round_trip(frame, codec)
    assert (back["who"][: n // 2] == who[: n // 2]).all()
    tail = back["who"][n // 2 :]
    assert tail.str.startswith("id").all()
    # uniform draws with replacement: 1 - 1/e = 63.2 % of the values occur, sd below 0.2 % for 100,000 of them
    assert abs(tail.nunique() / (n / 2) - 0.632) < 0.01


# --- the law of a column ---


def ks(law, x, draws):
    """Kolmogorov distance of draws to the empirical law of x."""
    points = np.unique(x)
    f = np.searchsorted(np.sort(x), points, side="right") / len(x)
    g = np.searchsorted(np.sort(draws), points, side="right") / len(draws)
    return np.abs(f - g).max()


LAWS = {
    "normal": lambda r, n: r.normal(size=n),
    "heavy": lambda r, n: r.standard_t(1.5, size=n),
    "lognormal in cents": lambda r, n: np.round(r.lognormal(2, 1.5, n), 2),
    "counts": lambda r, n: r.negative_binomial(1, 0.004, n).astype(float),
    "two heaps": lambda r, n: np.where(r.random(n) < 0.3, r.normal(-1e6, 1, n), r.normal(1e6, 1e3, n)),
}


@pytest.mark.parametrize("name", LAWS)
def test_normal_draws_come_back_with_the_law_of_the_column(name):
    x = LAWS[name](np.random.default_rng(3), 20_000)
    fitted = QuantileMap.fit(x)
    # quantiles of the normal law at 400,000 even probabilities: no sampling noise beyond 1/400,000
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    z = (torch.special.ndtri(u).numpy() - fitted.mean) / fitted.sd
    # 1/1024 between knots, and five rows of 20,000 at each end: below 0.002
    assert ks(name, x, fitted.inverse(z)) < 0.002
    # and as the model is used, from standard normal draws
    assert ks(name, x, fitted.inverse(torch.special.ndtri(u).numpy())) < 0.003


def test_both_ends_are_attained_and_never_passed():
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(100):
        x = rng.lognormal(size=5000)
        fitted = QuantileMap.fit(x)
        y = fitted.inverse(rng.normal(size=5000))
        assert y.min() >= x.min()
        assert y.max() <= x.max()
        missed += int(y.min() > x.min()) + int(y.max() < x.max())
    # each of 200 ends is missed with probability exp(-5) = 0.0067; more than 8 misses has probability below
    # 1e-4
    assert missed <= 8


def test_ties_spread_over_their_stretch_are_normal_without_lumps():
    x = np.random.default_rng(5).poisson(300, 20_000).astype(float)
    fitted = QuantileMap.fit(x)
    spread = fitted.forward(x, rng=torch.Generator().manual_seed(0)) * fitted.sd + fitted.mean
    u = np.sort(torch.special.ndtr(torch.from_numpy(spread)).numpy())
    # Kolmogorov: distance above 0.0138 has probability 2 exp(-2 * 20000 * 0.0138^2) = 0.001; ends and knots
    # add 0.002
    assert np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() < 0.016
    assert (fitted.inverse(fitted.forward(x, rng=torch.Generator().manual_seed(1))) - x).max() < 0.5


@settings(max_examples=60)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50))
def test_a_grid_of_whole_numbers_is_exact_while_indices_are(values):
    x = np.array(values, dtype=np.int64)
    dtype = Schema.infer(pd.DataFrame({"x": x})).columns[0].dtype
    grid = Grid.infer(x, dtype)
    back = grid.from_index(grid.to_index(x), dtype)
    span = max(values) - min(values)
    if span < 2**53 * grid.step:
        assert (back == x).all()
    # beyond, float64 positions round to one part in 2^53 of the span
    assert max(abs(int(a) - int(b)) for a, b in zip(back, x, strict=True)) <= span // 2**52


@needs_data
def test_adult_comes_back_bit_for_bit():
    frame = read_table(Path(DATA) / "adult_train.csv.gz")
    pd.testing.assert_frame_equal(round_trip(frame), frame, check_exact=True)


# --- odd tables ---


def test_a_thousand_columns_and_one_row():
    frame = pd.DataFrame({f"c{i}": [i] if i % 2 else [str(i)] for i in range(1000)})
    codec = TableCodec.fit(frame)
    assert codec.class_sizes == ()
    pd.testing.assert_frame_equal(round_trip(frame, codec), frame)


@pytest.mark.parametrize("nothing", [np.nan, None, pd.NA, pd.NaT])
@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([True, None, False], dtype=object),
        pd.to_datetime(pd.Series(["2024-01-01", None, "2024-01-02"])),
        pd.to_datetime(pd.Series(["2024-01-01", None, "2024-01-02"]), utc=True),
        pd.to_timedelta(pd.Series(["1h", None, "2h"])),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_column_of_missing_cells_fits_every_dtype(column, nothing):
    codec = TableCodec.fit(pd.DataFrame({"a": column}))
    coded = codec.encode(pd.DataFrame({"a": pd.Series([nothing] * 3)}))
    assert codec.decode(coded.classes, coded.numbers, rng=0)["a"].isna().all()


def test_round_trip_between_the_knots():
    """Thousands of distinct values, of which a map has about a thousand knots: on a grid exact, else to float64."""
    rng, n = np.random.default_rng(0), 4000
    frame = pd.DataFrame(
        {
            "second": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 5 * 365 * 86_400, n), unit="s"),
            "milli": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**10, n), unit="ms"),
            "id": rng.integers(0, 10**9, n),
            "cents": np.round(rng.lognormal(5, 2, n), 2),
            "real": rng.normal(size=n),
        }
    )
    back = round_trip(frame, TableCodec.fit(frame))
    for name in ("second", "milli", "id", "cents"):
        pd.testing.assert_series_equal(back[name], frame[name], check_exact=True)
    # a score of at most 5 is rounded to 2^-53 of itself, and the map between two knots stretches it by at most the
    # span over the distance of two of a thousand knots; measured, a hundred roundings
    assert (back["real"] - frame["real"]).abs().max() < 1e-13 * np.ptp(frame["real"])


def test_a_column_made_a_number_by_hand_keeps_its_grid():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "price": np.round(rng.choice(np.arange(0.5, 50, 0.5), 3000), 2),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, 3000), unit="D"),
        }
    )
    data = Schema.infer(frame).to_dict()
    assert [column["kind"] for column in data["columns"]] == ["classes", "classes"]
    for column in data["columns"]:
        column["kind"] = "number"
        del column["max_classes"]
    codec = TableCodec.fit(frame, Schema.from_dict(data))
    assert codec.schema["price"].resolution == 0.5
    assert codec.schema["day"].resolution == "1 days 00:00:00"
    drawn = codec.decode(torch.zeros(500, 0, dtype=torch.int64), torch.randn(500, 2), rng=0)
    assert ((drawn["price"] * 2) % 1 == 0).all()
    assert (drawn["day"] == drawn["day"].dt.normalize()).all()
