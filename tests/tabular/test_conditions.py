"""Values, noise levels, ranges and sets as conditions of a fitted table, in Python and as text."""

import datetime

import numpy as np
import pandas as pd
import pytest

from de_core import DiffuseError, Given, NoisyGuidance
from de_plugins.tabular import TableCodec, TableSynthesizer, process
from de_plugins.tabular._sets import ask
from de_plugins.tabular._wanted import read_given, read_text

N = 1500


def people(n=N):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "height": rng.normal(170, 10, n),
            "income": np.where(rng.random(n) < 0.3, 0, rng.integers(500, 9000, n)),
            "kids": rng.integers(0, 5, n),
            "town": rng.choice(["Ulm", "Bonn", "Kiel", "A|B"], n),
            "owner": rng.random(n) < 0.3,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "seen": pd.Timestamp("2020-01-01", tz="Europe/Berlin")
            + pd.to_timedelta(rng.integers(0, 10**7, n), unit="s"),
            "shift": pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
            "score": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "name": [f"id{i}" for i in range(n)],
            "planet": "Earth",
        }
    )
    frame["rank"] = pd.Categorical(rng.choice(["lo", "mid", "hi"], n), categories=["lo", "mid", "hi"], ordered=True)
    return frame


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 64)
        yield


@pytest.fixture(scope="module")
def fitted(small_blocks):
    return TableSynthesizer(max_steps=10, minutes=1, batch_size=128, progress=False).fit(people())


def between(low, high):
    return lambda x: x.between(low, high)


day = pd.Timestamp
CASES = {
    "height": ((160, 170.5), between(160, 170.5)),
    "income": ({(600, 700), 0, 8000}, lambda x: x.between(600, 700) | x.isin([0, 8000])),
    "kids": (range(1, 3), between(1, 2)),
    "town": (["Ulm", "A|B"], lambda x: x.isin(["Ulm", "A|B"])),
    "owner": ([True], lambda x: x),
    "since": (("2020-02-01", "2020-03-01"), between("2020-02-01", "2020-03-01")),
    "seen": (("2020-02-01", None), lambda x: x >= day("2020-02-01", tz="Europe/Berlin")),
    "shift": ((None, "1 days"), lambda x: x <= pd.Timedelta("1 days")),
    "score": ([(0, None), None], lambda x: (x >= 0) | x.isna()),
    "name": ([f"id{i}" for i in range(1200, 1300)], lambda x: x.str.len().eq(6) & x.str[2:4].eq("12")),
    "planet": (["Earth", "Mars"], lambda x: x == "Earth"),
    "rank": (("mid", None), lambda x: x.isin(["mid", "hi"])),
}


@pytest.mark.parametrize("name", CASES)
def test_every_row_lies_in_the_set(fitted, name):
    wanted, holds = CASES[name]
    fake = fitted.sample(100, {name: wanted}, steps=6)
    assert holds(fake[name]).all()
    assert fake.dtypes.equals(people().dtypes)
    assert fake[name].nunique() > 1 or name in ("owner", "planet")


def test_all_of_them_at_once_and_row_by_row(fitted):
    given = {name: wanted for name, (wanted, _) in CASES.items() if name not in ("shift", "since")}
    given["shift"] = pd.Timedelta("2 days")
    long, short = fitted.sample(70, given, steps=4), fitted.sample(5, given, steps=4)
    pd.testing.assert_frame_equal(long.head(5), short)
    for name in set(given) - {"shift"}:
        assert CASES[name][1](long[name]).all(), name
    assert (long["shift"] == pd.Timedelta("2 days")).all()
    guided = fitted.sample(5, given, NoisyGuidance(2.0, sigma=0.5), steps=4)
    assert CASES["income"][1](guided["income"]).all()


def test_one_value_of_a_column_without_a_grid_is_that_value(fitted):
    wanted = [170.0001, 181.5]
    fake = fitted.sample(100, {"height": wanted}, steps=4)["height"]
    assert set(fake) == set(wanted)


