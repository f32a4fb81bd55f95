"""What the commands for tables share: checks before any work, and a line of progress."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from de_core.artifact import load_artifact
from de_core.errors import DiffuseError
from de_plugins.tabular.io import _kind

__all__ = ["check_artifact_target", "check_folder_target", "check_table_target", "progress"]


def check_table_target(path: str) -> None:
    """Refuse a place where no table can be written, before the work that fills it.

    Raises:
        DiffuseError: another ending than a table's, a directory, or a folder that does not exist.
    """
    target = Path(path)
    _kind(target)
    if target.is_dir():
        raise DiffuseError(f"--out {path}: expected a file to write to, got a directory")
    if not target.parent.is_dir():
        raise DiffuseError(f"--out {path}: the folder '{target.parent}' does not exist")


def check_artifact_target(path: str) -> None:
    """Refuse a directory that holds something else than a fitted table, before training.

    Raises:
        DiffuseError: a file, a directory of other things, an artifact of another kind, or a place below a file.
    """
    target = Path(path)
    _check_parents(path)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise DiffuseError(f"--out {path}: expected a directory, got a file")
    try:
        kind = load_artifact(target).config["kind"]
    except DiffuseError:
        kind = "other things"
    if kind != "tabular":
        raise DiffuseError(f"--out {path}: expected a new or empty directory or a fitted table, it holds {kind}")


def check_folder_target(path: str, own: str) -> None:
    """Refuse a directory that holds things but not the file ``own``, which the command would have written.

    Raises:
        DiffuseError: a file, such a directory, or a place below a file.
    """
    target = Path(path)
    _check_parents(path)
    if target.exists() and not target.is_dir():
        raise DiffuseError(f"--out {path}: expected a directory, got a file")
    if target.is_dir() and any(target.iterdir()) and not (target / own).is_file():
        raise DiffuseError(f"--out {path}: expected a new or empty directory, or one with an older {own}")


def _check_parents(path: str) -> None:
    place = next(parent for parent in Path(path).absolute().parents if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise DiffuseError(f"--out {path}: expected a folder to write into, got {place}")


def progress(done: int, total: int) -> None:
    """Rows done, on stderr where that is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done:,} of {total:,} rows" + ("\n" if done == total else ""))
        sys.stderr.flush()
