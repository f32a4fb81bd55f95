"""Reads the installed distributions and asks their plugins, each apart; ``de_core.plugins`` is the front."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Iterator

import attrs
import pluggy

from de_core.errors import DiffuseError, PluginError
from de_core.hookspecs import API_VERSION, HOOKS, PROJECT, ComponentInfo, HookSpecs

__all__ = ["BUILTIN", "Found", "PluginRecord", "discover", "incompatibility", "normal_key", "sentence"]

GROUP = "diffuse_everything.plugins"
BUILTIN = "diffuse-everything"
_LONGEST = 1000  # characters of a plugin's own words


@attrs.frozen
class PluginRecord:
    """One component, or (kind "plugin") one entry point that could not be asked what it offers.

    ``entry_point`` is the line of the metadata, ``name = module``; ``location`` the folder that holds the
    distribution; ``error`` what was raised, where something was.
    """

    kind: str
    name: str
    distribution: str
    version: str
    entry_point: str
    location: str
    status: str
    reason: str = ""
    error: BaseException | None = attrs.field(default=None, eq=False, repr=False)
    info: ComponentInfo | None = None

    @property
    def key(self) -> str:
        """``distribution:name``."""
        return f"{self.distribution}:{self.name}"

    @property
    def origin(self) -> str:
        """The distribution and its version, for people."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def described(self) -> bool:
        """Whether it is a component that this host could run, were its target sound."""
        return self.info is not None and self.status in ("lazy", "loaded", "broken", "shadowed")


@attrs.frozen
class Found:
    """The mode of ``DE_PLUGINS``, the records, and the names after ``only=`` that match nothing."""

    mode: str
    records: tuple[PluginRecord, ...]
    unmatched: tuple[str, ...]


def discover() -> Found:
    """Read every entry point and ask every plugin that ``DE_PLUGINS`` allows. Raises for no plugin's fault.

    Raises:
        DiffuseError: ``DE_PLUGINS`` is none of the three.
    """
    setting = os.environ.get("DE_PLUGINS", "")
    mode, allowed = _policy(setting)
    records: list[PluginRecord] = []
    matched: set[str] = set()
    for distribution, version, location, entry_points in list(_distributions()):  # before a plugin touches sys.path
        for entry_point in entry_points:
            broken_file = isinstance(entry_point, Exception)
            name = "entry_points.txt" if broken_file else entry_point.name
            line = name if broken_file else f"{name} = {entry_point.value}"
            record = PluginRecord("plugin", name, distribution, version, line, location, "lazy")
            names = {n for n in allowed if n in (name, record.key) or _normal(n) == distribution}
            matched |= names
            if distribution != BUILTIN and (mode == "off" or (mode == "only" and not names)):
                records.append(attrs.evolve(record, status="blocked", reason=f"DE_PLUGINS={setting}"))
            else:
                records += _ask(record, entry_point)
    return Found(mode, tuple(_merge(records)), tuple(sorted(allowed - matched)))


def _policy(text: str) -> tuple[str, frozenset[str]]:
    mode, _, names = text.strip().partition("=")
    allowed = frozenset(normal_key(name.strip()) for name in names.split(",") if name.strip())
    if (mode in ("", "off", "strict") and not names) or (mode == "only" and allowed):
        return mode, allowed
    raise DiffuseError(f"DE_PLUGINS: expected off, strict or only=NAME,NAME, got {text!r}")


def _distributions() -> Iterator[tuple[str, str, str, list[importlib.metadata.EntryPoint | Exception]]]:
    """(name, version, folder, entry points) of each distribution with some; of equal names the first."""
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        try:
            if not _has_plugins(distribution):
                continue
            name, version = _normal(distribution.metadata["Name"]), distribution.metadata.get_all("Version", [""])[0]
            location = str(distribution.locate_file(""))
        except Exception:  # a half-removed distribution has no name to report it under
            continue
        if name in seen:
            continue
        seen.add(name)
        entry_points: list[importlib.metadata.EntryPoint | Exception]
        try:  # a dict, because an entry point may be listed twice: what counts is (distribution, name, value)
            found = {(e.name, e.value): e for e in distribution.entry_points if e.group == GROUP}
            entry_points = list(found.values())
        except Exception as error:  # the file has a line that is no entry point, or is no text
            entry_points = [error]
        yield name, version, location, entry_points


