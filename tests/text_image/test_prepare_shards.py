"""Shards are read as they were written, row by row, rank by rank, and damage is named."""

import json

import pytest
import torch
from safetensors.torch import save_file

from de_core import DiffuseError
from de_plugins.text_image.data.shards import ShardSource, ShardWriter

RNG = torch.Generator()
SETTINGS = {"size": 2, "length": 3, "overflow": "truncate", "empty": False}


def rows(begin: int, n: int) -> dict[str, torch.Tensor]:
    number = torch.arange(begin, begin + n)
    return {
        "pixels": (number[:, None, None, None] + torch.zeros(1, 3, 2, 2)).to(torch.uint8),
        "tokens": (number[:, None] * 10 + torch.arange(3)).int(),
    }


@pytest.fixture
def shards(tmp_path):
    """23 rows in shards of 5."""
    writer = ShardWriter(tmp_path / "shards", SETTINGS)
    writer.begin("{}", 300)
    for begin in range(0, 23, 5):
        count = min(5, 23 - begin)
        writer.write(rows(begin, count), read=begin + count, skipped=[], truncated=0)
    writer.finish(read=23)
    return tmp_path / "shards"


@pytest.mark.parametrize("keep", [1, 2, 16])
def test_rows_by_number_in_any_order(shards, keep):
    source = ShardSource(shards, keep=keep)
    assert len(source) == 23
    index = torch.tensor([22, 0, 5, 4, 4, 19, 20, 7])
    for _ in range(2):
        batch = source.batch(index, RNG)
        assert torch.equal(batch["caption"], index[:, None] * 10 + torch.arange(3))
        assert torch.equal(batch["image"], (index / 127.5 - 1)[:, None, None, None].expand(-1, 3, 2, 2))
    assert len(source._open) <= keep
    assert source.batch(index[:0], RNG)["image"].shape == (0, 3, 2, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_share_the_rows(shards, size):
    seen = []
    for rank in range(size):
        source = ShardSource(shards, rank=rank, size=size)
        seen += (source.batch(torch.arange(len(source)), RNG)["caption"][:, 0] // 10).tolist()
    assert sorted(seen) == list(range(23))


def test_files_are_opened_when_they_are_needed(shards):
    (shards / "shard-00003.safetensors").unlink()
    source = ShardSource(shards)
    source.batch(torch.arange(15), RNG)
    with pytest.raises(DiffuseError, match=r"shard-00003\.safetensors: the index names it, but there is no such file"):
        source.batch(torch.tensor([15]), RNG)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rank": 2, "size": 2}, r"a rank in \[0, 2\), got 2"),
        ({"rank": -1}, r"a rank in \[0, 1\), got -1"),
        ({"rank": 0, "size": 6}, "at least 6 shards for 6 ranks, got 5"),
        ({"keep": 0}, "at least 1 file open, got 0"),
    ],
)
def test_arguments_out_of_range(shards, kwargs, message):
    with pytest.raises(DiffuseError, match=message):
        ShardSource(shards, **kwargs)


@pytest.mark.parametrize("index", [[23], [-1], [0, 40]])
def test_rows_out_of_range(shards, index):
    with pytest.raises(DiffuseError, match=r"expected rows in \[0, 23\), got "):
        ShardSource(shards).batch(torch.tensor(index), RNG)


def test_damaged_shards(shards):
    file = shards / "shard-00000.safetensors"
    whole = file.read_bytes()
    wrong = {**rows(0, 5), "pixels": torch.zeros(5, 3, 4, 4, dtype=torch.uint8)}
    for tensors, message in (
        (wrong, r"expected pixels uint8 \[5, 3, 2, 2\], got torch.uint8 \[5, 3, 4, 4\]"),
        (rows(0, 4), r"expected pixels uint8 \[5, 3, 2, 2\], got torch.uint8 \[4, 3, 2, 2\]"),
        ({"pixels": rows(0, 5)["pixels"]}, r"expected tokens int32 \[5, 3\], got nothing"),
    ):
        save_file(tensors, file)
        with pytest.raises(DiffuseError, match=message):
            ShardSource(shards).batch(torch.tensor([0]), RNG)
    for content in (whole[:-1], whole[:9], b""):
        file.write_bytes(content)
        with pytest.raises(DiffuseError, match=r"shard-00000\.safetensors: damaged"):
            ShardSource(shards).batch(torch.tensor([0]), RNG)


def test_directories_that_are_no_shards(shards, tmp_path):
    with pytest.raises(DiffuseError, match=r"there is no index\.json"):
        ShardSource(tmp_path)
    index = json.loads((shards / "index.json").read_text())
    for content, message in (
        ("{", "index.json is no valid JSON"),
        ("[]", "expected an index.json of text-image-shards, format 1, got None, None"),
        (json.dumps(index | {"format": 2}), "format 1, got text-image-shards, 2"),
        (json.dumps(index | {"complete": False}), "the shards are not complete"),
    ):
        (shards / "index.json").write_text(content)
        with pytest.raises(DiffuseError, match=message):
            ShardSource(shards)


def test_shards_of_one_directory_are_of_one_kind(tmp_path):
    writer = ShardWriter(tmp_path / "shards", SETTINGS)
    writer.begin("{}", 300)
    writer.write(rows(0, 5), read=5, skipped=[], truncated=0)
    other = {**rows(5, 5), "pixels": torch.zeros(5, 3, 4, 4, dtype=torch.uint8)}
    with pytest.raises(DiffuseError, match=r"expected shards of .*\[3, 2, 2\].*, got .*\[3, 4, 4\]"):
        writer.write(other, read=10, skipped=[], truncated=0)
