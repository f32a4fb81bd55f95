"""The kind of each column, the reason given, and the text that people edit."""

import numpy as np
import pandas as pd
import pytest

from de_core.errors import DiffuseError
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import Schema

N = 2000


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    gain = np.where(rng.random(N) < 0.9, 0, rng.integers(1, 10**6, N))
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, N),
            "weight": rng.normal(70, 10, N),
            "price": np.round(rng.lognormal(3, 1, N) / 0.05) * 5 / 100,
            "gain": gain,
            "holed": np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N)),
            "job": rng.choice(["clerk", "baker", "?"], N),
            "flag": rng.random(N) < 0.3,
            "grade": pd.Categorical(rng.choice(["lo", "hi"], N), ["lo", "mid", "hi"], ordered=True),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, N), unit="D"),
            "one": "same",
            "void": np.nan,
            "who": [f"id{i}" for i in range(N)],
        }
    )


def test_kinds(frame):
    schema = Schema.infer(frame, target="job")
    kinds = {column.name: column.kind for column in schema.columns}
    numbers = ["weight", "price", "gain", "holed", "day"]
    assert kinds == {
        name: "constant" if name in ("one", "void") else "number" if name in numbers else "classes"
        for name in frame.columns
    }
    assert all(column.why for column in schema.columns)
    assert schema.target == "job"
    assert schema["gain"].spikes == (0,)
    assert schema["holed"].missing
    assert schema["price"].resolution == 0.05
    assert schema["day"].resolution == "1 days 00:00:00"
    assert schema["weight"].resolution == 0
    assert "the 1000 most frequent are modelled, the other 1000" in schema["who"].why


def test_few_rows_are_no_classes():
    # 100 different numbers in 100 rows recur never: classes would only repeat the training values
    schema = Schema.infer(pd.DataFrame({"x": np.random.default_rng(0).normal(size=100)}))
    assert schema["x"].kind == "number"


def test_numbers_are_classes_where_each_value_has_its_rows():
    """40 values: in 40 * 20 rows classes, in one row less numbers on their grid."""
    column = pd.DataFrame({"x": np.arange(800) % 40})
    assert Schema.infer(column)["x"].kind == "classes"
    assert Schema.infer(column[:-1])["x"].kind == "number"


def test_toml_and_dict_round_trip(frame):
    schema = Schema.infer(frame, target="job")
    assert Schema.from_toml(schema.to_toml()) == schema
    assert Schema.from_dict(schema.to_dict()) == schema
    edited = schema.to_toml().replace('kind = "number"', 'kind = "classes"', 1)
    assert Schema.from_toml(edited)["weight"].kind == "classes"


def test_names_that_are_whole_numbers():
    schema = Schema.infer(pd.DataFrame({0: [1, 2], 1: ["a", "b"]}))
    assert Schema.from_toml(schema.to_toml()).names == [0, 1]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("columns = 3", "expected a list 'columns'"),
        ("not toml at all", "not valid TOML"),
        ("[[columns]]\nname = 'a'\nkind = 'colour'\ndtype = {name='int64', plain='int'}", "expected kind"),
        (
            "[[columns]]\nname = 'a'\nkind = 'number'\ndtype = {name='object', plain='text'}",
            "cannot be a number",
        ),
        ("[[columns]]\nname = 'a'\nkind = 'classes'", "'dtype' is missing"),
        ("[[columns]]\nname = 'a'\nkind = 'classes'\ncolour = 1", "unknown key 'colour'"),
    ],
)
def test_a_broken_schema_names_the_column(broken, said):
    with pytest.raises(DiffuseError, match=said):
        Schema.from_toml(broken)


def test_what_cannot_be_a_table():
    for frame, said in [
        (pd.DataFrame(), "at least one row"),
        (pd.DataFrame({"a": []}), "at least one row"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a': the name occurs twice"),
        (pd.DataFrame({("a", "b"): [1]}), "text or a whole number"),
        (pd.DataFrame({"a": [1, "x"]}), "'a': expected one type, got int and str"),
        (pd.DataFrame({"a": [1.0, np.inf]}), "'a': expected finite numbers, got an infinite one in row 1"),
        (pd.DataFrame({"a": [1j]}), "'a': dtype complex128 is not supported"),
        (
            pd.DataFrame({"a": [[1], [2]]}),
            "'a': expected numbers, text, booleans, categories or dates, got list",
        ),
    ]:
        with pytest.raises(DiffuseError, match=said):
            Schema.infer(frame)
    with pytest.raises(DiffuseError, match="target: column 'z'"):
        Schema.infer(pd.DataFrame({"a": [1]}), target="z")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("resolution = 0.05", "resolution = nan", "resolution: expected a number of at least 0, got nan"),
        ("resolution = 0.05", 'resolution = "1 cent"', "resolution: expected a number of at least 0, got '1 cent'"),
        ("resolution = 0.05", "resolution = -1", "resolution: expected a number of at least 0, got -1"),
        ("spikes = []", "spikes = 0", "spikes: expected a list of numbers of the column, got 0"),
        ("spikes = []", 'spikes = ["a"]', r"spikes: expected a list of numbers of the column, got \['a'\]"),
        ("missing = false", 'missing = "no"', "missing: expected true or false, got 'no'"),
        ('name = "float64"', 'name = "float99"', "dtype: expected one that fit writes"),
    ],
)
def test_an_edited_setting_of_another_type_is_refused(old, new, said):
    text = Schema.infer(pd.DataFrame({"price": np.arange(400) / 20})).to_toml()
    assert old in text
    with pytest.raises(DiffuseError, match=f"schema, column 'price': {said}"):
        Schema.from_toml(text.replace(old, new, 1))


def test_a_resolution_finer_than_numbers_are_is_refused():
    frame = pd.DataFrame({"price": np.arange(400) / 20})
    text = Schema.infer(frame).to_toml().replace("resolution = 0.05", "resolution = 1e-30")
    with pytest.raises(DiffuseError, match="column 'price': its values cannot be written as steps of 1e-30"):
        TableCodec.fit(frame, Schema.from_toml(text))


def test_columns_that_are_no_tables_are_refused():
    with pytest.raises(DiffuseError, match="schema: expected each of 'columns' as a table, got 'a'"):
        Schema.from_toml('columns = ["a"]')
