"""Groups of columns that sum to one: found, exact both ways, learnt as one variable, given whole or in part."""

import os
from pathlib import Path

import attrs
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings

from de_core import DiffuseError, Given, get_modality
from de_core.plugins import get_component
from de_plugins.tabular import TableCodec, TableSynthesizer, process
from de_plugins.tabular._parts import Part, draw_parts
from de_plugins.tabular.backbone import PRESETS, TableMLP
from de_plugins.tabular.io import read_table
from de_plugins.tabular.process import table_process
from de_plugins.tabular.schema import Schema

DATA = os.environ.get("DIFFUSE_DATA")
PARTS = ["p", "q", "r", "s"]


def shares(n=400, seed=0, odd=True, gone=True):
    """Two classes with opposite compositions; a row that is none, and rows where all of the group is missing."""
    rng = np.random.default_rng(seed)
    c = rng.choice(["u", "v"], n)
    g = rng.gamma(np.where((c == "u")[:, None], [6.0, 2, 2, 1], [1.0, 2, 2, 6]))
    g /= g.sum(1, keepdims=True)
    frame = pd.DataFrame({"c": c, "p": g[:, 0], "z": rng.normal(size=n), "q": g[:, 1], "r": g[:, 2], "s": g[:, 3]})
    if odd:
        frame.loc[3, PARTS] = 0.0
    if gone:
        frame.loc[10:30, PARTS] = np.nan
    return frame


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 64)
        yield


def quick(**params):
    return TableSynthesizer(
        **{"max_steps": 60, "minutes": 1, "batch_size": 128, "patience": None, "progress": False} | params
    )


@pytest.fixture(scope="module")
def fitted(small_blocks):
    return quick().fit(shares())


def there(frame):
    """The rows that are compositions."""
    return frame[frame["p"].notna() & (frame[PARTS].sum(axis=1) > 0)]


# --- found ----------------------------------------------------------------------------------------------------------


def test_found_with_a_reason_and_edited():
    schema = Schema.infer(shares())
    (group,) = schema.groups
    assert group.columns == tuple(PARTS)
    assert group.use
    assert group.why == (
        "p .. s sum to one in all rows but 1, whose cells are a class of a gate; missing together in 5.2% of the rows, "
        "a class of the gate"
    )
    assert Schema.from_toml(schema.to_toml()) == schema
    off = Schema.from_toml(schema.to_toml().replace("use = true", "use = false"))
    assert TableCodec.fit(shares(), off).number_names == ("p", "z", "q", "r", "s")
    named = Schema.from_toml(schema.to_toml().replace('name = "shares"', 'name = "topics"'))
    codec = TableCodec.fit(shares(), named)
    assert codec.group_parts == {"topics": 4}
    assert "a part of the group 'topics'" in codec.schema["p"].why
    assert codec.class_labels[-1] == ["(shares)", "(0, 0, 0, 0)", "(missing)"]


def test_percentages_and_several_groups():
    rng = np.random.default_rng(0)
    one = rng.dirichlet([2, 3, 4], 300)
    whole = rng.multinomial(100, [0.2, 0.3, 0.1, 0.4], 300)
    frame = pd.DataFrame(one, columns=list("abc")).join(pd.DataFrame(whole, columns=list("wxyz")))
    found = {group.columns: group.total for group in Schema.infer(frame).groups if group.use}
    assert found == {("a", "b", "c"): 1.0, ("w", "x", "y", "z"): 100.0}
    codec = TableCodec.fit(frame)
    assert codec.group_parts == {"shares": 3, "shares_2": 4}
    x = codec.scaled({"shares": torch.rand(50, 3), "shares_2": torch.rand(50, 4)})
    back = codec.decode(torch.zeros(50, 0, dtype=torch.int64), torch.zeros(50, 0), 0, x)
    assert (back.dtypes == frame.dtypes).all()
    assert (back[list("wxyz")].sum(axis=1) == 100).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(p=f["p"].where(f.index != 50)), "but 1 miss some of the cells and not all"),
        (lambda f: f.assign(p=np.where(f.index < 200, f["p"] + f["q"], f["p"]), q=f["q"].where(f.index >= 200, 0.0)),
         "column 'q' is 0 in 50% of them, and shares have no ties"),
    ],
)  # fmt: skip
def test_what_is_no_group_says_why(change, said):
    frame = change(shares(odd=False, gone=False))
    (group,) = Schema.infer(frame).groups
    assert not group.use
    assert said in group.why
    assert TableCodec.fit(frame).groups == ()


