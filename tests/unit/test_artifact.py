"""The directory artifact: what is written comes back, and nothing that existed is lost."""

import json
import os
from pathlib import Path

import pytest
import torch

from de_core import artifact
from de_core.artifact import atomic_write, load_artifact, save_artifact
from de_core.errors import DiffuseError

CONFIG = {"kind": "test", "width": 3}


def tensors():
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "weight": shared.t(),
        "same": shared,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 4, dtype=torch.float64),
    }


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_round_trip(tmp_path):
    path = save_artifact(tmp_path / "deep" / "model", CONFIG, tensors(), {"curve.jsonl": "{}\n", "raw": b"\0"})
    loaded = load_artifact(path)
    assert loaded.config["kind"] == "test"
    assert loaded.config["width"] == 3
    assert loaded.config["format"] == 1
    assert loaded.config["versions"]["torch"] == torch.__version__
    assert loaded.config["files"] == ["curve.jsonl", "raw"]
    assert loaded.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)
    assert (loaded.path / "raw").read_bytes() == b"\0"
    assert names(path.parent) == {"model"}


def test_versions_of_the_caller_are_kept(tmp_path):
    path = save_artifact(tmp_path / "m", {**CONFIG, "versions": {"de-torus": "0.3"}}, {})
    assert load_artifact(path).config["versions"]["de-torus"] == "0.3"


def test_saving_again_replaces_own_files_and_keeps_foreign_ones(tmp_path):
    path = save_artifact(tmp_path / "m", CONFIG, tensors(), {"own.txt": "1"})
    (path / "notes.txt").write_text("mine")
    (path / "folder").mkdir()
    (path / "folder" / "deep.txt").write_text("mine too")
    save_artifact(path, {**CONFIG, "width": 4}, {"w": torch.zeros(1)})
    assert load_artifact(path).config["width"] == 4
    assert names(path) == {"config.json", "model.safetensors", "notes.txt", "folder"}
    assert (path / "folder" / "deep.txt").read_text() == "mine too"
    assert names(tmp_path) == {"m"}


def test_an_empty_directory_and_a_link_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    save_artifact(tmp_path / "link", CONFIG, {})
    assert (tmp_path / "link").is_symlink()
    assert load_artifact(tmp_path / "empty").config["kind"] == "test"


@pytest.mark.parametrize("what", ["file", "directory"])
def test_refuses_to_replace_what_is_no_artifact(tmp_path, what):
    target = tmp_path / "thesis"
    if what == "file":
        target.write_text("years of work")
    else:
        target.mkdir()
        (target / "chapter.txt").write_text("years of work")
    with pytest.raises(DiffuseError, match="thesis: expected"):
        save_artifact(target, CONFIG, tensors())
    file = target if what == "file" else target / "chapter.txt"
    assert file.read_text() == "years of work"
    assert names(tmp_path) == {"thesis"}


@pytest.mark.parametrize("step", ["_write_synced", "_keep_foreign", "rename"])
def test_a_failure_at_any_step_leaves_the_old_artifact(tmp_path, monkeypatch, step):
    path = save_artifact(tmp_path / "m", CONFIG, tensors())

    def fail(*_args):
        raise KeyboardInterrupt

    if step == "rename":
        rename = Path.rename

        def second_fails(self, target):
            if ".new." in self.name:
                raise OSError("disk gone")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", second_fails)
    else:
        monkeypatch.setattr(artifact, step, fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        save_artifact(path, {**CONFIG, "width": 4}, tensors())
    monkeypatch.undo()
    assert load_artifact(path).config["width"] == 3
    assert names(tmp_path) == {"m"}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "config.json", "model.safetensors"])
def test_extra_files_have_plain_names(tmp_path, name):
    with pytest.raises(DiffuseError, match="plain file name"):
        save_artifact(tmp_path / "m", CONFIG, {}, {name: "x"})
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "config\\['kind'\\]"),
        ({"kind": "x", "a": float("nan")}, "JSON"),
        ({"kind": "x", "a": {1}}, "JSON"),
    ],
)
def test_a_config_that_is_no_json_is_refused(tmp_path, config, words):
    with pytest.raises(DiffuseError, match=words):
        save_artifact(tmp_path / "m", config, {})
    assert names(tmp_path) == set()


def damaged(path: Path, how: str) -> None:
    config, model = path / "config.json", path / "model.safetensors"
    if how == "no config":
        config.unlink()
    elif how == "broken json":
        config.write_text('{"format": 1,')
    elif how == "binary json":
        config.write_bytes(b"\xff\xfe\x00")
    elif how == "a list":
        config.write_text("[1]")
    elif how == "format 2":
        config.write_text(json.dumps({"format": 2, "kind": "test"}))
    elif how == "no kind":
        config.write_text(json.dumps({"format": 1}))
    elif how == "no tensors":
        model.unlink()
    elif how == "cut tensors":
        model.write_bytes(model.read_bytes()[:-1])
    elif how == "no safetensors":
        model.write_bytes(b"PK pickle")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no config", "expected the file config.json, it is missing"),
        ("broken json", "config.json is no valid JSON"),
        ("binary json", "config.json is no valid JSON"),
        ("a list", "expected a 'format'"),
        ("format 2", "expected format 1, got 2"),
        ("no kind", "expected a 'kind'"),
        ("no tensors", "expected the file model.safetensors"),
        ("cut tensors", "model.safetensors is damaged"),
        ("no safetensors", "model.safetensors is damaged"),
    ],
)
def test_what_is_not_whole_is_named_in_one_sentence(tmp_path, how, words):
    path = save_artifact(tmp_path / "m", CONFIG, tensors())
    damaged(path, how)
    with pytest.raises(DiffuseError, match=words) as caught:
        load_artifact(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there_and_a_file(tmp_path):
    with pytest.raises(DiffuseError, match="nothing at this path"):
        load_artifact(tmp_path / "m")
    (tmp_path / ".1.old.m").mkdir()
    with pytest.raises(DiffuseError, match=r"interrupted save left .*\.1\.old\.m"):
        load_artifact(tmp_path / "m")
    (tmp_path / "f").write_text("x")
    with pytest.raises(DiffuseError, match="expected a directory, got a file"):
        load_artifact(tmp_path / "f")


def test_atomic_write(tmp_path):
    target = tmp_path / "table.csv.gz"
    seen = []

    def writer(path):
        seen.append(path.name)
        path.write_text("by a function")

    for content, expected in [("täxt", "täxt"), (b"bytes", "bytes"), (writer, "by a function")]:
        assert atomic_write(target, content) == target
        assert target.read_text(encoding="utf-8") == expected
    assert seen[0].endswith(".table.csv.gz")
    assert names(tmp_path) == {"table.csv.gz"}


def test_atomic_write_keeps_the_old_file_and_its_mode(tmp_path):
    target = atomic_write(tmp_path / "t.csv", "old")
    target.chmod(0o640)

    def writer(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, writer)
    assert target.read_text() == "old"
    atomic_write(target, "new")
    assert target.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == {"t.csv"}


def test_atomic_write_refuses_a_directory_and_a_missing_folder(tmp_path):
    with pytest.raises(DiffuseError, match="got a directory"):
        atomic_write(tmp_path, "x")
    with pytest.raises(DiffuseError, match="existing folder"):
        atomic_write(tmp_path / "no" / "t.csv", "x")


def test_atomic_write_does_not_replace_a_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(pipe, "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert not pipe.is_file()
