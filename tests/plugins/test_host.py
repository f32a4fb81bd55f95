"""The plugin host under fire: whatever a plugin does, the host lives, the others work, the reason is told."""

import concurrent.futures
import contextlib
import importlib
import io
import json
import re
import subprocess
import sys
import warnings

import pytest

from de_core import plugins
from de_core.cli import main
from de_core.errors import DiffuseError, PluginError
from de_core.hookspecs import CommandInfo, MetricInfo, ModalityInfo
from de_core.plugins import PluginWarning, get_component, get_modality, list_modalities, plugin_records
from de_core.testing.fake_distribution import fake_distribution, nothing_installed


def light(*names: str, target: str = "{package}.heavy:Thing", extra: str = "") -> str:
    """The source of a light module that describes modalities of these names."""
    infos = ", ".join(
        f"ModalityInfo({n!r}, {target!r}.format(package=__name__.partition('.')[0]){extra})" for n in names
    )
    return (
        "from de_core.hookspecs import MetricInfo, ModalityInfo, hookimpl\n"
        f"@hookimpl\ndef de_modalities():\n    return [{infos}]\n"
    )


HEAVY = """
from de_core.modality import Modality
methods = {name: (lambda self, *args, **kwargs: None) for name in Modality.__abstractmethods__}
Thing = type("Thing", (Modality,), methods)
"""


def good(package: str, *names: str) -> dict[str, str]:
    """A plugin that works."""
    return {package: "", f"{package}.plugin": light(*names), f"{package}.heavy": HEAVY}


@pytest.fixture(autouse=True)
def good_neighbours(monkeypatch):
    """A stand-in for the built-ins, and a stranger that works: both must, whatever the bad plugin does."""
    monkeypatch.delenv("DE_PLUGINS", raising=False)
    builtin = fake_distribution("diffuse-everything", {"gaussian": "fake_core.plugin"}, good("fake_core", "gaussian"))
    stranger = fake_distribution("de-good", {"circle": "de_good.plugin"}, good("de_good", "circle"))
    with nothing_installed(), builtin, stranger:
        yield


@contextlib.contextmanager
def installed(source: str, *, name="de-bad", entry="bad", value="de_bad.plugin", heavy=HEAVY):
    """A plugin with that light module; the warnings of its discovery are returned."""
    modules = {"de_bad": "", "de_bad.plugin": source, "de_bad.heavy": heavy}
    with fake_distribution(name, {entry: value}, modules), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugin_records()
        yield [str(w.message) for w in caught if issubclass(w.category, PluginWarning)]


def record_of(key: str):
    """The one record of that key."""
    (record,) = [r for r in plugin_records() if r.key == key]
    return record


def neighbours_work():
    """Both good ones are there and can be had."""
    assert {"gaussian", "circle"} <= {info.name for info in list_modalities()}
    assert get_modality("gaussian").__name__ == "Thing"
    assert get_modality("circle").__name__ == "Thing"


