"""The directory artifact: ``model.safetensors``, ``config.json`` and plain extra files. No pickle, no code.

``config.json`` carries ``format`` (1), ``kind`` (who wrote it, such as "tabular"), ``versions`` of the
packages that wrote it, and ``files``, the extra files that belong to it. Files that somebody else put
into the directory survive when the artifact is saved again.

Writing is all or nothing: everything goes to a fresh sibling, is synced, then takes the old one's place.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["FORMAT", "Artifact", "atomic_write", "fresh_sibling", "load_artifact", "save_artifact"]

FORMAT = 1
_CONFIG = "config.json"
_TENSORS = "model.safetensors"


@attrs.frozen
class Artifact:
    """A loaded artifact: its configuration, its tensors by name, and where it lies (for its extra files)."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    path: Path


def save_artifact(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes | str] | None = None,
    folders: Mapping[str, Path] | None = None,
) -> Path:
    """Write an artifact, in place of an older one if there is one, which stays until the new one is complete.

    Args:
        path: the directory; its parents are made. It may be missing, empty, or an artifact.
        config: JSON values, with a "kind". "format" and "files" are written here, and "versions" gets those
            of this package and torch beside what it holds.
        tensors: by name, any shape and dtype, on any device; tensors that share memory are written apart.
        files: extra files by plain name; text is written as UTF-8.
        folders: extra directories by plain name, written beforehand beside the artifact: they move into it.

    Returns:
        The directory.

    Raises:
        DiffuseError: ``path`` is a file or a directory that is no artifact, ``config`` is no JSON or has no
            kind, or a file's name is no plain name.
    """
    files, folders = files or {}, folders or {}
    target = Path(os.path.realpath(path))
    _check_replaceable(target)
    contents: dict[str, bytes] = {}
    for name in (*files, *folders):
        if name in ("", ".", "..", _CONFIG, _TENSORS) or Path(name).name != name:
            raise DiffuseError(f"artifact {target}: expected a plain file name of your own, got {name!r}")
    for name, content in files.items():
        contents[name] = content.encode() if isinstance(content, str) else content
    contents[_CONFIG] = _config_bytes(target, config, sorted((*files, *folders)))
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    contents[_TENSORS] = safetensors.torch.save(copies)
    target.parent.mkdir(parents=True, exist_ok=True)
    with fresh_sibling(target) as fresh:
        fresh.mkdir()
        _keep_foreign(target, fresh)
        for name, content in contents.items():
            _write_synced(fresh / name, content)
        for name, folder in folders.items():
            folder.rename(fresh / name)
        _sync_directory(fresh)
        _replace_directory(fresh, target)
    return target


