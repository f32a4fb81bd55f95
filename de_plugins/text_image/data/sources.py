"""Where pictures and their captions come from: a folder of files, or a Parquet table of both."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import attrs

from de_core.errors import DiffuseError
from de_plugins.text_image.data.captions import needs
from de_plugins.text_image.data.images import SUFFIXES

__all__ = ["Folder", "Item", "Pairs", "Parquet", "open_pairs"]

_TABLES = ("captions.csv", "captions.jsonl")
_ROWS = 64  # of a Parquet table in memory at once


@attrs.frozen
class Item:
    """A picture (its path, or the bytes of its file) and its caption; ``problem`` says why there is none of them."""

    name: str
    picture: Path | bytes = b""
    caption: str = ""
    problem: str | None = None


class Pairs(Protocol):
    """Pictures with captions in a fixed order."""

    def __len__(self) -> int: ...

    def captions(self) -> Iterator[str]:
        """All captions that can be read."""
        ...

    def items(self, start: int = 0) -> Iterator[Item]:
        """The items from number ``start`` on."""
        ...

    def fingerprint(self) -> str:
        """Changes when the items do, as far as names and sizes of files tell."""
        ...


def open_pairs(path: str | os.PathLike[str]) -> Pairs:
    """A folder of pictures, or a Parquet table if that is what the path names.

    Raises:
        DiffuseError: there is nothing, it is another kind of file, or it holds no pictures.
    """
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise DiffuseError(f"{path}: expected a folder of pictures or a Parquet file, there is nothing")
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise DiffuseError(f"{path}: expected a folder of pictures or a Parquet file, got another file")
    return Parquet(path)


class Folder:
    """PNG, JPEG and WebP files, subfolders included, in the order of their names, each with its caption in the text
    file of the same stem; or those that ``captions.csv`` or ``captions.jsonl`` (columns file, caption) names, in its
    order.

    Raises:
        DiffuseError: both tables are there, the table cannot be read, or there is no picture.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        tables = [path / name for name in _TABLES if (path / name).is_file()]
        if len(tables) > 1:
            raise DiffuseError(f"{path}: expected one table of captions, got {' and '.join(_TABLES)}")
        self._rows = _read_table(tables[0]) if tables else _beside(path)
        if not self._rows:
            kinds = ", ".join(SUFFIXES)
            raise DiffuseError(
                f"{path}: expected pictures ({kinds}), " + ("its table is empty" if tables else "got none")
            )

    def __len__(self) -> int:
        return len(self._rows)

    def captions(self) -> Iterator[str]:
        return (item.caption for item in map(self._item, self._rows) if item.problem is None)

    def items(self, start: int = 0) -> Iterator[Item]:
        return map(self._item, self._rows[start:])

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, caption, problem in self._rows:
            file = self._path / name
            size = os.path.getsize(file) if os.path.isfile(file) else -1
            digest.update(f"{name}\0{caption}\0{problem}\0{size}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def _item(self, row: tuple[str, str | None, str | None]) -> Item:
        name, caption, problem = row
        file = self._path / name
        if problem is None and caption is None:
            caption, problem = _sidecar(file)
        return Item(name, file, caption or "", problem)


class Parquet:
    """A table with a column ``image``, the bytes of picture files or a struct with such ``bytes``, and a column
    ``caption`` or ``text``. Read a few rows at a time.

    Raises:
        DiffuseError: it is no Parquet table, lacks a column, or has no rows.
    """

    def __init__(self, path: Path) -> None:
        needs("pyarrow")
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DiffuseError(f"{path}: not a readable Parquet table ({_line(error)})") from error
        schema = self._file.schema_arrow
        text = [name for name in ("caption", "text") if name in schema.names]
        if "image" not in schema.names or not text:
            raise DiffuseError(f"{path}: expected the columns image and caption, got {', '.join(schema.names)}")
        kind = schema.field("image").type
        if pa.types.is_struct(kind) and "bytes" in {field.name for field in kind}:
            kind = kind.field("bytes").type
        if str(kind) not in ("binary", "large_binary", "binary_view"):
            raise DiffuseError(f"{path}: expected the bytes of files in column image, got {kind}")
        kind = schema.field(text[0]).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if str(kind) not in ("string", "large_string", "string_view"):
            raise DiffuseError(f"{path}: expected text in column {text[0]}, got {kind}")
        self._caption = text[0]
        if not len(self):
            raise DiffuseError(f"{path}: expected rows, it has none")

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    def captions(self) -> Iterator[str]:
        return (row[self._caption] for _, row in self._read(0, [self._caption]) if row[self._caption] is not None)

    def items(self, start: int = 0) -> Iterator[Item]:
        for number, row in self._read(start, ["image", self._caption]):
            picture = row["image"]
            if isinstance(picture, dict):
                picture = picture.get("bytes")
            name = f"row {number}"
            if picture is None:
                yield Item(name, problem="no picture")
            elif row[self._caption] is None:
                yield Item(name, problem="no caption")
            else:
                yield Item(name, picture, row[self._caption])

    def fingerprint(self) -> str:
        size = self._path.stat().st_size
        return hashlib.sha256(f"{self._path.name}\0{size}\0{len(self)}".encode()).hexdigest()

    def _read(self, start: int, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa

        first, groups = 0, list(range(self._file.num_row_groups))
        while groups and first + self._file.metadata.row_group(groups[0]).num_rows <= start:
            first += self._file.metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return
        try:
            for batch in self._file.iter_batches(_ROWS, row_groups=groups, columns=columns):
                rows = batch.slice(max(start - first, 0)).to_pylist()
                first += batch.num_rows
                yield from enumerate(rows, first - len(rows))
        except (pa.ArrowException, OSError) as error:
            raise DiffuseError(f"{self._path}: damaged near row {first} ({_line(error)})") from error


def _beside(path: Path) -> list[tuple[str, str | None, str | None]]:
    names = []
    for folder, _, files in os.walk(path):
        within = Path(folder).relative_to(path)
        names += [(within / name).as_posix() for name in files if name.lower().endswith(SUFFIXES)]
    return [(name, None, None) for name in sorted(names) if not Path(name).name.startswith(".")]


def _sidecar(picture: Path) -> tuple[str | None, str | None]:
    file = picture.with_suffix(".txt")
    try:
        return file.read_text(encoding="utf-8-sig"), None
    except FileNotFoundError:
        return None, f"no caption, there is no {file.name}"
    except UnicodeDecodeError:
        return None, f"expected text in UTF-8 in {file.name}"
    except OSError as error:
        return None, f"{file.name} cannot be read ({error.strerror})"


def _read_table(table: Path) -> list[tuple[str, str | None, str | None]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return list(_csv_rows(table, file) if table.suffix == ".csv" else _json_rows(file))
    except UnicodeDecodeError as error:
        raise DiffuseError(f"{table}: expected text in UTF-8, got byte 0x{error.object[error.start]:02x}") from None
    except csv.Error as error:
        raise DiffuseError(f"{table}: not a readable table ({error})") from None


def _csv_rows(table: Path, file) -> Iterator[tuple[str, str | None, str | None]]:
    rows = csv.DictReader(file)
    names = rows.fieldnames or []
    if "file" not in names or "caption" not in names:
        raise DiffuseError(f"{table}: expected the columns file and caption, got {', '.join(names) or 'none'}")
    for row in rows:
        whole = row["file"] and row["caption"] is not None and None not in row
        yield (row["file"], row["caption"], None) if whole else _broken(f"line {rows.line_num}")


def _json_rows(file) -> Iterator[tuple[str, str | None, str | None]]:
    return (_json_row(number, line) for number, line in enumerate(file, 1) if line.strip())


def _json_row(number: int, line: str) -> tuple[str, str | None, str | None]:
    try:
        row = json.loads(line)
    except ValueError:
        return _broken(f"line {number}")
    if not isinstance(row, dict) or not isinstance(row.get("file"), str) or not isinstance(row.get("caption"), str):
        return _broken(f"line {number}")
    return row["file"], row["caption"], None


def _broken(line: str) -> tuple[str, None, str]:
    return line, None, "expected a file and its caption"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
