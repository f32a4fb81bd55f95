"""The claims: which front is better, what a difference is, the two kinds of measurement, the command."""

import json
import math

import attrs
import numpy as np
import pytest
import torch

from de_core import JointProcess, NoisyGuidance
from de_core.errors import DiffuseError
from de_plugins.text_image.claims.arms import COMPARISONS, compare_arms, difference, verdict
from de_plugins.text_image.claims.front import Cell, compare, front
from de_plugins.text_image.claims.guidance import Question, guidance_grid
from de_plugins.text_image.digits.data import load_digits_joint
from de_plugins.text_image.mmdit import SIZES
from de_plugins.text_image.scenes.judge import SceneJudge
from de_plugins.text_image.scenes.kinds import KINDS
from de_plugins.text_image.scenes.metrics import Asker
from de_plugins.text_image.scenes.model import scene_model, scenes_process
from de_plugins.text_image.scenes.training import SceneRun

PROCESS = JointProcess(scenes_process().modalities, block=8)


@pytest.fixture(scope="module")
def asker():
    """A network that has learned nothing, four steps a picture."""
    data = load_digits_joint()
    model = scene_model(PROCESS, data.train, size="tiny", seed=0).eval()
    return Asker(PROCESS, model, data, SceneJudge.fit(data, rows=50), steps=4)


@pytest.fixture
def few(monkeypatch):
    """Scenes in blocks of eight rows: a test draws few."""
    monkeypatch.setitem(KINDS, "sklearn", attrs.evolve(KINDS["sklearn"], process=lambda: PROCESS))


def cell(weight, sigma, accuracy, variety, captions=200, seed=0):
    """A setting of known accuracy and variety, four draws a caption."""
    right = np.random.default_rng(seed).random((captions, 4)) < accuracy
    pairs = np.full(captions, 6)
    return Cell(weight, sigma, (0.0, 1.0), right, pairs * variety, pairs)


def test_a_front_is_the_most_variety_at_an_accuracy():
    accuracy, variety = np.array([0.5, 0.7, 0.9]), np.array([1.0, 0.4, 0.6])
    found = front(accuracy, variety, np.array([0.5, 0.6, 0.8, 0.95]))
    assert found[:3].tolist() == [1.0, 0.6, 0.6]
    assert math.isnan(found[3])


def test_the_better_front_is_found_and_a_tie_is_none():
    """Accuracies of 200 captions with four draws err by .018: fronts .3 apart in variety are far apart, and equal ones
    differ by chance alone."""
    none = cell(1.0, None, 0.6, 1.0)
    free = [cell(2.0, 1.0, 0.8, 0.6, seed=1), cell(4.0, 1.0, 0.9, 0.4, seed=2)]
    better = [cell(2.0, 0.5, 0.8, 0.9, seed=3), cell(4.0, 0.5, 0.9, 0.7, seed=4)]
    worse = [cell(2.0, 0.3, 0.8, 0.3, seed=5), cell(4.0, 0.3, 0.9, 0.1, seed=6)]
    found = compare([none, *free, *better, *worse])
    assert (found["sigma"], found["verdict"]) == (0.5, "holds")
    assert found["gap"] > 2 * found["stderr"] > 0
    assert compare([none, *free, *worse])["verdict"] == "does not hold"
    same = [attrs.evolve(c, sigma=0.5) for c in free]
    assert compare([none, *free, *same]) == {"sigma": 0.5, "gap": 0.0, "stderr": 0.0, "verdict": "undecided"}


def test_guidance_that_makes_nothing_right_decides_nothing():
    none, free, noisy = (cell(w, s, a, 1.0) for w, s, a in ((1.0, None, 0.9), (2.0, 1.0, 0.5), (2.0, 0.5, 0.5)))
    assert compare([none, free, noisy]) == {"sigma": 0.5, "gap": None, "stderr": None, "verdict": "undecided"}
    with pytest.raises(DiffuseError, match=r"with classifier-free and with noisy guidance, got 1, 1 and 0"):
        compare([none, free])
    with pytest.raises(DiffuseError, match="at least 4 captions to compare, got 2"):
        compare([cell(w, s, 0.5, 1.0, captions=2) for w, s in ((1.0, None), (2.0, 1.0), (2.0, 0.5))])


