"""Each metric against sdmetrics, scikit-learn, scipy or a closed form."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from de_core.errors import DiffuseError
from de_core.rng import stream
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.io import read_table
from de_plugins.tabular.metrics import fidelity
from de_plugins.tabular.metrics.detection import detection, match_marginals, two_sample_auc
from de_plugins.tabular.metrics.matrix import matrices
from de_plugins.tabular.metrics.utility import _features, every_column, utility
from de_plugins.tabular.metrics.validity import validity

pytest.importorskip("xgboost")
DATA = os.environ.get("DIFFUSE_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DIFFUSE_DATA does not name the folder of the tables")


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


def coded(a, b, **more):
    both = matrices({"train": a, "synthetic": b}, **more)
    return both["train"], both["synthetic"]


def sdmetrics_scores(a, b, kinds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sdmetrics warns of its own deprecated import path
        from sdmetrics.reports.single_table import QualityReport

        report = QualityReport()
        report.real_correlation_threshold = report.real_association_threshold = 0
        report.num_rows_subsample = None
        report.generate(a, b, {"columns": kinds}, verbose=False)
    shapes = report.get_details("Column Shapes")["Score"].to_numpy()
    pairs = report.get_details("Column Pair Trends")
    return shapes, pairs, report.get_properties()["Score"].tolist()


def compare_with_sdmetrics(a, b, kinds):
    shapes, pairs, (shape_mean, trend_mean) = sdmetrics_scores(a, b, kinds)
    categorical = [name for name, kind in kinds.items() if kind["sdtype"] == "categorical"]
    real, fake = coded(a, b, categorical=categorical)
    ours, trend = fidelity.shape(real, fake), fidelity.trend(real, fake)
    # sdmetrics gives a category that only one table has a millionth of a row in the other: 1e-6 / 1500 at most
    np.testing.assert_allclose(ours, shapes, rtol=0, atol=1e-9)
    place = {name: c for c, name in enumerate(real.names)}
    # pairs: the same sums in another order, a few hundred roundings of numbers below 1
    for one, two, score in zip(pairs["Column 1"], pairs["Column 2"], pairs["Score"], strict=True):
        assert trend[place[one], place[two]] == pytest.approx(score, abs=1e-12), (one, two)
    assert np.nanmean(ours) == pytest.approx(shape_mean, abs=1e-9)
    assert np.nanmean(trend) == pytest.approx(trend_mean, abs=1e-12)


def test_shape_and_trend_are_those_of_sdmetrics():
    pytest.importorskip("sdmetrics")
    a, b = table(0), table(1, shift=0.2)
    kinds = {name: {"sdtype": "categorical" if name in ("job", "flag") else "numerical"} for name in a.columns}
    a["day"], b["day"] = (f["day"].astype("int64") for f in (a, b))
    compare_with_sdmetrics(a, b, kinds)


@needs_data
def test_shape_and_trend_on_adult_are_those_of_sdmetrics():
    pytest.importorskip("sdmetrics")
    frame = read_table(Path(DATA or "") / "adult_train.csv.gz")
    a, b = frame.iloc[:4000], frame.iloc[4000:8000].reset_index(drop=True)
    kinds = {n: {"sdtype": "categorical" if frame[n].dtype == object else "numerical"} for n in frame.columns}
    compare_with_sdmetrics(a, b, kinds)


def test_categories_compare_by_one_string_form():
    a = pd.DataFrame({"c": [1, 2, 1], "d": ["x", None, "y"]})
    b = pd.DataFrame({"c": ["2", "1", "1"], "d": ["x", "y", np.nan]})
    real, fake = coded(a, b, categorical=["c", "d"])
    assert real.values[:, 0].tolist() == [0, 1, 0]
    assert fake.values[:, 0].tolist() == [1, 0, 0]
    assert real.values[1, 1] == fake.values[2, 1] == 2
    c = coded(a.astype({"c": "float64"}), b, categorical=["c", "d"])[0]
    assert c.values[:, 0].tolist() == [0, 1, 0]


def test_one_outlier_moves_every_bin_only_where_each_table_has_its_own():
    a, b = table(0), table(0)
    b.loc[0, "x"] = 1000.0
    real, fake = coded(a, b)
    x, flag = 0, 4
    assert fidelity.trend(real, fake)[x, flag] < 0.7
    assert fidelity.trend(real, fake, bins="real")[x, flag] > 0.999
    assert fidelity.trend(real, fake, bins="quantile")[x, flag] > 0.999


def test_ranks_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    a, b = table(0), table(1)
    got = fidelity.trend(*coded(a, b), ranks=True)[0, 2]
    ra, rb = (stats.spearmanr(f["x"], f["count"]).statistic for f in (a, b))
    assert got == pytest.approx(1 - abs(ra - rb) / 2, abs=1e-12)


def test_k_way_in_closed_form():
    n = 4000
    bit = np.arange(n) % 2
    a = pd.DataFrame({"a": bit, "b": bit, "c": bit})
    independent = np.arange(n)
    b = pd.DataFrame({"a": independent % 2, "b": independent // 2 % 2, "c": independent // 4 % 2})
    real, fake = coded(a, b)
    # equal bits against independent ones: 2^k cells of 2^-k against two of 1/2, so the distance is 1 - 2 /
    # 2^k
    for k, distance in ((1, 0.0), (2, 0.5), (3, 0.75)):
        assert fidelity.k_way(real, fake, k, rng=0) == pytest.approx(distance, abs=1e-12)
    assert fidelity.k_way(real, real, 9, rng=0) == 0


def test_halves_extrapolate_to_the_full_size():
    rng = np.random.default_rng(0)
    gaps = {n: [] for n in (2000, 4000)}
    for _ in range(60):
        for n, found in gaps.items():
            a, b = (pd.DataFrame({"x": rng.normal(size=n)}) for _ in range(2))
            found.append(1 - fidelity.shape(*coded(a, b))[0])
    half, full = (1 - np.mean(g) for g in gaps.values())
    # the mean of 60 Kolmogorov distances has a relative error of 0.3 / sqrt(60) = 4 %; three of both give 17
    # %
    assert 1 - fidelity.extrapolated(half) == pytest.approx(1 - full, rel=0.17)


def test_matched_marginals_are_exact_and_move_as_little_as_they_must():
    real, fake = coded(table(0), table(1, shift=0.5))
    moved = match_marginals(real, fake, torch.Generator().manual_seed(0))
    for c in range(len(real.names)):
        np.testing.assert_array_equal(np.sort(moved.values[:, c]), np.sort(real.values[:, c]))
    job = 3
    counts = [np.bincount(m.values[:, job].astype(int), minlength=3) for m in (real, fake)]
    least = np.abs(counts[0] - counts[1]).sum() // 2
    assert (moved.values[:, job] != fake.values[:, job]).sum() == least
    order = np.argsort(fake.values[:, 0])
    assert (np.diff(moved.values[order, 0]) >= 0).all()


def test_a_classifier_finds_the_column_that_differs_and_nothing_else():
    rng = np.random.default_rng(0)
    a, b, c = (pd.DataFrame(rng.normal(size=(600, 4)), columns=list("pqrs")) for _ in range(3))
    real, same, other = matrices({"a": a, "b": b, "c": c.assign(r=c["r"] + 2)}).values()
    none = two_sample_auc(real, same, seed=0, seeds=1)
    # sd of an AUC of 600 against 600 rows of one law: sqrt((m + n + 1) / (12 m n)) = 0.017; four of them
    assert none.auc == pytest.approx(0.5, abs=0.07)
    found = two_sample_auc(real, other, seed=0, seeds=1)
    # two unit normals two apart: Phi(2 / sqrt 2) = 0.921, less what a fit on 960 rows loses
    assert found.auc == pytest.approx(0.905, abs=0.03)
    name, lost = found.columns[0]
    assert name == "r"
    assert lost == pytest.approx(found.auc - 0.5, abs=0.07)  # without it nothing is left
    assert all(abs(other) < 0.03 for _, other in found.columns[1:])
    with pytest.raises(DiffuseError, match="at least 5 rows"):
        two_sample_auc(real, other.rows(slice(4)), seed=0)


def test_dependence_and_marginals_are_told_apart():
    rng = np.random.default_rng(0)
    x = rng.normal(size=800)
    a = pd.DataFrame({"x": x, "y": x + 0.1 * rng.normal(size=800)})
    real = matrices({"a": a})["a"]
    views = detection(real, real.shuffled(1), seed=0, seeds=1)
    assert views["dependence"].auc > 0.9
    assert views["full"].auc > 0.9
    assert views["marginal"].auc < 0.57


def test_learning_is_what_a_plain_fit_gives():
    from sklearn.metrics import roc_auc_score
    from xgboost import XGBClassifier

    fake, test = coded(table(0, 450), table(1, 300))
    found = utility(fake, test, "flag", seed=3)
    t = 4
    x, x_test = _features(fake, test, t, paper=False)
    s = found.setting
    order = torch.randperm(len(fake), generator=stream(3, "utility")).numpy()
    model = XGBClassifier(
        n_estimators=s["trees"], max_depth=s["depth"], min_child_weight=s["child_weight"], gamma=s["gamma"]
    )
    model.fit(x[order[50:]], fake.values[order[50:], t])
    score = roc_auc_score(test.values[:, t], model.predict_proba(x_test)[:, 1])
    assert found.score == pytest.approx(score, abs=1e-9)
    assert found.metric == "auc"


def test_one_hot_without_its_zeros_is_one_hot():
    from xgboost import XGBClassifier

    fake, test = coded(table(0, 450), table(1, 300))
    fake.values[:50, 0] = 0.0  # a zero of a number is a number
    t = fake.names.index("flag")
    x, x_test = _features(fake, test, t, paper=False)
    plain, plain_test = x.toarray(), x_test.toarray()
    assert plain.shape == (450, 4 + 3)  # four numbers; job is up, down or missing
    assert (plain[:, 3:6].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(plain[:, 0], fake.values[:, 0].astype(np.float32))
    labels = fake.values[:, t]
    guesses = [
        XGBClassifier(n_estimators=20, max_depth=4).fit(a, labels).predict_proba(b)[:, 1]
        for a, b in ((x, x_test), (plain, plain_test))
    ]
    np.testing.assert_allclose(*guesses, atol=1e-6)  # float32 sums in another order


def test_every_column_is_a_target():
    rng = np.random.default_rng(0)
    n = 1200
    code = rng.integers(0, 40, n)
    frame = pd.DataFrame(
        {
            "code": [f"c{k:02d}" for k in code],
            "copy": code + rng.normal(0, 0.1, n),
            "noise": rng.normal(size=n),
            "same": 1.5,
        }
    )
    a, b = coded(frame.iloc[:900], frame.iloc[900:])
    found = every_column(a, b, seed=0)
    assert list(found) == ["code", "copy", "noise"]
    assert found["code"].metric == "auc"
    assert found["code"].score > 0.95  # ten labels, of which `copy` tells all
    assert found["copy"].score < 2  # steps of one among 40
    # nothing tells the noise: its own deviation of 1, which trees overshoot on 800 rows
    assert 0.9 < found["noise"].score < 1.3
    assert every_column(*coded(frame[["code"]], frame[["code"]]), seed=0) == {}
    with pytest.raises(DiffuseError, match="it is the only one"):
        utility(*coded(frame[["code"]], frame[["code"]]), "code", seed=0)


def test_learning_with_logs_and_with_the_published_faults():
    rng = np.random.default_rng(0)
    a = pd.DataFrame({"wide": rng.uniform(1, 5000, 450), "z": rng.normal(size=450), "c": rng.choice(["u", "v"], 450)})
    a["y"] = np.exp(a["z"] + 5)
    fake, test = coded(a.iloc[:300], a.iloc[300:])
    plain = utility(fake, test, "y", seed=0, log_target=True, full=False)
    assert plain.metric == "rmse"
    # the log target is z + 5: trees on 267 rows get it to a few tenths of its standard deviation of 1
    assert plain.score < 0.3
    faulty = utility(fake, test, "y", seed=0, log_target=True, full=False, paper=True)
    assert faulty.validation > 50  # validation targets are not logged
    x, _ = _features(fake, test, 3, paper=True)
    # the first column reaches 1000, so the script takes logs of every one, and negative numbers become log
    # 0.01
    assert x[:, 1].min() == pytest.approx(np.log(0.01))
    with pytest.raises(DiffuseError, match="target: column 'nope'"):
        utility(fake, test, "nope", seed=0)


def test_errors_name_the_table_and_the_column():
    a = table(0, 50)
    for b, said in [
        (a.drop(columns="x"), "column 'x' of the train table is missing from the synthetic table"),
        (a.assign(q=1), "column 'q' of the synthetic table is not in the train table"),
        (a.assign(x="word"), "column 'x' of the synthetic table: expected numbers"),
        (a.assign(x=np.inf), "column 'x' of the synthetic table: expected finite numbers"),
    ]:
        with pytest.raises(DiffuseError, match=said):
            coded(a, b)
    with pytest.raises(DiffuseError, match="column 'q' is said to be categorical"):
        coded(a, a, categorical=["q"])


DAYS = pd.Series(pd.date_range("2020-01-01", periods=300))
SPANS = pd.Series(pd.to_timedelta(np.arange(300) * 1500, unit="ms"))


def same_instants(column):
    made = [column.astype(f"{column.dtype.kind}8[{unit}]") for unit in ("s", "ms", "us", "ns")]
    if column.dtype.kind == "m":
        return made[1:]
    return [*made, column.dt.date, column.astype("datetime64[us]").convert_dtypes(dtype_backend="pyarrow")]


@pytest.mark.parametrize("column", [DAYS, SPANS, DAYS.iloc[:20].repeat(15).reset_index(drop=True)])
def test_the_same_instants_are_the_same_whatever_their_unit(column):
    for one in same_instants(column):
        codec = TableCodec.fit(pd.DataFrame({"t": one}))
        for other in same_instants(column):
            real, fake = coded(pd.DataFrame({"t": one}), pd.DataFrame({"t": other}))
            np.testing.assert_array_equal(real.values, fake.values, err_msg=f"{one.dtype}, {other.dtype}")
            cells = validity(codec, pd.DataFrame({"t": other}))["t"]
            wrong = {key: share for key, share in cells.items() if key != "attained"}
            assert not any(wrong.values()), (one.dtype, other.dtype, wrong)
            assert cells["attained"]


def test_a_finer_unit_keeps_its_fractions():
    noon = DAYS.astype("datetime64[ns]") + pd.Timedelta(hours=12, milliseconds=250)
    real, fake = coded(pd.DataFrame({"t": DAYS.dt.date}), pd.DataFrame({"t": noon}))
    np.testing.assert_array_equal(fake.values - real.values, 43200.25)
    codec = TableCodec.fit(pd.DataFrame({"t": DAYS.dt.date}))
    assert validity(codec, pd.DataFrame({"t": noon}))["t"]["off_grid"] == 1
