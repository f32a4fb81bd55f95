"""``diffuse train``: from a folder of pictures to a model and a page; the large run on paper; what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from de_core.artifact import load_artifact
from de_core.cli import main
from de_core.errors import DiffuseError
from de_plugins.text_image.config import CONFIGS, load_config
from de_plugins.text_image.estimate import estimate

pytest.importorskip("tokenizers")

CONFIG = """
[data]
image = [3, 8, 8]
length = 12
vocabulary = 64

[network]
size = { width = 16, heads = 2, head_width = 8, joint = 1, own = 1, condition = 16 }
patch = 4

[training]
steps = 6
batch_size = 4
lr = 1e-3

[[stages]]
name = "image"
share = 0.5
weights = { image = 1.0, caption = 0.0 }

[[stages]]
name = "all"
share = 0.5
"""


@pytest.fixture
def run(tmp_path):
    """A configuration and the shards that it wants."""
    (tmp_path / "pictures").mkdir()
    for k in range(8):
        pixels = np.random.default_rng(k).integers(0, 256, (10, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{k}.png")
        (tmp_path / "pictures" / f"{k}.txt").write_text(f"picture {k}")
    made = ["--size", "8", "--length", "12", "--vocabulary", "64", "--out", str(tmp_path / "shards"), "--json"]
    assert main(["prepare", str(tmp_path / "pictures"), *made]) == 0
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


def test_from_pictures_to_a_model_and_a_page(run, capsys):
    capsys.readouterr()
    args = ["train", str(run / "run.toml"), "--data", str(run / "shards"), "--out", str(run / "out"), "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 6
    artifact = load_artifact(run / "out" / "model")
    assert sum(x.numel() for x in artifact.tensors.values()) == found["parameters"]
    assert (run / "out" / "index.html").read_text().count("data:image/png;base64,") == 48
    assert main(args) == 0  # goes on from where it was: nothing is left to do
    assert json.loads(capsys.readouterr().out)["steps"] == 6


def test_the_papers_run_is_counted_and_takes_a_step(capsys):
    assert main(["train", "paper", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 5.2e8 < found["parameters"]["all"] < 6e8
    assert set(found["dry_run_losses"]) == {"image", "text", "all"}
    assert all(np.isfinite(loss) for loss in found["dry_run_losses"].values())
    assert found["state_gib"] == pytest.approx(20 * found["parameters"]["all"] / 2**30)
    config = load_config("paper")
    assert (config.size.width, config.size.joint, config.size.own, config.patch) == (1024, 8, 6, 2)
    assert [stage.frozen for stage in config.stages] == [(), ("joint", "image"), ()]
    assert [stage.batch_size or config.training["batch_size"] for stage in config.stages] == [256, 512, 512]
    # 600, 200 and 140 thousand steps of them, to the shares' three digits
    assert found["rows"] == pytest.approx(600e3 * 256 + 340e3 * 512, rel=2e-3)


def test_operations_are_counted_right(tmp_path):
    """A linear layer of m x n costs 2 m n a token; attention over T tokens of inner width d 4 T^2 d."""
    (tmp_path / "c.toml").write_text(CONFIG)
    found = estimate(load_config(tmp_path / "c.toml"))
    width, words, image, pixels, classes = 16, 12, 4, 48, 64
    block = 4 * width * width + 8 * width * width
    conditioned = 8 * 0 + sum(width * k * width for k in (6, 6, 2)) + width * width + 16 * width  # a modality, a row
    forward = 2 * (2 * block * (words + image) + 2 * conditioned)
    forward += 2 * image * (2 * pixels * width) + 2 * words * (width * width + width * classes)
    forward += 4 * width * ((words + image) ** 2 + words**2 + image**2)
    assert found["flops"] == 3 * forward


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS.glob("*.toml")])
def test_every_configuration_that_comes_along_can_be_built(name):
    config = load_config(name)
    with torch.device("meta"):
        assert config.network(config.process()).parameter_counts()["joint"] > 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("patch = 4", "patch = 3", "patches of 3 do not tile"),
        ("patch = 4", "patches = 4", "no entry 'patches'"),
        ("patch = 4", "", "expected an entry 'patch'"),
        ("[data]", "[date]", "no table 'date'"),
        ("lr = 1e-3", "lr = ", "not TOML"),
        ("share = 0.5\n", "share = 0.0\n", "expected a share above 0"),
        ("caption = 0.0 }", "sound = 0.0 }", "no modality 'sound'"),
        ("image = [3, 8, 8]", "image = [3, 8]", "channels, height and width"),
        ("image = [3, 8, 8]", "image = [3, 16, 16]", "the shards have"),
        ("length = 12", "length = 20", "length = 20, the shards have 12"),
        ("steps = 6", "", "expected a budget"),
        ('name = "all"', 'name = "image"', "each of its own name"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(run, capsys, old, new, words):
    (run / "run.toml").write_text(CONFIG.replace(old, new, 1))
    args = ["train", str(run / "run.toml"), "--data", str(run / "shards"), "--out", str(run / "out")]
    assert main(args) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_bad_calls(run, capsys):
    assert main(["train", "nowhere.toml", "--dry-run"]) == 2
    assert "expected a TOML file or one of paper, small" in capsys.readouterr().err
    assert main(["train", str(run / "run.toml")]) == 2
    assert "--data: expected a directory" in capsys.readouterr().err
    with pytest.raises(DiffuseError):
        load_config(run)
