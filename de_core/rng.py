"""Random streams. Nothing in the framework reads or moves the global seed.

A function that draws takes ``rng``: a ``torch.Generator`` or an int seed. Long work is cut into blocks, and block k
draws from its own stream, a function of (seed, k) alone, so that row i depends on the seed and not on how many rows,
chunks or processes there are.
"""

from __future__ import annotations

import hashlib
from numbers import Integral

import torch

from de_core.errors import DiffuseError

__all__ = ["Rng", "as_generator", "fork", "seed_of", "stream"]

Rng = torch.Generator | int


def as_generator(rng: Rng, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator that ``rng`` stands for, on ``device``.

    A generator on that device is returned as it is, and the caller's draws move it. A generator on another device
    seeds a new one with one draw of its own. An int seeds a new one.

    Raises:
        DiffuseError: ``rng`` is neither a generator nor an int.
    """
    device = torch.device(device)
    if isinstance(rng, torch.Generator) and rng.device.type == device.type:
        return rng
    return torch.Generator(device=device).manual_seed(seed_of(rng))


def seed_of(rng: Rng) -> int:
    """A seed in [0, 2^63): the int itself (modulo 2^63), or one draw from the generator, which moves it."""
    if isinstance(rng, torch.Generator):
        high = 2**63 - 1
        return int(torch.randint(high, (), generator=rng, device=rng.device))
    if isinstance(rng, bool) or not isinstance(rng, Integral):
        raise DiffuseError(f"rng: expected a torch.Generator or an int seed, got {type(rng).__name__}")
    return int(rng) % 2**63


def fork(generator: torch.Generator) -> torch.Generator:
    """A generator of its own for one call that uses up a varying amount of randomness, seeded by one draw.

    Rejection samplers (gamma, binomial) and draws for a subset of rows move a generator by what the values are.
    Given one of their own, what later rows hold cannot move what this row draws next: row i stays a function of
    the seed alone.
    """
    return torch.Generator(device=generator.device).manual_seed(seed_of(generator))


def stream(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one block: seeded by a hash of (seed, path), so that streams do not overlap.

    Args:
        seed: of the whole work.
        path: names the block, e.g. ``stream(seed, "sample", 3)``.
        device: of the generator.
    """
    text = repr((int(seed), *path)).encode()
    word = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % 2**63
    return torch.Generator(device=torch.device(device)).manual_seed(word)
