"""Rules between columns: found where they hold and nowhere else, kept by drawn rows, given and filled around."""

import os

import attrs
import numpy as np
import pandas as pd
import pytest

from de_core import DiffuseError
from de_plugins.tabular import TableCodec, TableSynthesizer, evaluate, process
from de_plugins.tabular._keeping import keep_rules, with_tolerances
from de_plugins.tabular._rules import Rule
from de_plugins.tabular.schema import Schema

DATA = os.environ.get("DIFFUSE_DATA")
PARTLY = 0.4  # of the rows of `orders`, in which the greatest equals the least


def orders(n=1500, seed=0):
    """A shop's orders: amounts in cents, quantities, days; a least, a greatest and a mean that are often one number."""
    rng = np.random.default_rng(seed)
    net = np.round(rng.gamma(4, 20, n), 2)
    tax = np.round(net * rng.uniform(0, 0.3, n), 2)
    price, count = np.round(rng.gamma(9, 3, n), 1), rng.integers(2, 40, n)
    least = np.round(rng.gamma(3, 100, n), 1)
    most = np.where(rng.random(n) < PARTLY, least, least + np.round(rng.gamma(2, 200, n), 1))
    mean = np.where(rng.random(n) < 0.5, (least + most) / 2, least + (most - least) * rng.random(n))
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D")
    angle = np.round(rng.normal(0.2, 0.4, n), 3)
    return pd.DataFrame(
        {
            "net": net,
            "tax": tax,
            "gross": np.round(net + tax, 2),
            "price": price,
            "count": count,
            "worth": np.round(price * count, 1),
            "least": least,
            "most": np.round(most, 1),
            "mean": np.round(mean, 3),
            "ordered": day,
            "shipped": day + pd.to_timedelta(rng.integers(1, 90, n), "D"),
            "angle": angle,
            "off": np.round(np.abs(angle - 0.25), 3),
            "kind": rng.choice(["a", "b"], n),
        }
    )


ALL = {
    ("gross", "sum", ("net", "tax")),
    ("worth", "product", ("price", "count")),
    ("off", "distance", ("angle",)),
    ("most", "equal", ("least",)),
    ("mean", "middle", ("least", "most")),
    ("shipped", "at least", ("ordered",)),
    ("mean", "at least", ("least",)),
    ("most", "at least", ("mean",)),
}


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 256)
        made = TableSynthesizer(max_steps=150, minutes=1, batch_size=256, patience=None, progress=False)
        yield made.fit(orders())


def broken(frame, share=0.0):
    """The rules that do not hold in all rows but ``share``, whose names they are."""
    f = frame
    right = {
        "gross": (f["net"] + f["tax"] - f["gross"]).abs() < 0.006,
        "worth": (f["price"] * f["count"] - f["worth"]).abs() < 0.06,
        "off": ((f["angle"] - 0.25).abs() - f["off"]).abs() < 0.0006,
        "shipped": f["shipped"] >= f["ordered"],
        "mean": (f["least"] <= f["mean"]) & (f["mean"] <= f["most"]),
    }
    return {name for name, kept in right.items() if (~kept).mean() > share}


def test_they_are_found():
    found = Schema.infer(orders()).rules
    assert {(r.column, r.form, r.of) for r in found} == ALL
    by = {(r.column, r.form): r for r in found}
    assert by["off", "distance"].constant == pytest.approx(0.25, abs=1e-9)
    table = orders()
    assert by["most", "equal"].share == pytest.approx((table["most"] == table["least"]).mean(), abs=1e-6)
    assert by["gross", "sum"].why == "'gross' is the sum of 'net' and 'tax' in all rows"
    assert by["most", "equal"].why == f"'most' equals 'least' in {by['most', 'equal'].share:.0%} of the rows"


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_where_nothing_is(seed):
    rng = np.random.default_rng(seed)
    n = 1200
    table = pd.DataFrame(rng.normal(size=(n, 8)), columns=list("abcdefgh"))
    table["whole"] = rng.integers(0, 200, n)
    table["other"] = rng.integers(0, 200, n)
    table["few"] = rng.integers(0, 3, n)
    table["near"] = table["a"] + 0.01 * rng.normal(size=n)  # almost the same, and never
    assert Schema.infer(table).rules == ()