def test_one_hot_columns_and_too_few_rows_are_none():
    hot = pd.get_dummies(pd.Series(np.random.default_rng(0).choice(list("abc"), 300))).astype(float)
    assert Schema.infer(hot).groups == ()
    assert Schema.infer(shares(19, odd=False, gone=False)).groups == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"q",', '"c",', "expected numbers, got "),
        ('"q",', '"no",', "column 'no' is not in the schema"),
        ("total = 1.0", "total = 0.0", "expected a total above 0, got 0.0"),
        ('name = "shares"', 'name = "numbers"', "and neither of numbers, classes"),
        ("use = true", "used = true", "unknown key 'used'"),
    ],
)
def test_a_broken_group_is_one_sentence(old, new, said):
    text = Schema.infer(shares()).to_toml()
    assert old in text
    with pytest.raises(DiffuseError, match=said):
        Schema.from_toml(text.replace(old, new, 1))


# --- exact both ways ------------------------------------------------------------------------------------------------


@st.composite
def compositions(draw):
    """A frame of k shares: floats or lattices of some decimals, of one or a hundred, in several dtypes."""
    k, n = draw(st.integers(3, 6)), draw(st.integers(25, 60))
    total, decimals = draw(st.sampled_from([(1, None), (1, 3), (1, 6), (100, None), (100, 0), (100, 1)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.dirichlet(np.full(k, draw(st.sampled_from([1.0, 4.0]))), n)
    if decimals is not None:
        units = total * 10**decimals
        whole = np.stack([rng.multinomial(units, row) for row in x])
        x = whole / 10.0**decimals
    else:
        x = x * total
    dtype = "float64" if decimals is not None else draw(st.sampled_from(["float64", "float32", "Float64"]))
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(k)])
    if decimals == 0:
        dtype = draw(st.sampled_from(["int64", "Int64", "float64"]))
    frame = frame.astype(dtype)
    if draw(st.booleans()) and dtype != "int64":
        frame.iloc[:3] = None if dtype in ("Float64", "Int64") else np.nan
    return frame, total


@settings(max_examples=60, deadline=None)
@given(compositions())
def test_round_trip_is_exact_and_drawn_rows_sum_to_the_total(case):
    frame, total = case
    codec = TableCodec.fit(frame)
    assert len(codec.groups) == 1, codec.schema.groups
    coded = codec.encode(frame)
    back = codec.decode(coded.classes, coded.numbers, 0, coded.shares)
    pd.testing.assert_frame_equal(back, frame, check_exact=True)
    config, tensors = codec.state()
    twin = TableCodec.from_state(config, tensors)
    assert twin.schema == codec.schema
    rng = torch.Generator().manual_seed(0)
    drawn = codec.scaled({"shares": torch.rand(40, frame.shape[1], generator=rng)})
    out = twin.decode(torch.zeros(40, len(codec.class_sizes), dtype=torch.int64), torch.zeros(40, 0), 0, drawn)
    assert (out.dtypes == frame.dtypes).all()
    sums = out.to_numpy(dtype=np.float64).sum(1)
    # each of at most six cells is rounded once to the dtype, by half an ulp of the total at most, and the sum itself
    ulp = np.spacing(np.float32(total)) if str(frame.dtypes.iloc[0]) == "float32" else np.spacing(float(total))
    assert np.abs(sums - total).max() <= 6 * ulp
    assert out.to_numpy(dtype=np.float64).min() >= 0


def test_rows_that_are_none_are_refused():
    codec = TableCodec.fit(shares())
    for change, said in [
        ({"p": 0.9, "q": 0.9}, r"columns p .. s: expected a sum of 1, got .* in row 0"),
        ({"p": -0.1}, "column 'p': expected shares of at least 0, got -0.1 in row 0"),
        ({"p": np.nan}, "column 'p': the cell in row 0 is missing, and not all of p .. s are"),
    ]:
        with pytest.raises(DiffuseError, match=said):
            codec.encode(shares().iloc[:1].assign(**change))


def test_a_pile_that_the_process_would_blur_keeps_the_columns_apart():
    rng = np.random.default_rng(0)
    x = rng.dirichlet([2.0, 3.0, 4.0], 400)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    assert Schema.infer(frame).groups[0].use
    piled = rng.random(400) < 0.3  # 30 % of the rows have a within .0005 of .2: no ties, and still too sharp
    frame.loc[piled, "a"] = 0.2 + 0.0005 * rng.random(piled.sum())
    frame.loc[piled, "b"] = 0.3 * rng.random(piled.sum())
    frame["c"] = 1 - frame["a"] - frame["b"]
    frame = frame[frame["c"] >= 0]
    (group,) = Schema.infer(frame).groups
    assert not group.use
    assert "column 'a' lies within 0.001 of 0.2" in group.why


@pytest.mark.skipif(not DATA, reason="DIFFUSE_DATA does not name the folder of the tables")
def test_the_topics_of_news():
    frame = read_table(Path(str(DATA)) / "news.csv.gz")
    topics = [f"LDA_0{i}" for i in range(5)]
    schema = Schema.infer(frame)
    (group,) = (group for group in schema.groups if "LDA_00" in group.columns)
    assert group.columns == tuple(topics)
    assert not group.use
    assert "but column 'LDA_00' lies within 0.001 of" in group.why
    table = frame[topics]
    apart = Schema.infer(table)
    codec = TableCodec.fit(table, attrs.evolve(apart, groups=(attrs.evolve(apart.groups[0], use=True),)))
    assert codec.groups  # a person's own choice holds, and its round trip is exact
    coded = codec.encode(table)
    back = codec.decode(coded.classes, coded.numbers, 0, coded.shares)
    pd.testing.assert_frame_equal(back, table, check_exact=True)


# --- the network ----------------------------------------------------------------------------------------------------


def test_all_parameters_count():
    groups = {"shares": 4, "topics": 7}
    settings = TableMLP.for_preset("nano", (3, 5), 2, groups=groups)
    network = TableMLP((3, 5), 2, groups=groups, **settings)
    counted = sum(p.numel() for p in network.parameters())
    assert 0.9 * PRESETS["nano"] <= counted <= PRESETS["nano"]
    x = {"classes": torch.zeros(6, 2, dtype=torch.int64), "numbers": torch.zeros(6, 2)}
    t = {"classes": torch.rand(6, 2), "numbers": torch.rand(6, 2)}
    for name, k in groups.items():
        x[name] = get_modality("simplex")((k,)).prior(6, rng=0)
        x[name][0] = torch.eye(k)[0]
        t[name] = torch.tensor([0.0, 0.0, 0.01, 0.5, 0.99, 1.0])
    out = network(x, t)
    assert {name: tuple(out[name].shape) for name in groups} == {"shares": (6, 4), "topics": (6, 7)}
    assert all(bool(value.isfinite().all()) for value in out.values())


def test_a_backbone_without_groups_keeps_numbers():
    synth = quick(backbone="table-dit", max_steps=2).fit(shares(odd=False, gone=False))
    assert synth.codec.groups == ()
    assert "backbone 'table-dit' takes no groups" in synth.schema.groups[0].why
    with pytest.raises(DiffuseError, match="group 'shares': expected use = false, as backbone 'table-dit'"):
        quick(backbone="table-dit").fit(shares(), schema=Schema.infer(shares()))


def test_the_codec_is_a_plugin():
    assert get_component("codec", "table") is TableCodec
    with pytest.raises(DiffuseError, match="no-such"):
        quick(coding="no-such").fit(shares())


# --- drawn ----------------------------------------------------------------------------------------------------------


def test_rows_sum_to_one_and_come_back_from_disk(fitted, tmp_path):
    fake = fitted.sample(100)
    assert list(fake.columns) == list(shares().columns)
    # four terms, each rounded once at most
    assert (there(fake)[PARTS].sum(axis=1) - 1).abs().max() <= 4 * 2.0**-53
    assert (fake[PARTS].isna().all(axis=1) == fake["p"].isna()).all()
    assert list(fitted.joint.modalities) == ["numbers", "classes", "shares"]
    fitted.save(tmp_path / "model")
    again = TableSynthesizer.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.sample(100), fake)
    pd.testing.assert_frame_equal(again.sample(70), fake[:70])


