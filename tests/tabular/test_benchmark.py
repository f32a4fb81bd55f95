"""The benchmark of six tables: the picture of quality against seconds, from runs as it has them."""

import importlib
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
