"""Shards: rows of pictures or latents and of tokens in safetensors files, with an index. Written one at a time, each
aside and then renamed, and streamed from disk without being read whole.

A directory of shards holds ``index.json``, ``tokenizer.json`` and ``shard-00000.safetensors`` and so on, each with
"pixels" (n, 3, size, size) uint8 or "latents" (n, channels, height, width) float16 or float32, and "tokens" (n, length)
int32.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import Captioner
from de_plugins.text_image.data.images import to_unit

__all__ = ["INDEX", "TOKENIZER", "ShardSource", "ShardWriter", "read_index"]

INDEX = "index.json"
TOKENIZER = "tokenizer.json"
_FORMAT = 1
_KIND = "text-image-shards"
_LEFT = ".????????.new.*"  # what atomic_write leaves when it is killed
_LISTED = 1000  # of the skipped items, by name; all of them are counted


class ShardWriter:
    """Writes a directory of shards, or goes on where an interrupted writer of the same settings stopped.

    The index is written anew after each whole shard, so that what a killed run leaves is always a whole number of
    shards, and the next run makes of it what an unbroken one would have, byte by byte.

    Args:
        path: a new or empty directory, or one with shards of these settings.
        settings: JSON values that decide what is written; they are compared and kept in the index.

    Attributes:
        index: as ``index.json`` has it.

    Raises:
        DiffuseError: the directory holds other things, or shards of other settings.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        _check_out(self.path)
        self.index = {
            "format": _FORMAT,
            "kind": _KIND,
            "settings": dict(settings),
            "complete": False,
            "read": 0,
            "rows": 0,
            "truncated": 0,
            "vocabulary": 0,
            "tensors": {},
            "shards": [],
            "skipped": 0,
            "reasons": [],
        }
        if (self.path / INDEX).is_file():
            self.index = self._older()
        for left in self.path.glob(_LEFT):
            left.unlink()

    @property
    def fresh(self) -> bool:
        """Whether nothing has been written yet."""
        return not (self.path / TOKENIZER).is_file()

    def begin(self, tokenizer: str, vocabulary: int) -> None:
        """Make the directory, with the tokenizer, of so many tokens, and an index of no shards."""
        self.index["vocabulary"] = vocabulary
        self.path.mkdir(parents=True, exist_ok=True)
        self._save()
        atomic_write(self.path / TOKENIZER, tokenizer)

    def write(
        self, tensors: Mapping[str, Tensor], *, read: int, skipped: Sequence[tuple[str, str]], truncated: int
    ) -> None:
        """One more shard.

        Args:
            tensors: name -> (n, *event), of the same events and dtypes in every shard.
            read: how many items have been read in all, the skipped ones included.
            skipped: since the shard before, (name, reason) each.
            truncated: captions that were cut, since the shard before.

        Raises:
            DiffuseError: other events or dtypes than in the shard before.
        """
        kinds = {name: {"shape": list(x.shape[1:]), "dtype": str(x.dtype)[6:]} for name, x in tensors.items()}
        if self.index["shards"] and kinds != self.index["tensors"]:
            raise DiffuseError(f"{self.path}: expected shards of {self.index['tensors']}, got {kinds}")
        rows = len(next(iter(tensors.values())))
        name = f"shard-{len(self.index['shards']):05d}.safetensors"
        contents = {name: x.contiguous() for name, x in tensors.items()}
        atomic_write(self.path / name, lambda aside: safetensors.torch.save_file(contents, aside))
        self.index["tensors"] = kinds
        self.index["shards"].append({"file": name, "rows": rows})
        self.index["rows"] += rows
        self.index["truncated"] += truncated
        self._note(read, skipped)
        self._save()

    def finish(self, *, read: int, skipped: Sequence[tuple[str, str]] = ()) -> None:
        """Say that these are all, after the last items, which made no shard."""
        self._note(read, skipped)
        self.index["complete"] = True
        self._save()

    def discard(self) -> None:
        """Take back ``begin``: no shard came of it."""
        for name in (TOKENIZER, INDEX):
            (self.path / name).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _note(self, read: int, skipped: Sequence[tuple[str, str]]) -> None:
        self.index["read"] = read
        self.index["skipped"] += len(skipped)
        room = _LISTED - len(self.index["reasons"])
        self.index["reasons"] += [list(pair) for pair in skipped[:room]]

    def _save(self) -> None:
        atomic_write(self.path / INDEX, json.dumps(self.index, indent=1) + "\n")

    def _older(self) -> dict[str, Any]:
        index = read_index(self.path)
        mine = json.loads(json.dumps(self.index["settings"]))
        for name in sorted(mine.keys() | index["settings"].keys()):
            was, now = index["settings"].get(name), mine.get(name)
            if was != now:
                raise DiffuseError(f"{self.path}: it holds shards made with {name} {was!r}, got {now!r}")
        return index


