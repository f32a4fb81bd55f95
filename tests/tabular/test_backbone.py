"""The table network: its size, its start, and that large columns held in few parameters are what they say."""

import math

import pytest
import torch

from de_core import DiffuseError
from de_core.plugins import get_component
from de_plugins.tabular._layers import ClassTable, Directions, NumbersIn, RowSums
from de_plugins.tabular.backbone import PRESETS, TableMLP, count_directions, count_parameters

ADULT = (73, 9, 16, 16, 7, 15, 6, 5, 2, 119, 92, 94, 42, 2)
TABLES = [(ADULT, 1), ((), 10), ((2,), 10), ((10,) * 200, 0), ((3,), 0), ((500,) * 4, 3)]


def state(sizes: tuple[int, ...], numbers: int, rows: int) -> tuple[dict, dict]:
    rng = torch.Generator().manual_seed(0)
    x, t = {}, {}
    if sizes:
        x["classes"] = torch.stack([torch.randint(n + 1, (rows,), generator=rng) for n in sizes], 1)
        t["classes"] = torch.rand(rows, len(sizes), generator=rng)
    if numbers:
        x["numbers"] = torch.randn(rows, numbers, generator=rng)
        t["numbers"] = torch.rand(rows, numbers, generator=rng)
    return x, t


@pytest.mark.parametrize(("sizes", "numbers"), TABLES)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit_and_all_parameters_count(sizes, numbers, preset):
    settings = TableMLP.for_preset(preset, sizes, numbers)
    network = TableMLP(sizes, numbers, **settings)
    counted = sum(p.numel() for p in network.parameters())
    assert counted == count_parameters(sizes, numbers, **settings)
    assert 0.9 * PRESETS[preset] <= counted <= PRESETS[preset]
    out = network(*state(sizes, numbers, 5))
    assert set(out) == ({"classes"} if sizes else set()) | ({"numbers"} if numbers else set())
    assert not sizes or out["classes"].shape == (5, sum(sizes))
    assert not numbers or out["numbers"].shape == (5, numbers)


def test_a_narrow_network_gives_up_rank_and_features_for_width():
    found = TableMLP.for_preset("nano", ADULT, 1)
    assert (found["rank"], found["mixtures"]) == (8, 0)
    many = (*[3] * 21, *[35] * 23)
    found = TableMLP.for_preset("nano", many, 34)
    assert (found["rank"], found["mixtures"]) == (4, 3)
    assert widest(many, 34, 8, 0) < widest(many, 34, 4, 0) < found["width"] == widest(many, 34, 4, 3)


def test_numbers_that_are_drawn_together_are_passed_again():
    for numbers, groups, passes in ((0, None, 1), (1, None, 1), (2, None, 3), (0, {"shares": 3}, 3)):
        assert TableMLP.for_preset("nano", ADULT, numbers, groups)["passes"] == passes


def widest(sizes, numbers, rank, mixtures):
    parts = {"depth": 2, "rank": rank, "mixtures": mixtures, "directions": count_directions(numbers, PRESETS["nano"])}
    fits = [w for w in range(8, 200, 8) if count_parameters(sizes, numbers, width=w, hidden=w, **parts) <= 64_000]
    return max(fits)


def test_starts_at_the_marginals_and_at_rest():
    marginals = torch.randn(sum(ADULT))
    network = TableMLP(ADULT, 1, width=16, hidden=16, depth=1, passes=2, rank=4, marginals=marginals)
    out = network(*state(ADULT, 1, 3))
    assert torch.equal(out["classes"], marginals.expand(3, -1))
    assert torch.equal(out["numbers"], torch.zeros(3, 1))


