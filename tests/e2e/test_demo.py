"""``diffuse demo`` end to end, briefly trained: files, keys, exit codes. how well it does is in its metrics.json."""

import json
import re

import pytest

from de_core.artifact import load_artifact
from de_core.cli import main

KEYS = {
    "judge_accuracy",
    "image_given_caption",
    "image_given_noisy_caption",
    "joint_agreement",
    "caption_given_image",
    "label_given_image",
    "ink_mae",
    "ink_mae_class_mean",
    "nearest_train_ratio",
    "seconds",
    "parameters",
}


def test_demo_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--minutes", "0.05", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert printed == metrics
    assert set(metrics) >= KEYS
    assert metrics["judge_accuracy"] > 0.98  # the judge is fitted on real pictures, whatever the model learned
    page = (out / "index.html").read_text()
    pictures = re.findall(r'<img[^>]*? src=["\']?([^"\' >]+)', page)
    assert len(pictures) >= 8
    for picture in pictures:
        assert (out / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    artifact = load_artifact(out / "model")
    learned = {name: x for name, x in artifact.tensors.items() if not name.startswith("velocity.")}  # of the pixels
    assert sum(x.numel() for x in learned.values()) == metrics["parameters"]
    assert main(["inspect", str(out / "model"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == metrics["parameters"]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_bad_minutes(tmp_path, capsys, minutes):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--minutes", minutes]) == 2
    assert "minutes" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert main(["demo", "--out", str(tmp_path / "file"), "--minutes", "0.05"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"
