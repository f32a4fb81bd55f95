"""The command: exit codes, one sentence for each failure, one JSON object for ``--json``."""

import io
import json
import os
import subprocess
import sys
import textwrap
import types

import pytest
import torch

import de_core.cli.plugins
import de_core.testing.report
from de_core.artifact import save_artifact
from de_core.cli import main
from de_core.cli.inspect import sparkline
from de_core.testing.fake_distribution import fake_distribution, nothing_installed

LIGHT = """
from de_core.hookspecs import CommandInfo, ModalityInfo, hookimpl
@hookimpl
def de_commands():
    return [CommandInfo("greet", "acme.heavy:Greet", summary="greets 100 % of people"),
            CommandInfo("rubbish", "acme.heavy:rubbish"), CommandInfo("gone", "acme.gone:Gone")]
"""
HEAVY = """
import sys
from de_core.errors import DiffuseError, PluginError
rubbish = 3
class Greet:
    def add_arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--times", type=int, default=1)
    def run(self, args):
        errors = {"wrong": DiffuseError("column 'age': expected numbers, got text"),
                  "plugin": PluginError("torus broke"), "bug": ZeroDivisionError("of mine"),
                  "file": FileNotFoundError(2, "No such file", "t.csv"),
                  "stop": KeyboardInterrupt(), "exit": SystemExit("bye")}
        if args.name in errors:
            raise errors[args.name]
        print("hello", args.name * args.times)
        return 1 if args.name == "unmet" else None
"""


@pytest.fixture(autouse=True)
def acme(monkeypatch):
    """Only one stranger's commands, and no built-in plugins."""
    monkeypatch.delenv("DE_PLUGINS", raising=False)
    monkeypatch.delenv("DE_DEBUG", raising=False)
    modules = {"acme": "", "acme.light": LIGHT, "acme.heavy": HEAVY}
    with (
        nothing_installed(),
        fake_distribution("acme", {"acme": "acme.light"}, modules),
    ):
        yield


def test_help_lists_the_commands_and_imports_none(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for words in ("greet", "greets 100 % of people", "inspect", "plugins"):
        assert words in out
    assert "acme.heavy" not in sys.modules
    assert main(["plugins"]) == 0
    assert "acme.heavy" not in sys.modules
    assert main(["greet", "--help"]) == 0
    assert "--times" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffuse-everything {de_core.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["greet", "wrong"], 2, "column 'age': expected numbers, got text"),
        (["greet", "plugin"], 3, "torus broke"),
        (["greet", "bug"], 3, "command 'greet' of acme 1.0 failed: ZeroDivisionError: of mine"),
        (["greet", "exit"], 3, "command 'greet' of acme 1.0 failed: SystemExit: bye"),
        (["greet", "file"], 2, "t.csv: No such file"),
        (["greet", "stop"], 130, "interrupted"),
        (["greet"], 2, "the following arguments are required: name"),
        (["greet", "x", "--times", "two"], 2, "invalid int value: 'two'"),
        (["greet", "x", "--time", "2"], 2, "unrecognized arguments: --time 2"),
        (["gret"], 2, "unknown command 'gret': did you mean 'greet'? Expected one of"),
        (["rubbish"], 3, "expected add_arguments(parser) and run(args), got 3"),
        (["gone"], 3, "No module named 'acme.gone'"),
        ([], 2, "required: COMMAND"),
        (["inspect", "nowhere"], 2, "artifact nowhere: there is nothing at this path"),
        (["plugins", "show", "nobody"], 2, "unknown plugin 'nobody'"),
        (["plugins", "sing"], 2, "invalid choice: 'sing'"),
    ],
)
def test_a_failure_is_one_sentence_and_a_code(capsys, arguments, code, words):
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.startswith("diffuse: ")
    assert said.err.count("\n") == 1


def test_what_works(capsys):
    assert main(["greet", "you", "--times", "2"]) == 0
    assert main(["acme:greet", "you"]) == 0
    assert capsys.readouterr().out == "hello youyou\nhello you\n"
    assert main(["greet", "unmet"]) == 1


