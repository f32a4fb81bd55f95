"""Known data sets: where they are, what their files look like at the publisher's, and how a copy is recognised.

All six are of the UCI Machine Learning Repository, CC BY 4.0. Every table has the cells, rows and order of UCI's
files; the names, padding, comments and sheet headings that are no data are dealt with here.
"""

from __future__ import annotations

import hashlib
import io
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular.io import read_table, write_table

__all__ = ["DATASETS", "Dataset", "Table", "content_hash", "obtain"]

_ADULT = [
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
]
_MAGIC = ["fLength", "fWidth", "fSize", "fConc", "fConc1", "fAsym", "fM3Long", "fM3Trans", "fAlpha", "fDist", "class"]
_URL = "https://archive.ics.uci.edu/static/public/"


@attrs.frozen
class Table:
    """One table of a data set.

    Args:
        name: of the file, without ``.csv.gz``.
        rows, columns, digest: what it must have, see ``content_hash``.
        member: the end of the file's name in the publisher's archive.
        read: that file's bytes as a frame of text.
    """

    name: str
    rows: int
    columns: int
    digest: str
    member: str
    read: Callable[[bytes], pd.DataFrame]

    def check(self, frame: pd.DataFrame, source: object) -> None:
        """Refuse another table.

        Raises:
            DiffuseError: other rows, columns or content.
        """
        if frame.shape != (self.rows, self.columns):
            raise DiffuseError(
                f"{source}: expected {self.rows} rows and {self.columns} columns of '{self.name}', "
                f"got {frame.shape[0]} and {frame.shape[1]}"
            )
        if content_hash(frame) != self.digest:
            raise DiffuseError(f"{source}: right in rows and columns, but some cells are not those of '{self.name}'")


@attrs.frozen
class Dataset:
    """A data set: its archive at the publisher's, and its tables."""

    url: str
    tables: tuple[Table, ...]


def content_hash(frame: pd.DataFrame) -> str:
    """SHA-256 of the names and cells in order, numbers at 8 significant digits, missing cells empty."""
    columns = [[str(name) for name in frame.columns]]
    cells = []
    for name in frame.columns:
        column = frame[name]
        gone = column.isna().to_numpy(dtype=bool)
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            texts = [f"{value:.8g}" for value in column.fillna(0).astype("float64").tolist()]
        else:
            texts = [str(value) for value in column.tolist()]
        cells.append(["" if missing else text for text, missing in zip(texts, gone, strict=True)])
    digest = hashlib.sha256()
    for row in [*columns, *zip(*cells, strict=True)]:
        digest.update(("\x1f".join(row) + "\n").encode())
    return digest.hexdigest()


def obtain(name: str, out: Path) -> list[Path]:
    """Write the tables of a data set to a folder: from the folder that DIFFUSE_DATA names, else from the publisher.

    Raises:
        DiffuseError: an unknown name, a table that cannot be had or is not what it should be, or a file in the way.
    """
    if name not in DATASETS:
        raise DiffuseError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    dataset, local = DATASETS[name], os.environ.get("DIFFUSE_DATA")
    frames = _local(dataset, Path(local)) if local else _fetch(name, dataset)
    if out.exists() and not out.is_dir():
        raise DiffuseError(f"--out {out}: expected a directory, got a file")
    out.mkdir(parents=True, exist_ok=True)
    places = [out / f"{table.name}.csv.gz" for table in dataset.tables]
    for table, place in zip(dataset.tables, places, strict=True):
        if place.exists():
            table.check(read_table(place), f"--out {place} is in the way")
    for place, frame in zip(places, frames, strict=True):
        if not place.exists():
            write_table(frame, place)
    return places


def _local(dataset: Dataset, folder: Path) -> list[pd.DataFrame]:
    frames = []
    for table in dataset.tables:
        file = folder / f"{table.name}.csv.gz"
        table.check(read_table(file), file)
        frames.append(pd.read_csv(file, dtype=str, keep_default_na=False))
    return frames


def _fetch(name: str, dataset: Dataset) -> list[pd.DataFrame]:
    try:
        with urllib.request.urlopen(dataset.url, timeout=60) as answer:
            archive = zipfile.ZipFile(io.BytesIO(answer.read()))
        parts = {m: archive.read(m) for m in archive.namelist() if m.endswith(tuple(t.member for t in dataset.tables))}
    except (urllib.error.URLError, TimeoutError, zipfile.BadZipFile, OSError) as error:
        raise DiffuseError(
            f"data set '{name}': {dataset.url} could not be fetched ({error}); DIFFUSE_DATA may name a folder that has "
            f"{dataset.tables[0].name}.csv.gz"
        ) from error
    return [_parsed(table, parts, dataset.url) for table in dataset.tables]


