"""Clusters of a number as classes of its gate, and sums that are kept when rows are drawn."""

import attrs
import numpy as np
import pandas as pd
import pytest
import torch

from de_core import DiffuseError
from de_plugins.tabular import TableCodec, TableSynthesizer, process
from de_plugins.tabular._clusters import find_clusters
from de_plugins.tabular._sums import close_sums
from de_plugins.tabular.schema import Column, Schema

PILES = {"a": 0.2, "b": 0.25, "c": 0.4}


def piled(n=6000, seed=0):
    """A number that lies a hair above a value set by another column in 60 % of the rows, and anywhere in the others."""
    rng = np.random.default_rng(seed)
    k = rng.choice(list(PILES), n)
    x = np.array([PILES[one] for one in k]) + 4e-4 * rng.random(n)
    x = np.where(rng.random(n) < 0.6, x, rng.random(n))
    return pd.DataFrame({"k": k, "x": x, "rest": 1 - x})


@pytest.fixture(scope="module")
def fitted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "BLOCK", 256)
        yield TableSynthesizer(max_steps=150, minutes=1, batch_size=256, patience=None, progress=False).fit(piled())


def test_the_piles_are_found_and_nothing_else():
    found = find_clusters(piled()["x"].to_numpy())
    assert len(found) == 3
    for (low, high), value in zip(found, PILES.values(), strict=True):
        assert value - 1e-3 < low < high < value + 1e-3
    rng = np.random.default_rng(0)
    for smooth in (rng.normal(size=20_000), rng.exponential(size=20_000), rng.lognormal(sigma=2.5, size=20_000)):
        assert find_clusters(smooth) == ()
    assert find_clusters(rng.integers(0, 1000, 20_000)) == ()
    assert find_clusters(np.zeros(10)) == ()
    assert find_clusters(np.full(10_000, 0.5)) == ()


def test_a_cell_keeps_its_cluster_and_its_place_in_it():
    frame = piled()
    codec = TableCodec.fit(frame)
    assert "3 narrow clusters hold" in codec.schema["x"].why
    labels = dict(zip(codec.class_names, codec.class_labels, strict=True))["x"]
    assert len(labels) == 4
    assert codec.gate_open[0] == 4
    config, tensors = codec.state()
    again = TableCodec.from_state(config, tensors)
    assert again.schema == Schema.from_toml(codec.schema.to_toml())
    coded = again.encode(frame)
    assert coded.present.all()
    gate = coded.classes[:, codec.gate_of[0]]
    for c in range(4):  # each piece has a normal law of its own
        z = coded.numbers[gate == c, 0].double()
        assert abs(z.mean()) < 1e-6
        assert abs(z.std(correction=0) - 1) < 1e-6
    back = again.decode(coded.classes, coded.numbers, 0)
    inside = (gate > 0).numpy()
    # a map has 1024 knots: between them it is linear, and a cluster is less than 1e-3 wide
    np.testing.assert_allclose(back["x"][inside], frame["x"][inside], rtol=0, atol=1e-6)
    shift = codec.log_jacobian(frame, codec.encode(frame, rng=0))[:, 0]
    assert shift[inside].mean() > shift[~inside].mean() + 3  # a unit of score is a narrower stretch


def test_clusters_in_a_schema_are_checked():
    column = {"name": "x", "kind": "number", "dtype": Schema.infer(piled())["x"].dtype.to_dict()}
    for bad in ([[0.2, 0.3], [0.25, 0.4]], [[0.3, 0.2]], [0.2, 0.3], "ab"):
        with pytest.raises(DiffuseError, match="column 'x': expected clusters"):
            Column.from_dict(column | {"clusters": bad})
    schema = Schema.infer(piled())
    empty = attrs.evolve(schema["x"], clusters=((2.0, 3.0),))
    changed = attrs.evolve(schema, columns=tuple(empty if c.name == "x" else c for c in schema.columns))
    with pytest.raises(DiffuseError, match=r"column 'x': no value lies in the cluster \[2.0, 3.0\]"):
        TableCodec.fit(piled(), changed)


def test_values_and_ranges_in_clusters_are_kept(fitted):
    one = fitted.sample(200, given={"x": 0.2001}, rng=0)
    assert (one["x"] == 0.2001).all()
    for low, high in ((0.19, 0.21), (0.2001, 0.2002), (0.39, 0.9)):
        drawn = fitted.sample(200, given={"x": (low, high)}, rng=0)
        assert drawn["x"].between(low, high).all()
    holes = piled(300, 1)
    holes.loc[::2, "x"] = np.nan
    filled = fitted.impute(holes, rng=0)
    assert filled["x"].notna().all()
    np.testing.assert_array_equal(filled["x"][1::2], holes["x"][1::2])


def test_pairs_that_add_up_still_do_when_drawn(fitted):
    (group,) = fitted.schema.groups
    assert (group.columns, group.use, group.close) == (("x", "rest"), False, True)
    assert "made to add up" in group.why
    drawn = fitted.sample(500, rng=0)
    near = (drawn["x"] + drawn["rest"] - 1).abs() < 1e-9
    assert near.mean() > 0.9  # others are further off than half the total, or would leave the range
    half = fitted.sample(200, given={"x": 0.3}, rng=0)
    assert (half["x"] == 0.3).all()
    assert ((half["x"] + half["rest"] - 1).abs() < 1e-9).mean() > 0.9


def test_the_greatest_free_cell_takes_what_is_left():
    rng = np.random.default_rng(0)
    x = rng.dirichlet([1.0, 1.0, 1.0], 500)
    table = pd.DataFrame(x, columns=["a", "b", "c"])
    codec = TableCodec.fit(table, Schema.infer(table).without_groups("by hand"))
    assert codec.schema.groups[0].close is False
    groups = (attrs.evolve(codec.schema.groups[0], close=True),)
    codec = attrs.evolve(codec, schema=attrs.evolve(codec.schema, groups=groups))
    frame = pd.DataFrame(
        {"a": [0.6, 0.6, 0.1, np.nan, 0.2], "b": [0.2, 0.2, 0.1, 0.5, 0.2], "c": [0.1, 0.1, 0.1, 0.4, 0.6]}
    )
    free = pd.DataFrame({"a": [True, False, True, True, False], "b": True, "c": True})
    free.loc[4] = False
    out = close_sums(codec, frame.copy(), free)
    assert out["a"].tolist()[:1] == [pytest.approx(0.7)]
    assert out.loc[1].tolist() == pytest.approx([0.6, 0.3, 0.1])  # the greatest that may move
    for row in (2, 3, 4):  # far off, a cell missing, nothing free
        pd.testing.assert_series_equal(out.loc[row], frame.loc[row])


def test_rows_are_coded_alike_with_and_without_others():
    frame = piled(400)
    codec = TableCodec.fit(piled())
    whole, part = codec.encode(frame), codec.encode(frame.iloc[100:])
    assert torch.equal(whole.classes[100:], part.classes)
    assert torch.equal(whole.numbers[100:], part.numbers)
