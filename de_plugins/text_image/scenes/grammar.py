"""Captions of scenes: written from a scene, read back into what they claim."""

from __future__ import annotations

import re

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.text_image.digits.captions import DIGITS
from de_plugins.text_image.scenes.world import COLOURS, Scenes

__all__ = ["LENGTH", "PAD", "VOCABULARY", "Claim", "agrees", "decode", "encode", "read", "write"]

PAD = "<pad>"
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
PLACES = tuple(" ".join(word for word in (row, column) if word) or "centre" for row in _ROWS for column in _COLUMNS)
RELATIONS = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
_GRAMMAR = "a at the is and picture shows to of above below top bottom left right centre"
VOCABULARY = (PAD, *_GRAMMAR.split(), *COLOURS, *DIGITS)
LENGTH = 16
_INDEX = {word: index for index, word in enumerate(VOCABULARY)}

_ONE = ("{0} at the {p0}", "at the {p0} is {0}", "the picture shows {0} at the {p0}")
_TWO = ("{0} at the {p0} and {1} at the {p1}",)
_RELATED = ("{0} {r} {1}", "{r} {1} is {0}")


@attrs.frozen
class Claim:
    """What a caption says.

    Attributes:
        objects: (digit, colour, cell) of each; the cell is -1 where only a relation is told.
        relation: (row, column) in {-1, 0, 1}: where the first stands, seen from the second; None where it is not told.
    """

    objects: tuple[tuple[int, int, int], ...]
    relation: tuple[int, int] | None = None


def write(scenes: Scenes, *, rng: Rng) -> list[str]:
    """One sentence a scene: one of three for one object; for two, both places, or how one stands to the other."""
    draw = as_generator(rng, "cpu")
    coins = torch.rand(len(scenes), 3, generator=draw).tolist()
    out = []
    for row, (kind, which, turn) in enumerate(coins):
        things = [
            (f"a {COLOURS[c]} {DIGITS[d]}", cell)
            for d, c, cell in zip(
                scenes.digit[row].tolist(), scenes.colour[row].tolist(), scenes.cell[row].tolist(), strict=True
            )
            if d >= 0
        ]
        if len(things) == 1:
            (text, cell), template = things[0], _ONE[int(which * len(_ONE))]
            out.append(template.format(text, p0=PLACES[cell]))
            continue
        if turn < 0.5:
            things.reverse()
        (first, here), (second, there) = things
        held = [name for name, step in RELATIONS.items() if _stands(here, there, step)]
        if kind < 0.5:
            out.append(_TWO[0].format(first, second, p0=PLACES[here], p1=PLACES[there]))
        else:
            name = held[int(turn * 997) % len(held)]
            out.append(_RELATED[int(which * len(_RELATED))].format(first, second, r=name))
    return out


def _stands(here: int, there: int, step: tuple[int, int]) -> bool:
    """Whether cell ``here`` lies in the direction ``step`` of cell ``there``."""
    row, column = here // 3 - there // 3, here % 3 - there % 3
    return (row * step[0] > 0) if step[0] else (column * step[1] > 0)


def encode(texts: list[str]) -> Tensor:
    """(n, 16) int64, padded.

    Raises:
        DiffuseError: an unknown word, or more than 16.
    """
    out = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in enumerate(texts):
        words = text.split()
        if not words:
            raise DiffuseError(f"caption {row}: expected words, got none")
        if unknown := [word for word in words if word not in _INDEX]:
            raise DiffuseError(
                f"caption {row}: the word {unknown[0]!r} of {text!r} is not among {', '.join(VOCABULARY)}"
            )
        if len(words) > LENGTH:
            raise DiffuseError(f"caption {row}: expected at most {LENGTH} words, got {len(words)} in {text!r}")
        out[row, : len(words)] = torch.tensor([_INDEX[word] for word in words])
    return out


def decode(tokens: Tensor) -> list[str]:
    """The words of each row, with nothing for the padding behind them."""
    return [re.sub(rf"( ?{PAD})+$", "", " ".join(VOCABULARY[t] for t in row)) for row in tokens.tolist()]


_THING = rf"a ({'|'.join(COLOURS)}) ({'|'.join(DIGITS)})"
_PLACE = "(" + "|".join(sorted(PLACES, key=len, reverse=True)) + ")"
_RELATION = "(" + "|".join(RELATIONS) + ")"
_PATTERNS = tuple(
    re.compile(template.format(_THING, _THING, p0=_PLACE, p1=_PLACE, r=_RELATION))
    for template in (*_ONE, *_TWO, *_RELATED)
)


def read(text: str) -> Claim | None:
    """What a caption says; None where it is no sentence of the grammar."""
    for number, pattern in enumerate(_PATTERNS):
        found = pattern.fullmatch(text)
        if found is None:
            continue
        words = list(found.groups())
        if number == 1:  # the place is told first
            words = [*words[1:], words[0]]
        if number < len(_ONE):
            return Claim((_thing(words[0], words[1], words[2]),))
        if number < len(_ONE) + len(_TWO):
            return Claim((_thing(*words[:3]), _thing(*words[3:])))
        if number == len(_ONE) + len(_TWO):
            first, relation, second = words[:2], words[2], words[3:]
        else:
            relation, second, first = words[0], words[1:3], words[3:]
        return Claim((_thing(*first), _thing(*second)), RELATIONS[relation])
    return None


def _thing(colour: str, digit: str, place: str | None = None) -> tuple[int, int, int]:
    return DIGITS.index(digit), COLOURS.index(colour), -1 if place is None else PLACES.index(place)


def agrees(claim: Claim | None, objects: set[tuple[int, int, int]]) -> bool:
    """Whether the objects seen are the ones that the caption tells of, no more and no fewer, where it puts them."""
    if claim is None or len(objects) != len(claim.objects):
        return False
    if claim.relation is None:
        return set(claim.objects) == objects
    first, second = claim.objects
    pairs = [(a, b) for a in objects for b in objects if a != b]
    return any(a[:2] == first[:2] and b[:2] == second[:2] and _stands(a[2], b[2], claim.relation) for a, b in pairs)
