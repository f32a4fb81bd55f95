"""``diffuse prepare``: what it writes, how it goes on after a kill, what it skips and what it refuses."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from de_core import DiffuseError
from de_core.cli import main
from de_plugins.text_image.data import prepare as prepare_module
from de_plugins.text_image.data import shards as shards_module
from de_plugins.text_image.data.images import read_image, to_unit
from de_plugins.text_image.data.latents import Latents
from de_plugins.text_image.data.prepare import Recipe, prepare
from de_plugins.text_image.data.shards import ShardSource
from de_plugins.text_image.data.sources import open_pairs

RECIPE = Recipe(size=8, length=12, vocabulary=64, shard_rows=4)
RNG = torch.Generator()


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def caption(number: int) -> str:
    return f"picture number {number}"


def fill(folder: Path, n: int = 11, broken: tuple[int, ...] = (2, 7)) -> Path:
    """Pictures with their captions beside them, some of them cut off."""
    (folder / "sub").mkdir(parents=True)
    for i in range(n):
        stem = folder / ("sub" if i % 2 else ".") / f"{i:03d}"
        stem.with_suffix(".png").write_bytes(picture(i)[: 60 if i in broken else None])
        stem.with_suffix(".txt").write_text(caption(i) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def everything(source: ShardSource) -> dict[str, torch.Tensor]:
    return source.batch(torch.arange(len(source)), RNG)


@pytest.fixture
def pairs(tmp_path) -> Path:
    return fill(tmp_path / "pairs")


def test_rows_come_back(pairs, tmp_path):
    index = prepare(pairs, tmp_path / "out", RECIPE)
    assert (index["read"], index["rows"], index["skipped"], index["complete"]) == (11, 9, 2, True)
    assert [shard["rows"] for shard in index["shards"]] == [4, 4, 1]
    assert [name for name, _ in index["reasons"]] == ["002.png", "sub/007.png"]
    assert all(reason.startswith("damaged or cut off") for _, reason in index["reasons"])
    source = ShardSource(tmp_path / "out")
    batch, captioner = everything(source), source.captioner()
    order = [0, 4, 6, 8, 10, 1, 3, 5, 9]  # by name, subfolders included
    assert captioner.decode(batch["caption"]) == [caption(i) for i in order]
    assert torch.equal(batch["image"], to_unit(torch.stack([read_image(picture(i), 8) for i in order])))
    assert batch["caption"].dtype == torch.int64
    assert source.shape == (3, 8, 8)
    assert captioner.vocabulary == index["vocabulary"] <= 64


def test_a_run_that_was_killed_goes_on_and_ends_the_same(pairs, tmp_path, monkeypatch):
    prepare(pairs, tmp_path / "whole", RECIPE)
    whole = contents(tmp_path / "whole")
    real = {"read_image": prepare_module.read_image, "atomic_write": shards_module.atomic_write}
    calls = {"left": 0}

    def failing(name):
        def call(*args, **kwargs):
            calls["left"] -= 1
            if calls["left"] < 0:
                raise KeyboardInterrupt
            return real[name](*args, **kwargs)

        return call

    for module, name, most in ((prepare_module, "read_image", 11), (shards_module, "atomic_write", 9)):
        for after in range(most):
            out = tmp_path / f"{name}-{after}"
            calls["left"] = after
            monkeypatch.setattr(module, name, failing(name))
            with pytest.raises(KeyboardInterrupt):
                prepare(pairs, out, RECIPE)
            assert not out.exists() or "index.json" not in contents(out) or not json_of(out)["complete"]
            monkeypatch.setattr(module, name, real[name])
            for left in ("shard-00001.safetensors", "index.json"):
                if out.exists():
                    (out / f".0123abcd.new.{left}").write_bytes(b"half")  # as a kill while writing leaves it
            prepare(pairs, out, RECIPE)
            assert contents(out) == whole


def json_of(folder: Path) -> dict:
    return json.loads((folder / "index.json").read_text())


def test_whole_shards_are_not_made_again(pairs, tmp_path, monkeypatch):
    real, seen = prepare_module.read_image, []

    def counting(source, size, name):
        seen.append(name)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return real(source, size, name)

    monkeypatch.setattr(prepare_module, "read_image", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(pairs, tmp_path / "out", RECIPE)
    prepare(pairs, tmp_path / "out", RECIPE)
    assert seen[:5] == ["000.png", "002.png", "004.png", "006.png", "008.png"]  # the first shard; 002 is broken
    assert seen[7:] == ["010.png", *(f"sub/{i:03d}.png" for i in (1, 3, 5, 7, 9))]
    stamp = (tmp_path / "out" / "shard-00000.safetensors").stat().st_mtime_ns
    lines: list[str] = []
    prepare(pairs, tmp_path / "out", RECIPE, report=lines.append)
    assert lines == [f"{tmp_path / 'out'} is complete already"]
    assert (tmp_path / "out" / "shard-00000.safetensors").stat().st_mtime_ns == stamp


def test_another_recipe_or_other_pictures_are_not_mixed_in(pairs, tmp_path):
    prepare(pairs, tmp_path / "out", RECIPE)
    before = contents(tmp_path / "out")
    with pytest.raises(DiffuseError, match="it holds shards made with size 8, got 16"):
        prepare(pairs, tmp_path / "out", Recipe(size=16, length=12, vocabulary=64, shard_rows=4))
    (pairs / "zzz.png").write_bytes(picture(99))
    with pytest.raises(DiffuseError, match="it holds shards made with items 11, got 12"):
        prepare(pairs, tmp_path / "out", RECIPE)
    assert contents(tmp_path / "out") == before


def table(folder: Path, numbers, **more) -> pa.Table:
    return pa.table({"image": [picture(i) for i in numbers], "caption": [caption(i) for i in numbers], **more})


def test_a_parquet_table_gives_the_same_as_a_folder(tmp_path):
    fill(tmp_path / "pairs", 10, broken=())
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    pq.write_table(table(tmp_path, order, other=order), tmp_path / "a.parquet", row_group_size=3)
    cells = [{"bytes": picture(i), "path": f"{i}.png"} for i in order]
    text = pa.table({"image": cells, "text": [caption(i) for i in order]})
    pq.write_table(text, tmp_path / "b.parquet")  # as the hub has it
    prepare(tmp_path / "pairs", tmp_path / "folder", RECIPE)
    expected = everything(ShardSource(tmp_path / "folder"))
    large = pa.schema([("image", pa.large_binary()), ("caption", pa.dictionary(pa.int8(), pa.large_string()))])
    pq.write_table(table(tmp_path, order).cast(large), tmp_path / "c.parquet")  # as polars and pandas have it
    for name in ("a", "b", "c"):
        prepare(tmp_path / f"{name}.parquet", tmp_path / name, RECIPE)
        got = everything(ShardSource(tmp_path / name))
        assert all(torch.equal(got[key], expected[key]) for key in ("image", "caption"))


def test_parquet_items_from_any_row_on(tmp_path):
    pq.write_table(table(tmp_path, range(200)), tmp_path / "t.parquet", row_group_size=70)
    pairs = open_pairs(tmp_path / "t.parquet")
    whole = list(pairs.items())
    assert [item.name for item in whole] == [f"row {i}" for i in range(200)]
    assert [item.caption for item in whole] == [caption(i) for i in range(200)] == list(pairs.captions())
    for start in (1, 63, 64, 69, 70, 71, 139, 199, 200):
        assert list(pairs.items(start)) == whole[start:]


def test_parquet_rows_without_a_picture_or_a_caption_are_skipped(tmp_path):
    rows = {"image": [None, picture(1), picture(2), b"junk"], "caption": ["a", None, "picture b", "c"]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    index = prepare(tmp_path / "t.parquet", tmp_path / "out", RECIPE)
    assert index["rows"] == 1
    reasons = dict(index["reasons"])
    assert (reasons["row 0"], reasons["row 1"]) == ("no picture", "no caption")
    assert reasons["row 3"].startswith("expected PNG, JPEG or WebP")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_of_captions_in_its_order(tmp_path, kind):
    folder = fill(tmp_path / "pairs", 6, broken=())
    rows = [("sub/003.png", 'three, "in\nquotes"'), ("000.png", "none"), ("000.png", "zero"), ("gone.png", "no")]
    with (folder / f"captions.{kind}").open("w", newline="") as file:
        if kind == "csv":
            csv.writer(file).writerows([("caption", "file"), *((text, name) for name, text in rows), ("alone",)])
        else:
            lines = [json.dumps({"file": name, "caption": text}) for name, text in rows]
            file.write("\n".join([*lines, "", "{", '{"file": 3}']) + "\n")
    index = prepare(folder, tmp_path / "out", RECIPE)
    source = ShardSource(tmp_path / "out")
    batch = everything(source)
    assert source.captioner().decode(batch["caption"]) == ['three, "in quotes"', "none", "zero"]
    assert torch.equal(batch["image"], to_unit(torch.stack([read_image(picture(i), 8) for i in (3, 0, 0)])))
    assert index["reasons"][0] == ["gone.png", "there is no such file"]
    assert {reason for _, reason in index["reasons"][1:]} == {"expected a file and its caption"}
    assert index["skipped"] == (2 if kind == "csv" else 3)


def test_captions_that_are_refused_are_skipped_with_their_reason(tmp_path):
    folder = fill(tmp_path / "pairs", 8, broken=())
    (folder / "000.txt").write_text("  \n")
    (folder / "002.txt").unlink()
    (folder / "004.txt").write_bytes(b"caf\xe9")
    (folder / "006.txt").write_text("picture " * 13)
    recipe = Recipe(size=8, length=12, vocabulary=64, shard_rows=4, overflow="refuse")
    reasons = dict(prepare(folder, tmp_path / "out", recipe)["reasons"])
    assert reasons["000.png"] == "caption: expected words, it is empty"
    assert reasons["002.png"] == "no caption, there is no 002.txt"
    assert reasons["004.png"] == "expected text in UTF-8 in 004.txt"
    assert "expected at most 12 tokens, got " in reasons["006.png"]
    assert len(reasons) == 4
    (tmp_path / "out" / "tokenizer.json").rename(tmp_path / "words.json")
    (folder / "006.txt").write_text("picture Ω")
    known = Recipe(size=8, length=2, tokenizer=str(tmp_path / "words.json"), empty=True)
    index = prepare(folder, tmp_path / "again", known)
    assert dict(index["reasons"])["006.png"] == "caption 'picture Ω': 'Ω' is not in the tokenizer's vocabulary"
    assert index["rows"] == 5
    assert index["truncated"] > 0


def test_the_list_of_the_skipped_ends_but_their_count_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_LISTED", 3)
    folder = fill(tmp_path / "pairs", 12, broken=(0, 1, 2, 3, 4, 5))
    index = prepare(folder, tmp_path / "out", RECIPE)
    assert (index["skipped"], len(index["reasons"])) == (6, 3)


def test_latents_are_written_in_place_of_pixels(pairs, tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(4, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path / "vae")
    recipe = Recipe(size=8, length=12, vocabulary=64, shard_rows=4, vae=str(tmp_path / "vae"))
    index = prepare(pairs, tmp_path / "out", recipe)
    assert index["tensors"]["latents"] == {"shape": [4, 4, 4], "dtype": "float16"}
    source = ShardSource(tmp_path / "out")
    latents = Latents.load(str(tmp_path / "vae"), 8)
    image = source.batch(torch.tensor([0]), RNG)["image"]
    assert image.dtype == torch.float32
    expected = latents.encode(read_image(picture(0), 8)[None])
    torch.testing.assert_close(image, expected, atol=1e-3, rtol=1e-3)  # half precision
    assert latents.decode(image).shape == (1, 3, 8, 8)
    with pytest.raises(DiffuseError, match="a size that 2 divides, got 9"):
        prepare(pairs, tmp_path / "odd", Recipe(size=9, vae=str(tmp_path / "vae")))
    assert not (tmp_path / "odd").exists()


def test_the_command(pairs, tmp_path, capsys):
    arguments = ["prepare", str(pairs), "--out", str(tmp_path / "out"), "--size", "8", "--shard-rows", "4"]
    assert main([*arguments, "--length", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"9 of 11 items in 3 shards in {tmp_path / 'out'}\n")
    assert "captions were cut to 2 tokens" in out
    assert "  002.png: damaged or cut off" in out
    assert err.splitlines()[-1] == "11 of 11 read, 9 kept, 2 skipped"
    assert main([*arguments, "--length", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["skipped"], summary["shards"]) == (9, 2, 3)


def bad_arguments(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    fill(tmp_path / "pairs", 2, broken=())
    for name in ("none", "full", "both", "wrong", "binary", "deaf"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    for name in ("captions.csv", "captions.jsonl"):
        (tmp_path / "both" / name).write_text("file,caption\n")
    (tmp_path / "wrong" / "captions.csv").write_text("name,text\na.png,b\n")
    (tmp_path / "binary" / "captions.csv").write_bytes(b"file,caption\na.png,caf\xe9\n")
    (tmp_path / "deaf" / "a.png").write_bytes(picture(0))
    (tmp_path / "words.txt").write_text("x")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing else")
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "caption": ["x"]}), tmp_path / "paths.parquet")
    pq.write_table(pa.table({"image": [b"x"], "caption": [3]}), tmp_path / "numbers.parquet")
    pq.write_table(table(tmp_path, []).cast(table(tmp_path, [1]).schema), tmp_path / "empty.parquet")
    pq.write_table(pa.table({"image": [b"junk"], "caption": ["x"]}), tmp_path / "junk.parquet")
    source, out = str(tmp_path / "pairs"), ["--out", str(tmp_path / "out")]
    return {
        "no out": ([source], "--out"),
        "no source": ([str(tmp_path / "gone"), *out], "there is nothing"),
        "text": ([str(tmp_path / "words.txt"), *out], "got another file"),
        "empty folder": ([str(tmp_path / "none"), *out], "expected pictures (.png, .jpg, .jpeg, .webp), got none"),
        "two tables": ([str(tmp_path / "both"), *out], "expected one table of captions"),
        "columns": ([str(tmp_path / "wrong"), *out], "expected the columns file and caption, got name, text"),
        "latin": ([str(tmp_path / "binary"), *out], "expected text in UTF-8, got byte 0xe9"),
        "no captions": ([str(tmp_path / "deaf"), *out], "at least one with words to train a tokenizer on"),
        "parquet": ([str(tmp_path / "bad.parquet"), *out], "not a readable Parquet table"),
        "its columns": (
            [str(tmp_path / "columns.parquet"), *out],
            "expected the columns image and caption, got picture",
        ),
        "its pictures": (
            [str(tmp_path / "paths.parquet"), *out],
            "expected the bytes of files in column image, got string",
        ),
        "its captions": ([str(tmp_path / "numbers.parquet"), *out], "expected text in column caption, got int64"),
        "its rows": ([str(tmp_path / "empty.parquet"), *out], "expected rows, it has none"),
        "nothing of use": (
            [str(tmp_path / "junk.parquet"), *out],
            "not one of 1 items could be used; the first, row 0",
        ),
        "out is a file": ([source, "--out", str(tmp_path / "words.txt")], "got a file"),
        "out is taken": ([source, "--out", str(tmp_path / "full")], "got one of other things"),
        "size": ([source, *out, "--size", "0"], "expected size of at least 1, got 0"),
        "no number": ([source, *out, "--size", "big"], "invalid int value: 'big'"),
        "length": ([source, *out, "--length", "0"], "expected length of at least 1, got 0"),
        "vocabulary": ([source, *out, "--vocabulary", "2"], "expected vocabulary of at least 3, got 2"),
        "rows": ([source, *out, "--shard-rows", "0"], "expected shard rows of at least 1, got 0"),
        "overflow": ([source, *out, "--overflow", "wrap"], "invalid choice: 'wrap'"),
        "tokenizer": ([source, *out, "--tokenizer", str(tmp_path / "gone")], "expected a tokenizer.json"),
        "both": ([source, *out, "--tokenizer", "x", "--vocabulary", "9"], "not allowed with"),
        "vae": ([source, *out, "--vae", str(tmp_path / "none")], "it cannot be loaded"),
        "vae's name": ([source, *out, "--vae", str(tmp_path / "gone")], "expected a directory or a name on the hub"),
    }


def test_a_bad_call_is_one_sentence_and_writes_nothing(tmp_path, capsys):
    for what, (arguments, message) in bad_arguments(tmp_path).items():
        assert main(["prepare", *arguments]) == 2, what
        out, err = capsys.readouterr()
        assert out == "", what
        assert message in err, what
        assert err.startswith("diffuse: "), what
        assert err.count("\n") == 1, what
        assert not (tmp_path / "out").exists(), what
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]
