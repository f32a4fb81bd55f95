"""Frames of other libraries (polars, pyarrow, ...) as pandas frames, and back, through narwhals and Arrow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from de_core.errors import DiffuseError

__all__ = ["as_pandas"]


def as_pandas(frame: Any) -> tuple[pd.DataFrame, Callable[[pd.DataFrame], Any]]:
    """A pandas frame, and the function that gives a frame of the same columns the caller's type and dtypes.

    A pandas frame passes as it is. Whole numbers and booleans with missing cells stay what they are; NaN in a column
    of floats is a missing cell, and comes back as null.

    Raises:
        DiffuseError: not a data frame.
    """
    if isinstance(frame, pd.DataFrame):
        return frame, same
    import narwhals as nw
    import pyarrow as pa

    try:
        wide = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise DiffuseError(f"table: expected a data frame, got {type(frame).__name__}") from error
    except nw.exceptions.DuplicateError as error:
        raise DiffuseError(f"table: a column name occurs twice; names must differ ({error})") from error
    try:
        arrow = wide.to_arrow()
    except pa.ArrowException as error:  # a type that Arrow does not know, such as whole numbers of 128 bits
        reason = " ".join(str(error).split())
        raise DiffuseError(f"table: a column has a type that Arrow cannot hold: {reason}") from error
    nullable = {
        getattr(pa, name.lower())(): getattr(pd, f"{name}Dtype")()
        for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    }
    nullable[pa.bool_()] = pd.BooleanDtype()
    table = arrow.to_pandas(types_mapper=nullable.get, date_as_object=False)
    if wide.implementation.is_pyarrow():
        return table, partial(_as_arrow, schema=arrow.schema)
    return table, partial(_as_other, schema=dict(wide.schema), backend=wide.implementation)


def same(frame: pd.DataFrame) -> pd.DataFrame:
    """The way back of a frame that is of pandas."""
    return frame


def _as_arrow(frame: pd.DataFrame, schema: Any = None) -> Any:
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    return table if schema is None else table.cast(schema)


def _as_other(frame: pd.DataFrame, schema: dict[str, Any], backend: Any) -> Any:
    import narwhals as nw

    other = nw.from_arrow(_as_arrow(frame), backend=backend)
    return other.with_columns(nw.col(name).cast(dtype) for name, dtype in schema.items()).to_native()
