"""``diffuse plugins new``: what it writes works at once, outside this tree: built, installed, found, checked."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from de_core.cli import main
from de_core.cli.new import SUMMARIES

ROOT = Path(__file__).parents[2]
KINDS = {"continuous": "real-line", "finite": "stages"}


class Machine:
    """A folder of installed wheels that hides this tree from the programs that run on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.site = root, root / "site"
        self.site.mkdir()

    def run(self, *arguments: object, code: int = 0) -> str:
        """What the program says, after its exit code was looked at."""
        environment = {**os.environ, "PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}
        environment.pop("DE_PLUGINS", None)
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.root, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, source: Path) -> None:
        """Build the wheel of that source tree and unpack it here, without a network."""
        wheels = self.root / f"wheels-{source.name}"
        pip, offline = ("-m", "pip", "--disable-pip-version-check", "-q"), ("--no-deps", "--no-index")
        self.run(*pip, "wheel", *offline, "--no-build-isolation", "-w", wheels, source)
        self.run(*pip, "install", *offline, "--target", self.site, *wheels.glob("*.whl"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Machine:
    """One with this framework on it, from its wheel, so that the templates have to be in there."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    source = machine.root / "framework"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("de_core", "de_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    machine.install(source)
    where = machine.run("-c", "import de_core; print(de_core.__file__)")
    assert Path(where.strip()).is_relative_to(machine.site)
    return machine


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_works_outside_the_tree(machine, kind):
    """Written by the installed command, built, installed; its own tests, without its source, and the check pass."""
    name = KINDS[kind]
    said = machine.run("-m", "de_core", "plugins", "new", name, "--kind", kind)
    assert f"diffuse plugins check {name}" in said
    source = machine.root / f"de-{name}"
    machine.install(source)
    tests = shutil.copytree(source / "tests", machine.root / f"tests-{kind}")
    shutil.copy(source / "pyproject.toml", tests)
    shutil.rmtree(source)
    listed = json.loads(machine.run("-m", "de_core", "plugins", "--json"))["plugins"]
    (found,) = [p for p in listed if p["key"] == f"de-{name}:{name}"]
    assert (found["status"], found["origin"], found["summary"]) == ("lazy", f"de-{name} 0.1.0", SUMMARIES[kind])
    assert Path(found["location"]) == machine.site
    report = json.loads(machine.run("-m", "de_core", "plugins", "check", name, "--json"))
    assert report["ok"]
    passed = machine.run("-m", "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert re.search(r"^(\d+) passed", passed, re.MULTILINE), passed  # nothing failed, and nothing was skipped
    assert "skipped" not in passed


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "blue_green-2", "--kind", kind]) == 0
    capsys.readouterr()
    root = tmp_path / "de-blue-green-2"
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {
        ".github/workflows/test.yml",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "de_blue_green_2/__init__.py",
        "de_blue_green_2/modality.py",
        "de_blue_green_2/py.typed",
        "tests/test_conformance.py",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["de-blue-green-2"]  # nothing is left beside it
    for file in files:
        text = (root / file).read_text(encoding="utf-8")
        assert "newthing" not in text.lower()
        assert "SUMMARY" not in text
        if file.endswith(".py"):
            compile(text, file, "exec")
    assert "class BlueGreen2Modality(" in (root / "de_blue_green_2" / "modality.py").read_text()
    assert 'blue_green-2 = "de_blue_green_2"' in (root / "pyproject.toml").read_text()
    assert "diffuse plugins check de-blue-green-2:blue_green-2" in (root / ".github/workflows/test.yml").read_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["s", "a" * 20 + "-" + "b" * 19])
def test_what_is_written_is_tidy(tmp_path, name, kind):
    target = tmp_path / "new"
    assert main(["plugins", "new", name, "--kind", kind, "--out", str(target)]) == 0
    for command in (["check", "--select=E,F,W,UP,B"], ["format", "--diff"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--no-cache", "--line-length=120", target]
        done = subprocess.run(ruff, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_kind_may_be_left_out(tmp_path, capsys):
    assert main(["plugins", "new", "mine", "--out", str(tmp_path / "mine"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "continuous"


def test_out_names_the_directory(tmp_path, capsys):
    target = tmp_path / "far away" / "mine"
    assert main(["plugins", "new", "mine", "--kind", "finite", "--out", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(target), "name": "mine", "kind": "finite"}
    assert (target / "de_mine" / "modality.py").is_file()
    assert main(["plugins", "new", "de-mine", "--kind", "finite", "--out", str(tmp_path / "second")]) == 0
    assert (tmp_path / "second" / "de_mine").is_dir()  # the prefix is not doubled


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Torus", "lower-case"),
        ("2d", "a letter first"),
        ("", "a letter first"),
        ("a b", "letters, digits"),
        ("../up", "letters, digits"),
        ("größe", "letters, digits"),
        ("a--b", "letters, digits"),
        ("a" * 41, "at most 40"),
        ("gaussian", "the framework's"),
        ("core", "the framework's"),
        ("de_plugins", "the framework's"),
    ],
)
def test_a_name_that_cannot_be_one(tmp_path, monkeypatch, capsys, name, words):
    monkeypatch.chdir(tmp_path)
    assert main(["plugins", "new", "--kind", "finite", "--", name]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"diffuse: plugin name {name!r}: expected ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for out in ("empty", "file", "link"):
        assert main(["plugins", "new", "mine", "--kind", "finite", "--out", out]) == 2
        assert "expected a directory that is not there yet" in capsys.readouterr().err
    assert main(["plugins", "new", "mine", "--kind", "finite", "--out", "file/below"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "link"]


def test_half_a_plugin_is_never_seen(tmp_path, monkeypatch):
    from de_core.cli import new

    def fail(name):
        raise OSError(28, "No space left on device", name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new, "_template", fail)
    assert main(["plugins", "new", "mine", "--kind", "finite"]) == 2
    assert list(tmp_path.iterdir()) == []