def _has_plugins(distribution: importlib.metadata.Distribution) -> bool:
    """Whether its entry points name our group; a file that is no text is looked at as it is."""
    try:
        return GROUP in (distribution.read_text("entry_points.txt") or "")
    except UnicodeDecodeError as error:
        return GROUP.encode() in error.object


def _ask(plugin: PluginRecord, entry_point: importlib.metadata.EntryPoint | Exception) -> list[PluginRecord]:
    """The records of one plugin: its components, or itself if it does not answer as it should."""
    try:
        if isinstance(entry_point, Exception):
            raise entry_point
        # stdout is the host's: `--json` promises one object on it; so are the filters that its warnings go through
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            infos = _describe(entry_point.load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a plugin that exits must not take the host with it
        return [attrs.evolve(plugin, status="broken", reason=sentence(error), error=error)]
    if not infos:
        return [attrs.evolve(plugin, reason="offers nothing")]
    records = [attrs.evolve(plugin, kind=info.kind, name=info.name, info=info) for info in infos]
    return [
        attrs.evolve(record, status="incompatible", reason=reason) if reason else record
        for record, info in zip(records, infos, strict=True)
        for reason in [incompatibility(info)]
    ]


def _describe(module: object) -> list[ComponentInfo]:
    """Call the hooks of one plugin. A manager of its own, so that whatever is raised is this plugin's."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    manager.register(module)
    manager.check_pending()  # a misspelt hook
    infos: list[ComponentInfo] = []
    callers = {name: getattr(manager.hook, name) for name in HOOKS}
    if not any(caller.get_hookimpls() for caller in callers.values()):
        raise PluginError(f"expected at least one of the hooks {', '.join(HOOKS)}, found none")
    for name, caller in callers.items():
        if not caller.get_hookimpls():
            continue
        answers = caller()
        answer = answers[0] if answers else None  # pluggy drops None
        wanted = HOOKS[name]
        if type(answer) is not list:
            raise PluginError(f"hook {name}: expected a list of {wanted.__name__}, got {type(answer).__name__}")
        for item in answer:
            if type(item) is not wanted:
                raise PluginError(f"hook {name}: expected {wanted.__name__} in the list, got {type(item).__name__}")
            attrs.validate(item)  # again, because a constructor can be gone around
        infos += answer
    return infos


def _merge(records: list[PluginRecord]) -> list[PluginRecord]:
    """In one distribution the same description twice is one; two that differ under one name are broken."""
    merged: list[PluginRecord] = []
    by_key: dict[tuple[str, str, str], list[PluginRecord]] = {}
    for record in records:
        own = record.entry_point if record.info is None else ""
        by_key.setdefault((record.kind, record.key, own), []).append(record)
    for group in by_key.values():
        infos = {record.info for record in group}
        if len(infos) > 1:
            targets = " and ".join(sorted(record.info.target for record in group if record.info is not None))
            error = PluginError(f"{group[0].kind} {group[0].key!r} is described more than once: {targets}")
            merged.append(attrs.evolve(group[0], status="broken", reason=str(error), error=error))
        else:
            merged.append(group[0])
    return merged


def incompatibility(info: ComponentInfo) -> str:
    """Why the host cannot run it, or nothing. Same major; the plugin's minor at most the host's."""
    (major, minor), (host_major, host_minor) = info.api_version, API_VERSION
    if major == host_major and minor <= host_minor:
        return ""
    newer = (major, minor) > API_VERSION
    cure = "upgrade diffuse-everything" if newer else "install a newer version of the plugin"
    return f"written for plugin interface {major}.{minor}, this host has {host_major}.{host_minor}; {cure}"


def sentence(error: BaseException) -> str:
    """The error in one printable line of bounded length, whatever its ``__str__`` does."""
    try:
        words = " ".join(str(error).split())
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words[:_LONGEST])
        text += "..." if len(words) > _LONGEST else ""
    except KeyboardInterrupt:
        raise
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _normal(distribution: str) -> str:
    """A distribution's name as the packaging rules (PEP 503) compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def normal_key(name: str) -> str:
    distribution, colon, bare = name.partition(":")
    return f"{_normal(distribution)}:{bare}" if colon else name