def test_bound_and_its_units(fitted):
    rows = shares().iloc[[0, 1, 3, 10]]
    nats, own = fitted.bound(rows, draws=4), fitted.bound(rows, draws=4, table_units=True)
    assert np.isfinite(nats).all()
    codec = fitted.codec
    table = rows.reset_index(drop=True)
    z = codec.log_jacobian(table, codec.encode(table, rng=0))
    # -log p in shares is that against the flat law less log 3! where the row is a composition: rows 0 and 1
    assert z[:, -1].tolist() == pytest.approx([np.log(6), np.log(6), 0, 0])
    assert np.isfinite(own).all()


def test_given_whole_and_noised(fitted):
    row = {"p": 0.1, "q": 0.2, "r": 0.3, "s": 0.4}
    got = fitted.sample(20, given=row)
    assert (got[PARTS] == pd.Series(row)).all(axis=None)
    noisy = fitted.sample(20, given={name: Given(value, 0.2) for name, value in row.items()})
    assert noisy["p"].nunique() == 20
    assert (fitted.sample(5, given=dict.fromkeys(PARTS, 0.0))[PARTS] == 0).all(axis=None)
    assert fitted.sample(5, given={"p": None})[PARTS].isna().all(axis=None)


def test_given_in_part(fitted):
    got = fitted.sample(20, given={"p": 0.6, "q": 0.1}, steps=10)
    assert (got["p"] == 0.6).all()
    assert (got["q"] == 0.1).all()
    assert got["r"].nunique() == 20
    assert (got[PARTS].sum(axis=1) - 1).abs().max() <= 4 * 2.0**-53
    assert got[PARTS].min(axis=None) >= 0