def test_a_set_of_whole_numbers_is_one_stretch_where_they_are_neighbours(fitted):
    codec = fitted.codec
    income = next(v for v in codec.variables if v.column.name == "income")
    values = read_given(codec, {"income": [*range(600, 700), 800]}).sets["income"]
    asked = ask(income, values, 0, 0)
    assert asked.ends.tolist() == [[600, 699], [800, 800]]
    (low, high), _ = asked.among.scores.tolist()
    inside = income.values_at(np.linspace(low + 1e-9, high - 1e-9, 1000))
    assert inside.min() == 600
    assert inside.max() == 699
    assert (income.values_at(np.array([low - 1e-6, high + 1e-6])) == [599, 700]).all()


def test_a_level_blurs_the_value(fitted):
    given = {"height": Given(185.0, level=0.3), "town": Given("Ulm", level=0.5), "kids": 2}
    fake = fitted.sample(128, given, steps=20)
    pd.testing.assert_frame_equal(fake.head(9), fitted.sample(9, given, steps=20))
    assert (fake["kids"] == 2).all()
    assert fake["height"].nunique() > 50
    # an untrained network takes the columns for normal and independent: the mean score is the given one times
    # alpha(.3)^2 = .79, that is 182 cm; the scatter of 128 is below .5 cm
    assert abs(fake["height"].mean() - 182) < 3
    # half of the rows keep the town, a quarter of the others draw it: 62 %, five standard errors are 21 %
    assert 0.4 < (fake["town"] == "Ulm").mean() < 0.84
    pd.testing.assert_frame_equal(
        fitted.sample(9, {"town": Given("Ulm", level=0.0)}, steps=4), fitted.sample(9, {"town": "Ulm"}, steps=4)
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["town"], "given: expected column -> value, got list"),
        ({"height": (900, 1000)}, "given: column 'height': no value of training lies in the set"),
        ({"kids": (1.2, 1.8)}, "given: column 'kids': no value of training lies in the set"),
        ({"income": (0.2, 0.8)}, "given: column 'income': no value of training lies in the set"),
        ({"planet": ["Mars"]}, "given: column 'planet': no value of training lies in the set"),
        ({"kids": (3, 1)}, "given: column 'kids': expected a range from low to high, got 3 to 1"),
        ({"kids": (1, 2, 3)}, "given: column 'kids': expected a range (low, high), got 3 values"),
        ({"kids": ("one", 2)}, "given: column 'kids': expected numbers as the ends of a range, got 'one'"),
        ({"kids": []}, "given: column 'kids': expected at least one value, got an empty set"),
        ({"town": ("Bonn", "Ulm")}, "given: column 'town': expected a value or a set of values, got a range"),
        ({"owner": (False, True)}, "given: column 'owner': expected a value or a set of values, got a range"),
        ({"town": [1, 2]}, "given: column 'town': expected text"),
        ({"since": ("2020-01-01", "soon")}, "given: column 'since': expected a date, got 'soon'"),
        ({"shift": "soon"}, "given: column 'shift': expected a duration, got 'soon'"),
        ({"rank": ("mid", "top")}, "given: column 'rank': 'top' is none of its categories"),
        ({"name": "stranger"}, "given: column 'name': 'stranger' did not occur in training"),
        ({"height": Given(170.0, level=1.5)}, "given: column 'height': expected a level in [0, 1], got 1.5"),
        ({"height": Given((160, 170), level=0.5)}, "given: column 'height': expected one value at level 0.5"),
        ({"height": {"a": 1}}, "given: column 'height': expected numbers"),
    ],
)
def test_what_cannot_be_given(fitted, given, sentence):
    with pytest.raises(DiffuseError) as caught:
        fitted.sample(1, given)
    assert str(caught.value).startswith(sentence)


