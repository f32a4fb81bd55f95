"""Streams: seeds, generators, blocks and forks; the global seed is never touched."""

import pytest
import torch

from de_core import DiffuseError
from de_core.rng import as_generator, fork, seed_of, stream


def draws(generator, n=4):
    return torch.rand(n, generator=generator).tolist()


def test_an_int_and_its_generator_are_one_seed():
    assert draws(as_generator(7)) == draws(torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    assert as_generator(generator) is generator
    assert seed_of(2**63 + 5) == 5
    assert seed_of(-1) == 2**63 - 1
    first, second = seed_of(generator), seed_of(generator)
    assert first != second  # a generator gives its next draw


@pytest.mark.parametrize("wrong", [1.0, "1", None, True])
def test_nothing_else_is_a_seed(wrong):
    with pytest.raises(DiffuseError, match=r"expected a torch\.Generator or an int seed"):
        seed_of(wrong)


def test_streams_are_functions_of_seed_and_path_and_differ():
    paths = [(0,), (1,), (0, 0), (0, "sample", 0), (0, "sample", 1), (0, "bound", 0), (10,), (1, 0)]
    starts = [tuple(draws(stream(*path))) for path in paths]
    assert len(set(starts)) == len(paths)
    assert starts == [tuple(draws(stream(*path))) for path in paths]


def test_a_fork_moves_its_parent_by_one_draw_however_much_is_drawn_from_it():
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    little, much = fork(a), fork(b)
    draws(little, 1)
    draws(much, 1000)
    assert draws(a) == draws(b)
    assert draws(fork(a)) != draws(fork(a))


def test_the_global_seed_is_left_alone():
    before = torch.get_rng_state()
    draws(stream(0, "x"))
    seed_of(as_generator(5))
    fork(as_generator(5))
    assert torch.equal(before, torch.get_rng_state())
