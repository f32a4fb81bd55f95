"""The whole evaluation on small tables: what it holds, how it is written, what it refuses."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from de_core import plugins
from de_core.errors import DiffuseError
from de_core.hookspecs import MetricInfo

pytest.importorskip("xgboost")
pytest.importorskip("matplotlib")

from de_plugins.tabular import TableSynthesizer, evaluate
from de_plugins.tabular._scores import standing
from de_plugins.tabular._verdict import _pairs, headline, verdict
from de_plugins.tabular.metrics import detection


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    """These tests are about what a report holds, not about how sharp the classifier is."""
    whole = dict(detection.TREES)
    detection.TREES["n_estimators"] = 30
    yield
    detection.TREES.update(whole)


def table(seed, n):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "$y$ <b>": np.where(rng.random(n) < 0.1, np.nan, x + rng.normal(size=n)),
            "job": rng.choice(["clerk & sons", "baker", "?"], n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "void": None,
            "rich": x > 0,
        }
    )


@pytest.fixture(scope="module")
def report(few_trees):
    extras = {"machine": {"fit, seconds": 12.5}}
    return evaluate(table(0, 400), table(1, 400), test=table(2, 200), target="rich", paper=True, seeds=1, extras=extras)


def test_results(report):
    results = report.to_dict()
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    scores, anchors = results["scores"], results["anchors"]
    assert anchors["copied"]["shape"] == anchors["copied"]["trend"] == anchors["copied"]["exact_train"] == 1
    assert anchors["shuffled"]["shape"] == 1
    assert anchors["shuffled"]["trend"] < anchors["perfect"]["trend"]
    assert anchors["shuffled"]["auc"] > scores["auc"]
    assert scores["shape"] > 0.9
    assert scores["mle"] > 0.95  # the target is a threshold of one column
    assert scores["exact_train"] == scores["exact_test"] == 0
    assert results["privacy"]["rows"] == 200
    for name in ("perfect", "shuffled", "copied"):  # beside every score stand all three
        assert set(anchors[name]) == set(scores), name
    assert anchors["copied"]["attack_tpr"] == 1
    assert anchors["perfect"]["mle"] > 0.95 > 0.65 > anchors["shuffled"]["mle"]
    assert set(results["every_target"]) == {"x", "$y$ <b>", "job", "day", "rich"}  # "void" has nothing to predict
    assert set(results["two_sample"]) == {"full", "marginal", "dependence"}
    assert results["seconds"] > 0


def test_text_shows_scores_and_anchors(report):
    lines = report.to_text().splitlines()
    assert lines[0].split() == ["score", "synthetic", "perfect", "sample", "columns", "shuffled", "training", "copied"]
    assert any(line.startswith("Shape") for line in lines)
    assert len({len(line) for line in lines[1:4]}) == 1
    assert lines[1].startswith("Shape")
    said = " ".join(line.strip() for line in lines)
    assert "no sign that training rows were copied" in said
    assert all(sentence[:40] in said for sentence in report.verdict)


def test_a_copy_is_found_out():
    train = table(0, 300)
    report = evaluate(train, train, table(2, 200), seeds=1, anchors=False)
    assert any(sentence.startswith("The table gives training rows away") for sentence in report.verdict)
    assert "it gives training rows away." in report.to_text()


def test_html_carries_its_pictures_and_escapes_names(report, tmp_path):
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == 6
    pictures = re.findall(r"<img alt='([^']*)'", page)
    assert len(pictures) == 6
    assert all(len(alt) > 30 for alt in pictures)
    assert not re.search(r"(src|href)='?\"?https?:", page)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "fit, seconds" in page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    report.to_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report.to_dict()


def test_the_same_seed_gives_the_same_scores():
    a, b = (
        evaluate(table(0, 120), table(1, 120), table(2, 60), seeds=1, anchors=False, seed=7).to_dict() for _ in range(2)
    )
    assert a["scores"] == b["scores"]


def test_without_a_test_table_the_report_says_so():
    results = evaluate(table(0, 100), table(1, 100), target="x", seeds=1, anchors=False).to_dict()
    assert results["two_sample_against"] == "train"
    assert "mle" not in results["scores"]
    assert "privacy" not in results


def test_a_regression_target():
    made = evaluate(table(0, 200), table(1, 200), table(2, 100), target="x", seeds=1, anchors=False)
    results = made.to_dict()
    assert results["learning"]["metric"] == "rmse"
    every = results["every_target"]
    assert every["rich"]["synthetic"] > 0.9
    assert every["x"]["metric"] == "r2"
    assert every["x"]["real"] > 0.3  # y and rich tell much of it
    assert abs(every["x"]["synthetic"] - every["x"]["real"]) < 0.3


@pytest.mark.parametrize("frame", [pd.DataFrame({"x": np.arange(50.0)}), pd.DataFrame({"c": ["a", "b"] * 25})])
def test_one_column_is_enough(frame, tmp_path):
    report = evaluate(frame, frame, frame, seeds=1)
    assert report.to_dict()["scores"]["trend"] is None
    report.to_html(tmp_path / "r.html")
    assert "Shape" in report.to_text()


def test_metrics_of_other_plugins_stand_in_the_table(tmp_path):
    good = MetricInfo("rows-alike", "operator:eq", capabilities={"table"})
    bad = MetricInfo("rows-broken", "operator:truediv", capabilities={"table"})
    frame = table(0, 60)
    for info in (good, bad):
        plugins.register(info)
    try:
        with pytest.warns(plugins.PluginWarning, match="metric 'rows-broken'"):
            report = evaluate(frame, frame, seeds=1, anchors=False)
    finally:
        for info in (good, bad):
            plugins.unregister(info)
    scores = report.to_dict()["scores"]
    assert scores["rows_alike"] == 0  # a Matrix equals only itself
    assert scores["rows_broken"] is None
    assert "rows alike" in report.to_text()


def test_the_registered_metrics_are_those_of_the_report(report):
    names = {info.name for info in plugins.list_components("metric")}
    assert {"table-shape", "table-trend", "table-two-sample"} <= names
    shape = plugins.get_component("metric", "table-shape")
    assert shape(report.real, report.synthetic) == report.to_dict()["scores"]["shape"]


@pytest.fixture(scope="module")
def with_model(few_trees):
    train, test = table(0, 400), table(2, 200)
    test.loc[0, "job"] = "astronaut"  # a job that training never saw
    model = TableSynthesizer(minutes=1, max_steps=5, batch_size=64, progress=False).fit(train)
    return evaluate(train, table(1, 400), test, model=model, seeds=1, anchors=False)


def test_what_only_the_model_can_tell(with_model, tmp_path):
    results = with_model.to_dict()
    bound, imputation, cost = (results[key] for key in ("bound", "imputation", "cost"))
    assert bound["test_left_out"] == 1
    assert bound["train_left_out"] == 0
    assert abs(bound["test"] - bound["train"]) < 10 * (bound["test_error"] + bound["train_error"])
    assert set(imputation["summary"]) == {"model", "neighbours", "iterative"}
    assert all(set(row) == {"crps", "nats", "accuracy"} for row in imputation["summary"].values())
    assert "void" not in imputation["columns"]
    assert 0 < cost["parameters"] <= 64_000
    assert cost["training_steps"] == 5
    with_model.to_html(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for heading in ("Filling hidden cells", "Surprise at held-out rows", "What it cost"):
        assert heading in page


def test_a_model_of_other_columns_is_refused():
    model = TableSynthesizer(minutes=1, max_steps=1, progress=False).fit(pd.DataFrame({"q": range(20)}))
    with pytest.raises(DiffuseError, match=r"model: expected one of the columns .* fitted on \['q'\]"):
        evaluate(table(0, 50), table(1, 50), model=model)


def test_what_it_refuses():
    with pytest.raises(DiffuseError, match="target: column 'nope'"):
        evaluate(table(0, 50), table(1, 50), target="nope")
    with pytest.raises(DiffuseError, match="missing from the test table"):
        evaluate(table(0, 50), table(1, 50), test=table(2, 50).drop(columns="x"))
    with pytest.raises(DiffuseError, match="at least one row"):
        evaluate(table(0, 50), table(1, 50).iloc[:0])
    with pytest.raises(DiffuseError, match="expected a data frame"):
        evaluate("train.csv", table(1, 50))
    with pytest.raises(DiffuseError, match="a section 'cost' of its own"):
        evaluate(table(0, 50), table(1, 50), extras={"cost": {"a": 1}})
    with pytest.raises(DiffuseError, match="extras: expected section 'a' as values by title, got int"):
        evaluate(table(0, 50), table(1, 50), extras={"a": 3})
    with pytest.raises(DiffuseError, match="seeds: expected at least one repetition of the two-sample test, got 0"):
        evaluate(table(0, 50), table(1, 50), seeds=0)


def test_a_folder_is_no_file_to_write(report, tmp_path):
    for write in (report.to_html, report.to_json):
        with pytest.raises(DiffuseError, match="expected a file to write to, got a directory"):
            write(tmp_path)


def pair(seed, n=60):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 2)), columns=["x", "y"])


def judged(score, best, worst):
    """What is said of pairs, by their Trend and its anchors, on 60 rows."""
    results = {
        "scores": {"trend_ranks": score},
        "anchors": {"perfect": {"trend_ranks": best}, "shuffled": {"trend_ranks": worst}},
        "rows": {"train": 60, "synthetic": 60},
        "worst_pairs": [],
    }
    return standing("trend_ranks", results), _pairs(results)


@pytest.mark.parametrize(
    ("score", "best", "worst", "level"),
    [
        (1.0, 0.801, 0.944, "note"),  # the anchors in the wrong order, and better than both
        (0.85, 0.801, 0.944, "note"),
        (0.75, 0.801, 0.944, "note"),  # below both, by no more than chance
        (0.461, 0.801, 0.944, "poor"),
        (0.95, 0.952, 0.95, "note"),  # as good as equal
        (0.95, 0.95, 0.6, "good"),
        (0.6, 0.95, 0.6, "poor"),
    ],
)
def test_pairs_are_graded_only_where_the_anchors_are_in_order(score, best, worst, level):
    place, judgement = judged(score, best, worst)
    assert judgement.level == level
    assert (place is None) == (best - worst < 0.005)
    assert ("tell nothing here" in judgement.sentence) == (level == "note")


def test_a_standing_knows_which_way_is_better():
    results = {"scores": {"auc": 0.7, "k_way_3": 0.2, "mle": 3.0}, "learning": {"metric": "rmse"}}
    right = {"perfect": {"auc": 0.5, "k_way_3": 0.1, "mle": 1.0}, "shuffled": {"auc": 0.9, "k_way_3": 0.3, "mle": 5.0}}
    wrong = {"perfect": right["shuffled"], "shuffled": right["perfect"]}
    for key in results["scores"]:
        assert standing(key, results | {"anchors": right}) == pytest.approx(0.5)
        assert standing(key, results | {"anchors": wrong}) is None


def test_independent_columns_are_not_judged_by_their_pairs(tmp_path):
    train = pair(5)
    seen = []
    for fake in (train.copy(), train.assign(y=train["x"])):
        report = evaluate(train, fake, seeds=1)
        results = report.to_dict()
        best, worst = (results["anchors"][name]["trend_ranks"] for name in ("perfect", "shuffled"))
        assert best < worst, "the table was meant to have its anchors in the wrong order"
        seen.append({judgement.topic: judgement.level for judgement in verdict(results)}["Pairs of columns"])
        report.to_html(tmp_path / "r.html")
        headline(results)
    assert seen == ["note", "poor"]


@pytest.mark.parametrize(
    "column",
    [
        900_000_000_000_000_000 + 3 * np.arange(60),
        (2**63 - 100 + np.arange(60)).astype("uint64"),
        np.random.default_rng(0).normal(size=60) * 1e40,
        np.random.default_rng(0).normal(size=60) * 1e-200,
        np.linspace(-1, 1, 60) * 1.7e308,
    ],
    ids=["ids", "uint64", "1e40", "1e-200", "ends of float64"],
)
def test_numbers_of_any_size_get_their_scores(column, tmp_path):
    train = pd.DataFrame({"big": column, "x": np.random.default_rng(1).normal(size=60)})
    fake = train.sample(frac=1, random_state=0).reset_index(drop=True)
    report = evaluate(train, fake, fake.iloc[:30], target="big", seeds=1)
    report.to_html(tmp_path / "r.html")
    scores = report.to_dict()["scores"]
    assert scores["shape"] == 1
    # float64 does not tell the numbers at 2^63 apart, and what does not vary has no correlation
    assert all(scores[key] in (1, None) for key in ("trend", "trend_real_bins", "trend_ranks"))
    assert scores["k_way_3"] == scores["invalid"] == 0
    assert scores["mle"] >= 0
