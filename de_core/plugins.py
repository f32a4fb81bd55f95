"""The plugin host: finds what is installed, lets no bad plugin harm the others, gives out what is asked for.

Three steps, each as late as it can be. When somebody first asks for something, the entry points of the group
``diffuse_everything.plugins`` are read from the metadata of the installed distributions, and their light
modules are asked through the hooks. The class behind a description is imported when that class is asked for.

A component's key is ``distribution:name``. Its bare name works while it is unique; the names of the built-ins
are reserved. ``DE_PLUGINS`` is read once, at discovery: ``off`` asks the built-ins only, ``only=a,b`` these
and the named plugins, and ``strict`` turns a broken or incompatible plugin into an error.

| status | meaning |
|---|---|
| lazy | described, not imported yet |
| loaded | imported |
| broken | it raised, exited, or is not what it says |
| incompatible | written for another version of the plugin interface |
| blocked | not asked, because of ``DE_PLUGINS`` |
| shadowed | its bare name belongs to another or to nobody; its key works |
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import sys
import threading
import warnings
from typing import Any

import attrs

from de_core._discovery import BUILTIN, PluginRecord, discover, incompatibility, normal_key, sentence
from de_core.errors import DiffuseError, PluginError
from de_core.hookspecs import API_VERSION, HOOKS, ComponentInfo, ModalityInfo

__all__ = [
    "API_VERSION",
    "PluginRecord",
    "PluginWarning",
    "check_strict",
    "get_component",
    "get_modality",
    "list_components",
    "list_modalities",
    "name_of_modality",
    "plugin_records",
    "refresh",
    "register",
    "unregister",
]

LOCAL = "local"  # the distribution of what `register` was given
CORE_COMMANDS = ("inspect", "plugins")  # the sub-commands that are no plugin's
_KINDS = tuple(info.kind for info in HOOKS.values())


class PluginWarning(RuntimeWarning):
    """A plugin is broken, incompatible or shadowed; given once, when the host first looks."""


@attrs.define
class _Host:
    """The state. No record in it is "shadowed": that depends on the others (see ``_shadow``)."""

    strict: bool
    records: list[PluginRecord]
    objects: dict[tuple[str, str], Any] = attrs.field(factory=dict)

    def replace(self, new: PluginRecord) -> None:
        """Put ``new`` in the place of the record of its kind and key."""
        same = [(r.kind, r.key) == (new.kind, new.key) for r in self.records]
        self.records = [new if found else r for found, r in zip(same, self.records, strict=True)]


_lock = threading.RLock()
_host: _Host | None = None
_discovering = False
_local: dict[tuple[str, str], ComponentInfo] = {}


def get_modality(name: str) -> type[Any]:
    """The modality class of that name, a subclass of ``Modality``, imported now if it was not yet.

    Args:
        name: a bare name (``"gaussian"``) or a key (``"de-torus:torus"``).

    Raises:
        DiffuseError: nobody offers the name.
        PluginError: it is broken, incompatible, blocked or ambiguous; ``__cause__`` is its own error.
    """
    return get_component("modality", name)


def list_modalities() -> list[ModalityInfo]:
    """The descriptions of the modalities that a bare name reaches, the built-ins first. Imports no class."""
    return [info for info in list_components("modality") if isinstance(info, ModalityInfo)]


def name_of_modality(modality: type) -> str:
    """The name by which ``get_modality`` gives that class; artifacts carry it.

    Bare for a built-in; else the key, which no plugin that is installed later can make ambiguous.

    Raises:
        DiffuseError: no plugin offers the class.
    """
    target = f"{modality.__module__}:{modality.__qualname__}"
    for record in plugin_records():
        loaded = _get_host().objects.get((record.kind, record.key))
        offered = record.info is not None and record.info.target == target
        if record.kind == "modality" and (offered or loaded is modality):
            return record.name if record.distribution == BUILTIN else record.key
    raise DiffuseError(
        f"modality class {modality.__qualname__}: no plugin offers it, so an artifact cannot name it; "
        "offer it with register(ModalityInfo(name, 'package.module:Class'))"
    )


def get_component(kind: str, name: str) -> Any:
    """What ``get_modality`` does, for any kind: "modality", "codec", "backbone", "metric" or "command"."""
    if kind not in _KINDS:
        raise DiffuseError(f"expected a kind of component, one of {', '.join(_KINDS)}, got {kind!r}")
    check_strict()
    return _resolve(_find(kind, name))


def list_components(kind: str) -> list[ComponentInfo]:
    """The descriptions of that kind that a bare name reaches, the built-ins first. Imports nothing."""
    check_strict()
    return [
        record.info
        for record in plugin_records()
        if record.kind == kind and record.info is not None and record.status in ("lazy", "loaded")
    ]


def plugin_records() -> tuple[PluginRecord, ...]:
    """Everything that was found, good and bad, the built-ins first. Raises for no plugin's fault."""
    records = _shadow(_get_host().records)
    return tuple(sorted(records, key=lambda record: (record.distribution != BUILTIN, record.kind, record.key)))


