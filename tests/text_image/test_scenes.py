"""Scenes: the world, the grammar, the judge, the measures, the command."""

import json
import re

import attrs
import numpy as np
import pytest
import torch

from de_core import JointProcess
from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import load_digits_joint
from de_plugins.text_image.scenes.grammar import LENGTH, Claim, agrees, decode, encode, read, write
from de_plugins.text_image.scenes.judge import SceneJudge, cells_of
from de_plugins.text_image.scenes.kinds import KINDS
from de_plugins.text_image.scenes.metrics import frechet
from de_plugins.text_image.scenes.model import scenes_process
from de_plugins.text_image.scenes.training import SceneRun
from de_plugins.text_image.scenes.world import CELLS, COLOURS, draw_scenes, held_out_kinds, paint


@pytest.fixture(scope="module")
def data():
    return load_digits_joint()


def small_blocks(monkeypatch):
    """Blocks of four rows: what is drawn is worked in whole blocks, and a test draws few."""
    process = JointProcess(scenes_process().modalities, block=4)
    monkeypatch.setitem(KINDS, "sklearn", attrs.evolve(KINDS["sklearn"], process=lambda: process))


def kinds(scenes):
    return [{(d * len(COLOURS) + c) * CELLS + p for d, c, p in scenes.objects(k)} for k in range(len(scenes))]


def test_training_never_shows_what_is_held_out():
    hidden = set(held_out_kinds().nonzero()[:, 0].tolist())
    assert len(hidden) == 54
    seen = kinds(draw_scenes(4000, rng=0))
    assert not any(objects & hidden for objects in seen)
    assert all(objects & hidden for objects in kinds(draw_scenes(500, rng=0, held_out=True)))
    assert {len(objects) for objects in seen} == {1, 2}
    two = draw_scenes(2000, rng=1, count=2)
    assert bool((two.cell[:, 0] != two.cell[:, 1]).all())


def test_captions_are_true_of_their_scene_and_of_few_others():
    scenes = draw_scenes(3000, rng=2)
    texts = write(scenes, rng=3)
    assert max(len(text.split()) for text in texts) <= LENGTH
    assert decode(encode(texts)) == texts
    claims = [read(text) for text in texts]
    assert all(agrees(claim, scenes.objects(k)) for k, claim in enumerate(claims))
    elsewhere = sum(agrees(claim, scenes.objects((k + 1) % 3000)) for k, claim in enumerate(claims))
    assert elsewhere < 40  # of 3,000; one object in 540 is the next one by chance
    assert {claim.relation is None for claim in claims if len(claim.objects) == 2} == {True, False}
    assert len({re.sub("|".join(COLOURS), "c", text).split()[0] for text in texts}) >= 4  # several templates


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("a red three at the top left", Claim(((3, 0, 0),))),
        ("at the centre is a white zero", Claim(((0, 5, 4),))),
        ("a red three to the left of a blue seven", Claim(((3, 0, -1), (7, 2, -1)), (0, -1))),
        ("below a blue seven is a red three", Claim(((3, 0, -1), (7, 2, -1)), (1, 0))),
        ("a red three at the top and a blue seven at the right", Claim(((3, 0, 1), (7, 2, 5)))),
        ("a red three", None),
        ("a red three at the top left left", None),
        ("", None),
    ],
)
def test_the_parser_reads(text, claim):
    assert read(text) == claim


def test_agreement_knows_order_and_place():
    left = read("a red three to the left of a blue seven")
    assert agrees(left, {(3, 0, 3), (7, 2, 5)})
    assert agrees(left, {(3, 0, 0), (7, 2, 5)})
    assert not agrees(left, {(3, 0, 5), (7, 2, 3)})
    assert not agrees(left, {(3, 0, 2), (7, 2, 5)})  # above, not left
    assert not agrees(left, {(3, 0, 3)})
    assert not agrees(read("a red three at the top"), {(3, 0, 1), (7, 2, 5)})


def test_a_canvas_holds_the_digits_in_their_cells_and_colours(data):
    scenes = draw_scenes(50, rng=4, count=2)
    cells = cells_of(paint(scenes, data.train, rng=5))
    for row in range(50):
        for place in range(CELLS):
            here = [(d, c) for d, c, p in scenes.objects(row) if p == place]
            assert bool(cells[row, place].sum() > 0) == bool(here)
            for _, colour in here:
                lit = cells[row, place].sum((1, 2)) > 0
                want = {"red": "100", "green": "010", "blue": "001", "yellow": "110", "purple": "101", "white": "111"}
                assert lit.tolist() == [c == "1" for c in want[COLOURS[colour]]]


def test_the_judge_reads_real_scenes(data):
    judge = SceneJudge.fit(data, rows=400)
    # the digits' judge errs on .6 % of held-out digits: twice that for two, and three standard errors of 400
    assert judge.accuracy[0] > 0.975
    assert judge.accuracy[1] > 0.965
    assert judge.read(-torch.ones(2, 3, 24, 24)) == [set(), set()]
    with pytest.raises(DiffuseError, match=r"images: expected \(n, 3, 3 S, 3 S\), got \(2, 1, 24, 24\)"):
        judge.read(torch.zeros(2, 1, 24, 24))


def test_words_that_are_none_are_refused():
    with pytest.raises(DiffuseError, match="the word 'dog'"):
        encode(["a red dog at the top"])
    with pytest.raises(DiffuseError, match="expected words, got none"):
        encode([" "])
    with pytest.raises(DiffuseError, match="at most 16 words, got 17"):
        encode([" ".join(["a"] * 17)])


def test_frechet_is_that_of_two_normals():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(200_000, 2)), draw.normal(size=(200_000, 2)) * [2.0, 1.0] + [1.0, 0.0]
    assert abs(frechet(a, b) - 2.0) < 0.05  # |m|^2 + (2 - 1)^2, errors of order 1/sqrt(200,000) times a few
    assert abs(frechet(a, a)) < 1e-9


def test_the_command_trains_shows_and_loads(tmp_path, capsys, monkeypatch):
    from de_core.cli import main

    small_blocks(monkeypatch)
    out = tmp_path / "out"
    args = ["--rows", "4", "--size", "tiny", "--batch", "8", "--json"]
    assert main(["scenes", "--out", str(out), "--minutes", "0.02", "--stages", "three", *args]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert {
        "joint",
        "joint_synchronous",
        "image_given_caption_one",
        "caption_given_image_two",
        "frechet",
        "floor",
    } <= set(metrics)
    # seven grids and the completed captions of four, eight pictures to be completed, three runs of eight moments
    assert (out / "index.html").read_text().count("data:image/png;base64,") == 72
    assert {p.name for p in (out / "stages").iterdir()} == {"image", "text", "all"}
    again = tmp_path / "again"
    assert main(["scenes", "--out", str(again), "--model", str(out / "model"), *args]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["caption_bound_nats_per_word"] == pytest.approx(metrics["caption_bound_nats_per_word"], rel=1e-4)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--minutes", "0"], "--minutes: expected a number above 0"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_calls_of_the_command(tmp_path, capsys, args, words):
    from de_core.cli import main

    assert main(["scenes", "--out", str(tmp_path / "o"), *args]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_no_stage_draws_rows_that_teach_it_nothing():
    for stage in SceneRun(stages="three").plan():
        t = stage.times.draw({"image": (400,), "caption": (400,)}, rng=torch.Generator().manual_seed(0))
        taught = torch.stack([t[name] > 0 for name, weight in stage.weights.items() if weight])
        assert bool(taught.any(0).all()), stage.name
