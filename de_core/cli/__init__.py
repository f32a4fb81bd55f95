"""The ``diffuse`` command.

The core owns ``plugins`` and ``inspect``; every other sub-command is a plugin's (hook ``de_commands``) and is
imported when it is the one that was called. A command has ``add_arguments(parser)`` and ``run(args) -> int``.

Exit codes: 0 done; 1 a check failed; 2 the call or the data is wrong; 3 a plugin failed; 70 a bug in this
framework; 130 interrupted; 141 nobody reads the output any more. A failure is one sentence on stderr;
``--debug`` or ``DE_DEBUG=1`` shows the traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import de_core
from de_core._discovery import sentence
from de_core.errors import DiffuseError, PluginError
from de_core.plugins import BUILTIN, PluginWarning, get_component, plugin_records

__all__ = ["Command", "main"]


_CORE = {
    "inspect": ("show what an artifact directory holds", "de_core.cli.inspect"),
    "plugins": ("list the plugins, show or check one, write a new one", "de_core.cli.plugins"),
}


class Command(Protocol):
    """What the target of a ``CommandInfo`` is: an object, or a class that is made without arguments."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit code."""
        ...


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as an error of the call."""

    def error(self, message: str) -> NoReturn:
        raise DiffuseError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``diffuse`` with these arguments (default: those of the process) and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("DE_DEBUG", "") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"]
    selected = next((argument for argument in arguments if not argument.startswith("-")), "")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a plugin's words may lie outside the terminal's alphabet
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # a line on stderr whatever -W says; `plugins` shows the same in full
            warnings.simplefilter("ignore" if selected == "plugins" else "always", PluginWarning)
            return _run(arguments, selected)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, debug)
    except BrokenPipeError:
        # stdout is gone; the interpreter would stumble over it again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except DiffuseError as error:
        return _fail(str(error), 2, debug)
    except PluginError as error:
        return _fail(str(error), 3, debug)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return _fail(f"this is a bug in diffuse, please report it with the output of --debug: {what}", 70, debug)


def _run(arguments: list[str], selected: str) -> int:
    records = [r for r in plugin_records() if r.kind == "command" and r.status in ("lazy", "loaded")]
    summaries = {r.name: r.info.summary for r in records if r.info is not None}
    summaries |= {name: summary for name, (summary, _) in _CORE.items()}
    command = _load(selected, sorted(summaries)) if selected else None
    if selected:
        summaries.setdefault(selected, "")  # a key such as "acme:fit"
    parser = _Parser(prog="diffuse", description="Joint diffusion over any mix of data.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"diffuse-everything {de_core.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in sorted(summaries.items()):
        about = summary.replace("%", "%%")
        chosen = subparsers.add_parser(name, help=about, description=summary, allow_abbrev=False)
        if name == selected and command is not None:
            _blaming(selected, command.add_arguments, chosen)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    code = _blaming(selected, lambda: int(command.run(args) or 0)) if command is not None else 0
    sys.stdout.flush()
    return code


def _load(selected: str, known: list[str]) -> Command:
    """The command of that name: the core's own, or a plugin's."""
    if selected in _CORE:
        return importlib.import_module(_CORE[selected][1])  # pyright: ignore[reportReturnType]  # a module is one
    try:
        found = get_component("command", selected)
    except DiffuseError as error:
        close = difflib.get_close_matches(selected, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DiffuseError(f"unknown command {selected!r}: {hint}Expected one of {', '.join(known)}") from error
    command = _blaming(selected, found) if isinstance(found, type) else found
    if not (callable(getattr(command, "add_arguments", None)) and callable(getattr(command, "run", None))):
        raise PluginError(f"command {selected!r}: expected add_arguments(parser) and run(args), got {found!r}")
    return command


def _blaming(name: str, call: Callable[..., Any], *args: Any) -> Any:
    """Call into a command. What a stranger's raises unawares is its failure, no bug in diffuse."""
    try:
        return call(*args)
    except (KeyboardInterrupt, DiffuseError, PluginError, OSError):
        raise
    except BaseException as error:
        owner = next((r for r in plugin_records() if r.kind == "command" and name in (r.name, r.key)), None)
        if isinstance(error, Exception) and (owner is None or owner.distribution == BUILTIN):
            raise
        who = owner.origin if owner else "diffuse-everything"
        raise PluginError(f"command {name!r} of {who} failed: {sentence(error)}") from error


def _fail(sentence: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"diffuse: {sentence}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"diffuse: warning: {message}", file=sys.stderr)
