"""Tables as they come: what once gave a traceback, or a wrong cell in silence."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from de_core import DiffuseError
from de_core.cli import main
from de_plugins.tabular import Schema, TableCodec, TableSynthesizer, evaluate, read_table
from de_plugins.tabular._model_scores import imputed
from de_plugins.tabular.metrics.validity import rules_kept, validity


def test_open_intervals_are_saved(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"bin": pd.cut(rng.normal(size=60), [-np.inf, 0, 1, np.inf]), "x": rng.normal(size=60)})
    assert Schema.from_toml(Schema.infer(frame).to_toml()) == Schema.infer(frame)
    synth = TableSynthesizer(max_steps=2, progress=False).fit(frame)
    synth.save(tmp_path / "model")
    drawn = TableSynthesizer.load(tmp_path / "model").sample(20, steps=3)
    assert drawn["bin"].dtype == frame["bin"].dtype
    pd.testing.assert_frame_equal(drawn, synth.sample(20, steps=3))


def test_rare_marks_are_not_multiplied():
    """The ends of a range are given ten rows where they are the ends of one, not where a column is a mark."""
    rng, n = np.random.default_rng(0), 10_000
    mark = np.zeros(n, dtype=int)
    mark[:2] = 1
    frame = pd.DataFrame({"mark": mark, "count": np.minimum(rng.poisson(5, n), 40)})
    frame.loc[0, "count"] = 40
    codec = TableCodec.fit(frame)
    moved = codec.with_ends(codec.encode(frame), rng=0).classes
    assert int(moved[:, 0].sum()) == 2
    assert int((moved[:, 1] == codec.class_sizes[1] - 1).sum()) == 10


def test_text_where_a_mark_was_is_unseen():
    train = pd.DataFrame({"y": [0, 1] * 50, "x": np.arange(100.0)})
    other = train.assign(y=["0", "?"] * 50)
    found = validity(TableCodec.fit(train), other)
    assert found["y"]["unseen"] >= 0.5
    rules_kept(TableCodec.fit(train), other)


def test_large_whole_numbers_are_hidden_and_filled_as_they_are():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"shop": rng.choice([2**53 + 1, 2**53 + 3, 3], 200), "x": rng.normal(size=200)})
    frame["small"] = rng.integers(0, 3, 200).astype("uint8")
    synth = TableSynthesizer(max_steps=2, progress=False).fit(frame)
    assert imputed(synth, frame, frame.head(30), None, 0, 30)["holes"] > 0


def test_a_schema_of_before_takes_holes_that_are_new():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": 2**53 + rng.integers(0, 9, 100), "flag": rng.random(100) < 0.5, "x": rng.random(100)})
    schema = Schema.infer(frame)
    holes = frame.astype({"id": "Int64", "flag": "boolean"})
    holes.loc[3, ["id", "flag", "x"]] = pd.NA
    codec = TableCodec.fit(holes, schema)
    coded = codec.encode(holes)
    back = codec.decode(coded.classes, coded.numbers, rng=0)
    assert [str(dtype) for dtype in back.dtypes] == ["Int64", "boolean", "float64"]
    pd.testing.assert_frame_equal(back, holes, check_exact=True)


@pytest.mark.parametrize("cells", [["a", "b"], [1.5, 2.5], [1, 2], [True, False]])
def test_a_column_that_is_now_empty_is_refused(cells):
    frame = pd.DataFrame({"t": cells * 30, "x": np.arange(60.0)})
    empty = frame.assign(t=pd.Series([None] * 60, dtype=object))
    with pytest.raises(DiffuseError, match="column 't': every cell is missing; make its kind 'constant'"):
        TableCodec.fit(empty, Schema.infer(frame))


@pytest.mark.parametrize(
    ("dtype", "values", "odd"),
    [
        ("uint64", [0, 2**64 - 1, 5, 7], pd.Series([-1])),
        ("int64", [-5, 0, 5, 9], pd.Series([2**63 + 5], dtype="uint64")),
    ],
)
def test_whole_numbers_do_not_wrap(dtype, values, odd):
    frame = pd.DataFrame({"u": pd.Series(values * 100, dtype=dtype), "x": np.arange(400.0)})
    with pytest.raises(DiffuseError, match="column 'u': expected whole numbers"):
        TableCodec.fit(frame).encode(pd.DataFrame({"u": odd, "x": [1.0]}))


def test_a_collapsed_table_gets_its_report():
    pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    train = pd.DataFrame({"x": rng.normal(size=80), "y": rng.choice(["a", "b"], 80)})
    found = evaluate(train, train.assign(y="a"), train.tail(30), target="y", seeds=1).to_dict()
    assert json.dumps(found)
    assert found["scores"]["mle"] == 0.5


def test_a_column_is_made_text_in_the_schema(tmp_path, capsys):
    frame = pd.DataFrame({"zip": [10115, 10117, 20095] * 20, "x": np.arange(60)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    text = frame.assign(zip=frame["zip"].astype(str))
    (tmp_path / "schema.toml").write_text(Schema.infer(text).to_toml(), encoding="utf-8")
    arguments = ["fit", tmp_path / "t.csv", "--out", tmp_path / "model", "--schema", tmp_path / "schema.toml"]
    assert main([*map(str, arguments), "--minutes", "0.01"]) == 0
    out = str(tmp_path / "new.csv")
    assert main(["sample", str(tmp_path / "model"), "--rows", "5", "--out", out]) == 0
    assert TableSynthesizer.load(tmp_path / "model").sample(5)["zip"].dtype == object
    assert set(read_table(out)["zip"]) <= {10115, 10117, 20095}


def test_a_value_in_an_array_without_axes_is_a_value():
    frame = pd.DataFrame({"k": [1, 2] * 30, "x": np.arange(60.0)})
    synth = TableSynthesizer(max_steps=2, progress=False).fit(frame)
    assert (synth.sample(4, {"k": np.array(2)}, steps=3)["k"] == 2).all()


def test_a_column_twice_in_arrow_is_refused():
    import pyarrow as pa

    table = pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
    with pytest.raises(DiffuseError, match="names must differ"):
        TableSynthesizer(max_steps=1).fit(table)


def test_closing_a_sum_leaves_the_cells_that_are_known():
    rng = np.random.default_rng(0)
    a = rng.random(400).astype("float32")
    train = pd.DataFrame({"a": a, "b": (1 - a).astype("float32"), "x": rng.normal(size=400)})
    codec = TableCodec.fit(train)
    if not any(group.close for group in codec.schema.groups):
        data = Schema.infer(train).to_dict()
        data["groups"] = [
            {"name": "s", "columns": ["a", "b"], "total": 1.0, "use": False, "close": True, "why": "set by hand"}
        ]
        codec = TableCodec.fit(train, Schema.from_dict(data))
    from de_plugins.tabular._sums import close_sums

    wide = pd.DataFrame({"a": [0.123456789012, 0.5], "b": [0.8, 0.5], "x": [0.0, 0.0]})
    free = pd.DataFrame({"a": [False, False], "b": [True, False], "x": [False, False]})
    closed = close_sums(codec, wide.copy(), free)
    assert (closed["a"] == wide["a"]).all()
    assert closed["b"][0] == pytest.approx(1 - 0.123456789012, abs=1e-7)
    assert torch.is_tensor(codec.encode(train).numbers)


def test_local_midnights_stay_midnights_across_summer_time():
    rng = np.random.default_rng(0)
    days = pd.date_range("2018-01-01", periods=2000, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"day": days[rng.integers(0, 2000, 3000)], "x": rng.normal(size=3000)})
    codec = TableCodec.fit(frame)
    assert codec.schema["day"].resolution == "1 days 00:00:00"
    assert Schema.from_toml(codec.schema.to_toml()) == codec.schema
    coded = codec.encode(frame)
    back = codec.decode(coded.classes, coded.numbers, rng=0)
    pd.testing.assert_series_equal(back["day"], frame["day"])
    drawn = codec.decode(torch.zeros(2000, 0, dtype=torch.int64), torch.randn(2000, 2), rng=0)
    assert drawn["day"].dtype == frame["day"].dtype
    assert (drawn["day"] == drawn["day"].dt.normalize()).all()
    assert not any(validity(codec, drawn)["day"][key] for key in ("outside", "off_grid"))
    # an hour that comes twice has no place of its own on the wall: moments are then told apart, as before
    twice = pd.to_datetime(["2020-10-25 00:30", "2020-10-25 01:30", "2020-06-01 10:00"], utc=True).tz_convert(
        "Europe/Berlin"
    )
    hours = pd.DataFrame({"t": twice[np.arange(60) % 3], "x": np.arange(60.0)})
    again = TableCodec.fit(hours)
    coded = again.encode(hours)
    pd.testing.assert_series_equal(again.decode(coded.classes, coded.numbers, rng=0)["t"], hours["t"])
