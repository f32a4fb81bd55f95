"""Emoji: 1,911 named pictures of 32×32 pixels, out of the npm package ``emoji-datasource-google``.

Nothing of it is shipped. ``npm pack emoji-datasource-google@16.0.0`` fetches it (74 MB), ``tar xzf`` unpacks it into
the directory ``package``; of that, ``emoji.json`` and ``img/google/64/*.png`` are read. The pictures are Google's Noto
Emoji, Apache 2 licence.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import Captioner
from de_plugins.text_image.data.images import read_image, to_unit

__all__ = ["SIDE", "EmojiSet", "EmojiSource", "load_emoji"]

SIDE = 32


@attrs.frozen(eq=False)
class EmojiSet:
    """Emoji by name.

    Attributes:
        pictures: (m, 3, 32, 32) uint8 on white: each emoji's own, followed by its other skin tones.
        first: (n,) int64, where an emoji's pictures begin.
        count: (n,) int64, how many pictures an emoji has, >= 1.
        names: n of them, in lower case, all different.
        categories: n of them, in lower case.
    """

    pictures: Tensor
    first: Tensor
    count: Tensor
    names: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def captions(self) -> list[str]:
        """The name and the category: "red apple, food & drink"."""
        return [f"{name}, {category}" for name, category in zip(self.names, self.categories, strict=True)]

    @property
    def own(self) -> Tensor:
        """Each emoji's own picture, (n, 3, 32, 32) uint8."""
        return self.pictures[self.first]


class EmojiSource:
    """Emoji to train on: "image" (B, 3, 32, 32) float32 in [-1, 1], its skin tone drawn among those that there are,
    and "caption" (B, length) int64."""

    def __init__(self, emoji: EmojiSet, captioner: Captioner) -> None:
        self.emoji = emoji
        self.tokens = captioner.encode(emoji.captions).tokens

    def __len__(self) -> int:
        return len(self.emoji)

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The rows of these numbers, (B,) int64."""
        tone = (torch.rand(len(index), generator=rng, dtype=torch.float64) * self.emoji.count[index]).long()
        return {"image": to_unit(self.emoji.pictures[self.emoji.first[index] + tone]), "caption": self.tokens[index]}


def load_emoji(path: str | os.PathLike[str]) -> EmojiSet:
    """The emoji of an unpacked ``emoji-datasource-google``, in the order of their keyboards.

    Raises:
        DiffuseError: the directory is no such package, or a picture is missing or damaged.
    """
    path = Path(path)
    table, folder = path / "emoji.json", path / "img" / "google" / "64"
    if not table.is_file() or not folder.is_dir():
        raise DiffuseError(
            f"emoji {path}: expected an unpacked emoji-datasource-google, with emoji.json and img/google/64"
        )
    try:
        entries = json.loads(table.read_text(encoding="utf-8"))
        entries = sorted((e for e in entries if e["has_img_google"]), key=lambda e: e["sort_order"])
        names = _names(entries)
        categories = tuple(entry["category"].lower() for entry in entries)
        files = [_files(entry) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiffuseError(f"emoji {table}: not the list of emoji-datasource-google ({error!r})") from error
    if not files:
        raise DiffuseError(f"emoji {table}: expected emoji, it lists none with a picture")
    pictures = [read_image(folder / file, SIDE) for own in files for file in own]
    count = torch.tensor([len(own) for own in files])
    return EmojiSet(torch.stack(pictures), count.cumsum(0) - count, count, names, categories)


def _names(entries: list[dict[str, Any]]) -> tuple[str, ...]:
    names = Counter(entry["name"].lower() for entry in entries)
    short = [entry["short_name"].replace("_", " ") for entry in entries]  # tells apart what is named the same
    long = [entry["name"].lower() for entry in entries]
    return tuple(name if names[name] == 1 else other for name, other in zip(long, short, strict=True))


def _files(entry: dict[str, Any]) -> list[str]:
    tones = entry.get("skin_variations", {}).values()
    return [entry["image"], *(tone["image"] for tone in tones if tone["has_img_google"])]