def names_of(table):
    return {(rule.column, rule.form, rule.of) for rule in Schema.infer(table).rules}


def test_great_numbers_that_are_near_are_not_equal():
    rng = np.random.default_rng(0)
    start = 1_700_000_000 + rng.integers(0, 3 * 10**7, 3000)
    length = rng.integers(1, 1500, 3000)
    times = pd.DataFrame({"start": start, "end": start + length})
    assert names_of(times) == {("end", "at least", ("start",))}
    assert names_of(times.assign(length=length)) >= {("end", "sum", ("start", "length"))}
    bid = np.round(100_000 + rng.normal(size=3000), 2)
    assert names_of(pd.DataFrame({"bid": bid, "ask": bid + 0.05})) == {("ask", "at least", ("bid",))}
    assert names_of(pd.DataFrame({"x": 6e6 + bid, "y": 6e6 + bid + rng.uniform(-1, 1, 3000)})) == set()


def test_a_ratio_is_said_of_the_quotient():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"part": rng.integers(0, 4000, 1500), "whole": rng.integers(1, 9000, 1500)})
    table["rate"] = table["part"] / table["whole"]
    assert ("rate", "ratio", ("part", "whole")) in names_of(table)
    off = mixed(table, "rate")
    codec = TableCodec.fit(table)
    out = keep_rules(codec, off.copy(), dict.fromkeys(table, True))
    pd.testing.assert_frame_equal(out, table)
    out = keep_rules(codec, table.assign(part=0), {"part": True, "whole": False, "rate": False})
    np.testing.assert_array_equal(out["part"], table["part"])


def test_missing_cells_hide_no_rule():
    rng = np.random.default_rng(0)
    table = orders(2000)
    for k in range(12):
        table[f"note {k}"] = np.where(rng.random(2000) < 0.2, rng.normal(size=2000), np.nan)
    assert names_of(table) >= ALL
    holes = orders(3000)
    holes.loc[rng.random(3000) < 0.7, "tax"] = np.nan
    found = names_of(holes)
    # where no tax is, the sum says nothing, and the order of the other two is said beside it
    assert found >= {("gross", "sum", ("net", "tax")), ("gross", "at least", ("net",))}
    few = orders(600)
    few.loc[:400, "shipped"] = pd.NaT
    assert ("shipped", "at least", ("ordered",)) not in names_of(few)


def test_an_order_that_fails_hides_no_other():
    rng = np.random.default_rng(0)
    a = rng.normal(size=3000)
    c = a + rng.gamma(2, 1, 3000)
    b = np.where(rng.random(3000) < 0.004, a - 0.1, (a + c) / 2 + 0.1 * (c - a) * rng.normal(size=3000).clip(-4, 4))
    assert names_of(pd.DataFrame({"a": a, "b": b, "c": c})) >= {("c", "at least", ("a",))}


def test_orders_of_columns_of_many_classes():
    """Whole numbers and days of few distinct values are classes, and are put in order too; those of a few are not."""
    rng = np.random.default_rng(0)
    first = rng.integers(18, 60, 2000)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 80, 2000), "D")
    table = pd.DataFrame({"first": first, "now": first + rng.integers(0, 20, 2000), "in": day})
    table["out"] = day + pd.to_timedelta(rng.integers(0, 9, 2000), "D")
    table["few"] = rng.integers(0, 4, 2000)
    table["more"] = table["few"] + rng.integers(0, 3, 2000)
    assert {column.kind for column in Schema.infer(table).columns} == {"classes"}
    assert names_of(table) == {("now", "at least", ("first",)), ("out", "at least", ("in",))}
    off = mixed(table, "now", "out")
    out = keep_rules(TableCodec.fit(table), off, dict.fromkeys(table, True))
    assert (out["now"] >= out["first"]).mean() > 0.99
    assert (out["out"] >= out["in"]).mean() > 0.99
    assert list(out.dtypes) == list(table.dtypes)