def test_class_table_is_the_direct_rows_and_the_products_in_column_order():
    sizes, rank = (5, 2, 7, 3), 3
    table = ClassTable(sizes, 4, rank)
    rows = table()
    large, code, small = 0, 0, 0
    expected = []
    for size in sizes:
        if size > rank:
            expected.append(table.codes[code : code + size] @ table.bases[large])
            large, code = large + 1, code + size
        else:
            expected.append(table.direct[small : small + size])
            small += size
    # sums of three products of numbers of order 1, in another order: a few float32 roundings
    torch.testing.assert_close(rows, torch.cat(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(5, 2, 7, 3), (2, 3), (5, 9, 4)])
def test_scores_are_products_with_the_vectors_of_all_classes_but_the_last(sizes):
    table = ClassTable(sizes, 4, 3)
    asked, bias = torch.randn(6, 4), torch.randn(sum(sizes) - len(sizes))
    own = torch.cat([rows[:-1] for rows in table().split(sizes)])
    torch.testing.assert_close(table.scores(asked, bias), asked @ own.T + bias, atol=1e-5, rtol=1e-5)


def test_scores_in_drawing_are_those_of_training():
    torch.manual_seed(0)
    network = TableMLP(ADULT, 2, width=16, hidden=16, depth=1, passes=2, rank=4)
    torch.nn.init.normal_(network.asked.weight)
    x, t = state(ADULT, 2, 50)
    trained = network(x, t)["classes"]
    with torch.no_grad():
        drawn = network(x, t)["classes"]
    shown = ((x["classes"] == network.masks) | (t["classes"] > 0)).any(1)
    assert bool(shown.any())
    torch.testing.assert_close(drawn[shown], trained[shown], atol=1e-4, rtol=1e-4)