def test_given_a_range(fitted):
    got = fitted.sample(20, given={"p": (0.3, 0.9), "c": ["u"]}, steps=10)
    assert got["p"].between(0.3, 0.9).all()
    assert (got["c"] == "u").all()
    assert (got[PARTS].sum(axis=1) - 1).abs().max() <= 4 * 2.0**-53


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"p": 0.6, "q": 0.6}, "columns p .. s: expected known cells of at most 1 together, got 1.2"),
        (dict.fromkeys(PARTS, 0.3), "columns p .. s: expected a sum of 1, got 1.2"),
        ({"p": Given(0.2, 0.5)}, "expected values of all of them at one level"),
        ({"p": 0.2, "q": (0.1, 0.2)}, "expected all of them or none beside a set or range of values"),
        ({"p": 0.2, "z": (0.0, 1.0)}, "expected all of them or none beside a set or range of values"),
        ({"p": (2.0, 3.0)}, "columns 'p': expected a set that holds at least 1 of 1,024 rows of the model, got 0"),
        ({"p": -0.2}, "column 'p': expected shares of at least 0"),
    ],
)
def test_what_cannot_be_given(fitted, wanted, said):
    with pytest.raises(DiffuseError, match=said):
        fitted.sample(5, given=wanted, steps=4)