def test_numbers_with_and_without_sign():
    rng = np.random.default_rng(0)
    room = rng.integers(0, 10**6, 3000)
    table = pd.DataFrame({"room": room.astype("uint32"), "left": room - rng.integers(0, 5 * 10**5, 3000)})
    assert names_of(table) == set()
    more = table.assign(left=table["left"].clip(lower=0).astype("uint32"))
    assert ("room", "at least", ("left",)) in names_of(more)
    out = keep_rules(TableCodec.fit(more), mixed(more, "room"), dict.fromkeys(more, True))
    assert (out["room"] >= out["left"]).mean() > 0.99
    assert list(out.dtypes) == list(more.dtypes)


def test_few_rows_say_nothing_of_orders_and_parts():
    assert {rule.form for rule in Schema.infer(orders(300)).rules} == {"sum", "product", "distance"}
    assert Schema.infer(orders(60)).rules == ()


def test_drawn_rows_keep_them(fitted):
    drawn = fitted.sample(1500, rng=3)
    # in a part of the rows the value that the rule says is none that the column may hold: off its range
    assert broken(drawn, 0.05) == set()
    assert (drawn["shipped"] >= drawn["ordered"]).all()
    raw = fitted._draw(fitted.model, 1500, None, 50, 3, None)
    assert broken(raw, 0.05) == {"gross", "worth", "off", "shipped", "mean"}  # the network alone does not know them
    same = (drawn["most"] == drawn["least"]).mean()
    # two binomial errors of 1,500 rows each, on a share set by 2,000 or more
    assert abs(same - PARTLY) < 5 * (PARTLY * (1 - PARTLY) * (2 / 1500 + 1 / 2000)) ** 0.5
    assert (raw["most"] == raw["least"]).mean() < 0.1
    assert list(drawn.dtypes) == list(orders().dtypes)


def test_a_row_hangs_on_its_seed_alone(fitted):
    pd.testing.assert_frame_equal(fitted.sample(300, rng=1).head(40), fitted.sample(40, rng=1))


def test_what_is_given_stays_and_the_others_follow(fitted):
    drawn = fitted.sample(200, given={"gross": 100.0, "least": 250.0}, rng=2)
    assert (drawn["gross"] == 100.0).all()
    assert (drawn["least"] == 250.0).all()
    assert (drawn["net"] + drawn["tax"] - 100.0).abs().lt(0.006).mean() > 0.9
    assert (drawn["mean"] >= 250.0).mean() > 0.99


def test_holes_are_filled_by_what_is_known(fitted):
    table = orders(400, seed=9)
    holes = table.copy()
    holes.loc[:99, "gross"] = np.nan
    holes.loc[100:199, "tax"] = np.nan
    holes.loc[200:299, "worth"] = np.nan
    filled = fitted.impute(holes, rng=0)
    known = holes.notna()
    assert (filled[known] == holes[known]).where(known, True).all().all()
    right = (filled["gross"] - table["gross"]).abs() < 0.006
    assert right[:100].mean() > 0.95  # off the training range otherwise
    assert ((filled["tax"] - table["tax"]).abs()[100:200] < 0.006).mean() > 0.95
    assert ((filled["worth"] - table["worth"]).abs()[200:300] < 0.06).mean() > 0.95


def test_filled_floats_keep_their_width(fitted):
    holes = orders(50, seed=9).astype({"net": "float32", "gross": "float32"})
    holes.loc[:9, "gross"] = np.nan
    filled = fitted.impute(holes, rng=0)
    assert filled["gross"].dtype == np.float32
    assert (filled["gross"][10:] == holes["gross"][10:]).all()
    assert ((filled["net"] + filled["tax"] - filled["gross"]).abs()[:10] < 0.01).mean() > 0.8


