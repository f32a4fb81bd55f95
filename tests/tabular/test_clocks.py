"""Which clocks training shows, and in which order and in how many calls rows are drawn."""

import math

import attrs
import pytest
import torch

from de_core import Given
from de_plugins.tabular._drawing import draw_states
from de_plugins.tabular.process import TableTimes, draw_order, table_process


def test_times_show_every_pattern():
    rng = torch.Generator().manual_seed(0)
    times = TableTimes(given=0.3, loose=0.2, tied=True)
    t = times.draw({"numbers": (4000, 2), "classes": (4000, 3)}, rng=rng)
    numbers, classes = t["numbers"], t["classes"]
    assert all(v.min() >= 0 and v.max() <= 1 for v in t.values())
    tied = (torch.cat([numbers, classes], 1) == numbers[:, :1]).all(1) & (numbers[:, 0] > 0)
    clean = ((numbers == 0).any(1)) | (classes == 0).any(1)
    loose = (numbers[:, 0] != numbers[:, 1]) & ~clean
    # shares of 4000 rows err by 0.008 at one standard error; of a given row no column is clean with probability 1/6,
    # of a loose one no number has a clock of its own with probability 1/3
    assert abs(loose.float().mean() - 0.2 * 2 / 3) < 0.03
    assert abs(clean.float().mean() - 0.3 * 5 / 6) < 0.03
    assert abs(tied.float().mean() - (0.5 + 0.3 / 6 + 0.2 / 3)) < 0.03
    for pattern in range(4):
        held = (numbers == 0).int() @ torch.tensor([1, 2], dtype=torch.int32)
        assert (held == pattern).any()
    only = TableTimes().draw({"classes": (64, 3)}, rng=rng)["classes"]
    assert (only == only[:, :1]).all()
    # evenly spread: one time in each of 64 equal parts
    assert torch.equal((only[:, 0].double() * 64 - 1e-3).floor().long().clamp(0).unique().diff().max(), torch.tensor(1))


def test_times_have_one_modality_move_beside_known_and_unknown_ones():
    shapes = {"numbers": (6000, 2), "shares": (6000,), "classes": (6000, 3)}
    times = TableTimes(given=0.0, loose=0.0, tilt=1.5)
    t = times.draw(shapes, rng=torch.Generator().manual_seed(0))
    assert {name: tuple(v.shape) for name, v in t.items()} == shapes
    c, n, s = t["classes"][:, 0], t["numbers"][:, 0], t["shares"]
    assert all((t[name] == t[name][:, :1]).all() for name in ("classes", "numbers"))
    inside = lambda v: (v > 0) & (v < 1)  # noqa: E731
    links = {
        "classes": inside(c) & (n == 1) & (s == 1),
        "numbers": (c == 0) & inside(n) & (s == 1),
        "shares": (c == 0) & (n == 0) & inside(s),
    }
    # a third each: a share of 6000 rows errs by 0.006 at one standard error; every row is of one kind
    assert all(abs(float(rows.float().mean()) - 1 / 3) < 0.03 for rows in links.values())
    assert sum(rows.int() for rows in links.values()).eq(1).all()
    # classes are not tilted, numbers are: the means of u and of u^1.5 over some 2000 rows, standard error 0.007
    assert abs(float(c[links["classes"]].mean()) - 1 / 2) < 0.03
    assert abs(float(n[links["numbers"]].mean()) - 1 / 2.5) < 0.03
    seen = TableTimes(given=0.3, loose=0.2).draw(shapes, rng=torch.Generator().manual_seed(0))
    n = seen["numbers"]
    alone = (n[:, 0] == 1) & (n[:, 1] > 0) & (n[:, 1] < 1) & (seen["classes"] > 0).all(1)
    assert bool(alone.any())  # a number is given with noise, nothing else is known
    held = [(n == 0)[:, k] & (seen["classes"] > 0).all(1) for k in (0, 1)]
    assert all(bool((held[k] & ~held[1 - k]).any()) for k in (0, 1))  # a number is given, the classes are not


def test_times_of_numbers_show_few_given_ones_and_some_unknown_classes():
    shapes = {"numbers": (20_000, 2), "classes": (20_000, 1)}
    t = TableTimes(given=0.5, unknown=0.2).draw(shapes, rng=torch.Generator().manual_seed(0))
    c, known, unknown = t["classes"][:, 0] > 0, t["numbers"] == 0, t["numbers"] == 1
    # half the rows move each; with a chance s ~ U(0, 1) of being given, the class is not and some number is in
    # E[(1 - s)(1 - (1 - s)^2)] = 1/4 of half of them, one number alone is in E[2 s (1 - s)] = 1/3 of a tenth
    early, later = c & known.any(1), known.any(1) & ~known.all(1) & ~unknown.any(1)
    # the class is unknown in E[s] = 1/2 of a fifth of the rows in which numbers move; where it moves, they are 0 or 1
    moving = (t["numbers"] > 0) & (t["numbers"] < 1)
    hidden = (t["classes"][:, 0] == 1) & moving.all(1)
    for rows, share in ((early, 1 / 16), (later, 1 / 60), (hidden, 1 / 20)):
        assert abs(float(rows.double().mean()) - share) < 4 * (share / len(rows)) ** 0.5