def load_artifact(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Artifact:
    """Read an artifact, its tensors onto ``device``.

    Raises:
        DiffuseError: there is none, or it is not whole; the sentence says what is missing.
    """
    directory = Path(path)
    config = _read_config(directory)
    file = directory / _TENSORS
    if not file.is_file():
        raise DiffuseError(f"artifact {directory}: expected the file {_TENSORS}, it is missing")
    try:
        tensors = safetensors.torch.load_file(file, device=str(device))
    except SafetensorError as error:
        raise DiffuseError(f"artifact {directory}: {_TENSORS} is damaged ({error})") from error
    return Artifact(config, tensors, directory)


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> Path:
    """Write one file: aside first, then in the place of the old one, so that nobody ever sees half a file.

    Args:
        path: the file; its folder must exist. What is no regular file (a pipe, ``/dev/stdout``) is written
            directly.
        content: the bytes, the text (UTF-8), or a function that writes to the path that it is given, which
            ends like ``path``, so that a writer that looks at the suffix does the same.

    Returns:
        The path.

    Raises:
        DiffuseError: the folder does not exist, or ``path`` is a directory.
    """
    given = Path(path)
    target = Path(os.path.realpath(given))
    if target.is_dir():
        raise DiffuseError(f"{given}: expected a file to write to, got a directory")
    if not target.parent.is_dir():
        raise DiffuseError(f"{given}: expected an existing folder to write into, there is no {target.parent}")
    if target.exists() and not target.is_file():
        _write(given, content)
        return given
    with fresh_sibling(target) as fresh:
        _write(fresh, content)
        if target.exists():
            shutil.copymode(target, fresh)
        with fresh.open("rb+") as written:
            os.fsync(written.fileno())
        fresh.replace(target)
    _sync_directory(target.parent)
    return given


def _write(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _config_bytes(target: Path, config: Mapping[str, Any], files: list[str]) -> bytes:
    if not isinstance(config.get("kind"), str):
        raise DiffuseError(f"artifact {target}: expected config['kind'] as a string, got {config.get('kind')!r}")
    versions = {"torch": torch.__version__, "diffuse-everything": _own_version()}
    whole = {
        **config,
        "format": FORMAT,
        "versions": {**versions, **config.get("versions", {})},
        "files": files,
    }
    try:
        return (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise DiffuseError(f"artifact {target}: expected a config of finite JSON values, {error}") from error


def _own_version() -> str:
    try:
        return importlib.metadata.version("diffuse-everything")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _read_config(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        left = sorted(directory.parent.glob(f".*.old.{glob.escape(directory.name)}"))
        hint = f"; an interrupted save left {left[-1]}" if left else ""
        raise DiffuseError(f"artifact {directory}: there is nothing at this path{hint}")
    if not directory.is_dir():
        raise DiffuseError(f"artifact {directory}: expected a directory, got a file")
    file = directory / _CONFIG
    if not file.is_file():
        raise DiffuseError(f"artifact {directory}: expected the file {_CONFIG}, it is missing")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DiffuseError(f"artifact {directory}: {_CONFIG} is no valid JSON ({error})") from error
    if not isinstance(config, dict) or "format" not in config:
        raise DiffuseError(f"artifact {directory}: expected a 'format' in {_CONFIG}, it is missing")
    if config["format"] != FORMAT:
        raise DiffuseError(
            f"artifact {directory}: expected format {FORMAT}, got {config['format']!r}; "
            "it was written by another version of diffuse-everything"
        )
    if not isinstance(config.get("kind"), str):
        raise DiffuseError(f"artifact {directory}: expected a 'kind' in {_CONFIG}, got {config.get('kind')!r}")
    return config


def _check_replaceable(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise DiffuseError(f"{target}: expected a directory to save to, got a file")
    try:
        _read_config(target)
    except DiffuseError as error:
        raise DiffuseError(
            f"{target}: expected a new or empty directory or an artifact, got a directory of other things"
        ) from error


def _keep_foreign(old: Path, fresh: Path) -> None:
    """Copy what is in the old directory and was not written by an earlier save."""
    if not old.is_dir() or not any(old.iterdir()):
        return
    ours = {_CONFIG, _TENSORS, *_read_config(old).get("files", [])}
    for entry in old.iterdir():
        if entry.name in ours:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, fresh / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, fresh / entry.name, follow_symlinks=False)


@contextlib.contextmanager
def fresh_sibling(target: Path) -> Iterator[Path]:
    """A free hidden name beside ``target``, with the same suffix; what is left there in the end goes."""
    fresh = target.with_name(f".{uuid.uuid4().hex[:8]}.new.{target.name}")
    try:
        yield fresh
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
        else:
            fresh.unlink(missing_ok=True)


def _replace_directory(fresh: Path, target: Path) -> None:
    """One call cannot replace a directory: the old one steps aside, and comes back if the new one cannot."""
    aside = target.with_name(fresh.name.replace(".new.", ".old.", 1))
    if not target.exists():
        fresh.rename(target)
        _sync_directory(target.parent)
        return
    try:
        target.rename(aside)
        fresh.rename(target)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
    _sync_directory(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a directory
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
