"""Tables from and to files, CSV (also .gz) and Parquet, with plain errors and atomic writes."""

from __future__ import annotations

import csv
import gzip
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.tabular._plain import DType, from_plain, to_plain
from de_plugins.tabular.schema import check_frame, column_of

__all__ = ["read_like", "read_table", "write_table"]

_CSV = (".csv", ".csv.gz")
_PARQUET = (".parquet", ".pq")
_ENDS = (b"-9223372036854775808", b"18446744073709551615")
_ZERO = re.compile(rb"(^|[,\"\s])[+-]?0\d")  # in a line of a file
_CODE = re.compile(r"[+-]?0\d+")
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S")
_MOMENT = r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?"
_OFFSET = r"(Z|[+-]\d\d(:?\d\d)?)"


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """A table from a file: .csv, .csv.gz, .parquet or .pq.

    In CSV, whole numbers with missing cells become Int64, so that they stay whole; a column in which a number is
    written with a leading zero ("007", as postcodes and account numbers are) is text; text that is a date
    throughout ("2024-05-31" or "2024-05-31 17:00:00") becomes datetime64. Any other text, "?" among it, stays
    as it is.

    Raises:
        DiffuseError: no such file, not a table (in CSV: other bytes than UTF-8, another sign than the comma between
            columns, a line with more or fewer cells than the first), empty, without rows, or a column name twice.
    """
    path = Path(path)
    kind = _kind(path)
    if not path.is_file():
        raise DiffuseError(f"table '{path}': {'expected a file, got a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise DiffuseError(f"table '{path}': the file is empty")
    try:
        frame = _read_csv(path) if kind == "csv" else _read_parquet(path)
    except DiffuseError:
        raise
    except UnicodeDecodeError as error:
        where = f"byte 0x{error.object[error.start]:02x}"
        raise DiffuseError(f"table '{path}': expected text in UTF-8, got {where}; save it as UTF-8") from error
    except Exception as error:  # pandas, pyarrow and gzip each raise their own kinds for bytes that are no table
        reason = " ".join(str(error).split())
        raise DiffuseError(f"table '{path}': not a readable {kind} table: {reason}") from error
    if len(frame) == 0:
        raise DiffuseError(f"table '{path}': it has column names but no rows")
    check_frame(frame)
    return frame


def read_like(path: str | os.PathLike, dtypes: Mapping[str | int, DType]) -> pd.DataFrame:
    """`read_table`, where a CSV file's cells are read in the dtypes of another table, as far as they can be.

    A column of text is the text of the file, whatever it looks like; text that is a date, a duration or a number
    throughout is one where these are expected. Any other column is as `read_table` gives it.
    """
    frame, path = read_table(path), Path(path)
    if _kind(path) != "csv":
        return frame
    inner = {name: dtype.categories_dtype or dtype for name, dtype in dtypes.items() if name in frame.columns}
    names = [name for name, dtype in inner.items() if dtype.plain == "text" and frame[name].dtype != object]
    texts = _texts(path, [list(frame.columns).index(name) for name in names])
    new = {name: _objects(text) for name, text in zip(names, texts, strict=True)}
    for name, dtype in inner.items():
        column = column_of(frame, name)
        if dtype.plain != "text" and column.dtype == object:
            new[name] = _parsed(column, dtype, name)
    for name, column in new.items():
        frame[name] = column
    return frame


def write_table(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table beside its place and rename it there, so that no half of it is ever seen.

    An index that has a name is kept: in CSV as the first column, in Parquet as the index. Any other is left out.

    Raises:
        DiffuseError: an unknown ending, or a folder that does not exist.
    """
    path = Path(path)
    kind, named = _kind(path), any(name is not None for name in frame.index.names)

    def write(aside: Path) -> None:
        if kind == "parquet":
            frame.to_parquet(aside, index=named)
        else:
            frame.to_csv(aside, index=named, compression="gzip" if path.name.lower().endswith(".gz") else None)

    atomic_write(path, write)


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(_CSV):
        return "csv"
    if name.endswith(_PARQUET):
        return "parquet"
    raise DiffuseError(f"table '{path}': expected a name that ends in {', '.join(_CSV + _PARQUET)}")


def _read_csv(path: Path) -> pd.DataFrame:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        while chunk := file.read(2**20):
            if b"\0" in chunk:
                raise DiffuseError(f"table '{path}': expected text in UTF-8, got a NUL byte; save it as UTF-8")
            for number in _ENDS:  # which pandas reads as missing
                if number in chunk:
                    raise DiffuseError(f"table '{path}': it holds {number.decode()}, which 64 bits do not tell apart")
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        header, first = next(lines, []), next(lines, [])
    if not any(name.strip() for name in header):
        raise DiffuseError(f"table '{path}': the first line holds no column names")
    for sign in ";\t" if len(header) == 1 else "":
        if sign in header[0] and first and header[0].count(sign) == first[0].count(sign):
            raise DiffuseError(
                f"table '{path}': expected commas between the columns, got {sign!r}; save it with commas"
            )
    twice = next((name for index, name in enumerate(header) if name in header[:index]), None)
    if twice is not None:
        raise DiffuseError(f"table '{path}': column '{twice}' occurs twice; names must differ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # longer lines would be cut in silence
            frame = pd.read_csv(  # pyright: ignore[reportCallIssue]  # the stubs do not know "round_trip"
                path,
                index_col=False,
                dtype_backend="numpy_nullable",
                encoding="utf-8-sig",
                low_memory=False,
                float_precision="round_trip",  # pyright: ignore[reportArgumentType]
            )
    except (pd.errors.ParserWarning, pd.errors.ParserError):
        _check_widths(path, opener, len(header))
        raise
    frame.columns = header  # pandas names a blank header itself
    if padded := _padded(path, opener, [pd.api.types.is_integer_dtype(dtype) for dtype in frame.dtypes]):
        for place, text in zip(padded, _texts(path, padded), strict=True):
            frame.isetitem(place, text)
    if len(frame) and frame.iloc[:, -1].isna().any():  # a line with too few cells ends in missing ones
        _check_widths(path, opener, len(header))
    return pd.DataFrame({name: _settle(column_of(frame, name)) for name in header})


def _padded(path: Path, opener: Callable[..., Any], whole: list[bool]) -> list[int]:
    """The columns of ``whole`` numbers in which one is written with a leading zero: codes, not counts."""
    if not any(whole):
        return []
    with opener(path, "rb") as file:
        if not any(_ZERO.search(line) for line in file):
            return []
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        found = set()
        for number, cells in enumerate(csv.reader(file)):
            if number:
                found |= {k for k, cell in enumerate(cells) if whole[k] and _CODE.fullmatch(cell.strip())}
    return sorted(found)


def _texts(path: Path, places: Sequence[int]) -> list[pd.Series]:
    """The columns at ``places`` as the text of the file."""
    if not places:
        return []
    frame = pd.read_csv(
        path,
        index_col=False,
        dtype_backend="numpy_nullable",
        encoding="utf-8-sig",
        dtype=dict.fromkeys(places, "string"),
        low_memory=False,
    )
    return [frame.iloc[:, place] for place in places]


def _parsed(column: pd.Series, dtype: DType, name: str | int) -> pd.Series:
    """Text as dates, durations or numbers of ``dtype``; as it is where some cell is none."""
    try:
        if dtype.plain in ("int", "float"):
            return _settle(pd.Series(pd.to_numeric(column.astype("string"))))
        if dtype.plain == "ticks":
            return from_plain(*to_plain(_ticks(column, dtype), dtype, name), dtype)
    except (ValueError, TypeError, OverflowError, DiffuseError):  # pandas' own kinds are ValueErrors
        pass
    return column


def _ticks(column: pd.Series, dtype: DType) -> pd.Series:
    """Text as dates or durations; dates have an offset where ``dtype`` has a zone, and else none."""
    if dtype.is_span:
        return column.astype(f"timedelta64[{dtype.unit}]")
    zoned = "," in dtype.name
    if not column.dropna().str.fullmatch(_MOMENT + (_OFFSET if zoned else "")).all():
        return column
    return column.astype(f"datetime64[{dtype.unit}{', UTC' if zoned else ''}]")


def _check_widths(path: Path, opener: Callable[..., Any], width: int) -> None:
    """Name the first row whose cells are more or fewer than ``width``."""
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        for number, cells in enumerate(csv.reader(file), 1):
            if cells and len(cells) != width:
                got = f"row {number} has {len(cells)} cells, the first row {width}"
                raise DiffuseError(f"table '{path}': not a readable csv table: {got}")


def _settle(column: pd.Series) -> pd.Series:
    """numpy dtypes where nothing is missing and for floats and text; Int64 and boolean where something is."""
    if pd.api.types.is_string_dtype(column.dtype):
        return _date(column)
    if pd.api.types.is_float_dtype(column.dtype):
        return column.astype("float64")
    return column if column.isna().any() else column.astype(str(column.dtype).lower().replace("boolean", "bool"))


def _date(column: pd.Series) -> pd.Series:
    """Text as dates where every cell reads and prints the same in one format; else as objects."""
    text = column.dropna()
    for layout in _DATES if len(text) else ():
        dates = pd.to_datetime(text, format=layout, errors="coerce")
        if dates.notna().all() and (dates.dt.strftime(layout) == text).all():
            return pd.to_datetime(column, format=layout)
    return _objects(column)


def _objects(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None)


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DiffuseError(f"table '{path}': column '{twice}' occurs twice; names must differ")
    return pd.read_parquet(path)
