"""Columns that are a function of another: found, not found by chance, kept in drawn and filled rows, saved."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from de_core import DiffuseError
from de_plugins.tabular import Schema, TableCodec, TableSynthesizer
from de_plugins.tabular._lookups import keep_functions
from de_plugins.tabular.metrics.validity import rules_kept

CITIES = {"Ulm": "BW", "Bonn": "NW", "Kiel": "SH", "Köln": "NW", "Aalen": "BW"}
LANDS = {"BW": "south", "NW": "north", "SH": "north"}


def people(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """City -> land -> part; day -> weekday; a grade and its name, which say each other; a column by itself."""
    rng = np.random.default_rng(seed)
    city = rng.choice(list(CITIES), n)
    land = np.array([CITIES[c] for c in city])
    day = rng.integers(0, 40, n) * 1.0 + 1000 * (rng.random(n) < 0.5)
    grade = rng.integers(1, 5, n)
    return pd.DataFrame(
        {
            "part": [LANDS[x] for x in land],
            "city": city,
            "land": pd.Categorical(land),
            "day": day,
            "weekday": (day % 7).astype(int).astype(str),
            "grade": grade,
            "name": np.array(["", "good", "fair", "poor", "bad"])[grade],
            "other": rng.choice(["a", "b", "c"], n),
        }
    )


def pairs(schema: Schema) -> set[tuple]:
    return {(one.of, one.column) for one in schema.functions}


def test_found_by_the_column_with_the_fewest_values():
    schema = Schema.infer(people())
    assert pairs(schema) == {("city", "land"), ("land", "part"), ("day", "weekday"), ("grade", "name")}
    places = {one.column: k for k, one in enumerate(schema.functions)}
    assert places["land"] < places["part"]  # it is read by the other
    assert Schema.from_toml(schema.to_toml()) == schema


def test_some_odd_rows_do_not_hide_one_and_missing_cells_are_left_out():
    table = people(5000)
    table.loc[[7, 900], "part"] = "sea"
    table.loc[::10, "land"] = None
    assert ("land", "part") in pairs(Schema.infer(table))
    table.loc[5::100, "part"] = "sea"  # one in a hundred is no function
    assert "part" not in {column for _, column in pairs(Schema.infer(table))}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 400), st.floats(0.001, 0.5))
def test_none_by_chance(seed, sizes, rare):
    """Independent columns, one of which is nearly constant, one nearly a name of the row."""
    rng = np.random.default_rng(seed)
    n = 1000
    table = pd.DataFrame(
        {
            "many": rng.integers(0, sizes, n).astype(str),
            "rare": np.where(rng.random(n) < rare, "yes", "no"),
            "id": [f"{k % 900}" for k in range(n)],
            "some": rng.choice(list("abcd"), n),
        }
    )
    assert not Schema.infer(table).functions


def wild(codec: TableCodec, table: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Rows whose columns are independent."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({c: table[c].to_numpy()[rng.permutation(len(table))] for c in table}).astype(table.dtypes)


def test_drawn_rows_keep_them_and_nothing_else_moves():
    table = people()
    codec = TableCodec.fit(table)
    drawn = wild(codec, table)
    kept = keep_functions(codec.lookups, drawn.copy(), dict.fromkeys(drawn, True))
    assert (kept["land"].astype(str) == kept["city"].map(CITIES)).all()
    assert (kept["part"] == kept["land"].astype(str).map(LANDS)).all()
    assert (kept["weekday"].astype(int) == kept["day"] % 7).all()
    assert (kept["name"].to_numpy() == np.array(["", "good", "fair", "poor", "bad"])[kept["grade"]]).all()
    assert (kept.dtypes == table.dtypes).all()
    for name in ("city", "grade", "other"):
        assert (kept[name] == drawn[name]).all()
    # the weekday changes from day to day: the day moves, to the nearest with that weekday
    assert (kept["weekday"] == drawn["weekday"]).all()
    assert (kept["day"] - drawn["day"]).abs().max() <= 6
    assert set(rules_kept(codec, kept).values()) == {1.0}
    assert max(rules_kept(codec, drawn).values()) < 0.7


def test_a_smooth_function_of_a_number_leaves_the_number():
    rng = np.random.default_rng(0)
    age = rng.integers(0, 300, 3000)
    table = pd.DataFrame({"age": age, "old": np.where(age >= 150, "yes", "no"), "x": rng.choice(list("ab"), 3000)})
    codec = TableCodec.fit(table)
    assert [one.rough for one in codec.lookups] == [False]
    drawn = wild(codec, table)
    kept = keep_functions(codec.lookups, drawn.copy(), dict.fromkeys(drawn, True))
    assert (kept["age"] == drawn["age"]).all()
    assert (kept["old"] == np.where(kept["age"] >= 150, "yes", "no")).all()


def test_what_may_not_move_stays_and_the_other_follows():
    table = people()
    codec = TableCodec.fit(table)
    drawn = wild(codec, table)
    free = dict.fromkeys(drawn, True) | {"part": False, "name": False}
    kept = keep_functions(codec.lookups, drawn.copy(), free)
    assert (kept[["part", "name"]] == drawn[["part", "name"]]).all(axis=None)
    assert (kept["part"] == kept["land"].astype(str).map(LANDS)).all()
    assert (kept["land"].astype(str) == kept["city"].map(CITIES)).all()
    assert (kept["name"].to_numpy() == np.array(["", "good", "fair", "poor", "bad"])[kept["grade"]]).all()
    moved = kept["city"][(kept["city"] != drawn["city"]) & (kept["part"] == "south")]
    assert set(moved) == {"Ulm", "Aalen"}  # not all to one of them
    still = keep_functions(codec.lookups, drawn.copy(), dict.fromkeys(drawn, False))
    pd.testing.assert_frame_equal(still, drawn)


def test_keys_that_training_did_not_have_or_had_once_say_nothing():
    table = people()
    table.loc[0, ["city", "land", "part"]] = ["Jena", "BW", "south"]
    codec = TableCodec.fit(table)
    assert not any("Jena" in one.keys for one in codec.lookups)  # a pair of one row is not kept
    drawn = table.assign(land=pd.Categorical(["NW"] * len(table), categories=table["land"].cat.categories))
    kept = keep_functions(codec.lookups, drawn.copy(), dict.fromkeys(drawn, True))
    assert kept["land"][0] == "NW"
    assert (kept["land"].astype(str) == kept["city"].map(CITIES))[1:].all()


def test_a_synthesizer_draws_fills_and_saves_with_them(tmp_path):
    table = people()
    synth = TableSynthesizer(max_steps=2, progress=False).fit(table)
    drawn = synth.sample(200, steps=9)
    assert (drawn["land"].astype(str) == drawn["city"].map(CITIES)).all()
    assert (drawn["part"] == drawn["land"].astype(str).map(LANDS)).all()
    south = synth.sample(50, {"part": "south"}, steps=9)
    assert (south["part"] == "south").all()
    assert set(south["city"]) <= {"Ulm", "Aalen"}
    holes = table.head(60).copy()
    holes.loc[::2, "land"], holes.loc[::3, "city"] = None, None
    filled = synth.impute(holes, steps=9)
    known = holes["city"].notna()
    assert (filled["city"][known] == holes["city"][known]).all()
    assert (filled["land"].astype(str) == filled["city"].map(CITIES)).all()
    synth.save(tmp_path / "model")
    pd.testing.assert_frame_equal(TableSynthesizer.load(tmp_path / "model").sample(200, steps=9), drawn)


def test_out_of_use_it_is_let_be():
    table = people()
    schema = Schema.from_toml(Schema.infer(table).to_toml().replace("use = true", "use = false"))
    assert schema.functions
    assert not TableCodec.fit(table, schema).lookups


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": "nowhere"}, "function 'land': expected of as a column of the schema, got 'nowhere'"),
        ({"of": "land"}, "function 'land': a column is no function of itself"),
        ({"of": "part"}, "the functions go in a circle"),
        ({"column": "part", "of": "other"}, "function 'part': the column is a function of another already"),
        ({"use": 1}, "function 'land': expected use as true or false, got 1"),
        ({"share": 1}, "function 'land': unknown key 'share'"),
    ],
)
def test_odd_ones_are_refused(change, said):
    data = Schema.infer(people()).to_dict()
    data["functions"] = [one for one in data["functions"] if one["column"] in ("land", "part")]
    data["functions"] = [one | change if one["column"] == "land" else one for one in data["functions"]]
    with pytest.raises(DiffuseError, match=said):
        Schema.from_dict(data)
    with pytest.raises(DiffuseError, match="expected 'functions' as a list of tables"):
        Schema.from_dict(data | {"functions": {"column": "land"}})
