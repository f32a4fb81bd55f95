"""Captions as tokens of a fixed length, by a tokenizer that is trained here or read from a ``tokenizer.json``."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["END", "UNKNOWN", "Captioner", "Encoded", "needs"]

END = "[END]"
UNKNOWN = "[UNK]"
_ENDS = (END, "<|endoftext|>", "</s>", "<eos>", "[SEP]", "<pad>", "[PAD]")  # what an end is called, first one wins


@attrs.frozen
class Encoded:
    """Captions as tokens, (n, length) int64, and how many of them were cut to that length."""

    tokens: Tensor
    truncated: int


@attrs.frozen(eq=False)
class Captioner:
    """A tokenizer with a context of ``length`` tokens; the rest of a shorter caption is filled with its end token.

    A caption of more tokens is cut with ``overflow="truncate"`` and refused with "refuse". One with a letter that
    the tokenizer does not know is refused, and so is one without words unless ``empty``. Blanks in a row count as
    one, and special tokens written out in a caption are ordinary text.

    Attributes:
        tokenizer: of the library ``tokenizers``; it must have an end token ([END], <|endoftext|>, </s>, ...) and
            either an unknown token or the whole byte alphabet, since it would drop letters in silence otherwise.
        length: of the context, >= 1.
        overflow: "truncate" or "refuse".
        empty: whether a caption without words is one.
        end: id of the end token; set here.
        unknown: id of the unknown token, None where every byte is known; set here.

    Raises:
        DiffuseError: one of these is not so.

    Source: byte pair encoding, Sennrich et al. 2016 (arXiv 1508.07909).
    """

    tokenizer: Tokenizer
    length: int
    overflow: str = "truncate"
    empty: bool = False
    end: int = attrs.field(init=False)
    unknown: int | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.length < 1:
            raise DiffuseError(f"captions: expected a length of at least 1 token, got {self.length}")
        if self.overflow not in ("truncate", "refuse"):
            raise DiffuseError(f"captions: expected overflow 'truncate' or 'refuse', got {self.overflow!r}")
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # "[END]" in a caption is text
        ends = [self.tokenizer.token_to_id(name) for name in _ENDS]
        end = next((i for i in ends if i is not None), None)
        if end is None:
            raise DiffuseError(f"tokenizer: expected an end token, one of {', '.join(_ENDS)}, there is none")
        object.__setattr__(self, "end", end)
        object.__setattr__(self, "unknown", _unknown(self.tokenizer))

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        *,
        vocabulary: int,
        length: int,
        overflow: str = "truncate",
        empty: bool = False,
    ) -> Captioner:
        """A byte pair encoding learned from captions, the same one for the same captions.

        Args:
            captions: to learn from.
            vocabulary: tokens at most, the end and the unknown token among them, >= 3. Where the captions have more
                letters than that, the rarest are unknown.
            length, overflow, empty: as in the class.

        Raises:
            DiffuseError: no caption holds a word, or an argument out of range.
        """
        needs("tokenizers")
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        if vocabulary < 3:
            raise DiffuseError(f"captions: expected a vocabulary of at least 3 tokens, got {vocabulary}")
        lines = [line for line in map(_plain, captions) if line and _is_text(line)]
        if not lines:
            raise DiffuseError("captions: expected at least one with words to train a tokenizer on, there is none")
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # a word begins with the blank before it
        tokenizer.decoder = decoders.Metaspace()
        letters: Counter[str] = Counter()
        for line in lines:
            letters.update("▁" + normalizers.NFC().normalize_str(line).replace(" ", "▁"))
        ranked = sorted(letters, key=lambda letter: (-letters[letter], letter))
        alphabet = ranked[: vocabulary - 2]  # settled here: the library breaks ties at random
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[END, UNKNOWN],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer, length, overflow, empty)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, length: int, overflow: str = "truncate", empty: bool = False
    ) -> Captioner:
        """The tokenizer of a ``tokenizer.json``, as this class and the Hugging Face hub have them.

        Raises:
            DiffuseError: no such file, it is no tokenizer, or it lacks what the class asks for.
        """
        needs("tokenizers")
        from tokenizers import Tokenizer

        path = Path(path)
        if not path.is_file():
            raise DiffuseError(f"tokenizer {path}: expected a tokenizer.json, there is no such file")
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise DiffuseError(
                f"tokenizer {path}: expected a tokenizer.json of the library tokenizers ({error})"
            ) from None
        return cls(tokenizer, length, overflow, empty)

    @property
    def vocabulary(self) -> int:
        """The number of classes: one above the largest id."""
        return max(self.tokenizer.get_vocab().values()) + 1

    def text(self) -> str:
        """The content of the ``tokenizer.json``."""
        return self.tokenizer.to_str(pretty=True) + "\n"

    def row(self, caption: str) -> tuple[list[int], bool]:
        """The ``length`` tokens of one caption, and whether it was cut.

        Raises:
            DiffuseError: it is refused; the sentence says why.
        """
        plain = _plain(caption)
        if not _is_text(plain):
            raise DiffuseError(f"caption {_short(plain)}: expected text, it holds half of a surrogate pair")
        if not plain and not self.empty:
            raise DiffuseError("caption: expected words, it is empty")
        found = self.tokenizer.encode(plain, add_special_tokens=False)
        ids = found.ids
        if self.unknown is not None and self.unknown in ids:
            begin, stop = found.offsets[ids.index(self.unknown)]
            raise DiffuseError(f"caption {_short(plain)}: {plain[begin:stop]!r} is not in the tokenizer's vocabulary")
        if len(ids) > self.length and self.overflow == "refuse":
            raise DiffuseError(f"caption {_short(plain)}: expected at most {self.length} tokens, got {len(ids)}")
        cut = len(ids) > self.length
        return (ids + [self.end] * (self.length - len(ids)))[: self.length], cut

    def encode(self, captions: Sequence[str]) -> Encoded:
        """Captions as tokens.

        Raises:
            DiffuseError: one of them is refused; the sentence says why.
        """
        rows = [self.row(caption) for caption in captions]
        tokens = torch.tensor([ids for ids, _ in rows], dtype=torch.int64).reshape(len(rows), self.length)
        return Encoded(tokens, sum(cut for _, cut in rows))

    def decode(self, tokens: Tensor) -> list[str]:
        """Tokens (n, any length) of integers in [0, vocabulary) as captions, each up to its first end token.

        Raises:
            DiffuseError: another shape, or a token out of range.
        """
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise DiffuseError(f"captions: expected integers (n, length), got {tokens.dtype} {tuple(tokens.shape)}")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
            span = f"{int(tokens.min())} to {int(tokens.max())}"
            raise DiffuseError(f"captions: expected tokens in [0, {self.vocabulary}), got {span}")
        rows = [ids[: ids.index(self.end)] if self.end in ids else ids for ids in tokens.tolist()]
        return [text.strip() for text in self.tokenizer.decode_batch(rows, skip_special_tokens=False)]


def needs(library: str) -> None:
    """Raise one sentence where ``library`` is not installed."""
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise DiffuseError(f'this needs {library}: pip install "diffuse-everything[text-image]"')


def _plain(caption: str) -> str:
    return " ".join(caption.split())


def _is_text(caption: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in caption)


def _short(caption: str) -> str:
    return repr(caption if len(caption) <= 40 else caption[:37] + "...")


def _unknown(tokenizer: Tokenizer) -> int | None:
    """The id that stands for what the vocabulary lacks; None if it lacks nothing."""
    from tokenizers import pre_tokenizers

    model = json.loads(tokenizer.to_str())["model"]
    name = model.get("unk_token")
    number = model.get("unk_id") if name is None else tokenizer.token_to_id(name)
    if number is None and not set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab()):
        raise DiffuseError("tokenizer: expected an unknown token or the whole byte alphabet, it has neither")
    return number