def test_a_bug_is_owned_and_debug_shows_where(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("de_core.cli.inspect.load_artifact", lambda path: 1 / 0)
    assert main(["inspect", "x"]) == 70
    said = capsys.readouterr().err
    assert "this is a bug in diffuse" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said
    assert main(["inspect", "x", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("DE_DEBUG", "1")
    assert main(["inspect", "x"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_failure(tmp_path):
    program = [sys.executable, "-m", "de_core", "plugins"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_plugins_as_a_table_and_as_json(capsys):
    assert main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["STATUS", "KIND", "NAME", "FROM"]
    assert ["lazy", "command", "greet", "acme", "1.0"] in [line.split()[:5] for line in lines]
    for arguments in (["plugins", "--json"], ["plugins", "list", "--json"], ["plugins", "--json", "list"]):
        assert main(arguments) == 0
        listed = json.loads(capsys.readouterr().out)
        assert listed["api_version"] == [1, 0]
        assert [p["name"] for p in listed["plugins"]] == ["gone", "greet", "rubbish"]
    assert main(["plugins", "show", "greet", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["plugins"]
    assert shown["key"] == "acme:greet"
    assert shown["status"] == "loaded"
    assert shown["target"] == "acme.heavy:Greet"
    assert main(["plugins", "show", "acme:gone"]) == 0
    text = capsys.readouterr().out
    assert "broken" in text
    assert "No module named 'acme.gone'" in text


def test_check_asks_the_kit(capsys, monkeypatch):
    asked = []

    class Report:
        ok = False

        def to_dict(self):
            return {"ok": self.ok}

        def to_text(self):
            return "1 check failed"

    def check_named(name, level):
        asked.append((name, level))
        return Report()

    kit = types.ModuleType("de_core.testing")
    kit.check_named = check_named  # pyright: ignore[reportAttributeAccessIssue]  # a stand-in for the kit
    monkeypatch.setitem(sys.modules, "de_core.testing", kit)
    assert main(["plugins", "check", "torus"]) == 1
    assert capsys.readouterr().out == "1 check failed\n"
    Report.ok = True
    assert main(["plugins", "check", "torus", "--level", "law", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True}
    assert asked == [("torus", None), ("torus", "law")]
    assert main(["plugins", "check", "torus", "--level", "vibes"]) == 2


def test_the_levels_are_the_kits():
    assert de_core.cli.plugins.LEVELS == de_core.testing.report.LEVELS


def test_a_bad_plugin_is_warned_of_on_one_line(capsys):
    with fake_distribution("bad", {"bad": "bad_plugin"}, {"bad_plugin": "1 / 0"}):
        assert main(["greet", "you"]) == 0
    said = capsys.readouterr()
    assert said.out == "hello you\n"
    assert said.err == "diffuse: warning: plugin bad:bad is broken: ZeroDivisionError: division by zero\n"


@pytest.fixture
def artifact(tmp_path):
    """An artifact as a synthesizer leaves it, with a torn and an infinite line in its curve."""
    config = {
        "kind": "tabular",
        "joint": {"modalities": {"age": {"plugin": "acme:real", "config": {"event_shape": [1]}}}},
        "schema": {"columns": [{"name": "age", "kind": "continuous"}]},
    }
    curve = "".join(json.dumps({"step": i, "loss": 4.0 - i}) + "\n" for i in range(4))
    curve += '{"step": 4, "loss": NaN}\n{"step": 5, "lo'
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    return save_artifact(tmp_path / "adult", config, tensors, {"curve.jsonl": curve})


def test_inspect(capsys, artifact):
    assert main(["inspect", str(artifact)]) == 0
    out = capsys.readouterr().out
    for words in (
        "tabular artifact, format 1",
        "parameters  10",
        "acme:real (not installed here)",
        '"name": "age"',
        "█",
        "loss 4 to 1",
    ):
        assert words in out
    assert main(["inspect", str(artifact), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == 10
    assert facts["kind"] == "tabular"
    assert facts["plugins"] == {"acme:real": None}
    assert facts["schema"] == {"columns": [{"name": "age", "kind": "continuous"}]}
    assert [record["loss"] for record in facts["curve"]] == [4.0, 3.0, 2.0, 1.0, None]


@pytest.mark.parametrize("broken", [{"modalities": [1]}, {"modalities": {"a": {"plugin": [1]}}}, {"files": 3}])
def test_inspect_refuses_a_config_of_other_types(capsys, tmp_path, broken):
    save_artifact(tmp_path / "a", {"kind": "demo"}, {})
    file = tmp_path / "a" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | broken))
    assert main(["inspect", str(tmp_path / "a")]) == 2
    assert "damaged or of another version" in capsys.readouterr().err


def test_inspect_takes_the_parameters_of_the_config(capsys, tmp_path):
    path = save_artifact(tmp_path / "m", {"kind": "x", "parameters": 7}, {"weights": torch.zeros(9)})
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 7


def test_inspect_on_a_terminal_of_ascii(artifact, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["inspect", str(artifact)]) == 0
    screen.seek(0)
    assert "loss 4 to 1" in screen.read()


def test_sparkline():
    assert sparkline([]) == ""
    assert sparkline([3.0]) == "▁"
    assert sparkline([0.0, 7.0]) == "▁█"
    assert sparkline([float(i // 2) for i in range(16)], width=8) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([1.0] * 1000)) == 60


def test_plugins_needs_no_more_than_torch():
    """The list must stay quick: nothing heavy beyond ``import de_core``."""
    code = """
        from de_core.cli import main
        main(["plugins"])
        heavy = {"pandas", "sklearn", "matplotlib", "pytest", "hypothesis", "de_core.testing"}
        assert not heavy & set(sys.modules)
    """
    path = [p for p in sys.path if p]
    code = f"import sys; sys.path[:0] = {path!r}\n" + textwrap.dedent(code)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