def test_rules_that_are_not_in_use_are_left_alone():
    table = orders(1200)
    schema = Schema.infer(table)
    codec = TableCodec.fit(table, attrs.evolve(schema, rules=tuple(attrs.evolve(r, use=False) for r in schema.rules)))
    shuffled = table.sample(frac=1, random_state=0)[["net"]].reset_index(drop=True).join(table.drop(columns="net"))
    out = keep_rules(codec, shuffled.copy(), dict.fromkeys(table, True))
    pd.testing.assert_frame_equal(out, shuffled)


def mixed(table, *columns):
    """Some columns in another order of rows: what they had to do with the others is gone."""
    out = table.copy()
    for k, name in enumerate(columns):
        out[name] = table[name].sample(frac=1, random_state=k).to_numpy()
    return out


def test_cells_that_may_not_move_and_missing_ones():
    table = orders(1200)
    codec = TableCodec.fit(table)
    off = mixed(table, "net")
    free = dict.fromkeys(table, True) | {"gross": False, "net": False}
    out = keep_rules(codec, off.copy(), free)
    assert (out["net"] == off["net"]).all()
    assert (out["gross"] == off["gross"]).all()
    moved = out["tax"] != off["tax"]
    assert (out["tax"] - (off["gross"] - off["net"]))[moved].abs().max() < 0.006
    assert moved.mean() > 0.2
    held = keep_rules(codec, off.copy(), dict.fromkeys(table, False))
    pd.testing.assert_frame_equal(held, off)
    gone = table.assign(tax=table["tax"].where(np.arange(1200) >= 200))
    codec = TableCodec.fit(gone)
    off = mixed(gone, "net")
    out = keep_rules(codec, off.copy(), dict.fromkeys(table, True))
    assert (out["gross"][:200] == off["gross"][:200]).all() or out["tax"][:200].isna().all()
    assert out["tax"].isna().sum() == 200


def test_rows_that_keep_a_rule_stay():
    """Also where the column is coarser than what it is made of: nothing is rounded that need not be."""
    table = pd.DataFrame({"x": np.round(np.random.default_rng(0).gamma(4, 60, 1500), 1)})
    table["y"] = table["x"].round()
    table["z"] = table["x"]
    data = Schema.infer(table).to_dict() | {"rules": [{"column": "y", "form": "equal", "of": ["x"]}]}
    codec = TableCodec.fit(table, Schema.from_dict(data))
    for free in ({"x": True, "y": False, "z": True}, {"x": True, "y": True, "z": True}):
        pd.testing.assert_frame_equal(keep_rules(codec, table.copy(), free), table)


def test_a_copy_takes_nothing_from_a_given_total():
    table = orders(1200)
    table["again"] = table["net"]
    codec = TableCodec.fit(table)
    off = mixed(table, "net", "again", "tax").assign(gross=150.0)
    out = keep_rules(codec, off, dict.fromkeys(table, True) | {"gross": False})
    assert (out["again"] == out["net"]).all()
    assert ((out["net"] + out["tax"] - 150.0).abs() < 0.006).mean() > 0.6  # the others' tax would be off its range


def test_known_cells_are_the_very_same_in_other_widths():
    table = orders(900)[["net", "tax", "gross"]]
    made = TableSynthesizer(max_steps=10, minutes=1, patience=None, progress=False).fit(table.astype("float32"))
    holes = table.head(100).copy()
    holes.loc[:29, "gross"] = np.nan
    filled = made.impute(holes)
    assert (filled["gross"][30:] == table["gross"][30:100]).all()


def test_great_whole_numbers_are_left_alone():
    whole = 2**60 + np.arange(1200) * 3
    table = pd.DataFrame({"i": whole, "j": whole})
    assert ("j", "equal", ("i",)) not in names_of(table)
    data = Schema.infer(table).to_dict() | {"rules": [{"column": "j", "form": "equal", "of": ["i"]}]}
    codec = TableCodec.fit(table, Schema.from_dict(data))
    off = mixed(table, "j")
    pd.testing.assert_frame_equal(keep_rules(codec, off.copy(), dict.fromkeys(table, True)), off)


