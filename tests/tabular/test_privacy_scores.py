"""Nearest rows, the membership attack, copies, and cells that cannot be."""

import numpy as np
import pandas as pd
import pytest

from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.privacy import nearest, privacy, true_positives
from de_plugins.tabular.metrics.validity import exact_matches, unreadable, validity

pytest.importorskip("sklearn")


def table(seed, n=1500, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, 1, n)
    job = np.where(x + rng.normal(size=n) > 0, "up", "down").astype(object)
    job[rng.random(n) < 0.1] = None
    y = x * 2 + rng.normal(size=n)
    y[rng.random(n) < 0.05] = np.nan
    return pd.DataFrame(
        {
            "x": x,
            "y": y,
            "count": rng.poisson(3, n),
            "job": job,
            "flag": x > 0.5,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.round(np.abs(y)).astype("float"), unit="D"),
        }
    )


def test_nearest_is_scipys():
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(0)
    x, pool = rng.random((50, 3)), rng.random((70, 3))
    x[:, 2], pool[:, 2] = rng.integers(0, 3, 50), rng.integers(0, 3, 70)
    numeric = np.array([True, True, False])
    want = distance.cdist(x[:, :2], pool[:, :2], "cityblock") + (x[:, 2:] != pool[:, 2:].T)
    # float32 sums of three numbers of order 1
    np.testing.assert_allclose(nearest(x, pool, numeric), np.sort(want, axis=1)[:, :2], atol=1e-6)
    x[0, 0] = pool[0, 0] = np.nan
    pool[0, 1:] = x[0, 1:]
    assert nearest(x[:1], pool[:1], numeric).tolist() == [[0, np.inf]]
    assert nearest(x[1:2], pool[:1], numeric)[0, 0] >= 1


def test_the_attack_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score, roc_curve

    rng = np.random.default_rng(0)
    a, b = np.round(rng.normal(0.5, 1, 3000), 2), np.round(rng.normal(0, 1, 3000), 2)
    auc, tpr = true_positives(a, b)
    y, s = np.repeat([1, 0], 3000), np.concatenate([a, b])
    fpr, hits, _ = roc_curve(y, s, drop_intermediate=False)
    assert auc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert tpr == pytest.approx(np.interp(0.01, fpr, hits), abs=2e-3)  # one row in 3000, at vertical steps of the curve
    assert true_positives(np.zeros(5), np.zeros(7)) == (0.5, pytest.approx(0.01))


def test_copies_show_and_fresh_samples_do_not():
    train, test, fresh = (table(k, 800) for k in (0, 1, 2))
    m = matrices({"train": train, "test": test, "fresh": fresh, "copy": train})
    stolen = privacy(m["train"], m["test"], m["copy"], rng=0)
    assert stolen.exact_train == 1
    assert stolen.exact_test == 0
    assert stolen.closer_to_train == 1
    assert stolen.attack_tpr == 1
    assert stolen.distance_ratio_low == stolen.neighbour_ratio_train == 0
    honest = privacy(m["train"], m["test"], m["fresh"], rng=0)
    # 800 coins: sd 0.018, four of them
    assert honest.closer_to_train == pytest.approx(0.5, abs=0.07)
    assert honest.distance_ratio == pytest.approx(1, abs=0.15)
    # a median of 800 ratios in [0, 1] of density about 1: sd 0.018 each, four of the difference's
    assert honest.neighbour_ratio_train == pytest.approx(honest.neighbour_ratio_test, abs=0.1)
    half = privacy(m["train"], m["test"], m["copy"].rows(slice(400)), rng=0)
    assert half.exact_train == 0.5
    assert honest.attack_tpr < 0.04
    assert exact_matches(m["fresh"], m["train"]) == 0


def test_what_cannot_be_is_counted():
    train = table(0)
    train["cents"] = np.round(np.random.default_rng(5).lognormal(3, 1, len(train)), 2)
    codec = TableCodec.fit(train)
    clean = validity(codec, train)
    for name, cells in clean.items():
        assert not any(cells[key] for key in ("outside", "off_grid", "unseen") if key in cells), name
        assert cells.get("attained", True), name
    bad = train.copy()
    bad.loc[:14, "job"] = "sideways"
    bad.loc[:29, "cents"] = 3.14159
    bad.loc[:2, "x"] = 1e9
    bad["count"] = bad["count"] + 0.5
    found = validity(codec, bad)
    assert found["job"]["unseen"] == pytest.approx(15 / 1500)
    assert found["cents"]["off_grid"] == pytest.approx(30 / 1500)
    assert found["x"]["outside"] == pytest.approx(3 / 1500)
    assert not found["x"]["attained"]
    assert found["count"]["unseen"] == 1


def test_cells_that_no_model_can_read_are_found():
    train = table(0)
    codec = TableCodec.fit(train)
    assert not unreadable(codec, train).any()
    other = train.iloc[:4].copy()
    other.loc[1, "job"] = "sideways"
    other.loc[2, "x"] = np.nan
    other.loc[3, "job"] = None  # training has missing jobs
    found = unreadable(codec, other)
    assert [tuple(cell) for cell in np.argwhere(found)] == [(1, 3), (2, 0)]
