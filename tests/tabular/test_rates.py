"""How long the weights of a table's network look back."""

import pytest

from de_plugins.tabular._rates import rates


@pytest.mark.parametrize(
    ("rows", "parameters", "passes"),
    [
        (30_000, 0.0, 300),  # no numbers
        (30_000, 0.2, 300),  # passes times parameters a number is 60 there
        (30_000, 0.3, 200),
        (30_000, 0.6, 100),
        (30_000, 5.0, 100),  # at the least
    ],
)
def test_weights_look_back_on_passes_over_the_table(rows, parameters, passes):
    """The lag of AdamW's moving mean, 1/(lr decay) steps, at any peak rate (2405.13698)."""
    for lr in (None, 1e-3):
        found = rates("nano", lr, rows, 1000, parameters=parameters, paper=False)
        assert 1 / (found["lr"] * found["weight_decay"]) == pytest.approx(passes * rows / 1000)


def test_weights_of_a_small_table_look_back_on_800_steps():
    found = rates("nano", None, 50, 1000, parameters=0.0, paper=False)  # a pass is one step
    assert 1 / (found["lr"] * found["weight_decay"]) == pytest.approx(800)


def test_the_authors_rates_are_theirs():
    assert rates("nano", None, 50, 10, parameters=9.0, paper=True) == {
        "lr": 1e-3,
        "weight_decay": 0.03,
        "betas": (0.9, 0.9),
    }
    assert rates("nano", 0.01, 50, 10, parameters=9.0, paper=True)["lr"] == 0.01
