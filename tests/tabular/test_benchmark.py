"""The benchmark of six tables: the picture of quality against seconds, from runs as it has them."""

import importlib
import os
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("xgboost")


def test_quality_is_drawn_against_seconds(tmp_path, monkeypatch):
    from matplotlib import image

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    bench = importlib.import_module("tabular")

    def run(seconds, auc):
        return {"fit seconds": seconds, "utility": 0.9, "auc": auc}

    found = {
        "anchors": {"training table": {"utility": 0.93, "auc": 0.5}},
        "ours": [run(60.0, 0.55), run(62.0, 0.57)],
        "sooner": [run(6.0, 0.7)],
        "peers": {"SMOTE": {"sample seconds": 1.0, "utility": 0.9, "auc": 0.6}},
    }
    bench.quality({"adult": found, "magic": {**found, "sooner": [], "peers": {}}}, tmp_path / "quality.png")
    drawn = image.imread(tmp_path / "quality.png")
    assert (drawn[..., :3].min(-1) < 0.9).mean() > 0.005  # lines and letters on white
    assert [path.name for path in tmp_path.iterdir()] == ["quality.png"]
    assert bench._numbers("10,1,3") == [1.0, 3.0, 10.0]


@pytest.mark.skipif("DIFFUSE_DATA" not in os.environ, reason="DIFFUSE_DATA does not name the folder of the six tables")
def test_the_six_tables_have_the_published_splits(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    sets = importlib.import_module("tabular_sets")
    sizes = {name: tuple(map(len, sets.load(name))) for name in sets.SETS}
    assert sizes == {
        "adult": (32_561, 16_281),
        "default": (27_000, 3_000),
        "shoppers": (11_097, 1_233),
        "magic": (17_117, 1_902),
        "beijing": (37_581, 4_176),
        "news": (35_679, 3_965),
    }
    for name, role in sets.SETS.items():
        train, test = sets.load(name)
        assert list(train) == list(test)
        assert role.target in train
        assert not set(role.dropped) & set(train)


def test_ahead_is_better_in_trend_and_utility_and_by_three_hundredths_in_auc(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    bench = importlib.import_module("tabular")
    peer = {"trend": 97.0, "utility": 0.9, "auc": 0.6}
    good = {"trend": 98.0, "utility": 0.91, "auc": 0.56}
    assert bench.ahead([good, good], peer, False)
    for worse in ({"trend": 96.9}, {"utility": 0.89}, {"auc": 0.58}):
        assert not bench.ahead([good | worse], peer, False)
    assert not bench.ahead([good], peer, True)  # an error of .91 is more than one of .9
    assert bench.ahead([good | {"utility": 0.89}], peer, True)