def test_variety_is_that_of_right_pictures_of_one_caption(asker):
    question = Question.ask(asker, 4, 3)
    assert (len(question.texts), len(question.tokens), len(question.real)) == (4, 12, 12)
    images = question.real.clone()
    images[0] = -1.0  # black: a wrong answer to the first caption
    found = question.answer(asker, images, NoisyGuidance(2.0, sigma=0.5))
    assert not found.right[0, 0]
    assert found.right[1:].mean() > 0.5  # the judge reads 99 % of real pictures; 4 of 9 wrong is 1e-7
    assert found.pairs[0] == math.comb(int(found.right[0].sum()), 2)
    if found.right[0, 1:].all():
        assert found.apart[0] == pytest.approx(float((images[1] - images[2]).norm()), rel=1e-4)  # cdist in float32
    assert (found.weight, found.sigma) == (2.0, 0.5)
    with pytest.raises(DiffuseError, match="at least 4 captions and 2 draws, got 4 and 1"):
        Question.ask(asker, 4, 1)


def test_the_grid_holds_every_setting(asker):
    found, grids = guidance_grid(
        asker, captions=4, draws=2, weights=[2.0], sigmas=[0.5], intervals=[(0.0, 1.0), (0.3, 0.8)]
    )
    assert [line["guidance"] for line in found["cells"]] == ["none", *["noisy", "classifier-free"] * 2]
    assert len(grids) == 5
    assert found["real"]["accuracy"] > 0.5  # of 8 real pictures
    assert found["cells"][0]["frechet"] > found["real"]["frechet"]  # an ignorant network's are far from real
    json.dumps(found)


def test_a_difference_and_its_error():
    shares = difference([0.8], [0.6], 100)
    assert shares["stderr"] == pytest.approx(math.sqrt((0.16 + 0.24) / 100))
    assert verdict(shares) == "holds"
    assert verdict(difference([0.6], [0.8], 100)) == "does not hold"
    assert verdict(difference([0.6], [0.65], 100)) == "undecided"
    assert difference([3.0], [2.0], 100) == {"difference": 1.0, "stderr": None}
    seeds = difference([1.0, 3.0], [0.0, 1.0], 100)
    assert seeds["difference"] == 1.5
    assert seeds["stderr"] == pytest.approx(math.sqrt(2.0 / 2 + 0.5 / 2))


def test_plans_are_what_they_are_called():
    assert [stage.name for stage in SceneRun(stages="three").plan()] == ["image", "text", "all"]
    assert type(SceneRun(times="tied").plan()[0].times).__name__ == "Tied"
    assert set(SceneRun(objective="elbo").plan()[0].weights.values()) == {1.0}
    with pytest.raises(DiffuseError, match="times: expected one of decoupled, tied, got 'loose'"):
        SceneRun(times="loose")


def test_arms_are_trained_once_at_the_same_cost(few, tmp_path, capsys):
    from de_core.cli import main

    call = ["claims", "times", "--out", str(tmp_path), "--steps", "1", "--seeds", "1", "--rows", "2", "--batch", "2"]
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["arms"]) == {"decoupled", "tied"}
    assert all(line[0]["training_steps"] == 1 for line in found["arms"].values())
    assert json.loads((tmp_path / "times.json").read_text()) == found
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "times.html").read_text().count("data:image/png") == 2 * 16 + 1
    kept = (tmp_path / "times" / "tied" / "0" / "metrics.json").read_text()
    run = SceneRun(batch_size=2)
    again, _ = compare_arms(COMPARISONS["times"], run, tmp_path / "times", steps=1, seeds=1, rows=2)
    assert again == {key: found[key] for key in again}
    assert (tmp_path / "times" / "tied" / "0" / "metrics.json").read_text() == kept
    with pytest.raises(DiffuseError, match="expected a model of rows = 3, there is one of 2"):
        compare_arms(COMPARISONS["times"], run, tmp_path / "times", steps=1, seeds=1, rows=3)
    with pytest.raises(DiffuseError, match="budget: expected minutes or steps"):
        compare_arms(COMPARISONS["times"], run, tmp_path, seeds=1, rows=2)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["guidance"], "--model: expected a model of `diffuse scenes`, got none"),
        (["guidance", "--model", "x", "--intervals", "0.3"], "--intervals: expected A:B"),
        (["guidance", "--model", "x", "--intervals", "a:b"], "--intervals: expected numbers"),
        (["stages", "--seeds", "0"], "--seeds: expected a number above 0, got 0"),
    ],
)
def test_bad_calls(tmp_path, capsys, args, words):
    from de_core.cli import main

    assert main(["claims", *args, "--out", str(tmp_path / "o")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_model_of_something_else(tmp_path, capsys):
    from de_core.artifact import save_artifact
    from de_core.cli import main

    network = {"size": attrs.asdict(SIZES["tiny"]), "patch": 8}
    save_artifact(tmp_path / "m", {"kind": "scenes", "network": network}, {"x": torch.zeros(1)})
    assert main(["claims", "guidance", "--model", str(tmp_path / "m"), "--out", str(tmp_path / "o")]) == 2
    assert "are of another architecture" in capsys.readouterr().err