def test_rows_are_drawn_one_modality_after_the_other():
    rows = {"shares": (2,), "numbers": (2,), "classes": (3,)}
    assert draw_order(rows) == ("classes", "numbers", "shares")
    joint = table_process((2, 2, 2), 2)
    seen = []

    def model(x, t):
        seen.append((t["classes"].amax().item(), t["classes"].amin().item(), t["numbers"].amax().item()))
        return {"classes": torch.zeros(len(x["classes"]), 6), "numbers": torch.zeros_like(x["numbers"])}

    draw_states(joint, model, 4, None, 10, 0)
    assert len(seen) == 10
    assert [n for _, _, n in seen[:3]] == [1.0] * 3  # one call a class, and no number known
    assert all(c == 0 for c, _, _ in seen[3:])
    assert all(0 < n <= 1 for _, _, n in seen[3:])
    seen.clear()
    # rows with more or less given take the same calls, so that a row does not depend on the others
    classes, known = torch.zeros(4, 3, dtype=torch.int64), torch.tensor([[True] * 3, [False] * 3] * 2)
    all_rows = draw_states(joint, model, 4, {"classes": Given(classes, known=known)}, 10, 0)
    assert [c > 0 for c, _, _ in seen] == [True] * 3 + [False] * 7
    first = draw_states(joint, model, 1, {"classes": Given(classes[:1], known=known[:1])}, 10, 0)
    assert all(torch.equal(first[name], all_rows[name][:1]) for name in first)
    seen.clear()
    draw_states(joint, model, 4, None, 6, 0, tied=True)
    assert all(n > 0 for _, _, n in seen)
    assert all(c > 0 for c, _, _ in seen)
    seen.clear()
    draw_states(joint, model, 4, None, 1, 0)  # one call is too few for one after the other
    assert seen == [(1.0, 1.0, 1.0)]


def test_times_are_tilted_to_low_noise_where_numbers_are_tied():
    assert TableTimes.of(None, 0.0).tilt == TableTimes.of(torch.eye(3), 0.0).tilt == 1.0
    tied = TableTimes.of(torch.tensor([[1.0, 0.9], [0.9, 1.0]]), 0.1)
    assert tied.tilt == 1.5
    assert tied.unknown == 0.1
    assert TableTimes.of(None, 2.0).unknown == 0.5  # at most
    assert TableTimes.of(None, 0.0).unknown == 0.05  # guidance by a class wants it of every table
    t = attrs.evolve(tied, given=0.0, loose=0.0).draw({"numbers": (4096, 2)}, rng=torch.Generator().manual_seed(0))
    # one time in each of 4096 equal parts of u: the mean of u^1.5 is 1/2.5 to within a part
    assert abs(float(t["numbers"].mean()) - 0.4) < 1 / 4096


@pytest.mark.parametrize(
    ("sizes", "numbers", "calls"),
    [((3, 4), 1, 2 + 16), ((3, 4), 2, 2 + 48), ((2,) * 40, 1, 25 + 16), ((), 1, 50), ((3, 4), 0, 50)],
)
def test_calls_of_the_network_are_shared_out(sizes, numbers, calls):
    """Of 50: one a class column, at most half; numbers the rest, one number alone a third."""
    made = 0

    def model(x, t):
        nonlocal made
        made += 1
        rows = len(next(iter(x.values())))
        return {"classes": torch.zeros(rows, sum(sizes)), "numbers": torch.zeros(rows, numbers)}

    x = draw_states(table_process(sizes, numbers), model, 2, None, 50, 0)
    assert made == calls
    assert (x["classes"].shape, x["numbers"].shape) == ((2, len(sizes)), (2, numbers))


@pytest.mark.parametrize("spread", [(0.05, 0.3), (0.1, 0.1), (0.3, 0.3)])
def test_the_calls_of_a_single_number_are_enough(spread):
    """Rows of the exact network of two peaks have their law, by the statistic of Kolmogorov and Smirnov.

    Of 4,096 rows it is above 1.95/64 once in a thousand times; .015 is left for the steps, as much as 20,000 rows
    showed with their own scatter in it. Half of all calls, evenly spread, are .062 off at the narrow peak.
    """
    means, sd = torch.tensor([-0.8, 0.8], dtype=torch.float64), torch.tensor(spread, dtype=torch.float64)

    def model(x, t):
        y, angle = x["numbers"].double(), 0.5 * math.pi * t["numbers"].double()
        alpha, sigma = angle.cos(), angle.sin()
        variance = alpha**2 * sd**2 + sigma**2
        peak = (-0.5 * (y - alpha * means) ** 2 / variance - 0.5 * variance.log()).softmax(1)
        clean = (peak * (means + alpha * sd**2 / variance * (y - alpha * means))).sum(1, keepdim=True)
        noise = (y - alpha * clean) / sigma.clamp_min(1e-9)
        return {"classes": torch.zeros(len(y), 2), "numbers": (alpha * noise - sigma * clean).float()}

    x = draw_states(table_process((2,), 1), model, 4096, None, 50, 0)["numbers"][:, 0].double().sort().values
    law = torch.special.ndtr((x[:, None] - means) / sd).mean(1)
    rank = torch.arange(4097, dtype=torch.float64) / 4096
    assert float(torch.maximum((law - rank[:-1]).abs(), (law - rank[1:]).abs()).max()) < 1.95 / 64 + 0.015
