"""From pictures with captions to shards, in one pass that can be interrupted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import Captioner
from de_plugins.text_image.data.images import read_image
from de_plugins.text_image.data.latents import Latents
from de_plugins.text_image.data.shards import TOKENIZER, ShardWriter
from de_plugins.text_image.data.sources import Item, Pairs, open_pairs

__all__ = ["Recipe", "prepare"]


@attrs.frozen
class Recipe:
    """What to make of pictures and captions.

    Attributes:
        size: of a picture's side in pixels, >= 1.
        length: of a caption in tokens, >= 1.
        vocabulary: of the tokenizer to train, >= 3; unless there is a ``tokenizer``.
        tokenizer: a ``tokenizer.json`` to use.
        overflow: "truncate" or "refuse" a caption of more tokens.
        empty: whether a caption may be without words.
        vae: directory or hub name of the autoencoder whose latents to write in place of pixels, in float16.
        shard_rows: of a shard, >= 1.

    Raises:
        DiffuseError: an argument out of range.
    """

    size: int = 64
    length: int = 32
    vocabulary: int = 4096
    tokenizer: str | None = None
    overflow: str = "truncate"
    empty: bool = False
    vae: str | None = None
    shard_rows: int = 1024

    def __attrs_post_init__(self) -> None:
        for name, least in (("size", 1), ("length", 1), ("vocabulary", 3), ("shard_rows", 1)):
            if getattr(self, name) < least:
                what = name.replace("_", " ")
                raise DiffuseError(f"prepare: expected {what} of at least {least}, got {getattr(self, name)}")

    def settings(self, pairs: Pairs) -> dict[str, Any]:
        """What decides the content of the shards."""
        settings = attrs.asdict(self) | {"items": len(pairs), "source": pairs.fingerprint()}
        if self.tokenizer is not None:
            settings["tokenizer"] = hashlib.sha256(Path(self.tokenizer).read_bytes()).hexdigest()
            del settings["vocabulary"]
        return settings


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    report: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Write shards of the pictures and captions at ``source`` into the directory ``out``.

    An item that cannot be read, and a caption that is refused, is skipped, counted and listed with its reason. A run
    that was interrupted goes on after its last whole shard when it is started again with the same arguments.

    Args:
        source: a folder or a Parquet table (see ``open_pairs``).
        out: a new or empty directory, or that of an earlier run of the same recipe.
        recipe: what to make.
        report: gets a line a shard.

    Returns:
        The index, as ``index.json`` has it.

    Raises:
        DiffuseError: the source, the directory, the tokenizer or the autoencoder is not as it should be, or not one
            item could be used; then nothing is written.
    """
    out = Path(out)
    loaded = _captioner(Path(recipe.tokenizer), recipe) if recipe.tokenizer is not None else None
    pairs = open_pairs(source)
    writer = ShardWriter(out, recipe.settings(pairs))
    if writer.index["complete"]:
        report(f"{out} is complete already")
        return writer.index
    latents = Latents.load(recipe.vae, recipe.size) if recipe.vae is not None else None
    if writer.fresh:
        captioner = loaded or _trained(pairs, recipe)
        writer.begin(captioner.text(), captioner.vocabulary)
    else:
        report(f"going on after {len(writer.index['shards'])} shards")
        captioner = _captioner(out / TOKENIZER, recipe)
    _run(pairs, writer, captioner, latents, recipe, report)
    return writer.index


def _run(
    pairs: Pairs,
    writer: ShardWriter,
    captioner: Captioner,
    latents: Latents | None,
    recipe: Recipe,
    report: Callable[[str], object],
) -> None:
    read = writer.index["read"]
    rows: list[tuple[Tensor, list[int], bool]] = []
    skipped: list[tuple[str, str]] = []

    def flush() -> None:
        pixels = torch.stack([row[0] for row in rows])
        image = {"pixels": pixels} if latents is None else {"latents": latents.encode(pixels).half()}
        tokens = torch.tensor([row[1] for row in rows], dtype=torch.int32)
        writer.write(image | {"tokens": tokens}, read=read, skipped=skipped, truncated=sum(row[2] for row in rows))
        rows.clear()
        skipped.clear()
        index = writer.index
        report(f"{read:,} of {len(pairs):,} read, {index['rows']:,} kept, {index['skipped']:,} skipped")

    for item in pairs.items(read):
        read += 1
        try:
            rows.append(_row(item, captioner, recipe.size))
        except DiffuseError as error:
            skipped.append((item.name, str(error).removeprefix(f"picture {item.name}: ")))
        if len(rows) == recipe.shard_rows:
            flush()
    if rows:
        flush()
    if not writer.index["shards"]:
        writer.discard()
        name, reason = skipped[0]
        raise DiffuseError(f"prepare: not one of {read:,} items could be used; the first, {name}: {reason}")
    writer.finish(read=read, skipped=skipped)


def _row(item: Item, captioner: Captioner, size: int) -> tuple[Tensor, list[int], bool]:
    if item.problem is not None:
        raise DiffuseError(item.problem)
    tokens, cut = captioner.row(item.caption)
    return read_image(item.picture, size, item.name), tokens, cut


def _captioner(file: Path, recipe: Recipe) -> Captioner:
    return Captioner.load(file, length=recipe.length, overflow=recipe.overflow, empty=recipe.empty)


def _trained(pairs: Pairs, recipe: Recipe) -> Captioner:
    return Captioner.train(
        pairs.captions(),
        vocabulary=recipe.vocabulary,
        length=recipe.length,
        overflow=recipe.overflow,
        empty=recipe.empty,
    )