def check_strict() -> None:
    """Under ``DE_PLUGINS=strict``: raise the first broken or incompatible plugin. Otherwise nothing.

    Raises:
        PluginError: a plugin is broken or incompatible; ``__cause__`` is its own error.
    """
    host = _get_host()
    bad = [record for record in host.records if record.status in ("broken", "incompatible")]
    if host.strict and bad:
        raise _failure(bad[0]) from bad[0].error


def register(info: ComponentInfo) -> None:
    """Offer a component in this process, for notebooks and tests, as ``local:NAME``. Again replaces it.

    Raises:
        DiffuseError: no description, the name of a built-in, or another version of the plugin interface.
    """
    if not isinstance(info, tuple(HOOKS.values())):
        raise DiffuseError(f"register: expected a description such as ModalityInfo, got {type(info).__name__}")
    if reason := incompatibility(info):
        raise DiffuseError(f"{info.kind} {info.name!r}: {reason}")
    host = _get_host()
    if info.name in _reserved(host.records, info.kind):
        raise DiffuseError(f"{info.kind} {info.name!r}: the name is a built-in's, choose another")
    unregister(info)
    with _lock:
        _local[info.kind, info.name] = info
        host.records.append(_local_record(info))


def unregister(info: ComponentInfo) -> None:
    """Take back what ``register`` was given; nothing happens if it was not there."""
    host = _get_host()
    with _lock:
        _local.pop((info.kind, info.name), None)
        host.objects.pop((info.kind, f"{LOCAL}:{info.name}"), None)
        host.records = [
            record
            for record in host.records
            if (record.kind, record.name, record.distribution) != (info.kind, info.name, LOCAL)
        ]


def refresh() -> None:
    """Forget what was found: the next use reads ``DE_PLUGINS`` and the installed distributions again."""
    global _host
    with _lock:
        importlib.invalidate_caches()
        _host = None


def _get_host() -> _Host:
    global _host, _discovering
    if _host is not None:
        return _host
    with _lock:
        if _host is not None:
            return _host
        if _discovering:
            raise PluginError(
                "a plugin's light module asks for a component while the host is still asking the plugins; "
                "do that in the module that the description names"
            )
        _discovering = True
        try:
            found = discover()
        finally:
            _discovering = False
        local = [_local_record(info) for info in _local.values()]
        _host = host = _Host(found.mode == "strict", [*found.records, *local])
    for name in found.unmatched:
        warnings.warn(f"DE_PLUGINS names {name!r}: no such plugin is installed", PluginWarning, stacklevel=4)
    _warn(host)
    return host


def _local_record(info: ComponentInfo) -> PluginRecord:
    return PluginRecord(info.kind, info.name, LOCAL, "", "register()", "", "lazy", info=info)


def _warn(host: _Host) -> None:
    """One warning for each bad entry point."""
    bad: dict[tuple[str, str], list[PluginRecord]] = {}
    for record in _shadow(host.records):
        if record.status in ("broken", "incompatible", "shadowed"):
            bad.setdefault((record.distribution, record.entry_point), []).append(record)
    for group in bad.values():
        said = "; ".join(f"{record.kind} {record.key} is {record.status}: {record.reason}" for record in group)
        warnings.warn(said, PluginWarning, stacklevel=4)


