"""The whole evaluation on small tables: what it holds, how it is written, what it refuses."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from de_core.errors import DiffuseError

pytest.importorskip("xgboost")
pytest.importorskip("matplotlib")

from de_plugins.tabular import evaluate
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
    extras = {"cost": {"fit, seconds": 12.5}}
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
    assert set(results["two_sample"]) == {"full", "marginal", "dependence"}
    assert results["seconds"] > 0


def test_text_shows_scores_and_anchors(report):
    lines = report.to_text().splitlines()
    assert lines[0].split() == ["score", "synthetic", "perfect", "sample", "columns", "shuffled", "training", "copied"]
    assert any(line.startswith("Shape") for line in lines)
    assert len({len(line) for line in lines[1:4]}) == 1


def test_html_carries_its_pictures_and_escapes_names(report, tmp_path):
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
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
    made = evaluate(table(0, 200), table(1, 200), table(2, 100), target="x", seeds=1, anchors=False, every_target=True)
    results = made.to_dict()
    assert results["learning"]["metric"] == "rmse"
    every = results["every_target"]
    assert every["rich"]["synthetic"] > 0.9
    assert abs(every["x"]["synthetic"] - every["x"]["real"]) < 0.3
    assert "void" not in every  # it has nothing to predict


@pytest.mark.parametrize("frame", [pd.DataFrame({"x": np.arange(50.0)}), pd.DataFrame({"c": ["a", "b"] * 25})])
def test_one_column_is_enough(frame, tmp_path):
    report = evaluate(frame, frame, frame, seeds=1)
    assert report.to_dict()["scores"]["trend"] is None
    report.to_html(tmp_path / "r.html")
    assert "Shape" in report.to_text()


def test_what_it_refuses():
    with pytest.raises(DiffuseError, match="target: column 'nope'"):
        evaluate(table(0, 50), table(1, 50), target="nope")
    with pytest.raises(DiffuseError, match="missing from the test table"):
        evaluate(table(0, 50), table(1, 50), test=table(2, 50).drop(columns="x"))
    with pytest.raises(DiffuseError, match="at least one row"):
        evaluate(table(0, 50), table(1, 50).iloc[:0])
    with pytest.raises(DiffuseError, match="expected a data frame"):
        evaluate("train.csv", table(1, 50))