def _parsed(table: Table, parts: Mapping[str, bytes], source: str) -> pd.DataFrame:
    """A publisher's file as text cells, checked as it reads once it is a file of ours."""
    found = [part for member, part in parts.items() if member.endswith(table.member)]
    if not found:
        raise DiffuseError(f"{source}: the archive holds no {table.member}")
    try:
        frame = table.read(found[0])
    except ImportError as error:
        raise DiffuseError(f"{source}: reading a sheet needs xlrd: pip install xlrd ({error})") from error
    except ValueError as error:
        raise DiffuseError(f"{source}: {table.member} is no readable table ({error})") from error
    buffer = io.BytesIO(frame.to_csv(index=False).encode())
    table.check(pd.read_csv(buffer, low_memory=False), f"{source}, {table.member}")
    return frame


def _text(data: bytes, names: list[str] | None = None, skip: int = 0) -> pd.DataFrame:
    return pd.read_csv(
        io.BytesIO(data),
        names=names,
        header=None if names else 0,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
        skiprows=skip,
    )


def _adult(data: bytes) -> pd.DataFrame:
    """The test file opens with a comment and ends each label with a full stop."""
    frame = _text(data, _ADULT, skip=int(data.startswith(b"|")))
    return frame.assign(income=frame["income"].str.rstrip("."))


def _sheet(data: bytes) -> pd.DataFrame:
    """The second line of the sheet has the names."""
    return pd.read_excel(io.BytesIO(data), header=1, dtype=str)


def _news(data: bytes) -> pd.DataFrame:
    return _text(data).rename(columns=str.strip).drop(columns="url")


def _magic(data: bytes) -> pd.DataFrame:
    return _text(data, _MAGIC)


DATASETS = {
    "adult": Dataset(
        f"{_URL}2/adult.zip",
        (
            Table(
                "adult_train",
                32561,
                15,
                "f1f4150e880b2d1f55c93d4e27a7b861a7ea0ec8d58595a3dea6572c80b1ad12",
                "adult.data",
                _adult,
            ),
            Table(
                "adult_test",
                16281,
                15,
                "6694264f27ea425d876fd26be82958c961c3aefbaf4cd5d82d2289829ff8008f",
                "adult.test",
                _adult,
            ),
        ),
    ),
    "default": Dataset(
        f"{_URL}350/default+of+credit+card+clients.zip",
        (
            Table(
                "default", 30000, 25, "e3e2cf4691098c3729f56fa7ab31116d3aeb4f3f5e436b5717d1115b5eae2e59", ".xls", _sheet
            ),
        ),
    ),
    "shoppers": Dataset(
        f"{_URL}468/online+shoppers+purchasing+intention+dataset.zip",
        (
            Table(
                "shoppers",
                12330,
                18,
                "1279a9002351e7b27bd14106955607ba09a69e3bd26e35736d7af593c7a03cbe",
                "online_shoppers_intention.csv",
                _text,
            ),
        ),
    ),
    "magic": Dataset(
        f"{_URL}159/magic+gamma+telescope.zip",
        (
            Table(
                "magic",
                19020,
                11,
                "4ceb95c382c715b3296fc86c66d0ee39f6a230828a2082606ee62e560fabd8b7",
                "magic04.data",
                _magic,
            ),
        ),
    ),
    "beijing": Dataset(
        f"{_URL}381/beijing+pm2+5+data.zip",
        (
            Table(
                "beijing",
                43824,
                13,
                "a6cf3ff0ea3bfb4066f052131cba07edef928578efe01ac4ce1a31e98c7c53e0",
                "PRSA_data_2010.1.1-2014.12.31.csv",
                _text,
            ),
        ),
    ),
    "news": Dataset(
        f"{_URL}332/online+news+popularity.zip",
        (
            Table(
                "news",
                39644,
                60,
                "edad89b5cbdcb354ade0c7707bd3beb065d731adfa624487be1a4e47eeb77ae9",
                "OnlineNewsPopularity.csv",
                _news,
            ),
        ),
    ),
}