def test_orders_change_places():
    table = orders(1200)
    codec = TableCodec.fit(table)
    swapped = table.assign(ordered=table["shipped"], shipped=table["ordered"])
    free = dict.fromkeys(table, True)
    pd.testing.assert_frame_equal(keep_rules(codec, swapped.copy(), free), table)
    out = keep_rules(codec, swapped.copy(), free | {"ordered": False})
    fits = swapped["ordered"] >= table["shipped"].min()  # of a held cell, whose value the other takes
    assert (out["ordered"] == swapped["ordered"]).all()
    assert fits.mean() > 0.9
    assert (out["shipped"] == swapped["ordered"])[fits].all()
    assert (out["shipped"] == swapped["shipped"])[~fits].all()


def test_as_many_rows_keep_a_part_as_in_training():
    """Draws that are near the rule by chance alone: the tolerance is the quantile of their distances."""
    table = orders(2000)
    rule = next(r for r in Schema.infer(table).rules if r.form == "equal")
    codec = TableCodec.fit(table)
    drawn = mixed(table, "least", "most")
    codec = with_tolerances(codec, table, drawn)
    out = keep_rules(codec, drawn.copy(), dict.fromkeys(table, True))
    kept = (out["most"] == out["least"]).mean()
    assert abs(kept - rule.share) < 0.01  # rows whose value cannot be held are few here
    found = next(r for r in codec.schema.rules if r.form == "equal")
    assert found.by is None
    assert len(found.within) == 1
    assert found.within[0] > 0


def counted(n, seed):
    """Orders, and how many parts each was sent in: of one part least and most are equal, of three never."""
    rng = np.random.default_rng(seed)
    table = orders(n, seed)[["least", "most", "kind"]]
    table["parts"] = rng.integers(1, 4, n)
    apart = table["least"] + np.round(rng.gamma(2, 200, n), 1)
    equal = (table["parts"] == 1) | ((table["parts"] == 2) & (rng.random(n) < 0.5))
    table["most"] = np.where(equal, table["least"], np.round(apart, 1))
    return table


def test_a_column_of_classes_tells_in_which_rows():
    """By 2,000 rows, in each class as many as in training: within four binomial errors of both, and .02 of edges."""
    table = counted(6000, 0)
    drawn = mixed(table, "least", "most", "parts", "kind")
    codec = with_tolerances(TableCodec.fit(table), table, drawn)
    found = next(r for r in codec.schema.rules if r.form == "equal")
    assert found.by == "parts"
    assert len(found.within) == 3
    out = keep_rules(codec, drawn.copy(), dict.fromkeys(table, True))
    kept = (out["most"] == out["least"]).groupby(out["parts"]).mean()
    for parts, share in {1: 1.0, 2: 0.5, 3: 0.0}.items():
        assert abs(kept[parts] - share) < 4 * (share * (1 - share) * 2 / 2000) ** 0.5 + 0.02
    schema = codec.schema
    assert Schema.from_toml(schema.to_toml()) == schema
    wrong = tuple(attrs.evolve(r, within=r.within[:2]) if r is found else r for r in schema.rules)
    codec = attrs.evolve(codec, schema=attrs.evolve(schema, rules=wrong))
    with pytest.raises(DiffuseError, match="expected within as 3 numbers, one a class of 'parts', got 2"):
        keep_rules(codec, drawn.copy(), dict.fromkeys(table, True))


def test_a_circle_is_never_found():
    table = orders(1200)
    table["again"], table["once more"] = table["net"], table["net"]
    found = [r for r in Schema.infer(table).rules if r.form == "equal" and r.always]
    assert {(r.column, r.of) for r in found} == {("again", ("net",)), ("once more", ("net",))}


def test_text_keeps_them():
    schema = Schema.infer(orders())
    assert Schema.from_toml(schema.to_toml()) == schema
    codec = TableCodec.fit(orders(), schema)
    config, tensors = codec.state()
    assert TableCodec.from_state(config, tensors).schema.rules == schema.rules


def test_a_model_that_is_read_again_draws_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    again = TableSynthesizer.load(tmp_path / "model")
    assert any(rule.within for rule in again.codec.schema.rules)
    pd.testing.assert_frame_equal(again.sample(100, rng=4), fitted.sample(100, rng=4))


