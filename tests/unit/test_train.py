"""The trainer: a budget, averaged weights, stop and resume, refusals."""

import copy

import pytest
import torch

from de_core import DiffuseError, JointProcess, get_modality
from de_core.optimizer import Optimizer
from de_core.train import TensorSource, Trainer


class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, width), torch.nn.Linear(width, 2)

    def forward(self, x, t):
        return {"x": self.last(torch.nn.functional.silu(self.first(torch.cat([x["x"], t["x"][:, None]], 1))))}


def net(width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(width)


JOINT = JointProcess({"x": get_modality("gaussian")((2,))})
ROWS = {"x": torch.randn(50, 2, generator=torch.Generator().manual_seed(0))}


def run(steps, **options):
    trainer = Trainer(JOINT, net(), steps=steps, batch_size=16, progress=False, **options)
    return trainer, trainer.fit(ROWS)


@pytest.mark.parametrize("orthogonal", [(), ("last",), ("first", "last")])
def test_a_run_that_stops_and_resumes_is_the_run(tmp_path, orthogonal):
    """Bit for bit: weights, averages, optimiser, batches, clocks and noises are those of the steps not taken yet."""
    _, whole = run(7, orthogonal=orthogonal)
    model = net()
    first = Trainer(JOINT, model, steps=7, batch_size=16, progress=False, orthogonal=orthogonal)
    taken = first.joint.loss
    calls = []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return taken(*args, **kwargs)

    first.joint = copy.copy(JOINT)
    first.joint.loss = stop
    assert first.fit(ROWS).interrupted
    first.save(tmp_path / "stopped")
    second = Trainer(JOINT, net(), steps=7, batch_size=16, progress=False, orthogonal=orthogonal)
    second.resume(tmp_path / "stopped")
    assert second.step == 3
    found = second.fit(ROWS)
    assert found.steps == whole.steps == 7
    for a, b in zip(found.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_orthogonal_steps_move_every_direction_alike():
    """One step of Muon along a gradient of rank 2 with singular values 100 and 1: both directions move by the step's
    0.2 sqrt(larger side) rates, times 3, to within the iteration's 0.5 to 1.5 (Newton and Schulz, five steps)."""
    model = net(width=8)
    trainer = Optimizer(model, 1e-2, (0.9, 0.99), 0.0, ["last"])
    before = model.last.weight.detach().clone()
    left, right = torch.linalg.qr(torch.randn(2, 2))[0], torch.linalg.qr(torch.randn(8, 2))[0]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    model.last.weight.grad = left @ torch.diag(torch.tensor([100.0, 1.0])) @ right.T
    trainer.set_rate(1e-2)
    trainer.step()
    moved = left.T @ (before - model.last.weight.detach()) @ right
    size = 3 * 1e-2 * 0.2 * 8**0.5
    assert (moved.diag() > 0.3 * size).all()  # bfloat16 on top
    assert (moved.diag() < 1.6 * size).all()
    assert moved[0, 1].abs() < 0.2 * size
    assert moved[1, 0].abs() < 0.2 * size


def test_orthogonal_names_matrices():
    with pytest.raises(DiffuseError, match="orthogonal= names 'middle', below which the model has no matrix"):
        Trainer(JOINT, net(), steps=1, orthogonal=["middle"])


def test_the_average_has_weights_that_grow_like_a_power():
    """average_n = sum_k w_k theta_k with w_k proportional to k^17 - (k - 1)^17, the weights of 1 - (1 - 1/k)^17: seen
    through a parameter that each step moves by a known amount. Float32 sums of 6 terms: 1e-6."""
    trainer, _ = run(1)
    average = trainer.average
    values = torch.arange(1.0, 7.0)
    first = next(iter(average.module.parameters())).detach()
    average.n_averaged.zero_()
    for value in values:
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.fill_(float(value))
        average.update_parameters(trainer.model)
    k = torch.arange(1.0, 7.0, dtype=torch.float64)
    weights = k**17 - (k - 1) ** 17
    expected = float((weights * values).sum() / weights.sum())
    assert abs(float(first.flatten()[0]) - expected) < 1e-6 * 6


def test_every_row_is_seen_once_an_epoch():
    trainer, _ = run(1)
    trainer.step = 0
    batches = trainer._batches(50)
    epoch = torch.cat([next(batches) for _ in range(3)])  # 50 rows make 3 batches of 16
    assert len(epoch.unique()) == 48
    small = Trainer(JOINT, net(), steps=1, batch_size=64, progress=False)._batches(5)
    assert sorted(next(small).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "expected a budget"),
        ({"steps": 0}, "expected steps above 0, got 0"),
        ({"minutes": -1.0}, "expected minutes above 0"),
        ({"steps": 1, "lr": float("nan")}, "expected lr above 0, got nan"),
        ({"steps": 1, "warmup": 0.0}, "expected warmup above 0, got 0.0"),
        ({"steps": 1, "clip": -1.0}, "expected clip above 0, got -1.0"),  # would climb the loss
        ({"steps": 1, "batch_size": 0}, "expected batch_size above 0"),
    ],
)
def test_settings_that_are_none(options, words):
    with pytest.raises(DiffuseError, match=words):
        Trainer(JOINT, net(), **options)


def test_models_and_rows_that_are_none(tmp_path):
    with pytest.raises(DiffuseError, match="no parameters to train"):
        Trainer(JOINT, torch.nn.Identity(), steps=1)
    for rows in ({}, {"x": torch.zeros(0, 2)}, {"x": torch.zeros(3, 2), "y": torch.zeros(2, 2)}):
        with pytest.raises(DiffuseError, match="training data: expected one number of rows, at least 1"):
            TensorSource(rows)
    with pytest.raises(DiffuseError, match="weights: expected a finite number of at least 0 for 'x'"):
        run(1, weights={"x": -1.0})
    trainer, _ = run(1)
    trainer.save(tmp_path / "one")
    with pytest.raises(DiffuseError, match="another architecture"):
        Trainer(JOINT, net(4), steps=1).resume(tmp_path / "one")
