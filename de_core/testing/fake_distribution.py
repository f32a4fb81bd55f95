"""Installed distributions that are not: for tests of the plugin host and of what is built on it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from de_core.plugins import refresh

__all__ = ["fake_distribution", "nothing_installed"]

_folders: set[str] = set()  # where the fake distributions lie that are installed now


@contextlib.contextmanager
def nothing_installed() -> Iterator[None]:
    """Inside the context the plugin host finds no distribution but those of ``fake_distribution``."""
    real = importlib.metadata.distributions
    importlib.metadata.distributions = lambda: (d for d in real() if str(d.locate_file("")) in _folders)
    refresh()
    try:
        yield
    finally:
        importlib.metadata.distributions = real
        refresh()


@contextlib.contextmanager
def fake_distribution(
    name: str, entry_points: Mapping[str, str] | str, modules: Mapping[str, str], version: str = "1.0"
) -> Iterator[Path]:
    """Inside the context a distribution is installed; afterwards everything is as it was. Contexts nest.

    The host is refreshed at both ends. The folder is first on ``sys.path``; another process finds the
    distribution when that folder is on its ``PYTHONPATH``.

    Args:
        name: the distribution's name.
        entry_points: ``{name: "module"}`` in the plugins' group, or the whole text of ``entry_points.txt``.
        modules: sources by dotted name; a module that has others below it becomes a package.
        version: the distribution's version.

    Yields:
        The folder that it lies in.
    """
    if not isinstance(entry_points, str):
        lines = [f"{key} = {value}" for key, value in entry_points.items()]
        entry_points = "\n".join(["[diffuse_everything.plugins]", *lines, ""])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for module, source in modules.items():
            is_package = any(other.startswith(f"{module}.") for other in modules)
            file = root.joinpath(*module.split("."), *(["__init__"] if is_package else [])).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        info = root / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        tops = {module.partition(".")[0] for module in modules}
        hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] in tops}
        _folders.add(folder)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        refresh()
        try:
            yield root
        finally:
            _folders.remove(folder)
            sys.path[:] = [entry for entry in sys.path if entry != folder]
            for key in [key for key in sys.modules if key.partition(".")[0] in tops]:
                del sys.modules[key]
            sys.modules.update(hidden)
            sys.path_importer_cache.pop(folder, None)
            refresh()
