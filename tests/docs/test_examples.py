"""The examples of composition do what they say: in a short setting here, in their own behind `make test-slow`."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from de_core.plugins import list_modalities

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def composed(steps, n, worst):
    """Wherever draws that ignore the condition lie .2 off the truth, the model is much closer; ``worst``: nowhere is it
    further off than this."""
    if "torus" not in {info.name for info in list_modalities()}:
        pytest.skip("no plugin 'torus' is installed")
    example = load("compose")
    joint, model = example.train(steps)
    told = 0
    for query, found in example.agreement(joint, model, n).items():
        for name, (mine, blind) in found.items():
            assert mine < worst, (query, name)
            if blind > 0.2:
                told += 1
                assert mine < blind / 2, (query, name)
    assert told >= 8


def test_four_state_spaces_and_a_network_of_ones_own():
    """400 steps of 2,500; exact draws of 1,000 rows stay below .052 in 99 of 100."""
    composed(400, 1000, 0.15)


@pytest.mark.slow
def test_four_state_spaces_at_full_length():
    composed(2500, 4000, 0.06)


def test_the_network_has_less_than_forty_lines():
    source = (EXAMPLES / "compose.py").read_text()
    body = source[source.index("class Network") : source.index("def train(")]
    assert len([line for line in body.splitlines() if line.strip()]) < 40


def columns(steps, n):
    """Over all queries, the mean distance with a clock a column is below that of one shared clock, and near chance."""
    example = load("elementwise")
    model = example.train(steps)
    means = []
    for joint in (example.JOINT, example.SHARED):
        found = example.agreement(joint, model, n)
        values = [value for given, row in found.items() if given[0] < 3 for value in row.values()]
        means.append(sum(values) / len(values))
    return means


def test_every_column_given_any():
    """500 steps of 2,500, 500 rows: exact draws lie .039 off on average (.87/sqrt(n))."""
    own, shared = columns(500, 500)
    assert own < 0.06
    assert own < shared


@pytest.mark.slow
def test_every_column_given_any_at_full_length():
    own, shared = columns(2500, 2000)
    assert own < 0.03
    assert own < 0.8 * shared


def compared(seeds, steps, rows):
    """Way -> measure -> mean over the seeds; the three networks are of one size within three percent."""
    example = load("native_vs_forced")
    sizes = [example.parameters(way) for way in ("native", "one-hot", "embedded")]
    assert max(sizes) < 1.03 * min(sizes)
    mean = {}
    for way in ("native", "one-hot", "exact"):
        runs = [example.run(way, seed, steps, rows) for seed in seeds]
        mean[way] = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
    return mean


def test_native_against_forced():
    """300 steps of 2,000 tell the ways from the truth, not from each other."""
    mean = compared([0], 300, 500)
    for way in ("native", "one-hot"):
        assert mean["exact"]["classes"] < mean[way]["classes"] < 0.5
        assert mean["exact"]["classes | numbers"] < mean[way]["classes | numbers"] < 0.7


@pytest.mark.slow
def test_native_against_forced_at_full_length():
    mean = compared(range(3), 2000, 2000)
    assert mean["exact"]["classes"] < mean["native"]["classes"] < mean["one-hot"]["classes"]