def test_the_report_counts_them(tmp_path):
    table = orders(900)
    off = mixed(table, "net", "ordered")
    found = evaluate(table, off, orders(300, seed=1), anchors=False, seeds=1)
    kept = found.results["rules"]
    for name in ("train", "test"):
        assert kept[name]["'gross' is the sum of 'net' and 'tax' in all rows"] == 1.0
    assert kept["synthetic"]["'gross' is the sum of 'net' and 'tax' in all rows"] < 0.05
    late = "'shipped' is at least 'ordered' in all rows"
    assert kept["synthetic"][late] == pytest.approx((off["shipped"] >= off["ordered"]).mean())
    found.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert ">Rules</h2>" in page
    assert f"{100 * kept['synthetic'][late]:.1f}" in page


RIGHT = {"column": "gross", "form": "sum", "of": ["net", "tax"]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"form": "total"}, "expected a form of"),
        ({"of": ["net"]}, "expected 2 other columns"),
        ({"of": ["net", "net"]}, "expected 2 other columns"),
        ({"of": ["net", "gross"]}, "expected 2 other columns"),
        ({"of": "net"}, "expected 2 other columns"),
        ({"of": ["net", "there"]}, "column 'there' is not in the schema"),
        ({"of": ["net", "kind"]}, "expected numbers of one kind"),
        ({"of": ["net", "ordered"]}, "expected numbers of one kind"),
        ({"form": "at least", "of": ["ordered"]}, "expected numbers of one kind"),
        ({"of": [["net"], "tax"]}, "is not in the schema"),
        ({"form": ["sum"]}, "expected a form of"),
        ({"share": "all"}, "expected share as a number"),
        ({"share": -0.5}, "expected share as a number"),
        ({"within": -1}, "expected within as a list of numbers"),
        ({"within": [0.1, -1]}, "expected within as a list of numbers"),
        ({"by": "there"}, "column 'there' is not in the schema"),
        ({"by": ["kind"]}, "is not in the schema"),
        ({"constant": float("inf")}, "expected constant as a number"),
        ({"why": 3}, "expected why as text"),
        ({"share": 2.0}, "expected share as a number"),
        ({"use": 1}, "expected use as true or false"),
        ({"weight": 1}, "unknown key 'weight'"),
    ],
)
def test_bad_rules_are_refused(change, says):
    data = Schema.infer(orders()).to_dict()
    with pytest.raises(DiffuseError, match=says):
        Schema.from_dict(data | {"rules": [RIGHT | change]})


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([RIGHT, RIGHT], "has another rule"),
        ([RIGHT, {"column": "net", "form": "equal", "of": ["gross"]}], "in a circle"),
        ("gross = net + tax", "expected 'rules' as a list"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(rules, says):
    data = Schema.infer(orders()).to_dict()
    with pytest.raises(DiffuseError, match=says):
        Schema.from_dict(data | {"rules": rules})


def test_a_rule_of_ones_own_comes_in_any_order():
    table = orders(1200)
    data = Schema.infer(table).to_dict()
    own = [{"column": "tax", "form": "equal", "of": ["price"]}, {"column": "price", "form": "equal", "of": ["least"]}]
    schema = Schema.from_dict(data | {"rules": own})
    assert [rule.column for rule in schema.rules] == ["price", "tax"]
    assert schema.rules[0] == Rule("price", "equal", ("least",))


@pytest.mark.skipif(not DATA, reason="DIFFUSE_DATA names no folder with the benchmark tables")
def test_those_of_the_news():
    table = pd.read_csv(f"{DATA}/news.csv.gz")
    table.columns = table.columns.str.strip()
    found = {(rule.column, rule.form): rule for rule in Schema.infer(table).rules}
    assert found["abs_title_subjectivity", "distance"].constant == 0.5
    assert found["abs_title_sentiment_polarity", "distance"].of == ("title_sentiment_polarity",)
    assert ("self_reference_avg_sharess", "middle") in found