def _check_out(path: Path) -> None:
    """Refuse a place for shards that is a file or a directory of other things.

    Raises:
        DiffuseError: it is.
    """
    if path.exists() and not path.is_dir():
        raise DiffuseError(f"{path}: expected a directory for the shards, got a file")
    others = path.is_dir() and set(path.iterdir()) - set(path.glob(_LEFT))
    if others and not (path / INDEX).is_file():
        raise DiffuseError(f"{path}: expected a new or empty directory or one of shards, got one of other things")


def read_index(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The index of a directory of shards.

    Raises:
        DiffuseError: there is none, it is damaged, or of another kind or format.
    """
    path = Path(path)
    if not (path / INDEX).is_file():
        raise DiffuseError(f"{path}: expected a directory of shards, there is no {INDEX}")
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DiffuseError(f"{path}: {INDEX} is no valid JSON ({error})") from None
    found = (index.get("kind"), index.get("format")) if isinstance(index, dict) else (None, None)
    if found != (_KIND, _FORMAT):
        raise DiffuseError(f"{path}: expected an {INDEX} of {_KIND}, format {_FORMAT}, got {found[0]}, {found[1]}")
    return index


class ShardSource:
    """Rows to train on, out of shards: "image" (B, *event) float32, pixels brought to [-1, 1], and "caption"
    (B, length) int64. Files are mapped into memory, opened when a row of them is asked for, ``keep`` at a time.

    With ``size`` ranks, rank r has the shards r, r + size, r + 2 size and so on: for processes that work apart. The
    trainer's ranks share out the rows of each batch themselves, and each is given the whole.

    Args:
        path: the directory.
        rank: of this process, in [0, size).
        size: how many processes share the rows, at most the number of shards.
        keep: how many files stay open.

    Raises:
        DiffuseError: no such directory, one that is not complete, an argument out of range, or, when the rows are read,
            a shard that is missing, damaged, or not as the index says.
    """

    def __init__(self, path: str | os.PathLike[str], *, rank: int = 0, size: int = 1, keep: int = 16) -> None:
        self.path = Path(path)
        self.index = read_index(self.path)
        if not self.index["complete"]:
            raise DiffuseError(
                f"{self.path}: the shards are not complete; the same `diffuse prepare` goes on with them"
            )
        if not 0 <= rank < size:
            raise DiffuseError(f"shards: expected a rank in [0, {size}), got {rank}")
        if size > len(self.index["shards"]):
            count = len(self.index["shards"])
            raise DiffuseError(f"{self.path}: expected at least {size} shards for {size} ranks, got {count}")
        if keep < 1:
            raise DiffuseError(f"shards: expected to keep at least 1 file open, got {keep}")
        self._shards = self.index["shards"][rank::size]
        self._ends = torch.tensor([shard["rows"] for shard in self._shards]).cumsum(0)
        self._keep = keep
        self._open: OrderedDict[int, dict[str, Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture or latent."""
        return tuple(self.index["tensors"][self._image]["shape"])

    def captioner(self) -> Captioner:
        """The tokenizer of the captions."""
        settings = self.index["settings"]
        return Captioner.load(
            self.path / TOKENIZER,
            length=settings["length"],
            overflow=settings["overflow"],
            empty=settings["empty"],
        )

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """The rows of these numbers, (B,) int64 in [0, len). ``rng`` is not used: nothing here is random."""
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise DiffuseError(
                f"shards: expected rows in [0, {len(self)}), got {int(index.min())} to {int(index.max())}"
            )
        rows = {name: torch.empty(len(index), *kind["shape"], dtype=_dtype(kind)) for name, kind in self._kinds.items()}
        which = torch.searchsorted(self._ends, index, right=True)
        for shard in which.unique().tolist():
            here = (which == shard).nonzero().squeeze(1)
            begin = int(self._ends[shard]) - self._shards[shard]["rows"]
            for name, tensor in self._tensors(shard).items():
                rows[name][here] = tensor[index[here] - begin]
        image = rows[self._image]
        return {
            "image": to_unit(image) if self._image == "pixels" else image.float(),
            "caption": rows["tokens"].long(),
        }

    @property
    def _kinds(self) -> dict[str, dict[str, Any]]:
        return self.index["tensors"]

    @property
    def _image(self) -> str:
        return "pixels" if "pixels" in self._kinds else "latents"

    def _tensors(self, shard: int) -> dict[str, Tensor]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        entry = self._shards[shard]
        file = self.path / entry["file"]
        if not file.is_file():
            raise DiffuseError(f"shard {file}: the index names it, but there is no such file")
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 # no mapping
        except SafetensorError as error:
            raise DiffuseError(f"shard {file}: damaged ({error})") from error
        for name, kind in self._kinds.items():
            expected = [entry["rows"], *kind["shape"]]
            got = tensors.get(name)
            if got is None or list(got.shape) != expected or got.dtype != _dtype(kind):
                what = "nothing" if got is None else f"{got.dtype} {list(got.shape)}"
                raise DiffuseError(f"shard {file}: expected {name} {kind['dtype']} {expected}, got {what}")
        self._open[shard] = tensors
        if len(self._open) > self._keep:
            self._open.popitem(last=False)
        return tensors


def _dtype(kind: Mapping[str, Any]) -> torch.dtype:
    return getattr(torch, kind["dtype"])