HOOK = "from de_core.hookspecs import MetricInfo, ModalityInfo, hookimpl\n@hookimpl\ndef de_modalities():\n    "
BROKEN = {
    "raises on import": ("raise ValueError('no luck')", ValueError, "no luck"),
    "exits on import": ("import sys; sys.exit(3)", SystemExit, "3"),
    "error without words": (
        "class E(Exception):\n  def __str__(self): raise OSError('not even this')\nraise E",
        Exception,
        "E",
    ),
    "error that exits when it is read": (
        "class E(Exception):\n  def __str__(self): raise SystemExit\nraise E",
        Exception,
        "E",
    ),
    "error that no terminal shows": (r"raise ValueError('\x1b[2J \ud800 gone')", ValueError, r"\x1b[2J \ud800 gone"),
    "error without end": ("raise ValueError('ab' * 10_000)", ValueError, "abab..."),
    "raises what is no Exception": ("class E(BaseException): pass\nraise E('odd')", BaseException, "odd"),
    "runs without end": ("def f(): f()\nf()", RecursionError, "recursion"),
    "does not compile": ("def (", SyntaxError, "invalid syntax"),
    "needs what is missing": ("import surely_not_installed", ModuleNotFoundError, "surely_not_installed"),
    "no hook": ("x = 1", PluginError, "found none"),
    "misspelt hook": (HOOK.replace("de_modalities", "de_modality") + "return []", Exception, "de_modality"),
    "hook raises": (HOOK + "raise RuntimeError('hook broke')", RuntimeError, "hook broke"),
    "hook exits": (HOOK + "raise SystemExit", SystemExit, "SystemExit"),
    "hook returns None": (HOOK + "pass", PluginError, "expected a list of ModalityInfo, got NoneType"),
    "hook returns text": (HOOK + "return 'torus'", PluginError, "expected a list of ModalityInfo, got str"),
    "hook returns rubbish items": (
        HOOK + "return [7]",
        PluginError,
        "expected ModalityInfo in the list, got int",
    ),
    "hook gives without end": (
        HOOK + "while True: yield ModalityInfo('x', 'a:b')",
        PluginError,
        "expected a list of ModalityInfo, got generator",
    ),
    "hook returns a list of its own making": (
        HOOK + "return type('L', (list,), {'__iter__': lambda self: iter(int, 1)})()",
        PluginError,
        "expected a list of ModalityInfo, got L",
    ),
    "hook returns its own kind of description": (
        HOOK + "return [type('My', (ModalityInfo,), {'kind': 'banana', '__hash__': None})('x', 'a:b')]",
        PluginError,
        "expected ModalityInfo in the list, got My",
    ),
    "hook returns an empty description": (
        HOOK + "return [object.__new__(ModalityInfo)]",
        AttributeError,
        "no attribute 'name'",
    ),
    "description changed behind the constructor's back": (
        HOOK + "info = ModalityInfo('x', 'a:b'); object.__setattr__(info, 'api_version', None); return [info]",
        DiffuseError,
        "two integers",
    ),
    "hook returns another kind": (
        HOOK + "return [MetricInfo('m', 'a:b')]",
        PluginError,
        "got MetricInfo",
    ),
    "wrong argument": (HOOK.replace("()", "(host)") + "return []", Exception, "host"),
    "target without colon": (
        HOOK + "return [ModalityInfo('x', 'a.b.C')]",
        DiffuseError,
        "package.module:Name",
    ),
    "name with spaces": (HOOK + "return [ModalityInfo('my torus', 'a:b')]", DiffuseError, "my torus"),
    "summary of two lines": (
        HOOK + r"return [ModalityInfo('x', 'a:b', summary='one\ntwo')]",
        DiffuseError,
        "one printable line",
    ),
    "registers on import": (
        "from de_core import ModalityInfo, register\nregister(ModalityInfo('x', 'a:b'))",
        PluginError,
        "still asking the plugins",
    ),
    "version as text": (
        HOOK + "return [ModalityInfo('x', 'a:b', api_version='1.0')]",
        DiffuseError,
        "two integers",
    ),
    "asks too early": (
        "from de_core.plugins import get_modality\nget_modality('gaussian')",
        PluginError,
        "still asking the plugins",
    ),
    "described twice": (
        HOOK + "return [ModalityInfo('bad', 'a:b'), ModalityInfo('bad', 'a:c')]",
        PluginError,
        "a:b and a:c",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_recorded_warned_of_and_raised_with_its_own_error(how, capsys):
    source, cause, words = BROKEN[how]
    with installed(source) as said:
        record = record_of("de-bad:bad")
        assert record.status == "broken"
        assert words in record.reason
        assert record.origin == "de-bad 1.0"
        assert len(said) == 1
        assert "de-bad:bad is broken" in said[0]
        for name in ("bad", "de-bad:bad", "De_Bad:bad"):
            with pytest.raises(PluginError, match=r"de-bad 1\.0 is broken") as caught:
                get_modality(name)
            assert isinstance(caught.value.__cause__, cause)
        neighbours_work()
        with warnings.catch_warnings(record=True) as again:
            plugin_records()
        assert again == []
        capsys.readouterr()
        assert main(["plugins"]) == 0
        out = capsys.readouterr().out
        assert "de-bad:bad" in out
        assert "broken" in out
        assert main(["plugins", "show", "bad"]) == 0
        out = capsys.readouterr().out
        for said_there in ("broken", "de-bad 1.0", words):
            assert said_there in " ".join(out.split())


@pytest.mark.parametrize("value", ["not_there.plugin", "de_bad.plugin:missing", "de_bad.nothing", "1 2 3"])
def test_an_entry_point_that_leads_nowhere(value):
    with installed(light("torus"), value=value) as said:
        assert record_of("de-bad:bad").status == "broken"
        assert len(said) == 1
        with pytest.raises(PluginError) as caught:
            get_modality("bad")
        assert isinstance(caught.value.__cause__, ImportError | AttributeError)
        neighbours_work()


def test_an_entry_point_file_that_is_none():
    text = "[diffuse_everything.plugins]\nthis line says nothing\n"
    with (
        fake_distribution("de-bad", text, {}),
        pytest.warns(PluginWarning, match="entry_points.txt is broken"),
    ):
        neighbours_work()


def test_an_entry_point_file_that_is_no_text():
    with fake_distribution("de-bad", {"bad": "de_bad"}, {"de_bad": ""}) as folder:
        with (folder / "de_bad-1.0.dist-info" / "entry_points.txt").open("ab") as file:
            file.write(b"\xff")
        plugins.refresh()
        with pytest.warns(PluginWarning, match=r"entry_points.txt is broken: UnicodeDecodeError"):
            neighbours_work()


def test_a_distribution_without_a_version():
    with fake_distribution("de-bad", {"torus": "de_bad.plugin"}, good("de_bad", "torus")) as folder:
        (folder / "de_bad-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: de-bad\n")
        plugins.refresh()
        assert record_of("de-bad:torus").origin == "de-bad"
        assert main(["plugins"]) == 0
        neighbours_work()


def test_a_plugin_that_clears_the_path_hides_nobody():
    """It lies before the others on the path, so that it is asked while they are still to be found."""
    path = list(sys.path)
    try:
        source = "import sys\nsys.path[:] = sys.path[3:]\n" + light("torus")
        with (
            fake_distribution("a-first", {"bad": "a_first"}, {"a_first": source}),
            pytest.warns(PluginWarning, match=r"No module named '(de_good|fake_core)'"),
        ):
            assert {record.key for record in plugin_records()} >= {
                "a-first:torus",
                "de-good:circle",
                "diffuse-everything:gaussian",
            }
    finally:
        sys.path[:] = path


def test_a_plugin_that_makes_warnings_errors_does_so_for_itself():
    with installed("import warnings\nwarnings.simplefilter('error')\nraise ValueError") as said:
        assert len(said) == 1
        neighbours_work()
        assert main(["gret"]) == 2  # and no failure of ours


def test_many_threads_ask_at_once():
    with fake_distribution("de-slow", {"torus": "de_slow.plugin"}, good("de_slow", "torus")) as folder:
        light_module = folder / "de_slow" / "plugin.py"
        light_module.write_text("import time\ntime.sleep(0.2)\n" + light_module.read_text())
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(get_modality, ["torus", "circle"] * 8))
        assert found == [get_modality("torus"), get_modality("circle")] * 8


@pytest.mark.parametrize(
    ("version", "cure"),
    [("(2, 0)", "upgrade"), ("(0, 9)", "newer version of the plugin"), ("(1, 1)", "upgrade")],
)
def test_another_version_of_the_interface(version, cure):
    with installed(light("torus", extra=f", api_version={version}")) as said:
        record = record_of("de-bad:torus")
        assert record.status == "incompatible"
        assert cure in record.reason
        assert "this host has 1.0" in record.reason
        assert len(said) == 1
        with pytest.raises(PluginError, match=r"torus.*is incompatible: written for"):
            get_modality("torus")
        assert "torus" not in {info.name for info in list_modalities()}
        neighbours_work()


def test_two_strangers_of_one_name_are_both_shadowed_and_the_error_names_both():
    with installed(light("circle")) as said:
        assert record_of("de-bad:circle").status == record_of("de-good:circle").status == "shadowed"
        assert len(said) == 2
        with pytest.raises(PluginError, match="ambiguous: de-bad:circle and de-good:circle"):
            get_modality("circle")
        assert get_modality("de-bad:circle") is not get_modality("de-good:circle")
        with pytest.raises(PluginError, match="ambiguous"):  # also once they are loaded
            get_modality("circle")
    assert get_modality("circle")  # and alone it is itself again


def test_the_name_of_a_builtin_is_reserved():
    with installed(light("gaussian")) as said:
        assert record_of("de-bad:gaussian").status == "shadowed"
        assert "built-in" in said[0]
        assert get_modality("gaussian") is get_modality("diffuse-everything:gaussian")
        assert get_modality("de-bad:gaussian") is not get_modality("gaussian")


def test_the_name_stays_reserved_when_the_builtin_is_broken():
    core = {"fake_core": "", "fake_core.plugin": "raise ValueError('bad release')"}
    with (
        fake_distribution("diffuse-everything", {"gaussian": "fake_core.plugin"}, core),
        installed(light("gaussian")),
    ):
        with pytest.raises(PluginError, match="bad release"):
            get_modality("gaussian")
        assert get_modality("de-bad:gaussian")


def test_an_entry_point_listed_twice_is_one():
    line = "torus = de_bad.plugin\n"
    text = f"[diffuse_everything.plugins]\n{line}{line}"
    modules = good("de_bad", "torus")
    with (
        fake_distribution("de-bad", text, modules),
        fake_distribution("De_Bad", text, modules),  # and the distribution twice, as editable installs do
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        assert record_of("de-bad:torus").status == "lazy"
        assert get_modality("torus")


NO_MODALITY = {
    "function": ("def Thing(): pass", TypeError, "expected a subclass"),
    "another class": ("class Thing: pass", TypeError, "expected a subclass"),
    "instance": ("Thing = 3", TypeError, "expected a subclass"),
    "abstract": ("from de_core.modality import Modality\nclass Thing(Modality): pass", TypeError, "lacks"),
    "missing": ("Other = 1", AttributeError, "Thing"),
    "capability that there is not": (
        HEAVY + "class Flier(Thing):\n    capabilities = frozenset({'fly'})",
        DiffuseError,
        "unknown capability ['fly']",
    ),
    "raises": ("raise RuntimeError('no gpu')", RuntimeError, "no gpu"),
    "exits": ("import sys; sys.exit('bye')", SystemExit, "bye"),
    "needs what is missing": ("import surely_not_installed", ModuleNotFoundError, "surely_not_installed"),
}


@pytest.mark.parametrize("how", NO_MODALITY)
def test_a_class_that_is_none_breaks_when_it_is_asked_for(how, capsys):
    heavy, cause, words = NO_MODALITY[how]
    with installed(light("torus"), heavy=heavy) as said:
        assert said == []
        assert record_of("de-bad:torus").status == "lazy"
        for _ in range(2):
            with pytest.raises(PluginError, match=re.escape(words)) as caught:
                get_modality("torus")
            assert isinstance(caught.value.__cause__, cause)
        assert record_of("de-bad:torus").status == "broken"
        neighbours_work()
        plugins.refresh()
        sys.modules.pop("de_bad.heavy", None)
        assert main(["plugins", "show", "torus"]) == 0  # looks at the class, so that the status is the truth
        assert "broken" in capsys.readouterr().out


def test_a_description_that_promises_more_than_the_class_keeps():
    with installed(light("torus", extra=", capabilities={'density', 'ode'}")):
        assert record_of("de-bad:torus").status == "lazy"
        with pytest.raises(PluginError, match="capabilities that the class does not declare: density, ode"):
            get_modality("torus")
        neighbours_work()


def test_a_command_of_the_cores_own_name_is_shadowed(capsys):
    source = (
        "from de_core.hookspecs import CommandInfo, hookimpl\n"
        "@hookimpl\ndef de_commands():\n    return [CommandInfo('plugins', 'a:b'), CommandInfo('inspect', 'a:b')]\n"
    )
    with installed(source):
        assert record_of("de-bad:plugins").status == record_of("de-bad:inspect").status == "shadowed"
        assert main(["plugins"]) == 0
        assert "the name 'inspect' is a built-in's" in capsys.readouterr().out


@pytest.mark.parametrize("result", ["'rubbish'", "[1]", "1 / 0"])
def test_a_command_that_does_not_return_a_code_failed(result, capsys):
    source = (
        "from de_core.hookspecs import CommandInfo, hookimpl\n"
        "@hookimpl\ndef de_commands():\n    return [CommandInfo('greet', 'de_bad.heavy:Greet')]\n"
    )
    heavy = f"class Greet:\n  def add_arguments(self, parser): pass\n  def run(self, args): return {result}"
    with installed(source, heavy=heavy):
        assert main(["greet"]) == 3
        assert "diffuse: command 'greet' of de-bad 1.0 failed: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("examples", "code", "words"),
    [
        ("raise ValueError('no data')", 3, "modality 'torus' cannot be checked: ValueError: no data"),
        ("sys.exit(0)", 3, "modality 'torus' cannot be checked: SystemExit: 0"),
        ("return 3", 3, "modality 'torus' cannot be checked: TypeError"),
        ("return [7]", 3, "modality 'torus' cannot be checked: TypeError"),
        ("return []", 2, "nothing to check"),
    ],
)
def test_a_modality_that_cannot_be_checked_has_not_passed(capsys, examples, code, words):
    heavy = f"{HEAVY}import sys\ndef examples():\n    print('hello')\n    {examples}\nThing.examples = examples\n"
    with installed(light("torus"), heavy=heavy):
        assert main(["plugins", "check", "torus", "--json"]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert words in said.err


def test_keyboard_interrupt_is_the_persons_own():
    with (
        fake_distribution("de-bad", {"bad": "de_bad"}, {"de_bad": "raise KeyboardInterrupt"}),
        pytest.raises(KeyboardInterrupt),
    ):
        plugin_records()
    neighbours_work()
    with installed(light("torus"), heavy="raise KeyboardInterrupt"), pytest.raises(KeyboardInterrupt):
        get_modality("torus")
    neighbours_work()


def test_words_beyond_the_terminals_alphabet(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    with installed(light("torus", extra=", summary='Größe'")):
        assert main(["plugins"]) == 0
    screen.seek(0)
    assert r"Gr\xf6\xdfe" in screen.read()


def test_a_plugin_that_prints_does_not_spoil_stdout(capsys):
    with installed("print('hello from the plugin')\n" + light("torus"), heavy="print('hello again')\n" + HEAVY):
        assert get_modality("torus")
    assert capsys.readouterr().out == ""


def test_nothing_is_imported_before_it_is_asked_for():
    with fake_distribution("de-bad", {"torus": "de_bad.plugin"}, good("de_bad", "torus")):
        assert "de_bad" not in sys.modules
        assert "torus" in {info.name for info in list_modalities()}
        assert "de_bad.plugin" in sys.modules
        assert "de_bad.heavy" not in sys.modules
        assert get_modality("torus") is importlib.import_module("de_bad.heavy").Thing
        assert record_of("de-bad:torus").status == "loaded"


def test_importing_the_core_discovers_nothing(tmp_path):
    code = "import de_core; assert de_core.plugins._host is None; assert 'de_bad' not in sys.modules"
    with fake_distribution("de-bad", {"bad": "de_bad"}, {"de_bad": "raise ValueError"}) as folder:
        path = [str(folder), *[p for p in sys.path if p]]
        subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"], check=True, cwd=tmp_path)


def test_off_asks_nobody_but_the_builtins(monkeypatch, capsys):
    monkeypatch.setenv("DE_PLUGINS", "off")
    with installed("raise ValueError") as said:
        assert said == []
        assert "de_bad" not in sys.modules
        assert record_of("de-bad:bad").status == record_of("de-good:circle").status == "blocked"
        assert [info.name for info in list_modalities()] == ["gaussian"]
        with pytest.raises(PluginError, match="blocked: DE_PLUGINS=off"):
            get_modality("circle")
        with pytest.raises(DiffuseError, match=r"unknown modality 'torus'.*not asked or broken: .*de-bad:bad"):
            get_modality("torus")
        for arguments in (["plugins"], ["plugins", "show", "circle"]):
            assert main(arguments) == 0
            out = capsys.readouterr().out
            assert "blocked" in out
            assert "DE_PLUGINS=off" in out
    assert get_modality("gaussian")


@pytest.mark.parametrize("who", ["circle", "de-good", "De_Good", "de-good:circle", "circle, nobody"])
def test_only_asks_the_named_ones(monkeypatch, who):
    monkeypatch.setenv("DE_PLUGINS", f"only={who}")
    with installed("raise ValueError") as said:
        assert record_of("de-bad:bad").status == "blocked"
        assert len(said) == ("nobody" in who)
        neighbours_work()


def test_strict_raises_what_is_broken(monkeypatch, capsys):
    monkeypatch.setenv("DE_PLUGINS", "strict")
    neighbours_work()
    with installed("raise ValueError('no luck')"):
        for ask in (list_modalities, lambda: get_modality("gaussian")):
            with pytest.raises(PluginError, match="no luck") as caught:
                ask()
            assert isinstance(caught.value.__cause__, ValueError)
        for arguments in (["plugins"], ["plugins", "show", "bad"], ["plugins", "show", "circle"]):
            assert main(arguments) == 3
            said = capsys.readouterr()
            assert arguments[-1].removeprefix("plugins") in said.out
            assert "no luck" in said.err
        assert main(["plugins", "--json"]) == 3
        assert "de-bad:bad" in {p["key"] for p in json.loads(capsys.readouterr().out)["plugins"]}
    with installed(light("torus", extra=", api_version=(2, 0)")), pytest.raises(PluginError, match="incompatible"):
        list_modalities()
    with installed(light("torus"), heavy="1 / 0"):  # known to be broken once somebody has looked
        with pytest.raises(PluginError, match="division by zero"):
            get_modality("torus")
        with pytest.raises(PluginError, match="division by zero"):
            get_modality("gaussian")


@pytest.mark.parametrize("setting", ["on", "only", "only=", "off=1", "strict=x"])
def test_a_setting_that_is_none(monkeypatch, setting):
    monkeypatch.setenv("DE_PLUGINS", setting)
    plugins.refresh()
    with pytest.raises(DiffuseError, match="DE_PLUGINS: expected off, strict or only="):
        list_modalities()
    assert main(["plugins"]) == 2


def test_unknown_names_and_kinds():
    with pytest.raises(DiffuseError, match="unknown modality 'gausian': did you mean 'gaussian'"):
        get_modality("gausian")
    with pytest.raises(DiffuseError, match="unknown modality 'nobody:gaussian'"):
        get_modality("nobody:gaussian")
    with pytest.raises(DiffuseError, match="expected a name, got None"):
        get_modality(None)  # pyright: ignore[reportArgumentType]  # the mistake under test
    with pytest.raises(DiffuseError, match="expected a kind of component"):
        get_component("modalities", "gaussian")


def test_kinds_do_not_clash():
    source = (
        "from de_core.hookspecs import MetricInfo, hookimpl\n"
        "@hookimpl\ndef de_metrics():\n    return [MetricInfo('gaussian', 'math:hypot')]\n"
    )
    core = good("fake_core", "gaussian") | {"fake_metrics": source}
    entry_points = {"a": "fake_core.plugin", "b": "fake_metrics"}
    with fake_distribution("diffuse-everything", entry_points, core):
        assert get_component("metric", "gaussian")(3, 4) == 5
        assert get_modality("gaussian").__name__ == "Thing"


def test_register_and_unregister():
    info = ModalityInfo("torus", "de_good.heavy:Thing", summary="mine")
    plugins.register(info)
    try:
        assert get_modality("torus") is get_modality("local:torus")
        assert plugins.name_of_modality(get_modality("gaussian")) == "gaussian"
        plugins.refresh()  # what is installed is read anew, what was registered stays
        assert info in list_modalities()
        again = ModalityInfo("torus", "fake_core.heavy:Thing")
        plugins.register(again)
        assert get_modality("torus") is get_modality("gaussian")
        plugins.register(ModalityInfo("circle", "de_good.heavy:Thing"))
        with pytest.raises(PluginError, match="de-good:circle and local:circle"):
            get_modality("circle")
    finally:
        plugins.unregister(info)
        plugins.unregister(ModalityInfo("circle", "de_good.heavy:Thing"))
    with pytest.raises(DiffuseError, match="unknown"):
        get_modality("torus")
    neighbours_work()


def test_register_refuses_what_cannot_work():
    with pytest.raises(DiffuseError, match="built-in"):
        plugins.register(ModalityInfo("gaussian", "a:B"))
    with pytest.raises(DiffuseError, match="built-in"):
        plugins.register(CommandInfo("inspect", "a:B"))
    with pytest.raises(DiffuseError, match=r"plugin interface 9\.0"):
        plugins.register(ModalityInfo("torus", "a:B", api_version=(9, 0)))
    with pytest.raises(DiffuseError, match="expected a description"):
        plugins.register(dict)  # pyright: ignore[reportArgumentType]  # the mistake under test
    plugins.register(MetricInfo("gaussian", "math:hypot"))
    plugins.unregister(MetricInfo("gaussian", "math:hypot"))


def test_the_name_of_a_class_is_what_gives_it():
    assert plugins.name_of_modality(get_modality("circle")) == "de-good:circle"
    with pytest.raises(DiffuseError, match="modality class int: no plugin offers it"):
        plugins.name_of_modality(int)


def test_fake_distributions_leave_nothing():
    neighbours_work()
    path, modules = list(sys.path), set(sys.modules)
    with fake_distribution("de-x", {"x": "de_x.plugin"}, good("de_x", "x")):
        assert get_modality("x")
    assert sys.path == path
    assert set(sys.modules) - modules == set()
