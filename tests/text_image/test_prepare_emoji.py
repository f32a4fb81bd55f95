"""Emoji out of a package of the same layout: three emoji, one of them in two more skin tones."""

import json

import pytest
import torch
from PIL import Image

from de_core import DiffuseError
from de_plugins.text_image.data.captions import Captioner
from de_plugins.text_image.data.emoji import EmojiSource, load_emoji

COLOURS = {"apple": "red", "hand": "#ffcc22", "hand-1": "#ffddbb", "hand-2": "#664422", "other-hand": "#00ff00"}


def entry(name: str, short: str, category: str, image: str, order: int, tones: tuple[str, ...] = ()) -> dict:
    found = {
        "name": name,
        "short_name": short,
        "category": category,
        "image": f"{image}.png",
        "sort_order": order,
        "has_img_google": True,
    }
    if tones:
        found["skin_variations"] = {tone: {"image": f"{tone}.png", "has_img_google": True} for tone in tones}
    return found


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "img" / "google" / "64"
    folder.mkdir(parents=True)
    for name, colour in COLOURS.items():
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        image.paste(colour, (16, 16, 48, 48))
        image.save(folder / f"{name}.png")
    entries = [
        entry("WAVING HAND", "other_wave", "People & Body", "other-hand", 3),
        entry("RED APPLE", "apple", "Food & Drink", "apple", 1),
        entry("WAVING HAND", "wave", "People & Body", "hand", 2, ("hand-1", "hand-2")),
        entry("NOT DRAWN", "none", "Symbols", "none", 0) | {"has_img_google": False},
    ]
    (tmp_path / "emoji.json").write_text(json.dumps(entries))
    return tmp_path


def test_names_categories_and_pictures_on_white(package):
    emoji = load_emoji(package)
    assert len(emoji) == 3
    assert emoji.names == ("red apple", "wave", "other wave")  # the same name twice: their short ones
    assert emoji.captions[0] == "red apple, food & drink"
    assert emoji.pictures.shape == (5, 3, 32, 32)
    assert (emoji.first.tolist(), emoji.count.tolist()) == ([0, 1, 4], [1, 3, 1])
    assert emoji.own[:, :, 16, 16].tolist() == [[255, 0, 0], [255, 204, 34], [0, 255, 0]]
    assert (emoji.own[:, :, 0, 0] == 255).all()


def test_skin_tones_are_drawn_and_captions_stay(package):
    emoji = load_emoji(package)
    captioner = Captioner.train(emoji.captions, vocabulary=40, length=24)
    source = EmojiSource(emoji, captioner)
    index = torch.tensor([0, 1, 2]).repeat(200)
    batch = source.batch(index, torch.Generator().manual_seed(0))
    again = source.batch(index, torch.Generator().manual_seed(0))
    assert torch.equal(batch["image"], again["image"])
    assert captioner.decode(batch["caption"])[:3] == emoji.captions
    centre = ((batch["image"][:, :, 16, 16] + 1) * 127.5).round().int()
    assert len(centre[index == 0].unique(dim=0)) == len(centre[index == 2].unique(dim=0)) == 1
    tones, counts = centre[index == 1].unique(dim=0, return_counts=True)
    assert len(tones) == 3
    assert counts.min() > 40  # of 200 thirds: 67 expected, standard deviation 6.7


def test_what_is_no_package(package, tmp_path_factory):
    with pytest.raises(DiffuseError, match=r"expected an unpacked emoji-datasource-google"):
        load_emoji(tmp_path_factory.mktemp("none"))
    for content, message in (
        ("{", "not the list of emoji-datasource-google"),
        ('[{"name": "X"}]', "not the list of emoji-datasource-google"),
        ("[]", "it lists none with a picture"),
    ):
        whole = (package / "emoji.json").read_text()
        (package / "emoji.json").write_text(content)
        with pytest.raises(DiffuseError, match=message):
            load_emoji(package)
        (package / "emoji.json").write_text(whole)
    (package / "img" / "google" / "64" / "hand-2.png").unlink()
    with pytest.raises(DiffuseError, match=r"hand-2\.png: there is no such file"):
        load_emoji(package)