def test_text_forms():
    codec = TableCodec.fit(people())
    variables = {v.column.name: v for v in codec.variables}
    for name, text, value in [
        ("kids", "2", 2),
        ("kids", "1..3", (1, 3)),
        ("kids", "..3", (None, 3)),
        ("kids", "1|3..", [1, (3, None)]),
        ("kids", "-1 .. 2.5", (-1, 2.5)),
        ("height", "1e2..170", (100.0, 170.0)),
        ("town", "Ulm | Bonn", ["Ulm", "Bonn"]),
        ("town", "A|B", "A|B"),
        ("town", "a..b", "a..b"),
        ("owner", "yes", True),
        ("rank", "lo..mid", ("lo", "mid")),
        ("score", "", None),
        ("score", "0..1|", [(0.0, 1.0), None]),
        ("since", "2020-01-01..2020-02-01", ("2020-01-01", "2020-02-01")),
    ]:
        assert read_text(text, variables[name]) == value
    for name, text, said in [
        ("kids", "x..3", "expected numbers as the ends of a range"),
        ("kids", "x|3", "expected a whole number"),
        ("owner", "maybe", "expected true or false"),
        ("height", "1..2..3", "expected a number"),
    ]:
        with pytest.raises(DiffuseError, match=said):
            read_text(text, variables[name])
    wanted = read_given(codec, {"kids": "1..3", "since": datetime.date(2020, 1, 5), "seen": "2020-01-02 10:00"})
    assert wanted.sets["kids"].stretches == ((1, 3),)
    assert wanted.values["since"].iloc[0] == day("2020-01-05")
    assert wanted.values["seen"].iloc[0] == day("2020-01-02 10:00", tz="Europe/Berlin")


def days():
    """Dates that nanoseconds do not reach, and missing ones, in every dtype that holds them."""
    late = pd.Series(["2024-01-01", "2024-01-03", "9999-12-31", None] * 9).astype("datetime64[s]")
    near = late.where(late < day("2025-01-01"))
    return pd.DataFrame(
        {
            "s": late,
            "us": late.astype("datetime64[us]"),
            "date": late.dt.date,
            "zoned": late.astype("datetime64[us]").dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin"),
            "ns": near.astype("datetime64[ns]"),
            "berlin": near.astype("datetime64[ns]").dt.tz_localize("Europe/Berlin"),
        }
    )


@pytest.mark.parametrize("name", days())
@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT], ids=str)
def test_a_missing_date_can_be_given(name, nothing):
    codec = TableCodec.fit(days())
    assert read_given(codec, {name: nothing}).values[name].isna().all()
    assert read_given(codec, {name: [nothing]}).sets[name].missing
    variable = next(v for v in codec.variables if v.column.name == name)
    assert read_given(codec, {name: read_text("", variable)}).values[name].isna().all()
    both = read_given(codec, {name: read_text("|2024-01-03", variable)}).sets[name]
    assert both.missing
    assert len(both.stretches) == 1


@pytest.mark.parametrize("name", ["s", "us", "date", "zoned"])
def test_a_date_that_nanoseconds_do_not_reach_can_be_given(name):
    codec = TableCodec.fit(days())
    for value in ("9999-12-31", datetime.date(9999, 12, 31), np.datetime64("9999-12-31")):
        assert read_given(codec, {name: value}).values[name].iloc[0].year == 9999
        ((low, high),) = read_given(codec, {name: ("2024-01-03", value)}).sets[name].stretches
        assert low < high
    assert read_given(codec, {name: "2024-01-03..9999-12-31"}).sets[name].stretches == ((low, high),)
    with pytest.raises(DiffuseError, match="given: column 'ns': expected dates or durations"):
        read_given(codec, {"ns": "9999-12-31"})


@pytest.mark.parametrize("clock", ["2020-10-25 02:30", "2020-03-29 02:30"])
def test_a_time_that_a_zone_has_twice_or_never_is_refused(clock):
    codec = TableCodec.fit(days())
    for value in (clock, (clock, None), pd.Timestamp(clock)):
        with pytest.raises(
            DiffuseError, match=f"column 'berlin': expected a time that Europe/Berlin has once, got '{clock}"
        ):
            read_given(codec, {"berlin": value})
    assert read_given(codec, {"berlin": (f"{clock}+01:00", None)})
