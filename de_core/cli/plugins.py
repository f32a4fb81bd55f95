"""``diffuse plugins [list | show NAME | check NAME | new NAME]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from typing import Any

from de_core import plugins
from de_core._discovery import sentence
from de_core.cli.new import SUMMARIES, write_plugin
from de_core.errors import DiffuseError, PluginError
from de_core.plugins import PluginRecord

__all__ = ["add_arguments", "run"]

LEVELS = ("contract", "law", "numerics")  # the kit's own; a test holds the two together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``diffuse plugins``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="every plugin, with its status (the default)")
    show = actions.add_parser("show", help="all that is known of one")
    check = actions.add_parser("check", help="run the conformance checks on a modality")
    new = actions.add_parser("new", help="write a plugin that works, with its tests, to make your own of")
    new.add_argument("name", metavar="NAME", help="what its modality is called; the distribution is called de-NAME")
    new.add_argument("--kind", default="continuous", choices=SUMMARIES, help="of its state space (default: continuous)")
    new.add_argument("--out", metavar="DIR", help="the directory to make (default: de-NAME)")
    for action in (show, check):
        action.add_argument("name", metavar="NAME", help="a name, or a key such as de-torus:torus")
    check.add_argument("--level", choices=LEVELS, help="only the checks of this level")
    for action in (parser, listing, show, check, new):
        # SUPPRESS: what stands before the action must not be undone by the action's own default
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """List, show, check or write."""
    as_json = getattr(args, "json", False)
    if args.action == "new":
        return _new(args.name, args.kind, args.out, as_json)
    if args.action == "check":
        return _check(args.name, args.level, as_json)
    if args.action == "show":
        return _show(args.name, as_json)
    records = plugins.plugin_records()
    if as_json:
        print(_json(records))
    else:
        print(_table(records))
    plugins.check_strict()
    return 0


def _show(name: str, as_json: bool) -> int:
    def matching() -> list[PluginRecord]:
        key = plugins.normal_key(name)
        return [r for r in plugins.plugin_records() if key in (r.key, r.name)]

    if not matching():
        known = ", ".join(record.key for record in plugins.plugin_records())
        raise DiffuseError(f"unknown plugin {name!r}: expected one of {known or '(none is installed)'}")
    for record in matching():
        if record.info is not None:
            with contextlib.suppress(PluginError):  # look at the target, so that the status is the truth
                plugins.get_component(record.kind, record.key)
    if as_json:
        print(_json(matching()))
    else:
        print("\n\n".join(_card(record) for record in matching()))
    plugins.check_strict()
    return 0


def _check(name: str, level: str | None, as_json: bool) -> int:
    from de_core.testing import check_named  # here, because listing plugins must stay quick

    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a stranger's code prints is no part of the report
            report = check_named(name, level)
    except (KeyboardInterrupt, DiffuseError, PluginError):
        raise
    except BaseException as error:  # SystemExit too: a modality that exits has not passed
        raise PluginError(f"modality {name!r} cannot be checked: {sentence(error)}") from error
    print(json.dumps(report.to_dict()) if as_json else report.to_text())
    return 0 if report.ok else 1


def _new(name: str, kind: str, out: str | None, as_json: bool) -> int:
    path = write_plugin(name, kind, out)
    if as_json:
        print(json.dumps({"path": str(path), "name": name, "kind": kind}))
        return 0
    here = path.resolve()
    print(f"{path}: a plugin with the modality {name!r}, {SUMMARIES[kind]}. It works:")
    print(f"  python -m pip install -e {shlex.quote(f'{here}[testing]')}")
    print(f"  diffuse plugins check {name}")
    print(f"  python -m pytest {shlex.quote(str(here))}")
    return 0


def _facts(record: PluginRecord) -> dict[str, Any]:
    info = record.info
    return {
        "key": record.key,
        "kind": record.kind,
        "name": record.name,
        "status": record.status,
        "reason": record.reason,
        "origin": record.origin,
        "distribution": record.distribution,
        "version": record.version,
        "entry_point": record.entry_point,
        "location": record.location,
        "target": info.target if info else None,
        "api_version": list(info.api_version) if info else None,
        "summary": info.summary if info else "",
        "capabilities": sorted(info.capabilities) if info else [],
    }


def _json(records: tuple[PluginRecord, ...] | list[PluginRecord]) -> str:
    host = list(plugins.API_VERSION)
    return json.dumps({"api_version": host, "plugins": [_facts(record) for record in records]})


def _table(records: tuple[PluginRecord, ...]) -> str:
    """One line each: status, kind, name (the key where the bare name does not work), origin, what or why."""
    rows = [("STATUS", "KIND", "NAME", "FROM", "")]
    for record in records:
        works = record.status in ("lazy", "loaded") and record.info is not None
        about = record.info.summary if works and record.info else record.reason
        rows.append((record.status, record.kind, record.name if works else record.key, record.origin, about))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _card(record: PluginRecord) -> str:
    facts = _facts(record)
    del facts["distribution"], facts["version"]  # the origin says both
    facts["api_version"] = ".".join(map(str, facts["api_version"] or []))
    facts["capabilities"] = ", ".join(facts["capabilities"])
    width = max(map(len, facts))
    return "\n".join(f"{key.replace('_', ' '):{width}}  {value}" for key, value in facts.items() if value)
