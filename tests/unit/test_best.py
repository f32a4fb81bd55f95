"""The best weights by a score on held-out rows, and patience."""

import pytest
import torch

from de_core import JointProcess, get_modality
from de_core.best import Best
from de_core.errors import DiffuseError
from de_core.train import Trainer


class Weight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        return {"x": self.w * x["x"]}


def scored(scores):
    """A score that is read off a list, and a network whose weight counts its calls."""
    left = iter(scores)
    return lambda model: next(left)


def test_the_least_score_is_kept_and_patience_counts_in_a_row():
    model, best = Weight(), Best(scored([3.0, 2.0, 2.5, 1.0, 1.5, 1.2, 1.1]), 3)
    tired = []
    for k in range(7):
        model.w.data.fill_(k)
        tired.append(best.tires(model, (k + 1) / 20))
    assert tired == [False] * 6 + [True]
    best.restore(model)
    assert float(model.w.detach()) == 3.0


def test_it_is_asked_once_a_twentieth():
    best = Best(scored([1.0, 2.0]), None)
    model = Weight()
    assert [best.tires(model, share) for share in (0.0, 0.04, 0.05, 0.06, 0.099, 0.1)] == [False] * 6
    with pytest.raises(StopIteration):
        best.tires(model, 0.2)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(DiffuseError, match="not a number"):
        Best(lambda model: float("nan"), 1).tires(Weight(), 1.0)


def test_the_trainer_returns_the_best_and_ends_early():
    joint = JointProcess({"x": get_modality("gaussian")((2,))})
    data = {"x": torch.randn(64, 2, generator=torch.Generator().manual_seed(0))}
    seen = []

    def score(model):
        assert not model.training
        seen.append(float(model.w))
        return [5.0, 1.0, 2.0, 3.0][len(seen) - 1]

    settings = {"steps": 20, "batch_size": 8, "lr": 0.1, "progress": False}
    result = Trainer(joint, Weight(), held_out=score, patience=2, **settings).fit(data)
    assert len(seen) == 4
    assert result.steps == 4
    assert not result.interrupted
    assert float(result.model.w.detach()) == seen[1]


def test_what_is_refused():
    joint = JointProcess({"x": get_modality("gaussian")((2,))})
    with pytest.raises(DiffuseError, match="patience= needs held_out="):
        Trainer(joint, Weight(), steps=1, patience=1)
    with pytest.raises(DiffuseError, match="expected patience above 0"):
        Trainer(joint, Weight(), steps=1, patience=0, held_out=lambda model: 0.0)
