"""The page: it refers only to what exists, shows what it was given, and is written whole or not at all."""

from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from de_core.errors import DiffuseError
from de_plugins.text_image.digits import page as page_module
from de_plugins.text_image.digits.captions import VOCABULARY, Captions
from de_plugins.text_image.digits.data import load_digits_joint
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.digits.page import Section, write_page
from de_plugins.text_image.digits.pictures import Panel, draw_curve, draw_panel
from de_plugins.text_image.digits.sections import (
    caption_section,
    guidance_section,
    image_section,
    inpainting_section,
    joint_section,
    noisy_caption_section,
)

DATA = load_digits_joint()
HELD = DATA.held_out
CURVE = {"step": [0, 10, 20], "image": [3.0, 2.0, 1.0], "label": [2.0, 1.0, 0.5]}
METRICS = {"image_given_caption": 0.991, "ink_mae": 0.02, "parameters": 1_412_345, "extra": 0.5}


class Reader(HTMLParser):
    """Collects every address, tag and alternative text, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.addresses, self.tags, self.alts, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def one_panel(name="joint", **more):
    return Section("Title", "Text", (Panel(name, HELD.image[:4], 2, **more),))


def all_sections():
    judge = Judge.fit(DATA)
    captions = Captions.fit(DATA.train.image)
    sample = {
        "image": HELD.image[:9],
        "caption": captions.draw(HELD.label[:9], HELD.image[:9], rng=0),
        "label": HELD.label[:9],
        "ink": HELD.ink[:9],
    }
    hidden = {**sample, "caption": torch.full_like(sample["caption"], len(VOCABULARY))}
    known = torch.zeros(1, 8, 8, dtype=torch.bool)
    known[:, :4] = True
    return [
        joint_section(sample, judge),
        caption_section(sample, HELD.label[:9], judge),
        noisy_caption_section(hidden, HELD.label[:9], judge),
        image_section(sample, HELD.label[:9]),
        inpainting_section(HELD.image[:2], known, torch.stack([HELD.image[:2], HELD.image[2:4]], 1)),
        guidance_section({"none": sample, "classifier-free": sample, "noisy": sample}, HELD.label[:9], judge),
    ]


def test_the_whole_page_refers_only_to_its_own_files(tmp_path):
    sections = all_sections()
    path = write_page(tmp_path / "new" / "out", sections, CURVE, METRICS)
    assert path == tmp_path / "new" / "out" / "index.html"
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.addresses) == len(reader.alts) == 9  # five single panels, three of guidance, the curve
    assert {path.parent / address for address in reader.addresses} == set(path.parent.glob("*.png"))
    assert {entry.name for entry in path.parent.iterdir()} == {"index.html", *reader.addresses}
    assert "script" not in reader.tags
    assert "://" not in text
    for section in sections:
        assert section.title in text
    # hidden captions carry no verdict, true labels are right, inpainting shows two draws
    assert set(sections[2].panels[0].right) == {None}
    assert set(sections[3].panels[0].right) == {True}
    assert sections[4].panels[0].titles == ["held-out", "given", "draw 1", "draw 2"]
    half = sections[4].panels[0].images[1, 0]
    assert torch.equal(half[:4], HELD.image[0, 0, :4])
    assert bool(half[4:].isnan().all())


def test_numbers_targets_and_text_are_shown(tmp_path):
    panel = one_panel(captions=("<b>", "a & b", '"c"', "d"), heading="x < y")
    text = write_page(tmp_path, [panel], CURVE, METRICS).read_text(encoding="utf-8")
    for shown in (
        "99.1 %",
        "≥ 98.0 %",
        "0.0200",
        "≤ 0.0100",
        "1,412,345",
        "extra",
        "missed",
        "x &lt; y",
        "a &amp; b",
    ):
        assert shown in text, shown
    assert "“<b>”" not in text


def test_a_failure_leaves_the_old_page_and_no_litter(tmp_path, monkeypatch):
    write_page(tmp_path, [one_panel()], CURVE, METRICS)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    with pytest.raises(DiffuseError, match="panel 'joint': expected one panel of that name, got 2"):
        write_page(tmp_path, [one_panel(), one_panel()], CURVE, METRICS)
    with pytest.raises(DiffuseError, match="curve: expected the key 'step'"):
        write_page(tmp_path, [one_panel()], {"image": [1.0]}, METRICS)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(page_module, "atomic_write", full)
    with pytest.raises(OSError, match="no space"):
        write_page(tmp_path, [one_panel()], CURVE, METRICS)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_out_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DiffuseError, match=r"out directory: expected a directory at .*, got a file"):
            write_page(place, [one_panel()], CURVE, METRICS)
    assert (tmp_path / "file").read_text() == "kept"


def test_panel_draws_dark_ink_on_light_paper_upright():
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, :4] = 1.0  # the upper half is full of ink
    png = imread(BytesIO(draw_panel(Panel("p", image, 1))))
    middle = png.shape[1] // 2
    upper, lower = png[int(0.3 * png.shape[0]), middle, :3], png[int(0.7 * png.shape[0]), middle, :3]
    assert np.all(upper < 0.25)
    assert np.all(lower > 0.85)


def test_panel_checks_name_the_panel():
    with pytest.raises(DiffuseError, match="panel 'p': expected 4 values in captions, got 1"):
        Panel("p", HELD.image[:4], 2, captions=("one",))
    with pytest.raises(DiffuseError, match="panel 'p': expected a picture"):
        Panel("p", HELD.image[:0], 2)
    with pytest.raises(DiffuseError, match="panel 'p': expected 2 titles, got 1"):
        Panel("p", HELD.image[:4], 2, titles=("one",))


def test_curve_checks_name_the_modality():
    with pytest.raises(DiffuseError, match=r"curve 'ink': expected one loss a step \(2\), got 3"):
        draw_curve([0, 1], {"ink": [1.0, 2.0, 3.0]})
    with pytest.raises(DiffuseError, match="curve: expected a step"):
        draw_curve([], {})
    steps = list(range(50))
    many = draw_curve(steps, {name: [float(x) for x in steps] for name in "abcde"})  # two rows of charts
    assert many.startswith(b"\x89PNG")