def test_sums_of_rows_have_the_derivatives_of_a_sum_of_rows():
    """Of the first and the second order, rows taken often, once and never."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.randint(8, (20, 4), generator=generator)
    torch.testing.assert_close(RowSums.apply(table, index), table[index].sum(1))
    assert torch.autograd.gradcheck(lambda rows: RowSums.apply(rows, index), table)
    assert torch.autograd.gradgradcheck(lambda rows: RowSums.apply(rows, index) ** 2, table)


def test_classes_enter_and_are_scored_by_one_table():
    """Linear in the one-hot classes on both sides: the mask has a vector too, and no score."""
    sizes = (4, 9)
    torch.manual_seed(0)
    network = TableMLP(sizes, 0, width=8, hidden=8, depth=0, passes=1, rank=2)
    assert network.asked is not None
    torch.nn.init.normal_(network.asked.weight)
    x, t = state(sizes, 0, 6)
    hot = torch.cat([torch.nn.functional.one_hot(x["classes"][:, d], n + 1) for d, n in enumerate(sizes)], 1)
    table = network.table()
    h = torch.nn.functional.layer_norm(hot.float() @ table + network.bias, (8,))
    expected = (h @ network.asked.weight.T @ table.T)[:, [0, 1, 2, 3, *range(5, 14)]] * 2 / 8
    # two sums of order 10 each: float32 roundings
    torch.testing.assert_close(network(x, t)["classes"], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 30])
@pytest.mark.parametrize("width", [64, 512])
def test_a_first_step_moves_scores_as_far_at_any_size(columns, width):
    """Adam's first step is lr in every entry of ``asked``, towards V h' where V = sum v of one class a column: of these
    a score moves by lr D/width sum |V| sum |h| / D in the mean, where V and h have entries of variance 1: by
    lr width 2/pi, as score vectors of their own would by lr sum |h|, give or take what the entries of one draw are: a
    sum of them varies by .76/sqrt(width) of itself, of which five are allowed. A scale of sqrt(D) is .82 too small."""
    torch.manual_seed(0)
    network = TableMLP((2,) * columns, 0, width=width, hidden=8, depth=0, passes=1, rank=3)
    x, t = {"classes": torch.full((1, columns), 2)}, {"classes": torch.ones(1, columns)}
    network(x, t)["classes"][0, ::2].sum().backward()
    before = network(x, t)["classes"][0, ::2].mean().item()
    assert network.asked is not None
    with torch.no_grad():
        network.asked.weight.add_(1e-3 * network.asked.weight.grad.sign())
    moved = network(x, t)["classes"][0, ::2].mean().item() - before
    assert moved == pytest.approx(1e-3 * width * 2 / math.pi, rel=5 * 0.76 / width**0.5)


def test_blocks_are_passed_again():
    torch.manual_seed(0)
    twice = TableMLP((), 2, width=8, hidden=8, depth=1, passes=2, rank=2)
    torch.nn.init.normal_(twice.blocks[0].down.weight)
    h = torch.randn(3, 8)
    expected = torch.nn.functional.layer_norm(twice.blocks[0](twice.blocks[0](h)), (8,))
    assert torch.equal(twice.passed(h), expected)


@pytest.mark.parametrize("mixtures", [0, 2])
def test_a_number_enters_by_its_own_features(mixtures):
    """A change of one number moves what enters as far whatever the others are."""
    torch.manual_seed(0)
    enter = NumbersIn(3, 8, mixtures).double()
    x, t = torch.randn(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    changed = torch.stack([x[:, 0], x[:, 1] + 0.5, x[:, 2]], 1)
    other = torch.stack([x[:, 0] - 1, x[:, 1], x[:, 2] + 1], 1)
    both = torch.stack([other[:, 0], changed[:, 1], other[:, 2]], 1)
    here, there = enter(changed, t)[0] - enter(x, t)[0], enter(both, t)[0] - enter(other, t)[0]
    assert here.abs().min() > 0
    torch.testing.assert_close(here, there, rtol=0, atol=1e-12)
    torch.testing.assert_close(enter(x, t)[1], torch.cos(math.pi / 2 * t), rtol=0, atol=1e-7)


def test_a_table_too_wide_says_what_to_do():
    with pytest.raises(DiffuseError, match=r"preset 'nano' has at most 64,000 parameters.*larger preset"):
        TableMLP.for_preset("nano", (1000,) * 64, 0)
    with pytest.raises(DiffuseError, match="expected one of nano, small, base, got 'huge'"):
        TableMLP.for_preset("huge", (2,), 0)


def test_registered_as_a_backbone():
    assert get_component("backbone", "table-mlp") is TableMLP


@pytest.mark.parametrize("t", [0.02, 0.4, 0.95])
def test_directions_have_unit_size_at_every_time(t):
    """Where the clocks agree, x along the directions has covariance 1: D Q'(alpha^2 C + sigma^2) Q D. And v along one,
    given x, has the variance of x0 given x over sigma^2, l/(alpha^2 l + sigma^2). In float32: some 1e-5."""
    root = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = root @ root.T / 5 + 0.05 * torch.eye(5)
    directions = Directions(5, 5, covariance)
    alpha, sigma = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
    of_x = alpha**2 * covariance + sigma**2 * torch.eye(5)
    x = torch.linalg.cholesky(of_x).T.float()  # rows whose products sum to the covariance
    along, size = directions(x, torch.full((5, 5), alpha))
    torch.testing.assert_close(along.T @ along, torch.eye(5), rtol=0, atol=1e-4)
    of_x0 = covariance - alpha**2 * covariance @ torch.linalg.inv(of_x) @ covariance
    left = directions.back(torch.diag(size[0])).double()  # rows: what unit outputs become
    torch.testing.assert_close(left.T @ left, of_x0 / sigma**2, rtol=1e-3, atol=1e-4)


def test_directions_kept_are_the_sharpest_and_survive_saving():
    covariance = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 1.0]])
    kept = Directions(3, 1, covariance)
    assert float(kept.variance) == pytest.approx(0.01, rel=1e-4)
    assert kept.directions[:, 0].abs().tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0], abs=1e-6)
    again = Directions(3, 1, None)
    again.load_state_dict(kept.state_dict())
    assert torch.equal(again.directions, kept.directions)
    assert not any(p.requires_grad for p in again.parameters())
    assert [count_directions(n, 64_000) for n in (0, 1, 2, 40, 400)] == [0, 0, 2, 40, 16]


def test_only_rows_with_a_masked_class_are_scored():
    sizes, numbers = (3, 40, 2), 2
    torch.manual_seed(0)
    model = TableMLP(sizes, numbers, **TableMLP.for_preset("nano", sizes, numbers)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    masks = torch.tensor(sizes)
    classes = torch.stack([torch.randint(0, size, (6,)) for size in sizes], 1)
    some, others = torch.tensor([1, 3, 4]), torch.tensor([0, 2, 5])
    t = {"classes": torch.zeros(6, 3), "numbers": torch.rand(6, numbers)}
    classes[some[:2], torch.tensor([2, 0])] = masks[torch.tensor([2, 0])]
    t["classes"][4, 1] = 0.2  # was not masked, and might have been
    x = {"classes": classes, "numbers": torch.randn(6, numbers)}

    def pick(rows):
        return {n: v[rows] for n, v in x.items()}, {n: v[rows] for n, v in t.items()}

    found, alone = model(x, t), model(*pick(some))
    for name, out in found.items():
        torch.testing.assert_close(out[some], alone[name], atol=1e-5, rtol=1e-5)
    assert found["classes"][some].abs().min() > 0
    assert not found["classes"][others].any()
    with torch.no_grad():  # all or none: a row does not depend on how many others are asked for
        drawn, clean = model(x, t), model(*pick(others))
        assert drawn["classes"].abs().min() > 0
        whole = model(x, {**t, "classes": torch.ones(6, 3)})
    assert torch.equal(drawn["classes"], whole["classes"])
    torch.testing.assert_close(drawn["classes"][some], alone["classes"], atol=1e-5, rtol=1e-5)
    assert clean["classes"].shape == (3, sum(sizes))
    assert not clean["classes"].any()
    torch.testing.assert_close(clean["numbers"], found["numbers"][others], atol=1e-5, rtol=1e-5)


def test_a_spike_enters_as_the_value_that_its_gate_says():
    """Number 0 has the gate 1, whose class 1 says a score of .7 (class 0: the number is there, class 2: missing), and
    number 1 has none. What lies behind the gate then changes nothing but its own velocity, which is linear in it.
    """
    torch.manual_seed(0)
    levels = torch.tensor([[math.nan, 0.7, math.nan], [math.nan] * 3])
    sizes = {"width": 16, "hidden": 16, "depth": 1, "passes": 2, "rank": 4, "directions": 2}
    network, plain = TableMLP([4, 3], 2, **sizes, spikes=((1, -1), levels)), TableMLP([4, 3], 2, **sizes)
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    classes = torch.tensor([[0, 1], [0, 0], [0, 2], [0, 3]])  # the last is masked
    t = {"classes": torch.zeros(4, 2), "numbers": torch.full((4, 2), 0.4)}
    x = torch.randn(1, 2).expand(4, 2).contiguous()
    with torch.no_grad():
        one = network({"classes": classes, "numbers": x}, t)["numbers"]
        two = network({"classes": classes, "numbers": x + torch.tensor([5.0, 0.0])}, t)["numbers"]
        assert bool(one.isfinite().all())
        assert ((one - two).abs()[:, 1] > 1e-6).tolist() == [False, True, True, True]
        known = {"classes": t["classes"], "numbers": torch.tensor([[0.0, 0.4]]).expand(4, 2).contiguous()}
        plain.load_state_dict(network.state_dict())
        at = torch.cat([torch.full((4, 1), 0.7), x[:, 1:]], 1)
        other = plain({"classes": classes, "numbers": at}, known)["numbers"]
    assert torch.allclose(one[0, 1], other[0, 1], atol=1e-6)
    assert network.settings["spiked"]
    assert "spiked" not in plain.settings
