"""How long the weights of a table's network look back, and on what it depends."""

import pytest
import torch

from de_plugins.tabular._encoded import Encoded
from de_plugins.tabular._rates import crowding, rates


@pytest.mark.parametrize(
    ("rows", "crowded", "passes"),
    [
        (30_000, 0.0, 300),  # nothing names a row
        (30_000, 0.2, 300),  # passes times crowding is 60 there
        (30_000, 0.3, 200),
        (30_000, 0.6, 100),
        (30_000, 5.0, 100),  # at the least
    ],
)
def test_weights_look_back_on_passes_over_the_table(rows, crowded, passes):
    """The lag of AdamW's moving mean, 1/(lr decay) steps, at any peak rate (2405.13698)."""
    for lr in (None, 1e-3):
        found = rates("nano", lr, rows, 1000, crowded=crowded, paper=False)
        assert 1 / (found["lr"] * found["weight_decay"]) == pytest.approx(passes * rows / 1000)


def test_weights_of_a_small_table_look_back_on_800_steps():
    found = rates("nano", None, 50, 1000, crowded=0.0, paper=False)  # a pass is one step
    assert 1 / (found["lr"] * found["weight_decay"]) == pytest.approx(800)


def test_the_authors_rates_are_theirs():
    assert rates("nano", None, 50, 10, crowded=9.0, paper=True) == {
        "lr": 1e-3,
        "weight_decay": 0.03,
        "betas": (0.9, 0.9),
    }
    assert rates("nano", 0.01, 50, 10, crowded=9.0, paper=True)["lr"] == 0.01


def coded(classes, numbers):
    """A coded table of no holes, and no groups."""
    classes = torch.tensor(classes)
    there = torch.ones(len(classes), numbers, dtype=torch.bool)
    return Encoded(classes, torch.zeros(there.shape), there, torch.ones_like(classes, dtype=torch.bool), there)


def test_numbers_can_be_learnt_by_heart_where_classes_name_their_row():
    named = [[0, 1], [1, 0], [2, 2], [3, 0]]
    assert crowding(coded(named, 2), 40) == 40 / (4 * 2)
    assert crowding(coded([[0, 1], [0, 1], [1, 0], [1, 1]], 2), 40) == 40 / (4 * 2) / 2  # two rows of one name
    assert crowding(coded([[0], [0], [1], [1]], 2), 40) == 0
    assert crowding(coded(named, 0), 40) == 0
    assert crowding(coded([[]] * 4, 2), 40) == 0