def _reserved(records: list[PluginRecord], kind: str) -> set[str]:
    """The built-ins' names of that kind; a built-in that could not be asked keeps its entry point's."""
    names = {r.name for r in records if r.distribution == BUILTIN and r.kind in (kind, "plugin")}
    return names.union(CORE_COMMANDS) if kind == "command" else names


def _shadow(records: list[PluginRecord]) -> list[PluginRecord]:
    """The records, with those marked whose bare name is a built-in's or is not unique."""
    shadowed: list[PluginRecord] = []
    for record in records:
        others = [
            other.key
            for other in records
            if other.described
            and (other.kind, other.name) == (record.kind, record.name)
            and other.distribution != record.distribution
        ]
        reason = ""
        if record.name in _reserved(records, record.kind):
            reason = f"the name {record.name!r} is a built-in's; ask for {record.key!r}"
        elif others:
            reason = f"{' and '.join(others)} has the same name; ask for {record.key!r}"
        if reason and record.status in ("lazy", "loaded") and record.info and record.distribution != BUILTIN:
            record = attrs.evolve(record, status="shadowed", reason=reason)
        shadowed.append(record)
    return shadowed


def _find(kind: str, name: str) -> PluginRecord:
    """The one record that ``name`` means."""
    if not isinstance(name, str):
        raise DiffuseError(f"{kind}: expected a name, got {name!r}")
    records = [r for r in plugin_records() if r.kind in (kind, "plugin")]
    if ":" in name:
        named = [r for r in records if r.key == normal_key(name)]
        owners = sorted(named, key=lambda r: r.kind == "plugin")[:1]
    else:
        named = [r for r in records if r.name == name]
        owners = [r for r in named if r.distribution == BUILTIN] or [r for r in named if r.described]
    if len(owners) > 1:
        keys = " and ".join(r.key for r in owners)
        raise PluginError(f"{kind} {name!r} is ambiguous: {keys} have this name; ask for one of these keys")
    if not named:
        known = [r.key if ":" in name else r.name for r in records if r.status in ("lazy", "loaded")]
        raise _unknown(kind, name, known)
    return (owners or named)[0]


def _unknown(kind: str, name: str, known: list[str]) -> DiffuseError:
    close = difflib.get_close_matches(name, known, n=1)
    broken = [r.key for r in plugin_records() if r.status in ("broken", "blocked") and r.kind == "plugin"]
    return DiffuseError(
        f"unknown {kind} {name!r}: "
        + (f"did you mean {close[0]!r}? " if close else "")
        + f"Expected one of {', '.join(known) or '(none is installed)'}"
        + (f"; not asked or broken: {', '.join(broken)}" if broken else "")
    )


def _resolve(record: PluginRecord) -> Any:
    """Import what the record describes, once."""
    host = _get_host()
    if (record.kind, record.key) in host.objects:
        return host.objects[record.kind, record.key]
    if record.info is None or record.status not in ("lazy", "loaded", "shadowed"):
        raise _failure(record) from record.error
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found = _import_target(record.info.target)
            _check_object(record.info, found)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failed = attrs.evolve(record, status="broken", reason=sentence(error), error=error)
        host.replace(failed)
        raise _failure(failed) from error
    host.objects[record.kind, record.key] = found
    host.replace(attrs.evolve(record, status="loaded", reason=""))
    return found


def _import_target(target: str) -> Any:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _check_object(info: ComponentInfo, found: object) -> None:
    """Whether it is what its description says."""
    if info.kind != "modality":
        return
    from de_core.modality import Modality  # here, because the host must be light to import

    if not (isinstance(found, type) and issubclass(found, Modality)):
        raise TypeError(f"{info.target}: expected a subclass of de_core.modality.Modality, got {found!r}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise TypeError(f"{info.target}: the class lacks {missing}")
    if more := ", ".join(sorted(info.capabilities - found.capabilities)):
        raise TypeError(f"{info.target}: the plugin describes capabilities that the class does not declare: {more}")


def _failure(record: PluginRecord) -> PluginError:
    return PluginError(f"{record.kind} {record.name!r} of {record.origin} is {record.status}: {record.reason}")
