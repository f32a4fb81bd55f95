"""Captions of the digits: a small grammar that states the digit and sometimes how bold its strokes are.

The vocabulary has 27 words; a caption has 1 to 6 of them, the rest is `<pad>`. Word order, article ("an
eight", but "a thin eight") and stroke word all have to be right for a caption to be a sentence, so that a
model of captions learns more than a label written ten ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.text_image.digits.data import pixels_of

__all__ = ["BLANK", "DIGITS", "LENGTH", "PAD", "STROKES", "VOCABULARY", "Captions"]

PAD = "<pad>"
BLANK = "_"  # how a masked word is shown
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "medium", "bold")
_OTHERS = (
    "a",
    "an",
    "the",
    "digit",
    "this",
    "is",
    "handwritten",
    ",",
    "drawn",
    "by",
    "hand",
    "in",
    "strokes",
)
VOCABULARY = (PAD, *DIGITS, *STROKES, *_OTHERS)
LENGTH = 6

# {d} digit, {s} stroke, {a} the article that the next word needs. "this is a one" reads well enough.
_TEMPLATES = (
    "{d}",
    "the digit {d}",
    "this is {a} {d}",
    "a handwritten {d}",
    "{d} , drawn by hand",
    "a {s} {d}",
    "this is a {s} {d}",
    "{d} , in {s} strokes",
    "the digit {d} in {s} strokes",
)
_INDEX = {word: index for index, word in enumerate(VOCABULARY)}
_FIRST_DIGIT, _FIRST_STROKE = _INDEX[DIGITS[0]], _INDEX[STROKES[0]]


def _encode(words: str) -> list[int]:
    parts = words.split()
    unknown = [part for part in parts if part not in _INDEX]
    if unknown:
        raise DiffuseError(f"caption: expected words of the vocabulary, got {unknown[0]!r} in {words!r}")
    if len(parts) > LENGTH:
        raise DiffuseError(f"caption: expected at most {LENGTH} words, got {len(parts)} in {words!r}")
    return [_INDEX[part] for part in parts] + [_INDEX[PAD]] * (LENGTH - len(parts))


def _write(template: str, digit: str, stroke: str) -> list[int]:
    return _encode(template.format(d=digit, s=stroke, a="an" if digit == "eight" else "a"))


_SENTENCES = torch.tensor([[[_write(t, d, s) for s in STROKES] for d in DIGITS] for t in _TEMPLATES])


def _only(tokens: Tensor, first: int, count: int) -> Tensor:
    """Which of the words first..first+count-1 a caption holds, counted from zero; -1 when none or several."""
    hit = (tokens >= first) & (tokens < first + count)
    return torch.where(hit.sum(-1) == 1, ((tokens - first) * hit).sum(-1), -1)


@attrs.frozen
class Captions:
    """The captions of one data set.

    Attributes:
        thin_below: mean pixel in [0, 16] below which strokes are called thin.
        bold_from: mean pixel in [0, 16] from which they are called bold; medium lies between.
    """

    thin_below: float
    bold_from: float

    @classmethod
    def fit(cls, images: Tensor) -> Captions:
        """Take the thresholds from training pictures, so that a third of them is thin, medium and bold each.

        Args:
            images: (n, 1, 8, 8) in [-1, 1].
        """
        low, high = pixels_of(images).mean((1, 2)).quantile(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
        return cls(float(low), float(high))

    def strokes(self, images: Tensor) -> Tensor:
        """How bold each picture of (n, 1, 8, 8) is by its mean pixel: (n,) int64 index into STROKES."""
        mean = pixels_of(images).mean((1, 2))
        return (mean >= self.thin_below).long() + (mean >= self.bold_from).long()

    def draw(self, labels: Tensor, images: Tensor | None = None, *, rng: Rng) -> Tensor:
        """Draw one true caption a row: a template at random, then the words for the digit and the stroke.

        Args:
            labels: (n,) int64, the digits 0..9 to state.
            images: (n, 1, 8, 8) in [-1, 1], whose strokes are described; None draws the stroke evenly too,
                for a caption that asks for a picture which is not there yet.
            rng: generator or seed.

        Returns:
            (n, 6) int64 indices into VOCABULARY.

        Raises:
            DiffuseError: a label is no digit, or there is not one picture a label.
        """
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(DIGITS):
            raise DiffuseError(f"labels: expected digits 0..9, got {int(labels.min())}..{int(labels.max())}")
        if images is not None and len(images) != len(labels):
            raise DiffuseError(f"images: expected one a label ({len(labels)}), got {len(images)}")
        generator = as_generator(rng, labels.device)
        drawn = (len(labels),)
        template = torch.randint(len(_TEMPLATES), drawn, generator=generator, device=labels.device)
        if images is None:
            stroke = torch.randint(len(STROKES), drawn, generator=generator, device=labels.device)
        else:
            stroke = self.strokes(images)
        return _SENTENCES.to(labels.device)[template, labels, stroke]

    @staticmethod
    def encode(words: str) -> Tensor:
        """Words separated by spaces to (6,) int64, padded; an unknown or a seventh word is a DiffuseError."""
        return torch.tensor(_encode(words))

    @staticmethod
    def decode(tokens: Tensor | Sequence[int]) -> str:
        """Tokens to words: padding is left out, the mask (index 27, one past the vocabulary) is shown as `_`.

        A masked word that the caption may not have is shown too, since nobody knows yet whether it is
        padding.
        """
        shown = (*VOCABULARY, BLANK)
        words = [shown[int(token)] for token in tokens]
        return " ".join(word for word in words if word != PAD)

    @staticmethod
    def parse(tokens: Tensor) -> Tensor:
        """The digit each caption of (..., 6) states: (...,) int64 0..9, -1 when none or several."""
        return _only(tokens, _FIRST_DIGIT, len(DIGITS))

    @staticmethod
    def parse_stroke(tokens: Tensor) -> Tensor:
        """The stroke that each caption of (..., 6) states: (...,) int64 index into STROKES, or -1."""
        return _only(tokens, _FIRST_STROKE, len(STROKES))

    @staticmethod
    def is_sentence(tokens: Tensor) -> Tensor:
        """Whether each caption of (n, 6) is, word for word, a sentence of the grammar: (n,) bool."""
        sentences = _SENTENCES.reshape(-1, LENGTH).to(tokens.device)
        return (tokens[:, None] == sentences).all(-1).any(-1)
