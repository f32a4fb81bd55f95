"""``diffuse emoji``: the fixed feature space, ranks among all emoji, the command on a package of three."""

import json

import pytest
import torch
from PIL import Image

from de_core.cli import main
from de_plugins.text_image.data.emoji import EmojiSet
from de_plugins.text_image.data.images import to_unit
from de_plugins.text_image.emoji_command import features, ranks

pytest.importorskip("tokenizers")


def emoji(n=12, tones=2):
    """Squares of random colours, each in several tones."""
    pictures = torch.randint(256, (n * tones, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    pictures = pictures.expand(-1, 3, 32, 32).clone().to(torch.uint8)
    first, count = torch.arange(n) * tones, torch.full((n,), tones)
    return EmojiSet(pictures, first, count, tuple(f"sheet {k}" for k in range(n)), ("symbols",) * n)


def test_a_picture_is_nearest_to_itself_in_any_tone():
    some = emoji()
    for tone in (0, 1):
        assert ranks(to_unit(some.pictures[some.first + tone]), torch.arange(12), some).tolist() == [0] * 12
    turned = ranks(to_unit(some.own), torch.arange(12).roll(1), some)
    assert bool((turned > 0).all())  # asked for another


def test_features_are_colours_and_edges():
    """A flat picture has its colour at each place and no edge; a step at the middle column has edges there alone."""
    flat = torch.full((1, 3, 32, 32), 0.25)
    assert torch.allclose(features(flat), torch.cat([torch.full((1, 192), 0.25), torch.zeros(1, 128)], 1))
    step = torch.full((1, 3, 32, 32), -1.0)
    step[..., 16:] = 1.0
    across = features(step)[:, 192:256].reshape(8, 8)
    assert (across[:, 3] > 0).all()
    assert float(across.sum()) == pytest.approx(float(across[:, 3].sum()))
    assert torch.equal(features(3 * step), features(step))  # what strays is cut


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    folder = tmp_path / "package" / "img" / "google" / "64"
    folder.mkdir(parents=True)
    entries = []
    for k, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 64), colour).save(folder / f"{k}.png")
        entry = {"name": f"{colour} sheet", "short_name": colour, "category": "Symbols", "image": f"{k}.png"}
        entries.append({**entry, "sort_order": k, "has_img_google": True})
    (tmp_path / "package" / "emoji.json").write_text(json.dumps(entries))
    args = ["emoji", str(tmp_path / "package"), "--out", str(tmp_path / "o"), "--minutes", "0.01", "--json"]
    assert main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "o" / "metrics.json").read_text()) == found
    assert (found["rows"], found["emoji"], found["by_chance"], found["among_five_nearest"]) == (3, 3, 1.0, 1.0)
    assert found["real_moved_by_a_pixel"] == 1.0
    assert 0 <= found["copies"] <= 3
    assert (tmp_path / "o" / "index.html").read_text().count("data:image/png") == 4 * 3 + 20
    assert main(["emoji", str(tmp_path / "nowhere"), "--out", str(tmp_path / "p")]) == 2
    assert "expected an unpacked emoji-datasource-google" in capsys.readouterr().err