def test_holes_of_a_group(fitted):
    frame = shares(odd=False, gone=False).iloc[:12].reset_index(drop=True)
    holes = frame.copy()
    holes.loc[0, PARTS] = np.nan
    holes.loc[1, "p"] = np.nan
    holes.loc[2:4, ["p", "s"]] = np.nan
    holes.loc[5, ["z", "q", "r"]] = np.nan
    one, two = fitted.impute(holes, draws=2, steps=10)
    assert not one.isna().any(axis=None)
    known = holes.notna()
    pd.testing.assert_frame_equal(one.where(known), holes, check_exact=True)
    assert (there(one)[PARTS].sum(axis=1) - 1).abs().max() <= 4 * 2.0**-53
    assert one.loc[1, "p"] == pytest.approx(frame.loc[1, "p"], abs=1e-12)  # the only one that is missing: what is left
    assert (one.loc[2:4, "p"] != two.loc[2:4, "p"]).all()


# --- the law of a part ----------------------------------------------------------------------------------------------


def test_parts_have_the_conditional_law():
    """Data of density 4 x_4 against the flat law of four shares, Dir(1, 1, 1, 2): x_4 - 1/4 is an eigenfunction of the
    process, so p_t/D = 1 + 4 w (x_4 - 1/4), w = e^{-psi tau/2}, and the network is exact. Given x_1 = .3 the others are
    .7 times Dir(1, 1, 2), whose means are 1/4, 1/4, 1/2 and deviations .194, .194, .224."""
    joint = table_process((), 0, groups={"shares": 4})
    simplex = joint.modalities["shares"]
    from de_plugins.simplex._wright_fisher import mean_count

    def exact(x, t):
        when = t["shares"].clamp(1e-3, 1)
        w = (1 - 0.999 * when)[:, None]
        score = torch.eye(4)[3] * 4 * w / (1 + 4 * w * (x["shares"][:, 3:] - 0.25)).clamp_min(1e-6)
        y = (score / mean_count(simplex.tau(when), 4.0)[:, None]).clamp_min(1e-12)
        return {"shares": y + torch.log(-torch.expm1(-y))}

    n, rng = 2000, torch.Generator().manual_seed(0)
    x, t = {"shares": simplex.prior(n, rng=rng)}, {"shares": torch.ones(n)}
    rows = torch.arange(n) > 0
    values = torch.tensor([0.3, 0.0, 0.0, 0.0]).repeat(n, 1)
    first = x["shares"][0].clone()
    draw_parts(joint, exact, x, t, {"shares": Part(values, values > 0, rows)}, 50, rng)
    assert torch.equal(x["shares"][0], first)
    assert t["shares"].tolist() == [1.0] + [0.0] * (n - 1)
    assert (x["shares"][1:, 0] == 0.3).all()
    got = x["shares"][1:, 1:].double() / 0.7
    # four standard errors of 2,000 draws are .02 for a mean and .014 for a deviation, and .01 for the steps
    assert (got.mean(0) - torch.tensor([0.25, 0.25, 0.5])).abs().max() < 0.03
    assert (got.std(0) - torch.tensor([0.194, 0.194, 0.224])).abs().max() < 0.024


def test_patience_scores_groups_cheaply():
    """The score of rows held out is finite, the same each time, and no bound: it has no series to sum."""
    synth = quick(max_steps=8, patience=2, batch_size=64).fit(shares(150))
    coded = synth.codec.encode(shares(150), rng=0)
    learnt, score = process.held_out(synth.joint, coded, 0)
    assert len(learnt) == 135
    first = score(synth.model)
    assert np.isfinite(first)
    assert score(synth.model) == first
