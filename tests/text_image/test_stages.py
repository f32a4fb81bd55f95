"""Stages: what learns in each, going on after a cut, what is refused."""

import pytest
import torch

from de_core import JointProcess, get_modality
from de_core.errors import DiffuseError
from de_core.source import TensorSource
from de_core.times import Faces
from de_plugins.text_image.mmdit import MMDiT, Size
from de_plugins.text_image.stages import Stage, single_stage, three_stages, train_stages

SMALL = Size(16, 2, 8, 1, 1, 16)
WEIGHTS = {"image": 1.0, "text": 2.0}


@pytest.fixture
def joint():
    return JointProcess(
        {"image": get_modality("gaussian")((1, 4, 4)), "text": get_modality("masked")((3,), num_classes=5)}
    )


def network(joint):
    torch.manual_seed(0)
    return MMDiT(joint, SMALL)


def data():
    draw = torch.Generator().manual_seed(0)
    return {"image": torch.randn(64, 1, 4, 4, generator=draw), "text": torch.randint(5, (64, 3), generator=draw)}


def moved(before, after):
    return {
        ".".join(name.split(".")[: 2 if name.startswith("own") else 1])
        for name, value in after.items()
        if not torch.equal(value, before[name])
    }


def snapshots(joint, stages, **more):
    model, states = network(joint), []
    source = data()
    train_stages(
        joint,
        model,
        source,
        stages,
        steps=12,
        batch_size=16,
        progress=False,
        on_stage=lambda stage: states.append({k: v.clone() for k, v in model.state_dict().items()}),
        **more,
    )
    return [*states, {k: v.clone() for k, v in model.state_dict().items()}]


def test_each_stage_moves_what_it_says(joint):
    start, first, second, end = snapshots(joint, three_stages("image", "text", weights=WEIGHTS))
    assert "own.image" in moved(start, first)
    assert torch.equal(start["own.text.port.out.weight"], first["own.text.port.out.weight"])  # its loss does not count
    assert moved(first, second) == {"own.text"}
    assert moved(second, end) == {"joint", "own.image", "own.text"}


def test_a_run_that_was_cut_off_goes_on(joint, tmp_path):
    """The first stage is not trained again, and the end is that of a run in one go."""
    stages = three_stages("image", "text", weights=WEIGHTS)
    whole = snapshots(joint, stages, out=tmp_path / "whole")[-1]

    class Cut(Exception):
        pass

    def stop(stage):
        if stage.name == "all":
            raise Cut

    model = network(joint)
    settings = {"steps": 12, "batch_size": 16, "progress": False, "out": tmp_path / "cut"}
    with pytest.raises(Cut):
        train_stages(joint, model, data(), stages, on_stage=stop, **settings)
    fresh, seen = network(joint), []
    result = train_stages(joint, fresh, data(), stages, on_stage=lambda s: seen.append(s.name), **settings)
    assert seen == ["image", "text", "all"]
    assert result.steps == 12
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, whole[name]), name
    assert [line["stage"] for line in result.curve][-1] == "all"


def test_one_stage_is_plain_training(joint):
    start, end = snapshots(joint, single_stage(WEIGHTS, Faces()))
    assert moved(start, end) == {"joint", "own.image", "own.text"}


def test_a_stage_has_its_own_batch(joint):
    rows = []

    class Seen(TensorSource):
        def batch(self, index, rng):
            rows.append(len(index))
            return super().batch(index, rng)

    stages = (Stage("small", 0.5, WEIGHTS, batch_size=4), Stage("large", 0.5, WEIGHTS))
    train_stages(joint, network(joint), Seen(data()), stages, steps=4, batch_size=16, progress=False)
    assert rows == [4, 4, 16, 16]


def test_what_is_refused(joint):
    with pytest.raises(DiffuseError, match="stage 'all': every loss has weight 0, nothing would be trained"):
        Stage("all", 1.0, {"image": 0.0, "text": 0.0})
    with pytest.raises(DiffuseError, match="expected a share above 0"):
        Stage("all", 0.0)
    with pytest.raises(DiffuseError, match="each of its own name"):
        train_stages(joint, network(joint), data(), [Stage("a", 1), Stage("a", 1)], steps=2)
    with pytest.raises(DiffuseError, match="stage 'a': no modality 'sound'"):
        train_stages(joint, network(joint), data(), [Stage("a", 1, {"sound": 1.0})], steps=2)
    with pytest.raises(DiffuseError, match="nothing would be trained"):
        train_stages(joint, network(joint), data(), [Stage("a", 1, frozen=("joint", "image", "text"))], steps=2)


def test_a_checkpoint_of_another_architecture_is_refused(joint, tmp_path):
    settings = {"steps": 2, "batch_size": 16, "progress": False, "out": tmp_path}
    train_stages(joint, network(joint), data(), single_stage(WEIGHTS), **settings)
    other = MMDiT(joint, Size(24, 2, 8, 1, 1, 16))
    with pytest.raises(DiffuseError, match="another architecture"):
        train_stages(joint, other, data(), single_stage(WEIGHTS), **settings)
