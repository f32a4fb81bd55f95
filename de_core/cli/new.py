"""``diffuse plugins new NAME --kind KIND``: a distribution with one modality that works, to make another of.

The templates beside this module are a plugin themselves, called "newthing": their code is linted and typed as all code
here, and a new plugin is a copy with another name.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from de_core.artifact import fresh_sibling
from de_core.errors import DiffuseError
from de_core.plugins import BUILTIN, plugin_records

__all__ = ["SUMMARIES", "write_plugin"]

SUMMARIES = {
    "continuous": "real numbers under an Ornstein-Uhlenbeck process",
    "finite": "classes under a chain with any small rate matrix",
}
"""The kinds of plugin, and what the modality of each is before anybody has changed it."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 40
_FRAMEWORK = ("de-core", "de-plugins")  # their packages would be the framework's own


def write_plugin(name: str, kind: str, out: str | None = None) -> Path:
    """Write a distribution ``de-NAME`` with the modality NAME; all of it or nothing.

    Args:
        name: lower-case letters, digits, "-" and "_", a letter first.
        kind: a key of ``SUMMARIES``.
        out: the directory to make, and its parents; ``de-NAME`` here if it is left out.

    Returns:
        The directory.

    Raises:
        DiffuseError: a name that cannot be one or is the framework's; a directory that exists.
    """
    distribution = _distribution(name)
    target = Path(out if out is not None else distribution)
    if target.exists() or target.is_symlink():
        raise DiffuseError(f"{target}: expected a directory that is not there yet, it exists")
    package = distribution.replace("-", "_")
    words = {
        "de-newthing": distribution,
        "de_newthing": package,
        "Newthing": "".join(part.capitalize() for part in re.split("[-_]", name)),
        "newthing": name,
        "SUMMARY": SUMMARIES[kind],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with fresh_sibling(target) as fresh:
        for path, template in _files(package, kind).items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_renamed(_template(template), words), encoding="utf-8")
        (fresh / package / "py.typed").touch()
        fresh.rename(target)
    return target


def _distribution(name: str) -> str:
    """``de-NAME`` as packaging tools spell it, if NAME can be the name of a modality."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise DiffuseError(
            f"plugin name {name!r}: expected at most {_LONGEST} lower-case letters, digits, '-' and '_', a letter first"
        )
    bare = name.replace("_", "-")
    distribution = bare if bare.startswith("de-") else f"de-{bare}"
    builtins = {r.name for r in plugin_records() if r.distribution == BUILTIN and r.kind in ("modality", "plugin")}
    if name in builtins or distribution in _FRAMEWORK:
        raise DiffuseError(f"plugin name {name!r}: expected one of your own, this is the framework's")
    return distribution


def _files(package: str, kind: str) -> dict[str, str]:
    """Which template each file of the distribution is made of."""
    return {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        ".github/workflows/test.yml": "test.yml",
        f"{package}/__init__.py": "plugin.py",
        f"{package}/modality.py": f"{kind}.py",
        "tests/test_conformance.py": f"conformance_{kind}.py",
    }


def _template(name: str) -> str:
    return (resources.files("de_core.cli") / "_templates" / name).read_text(encoding="utf-8")


def _renamed(text: str, words: dict[str, str]) -> str:
    """The text with each of these words replaced, in one pass, so that no replacement is replaced again."""
    return re.sub("|".join(map(re.escape, words)), lambda found: words[found.group()], text)
