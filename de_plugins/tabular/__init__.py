"""Tables: any mix of numbers, categories, dates and missing cells as one joint process, and how good the
result is.

Light to import: the heavy parts load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from de_plugins.tabular.codec import TableCodec
    from de_plugins.tabular.evaluation import Report, evaluate
    from de_plugins.tabular.io import read_table, write_table
    from de_plugins.tabular.schema import Schema
    from de_plugins.tabular.synthesizer import TableSynthesizer

__all__ = ["Report", "Schema", "TableCodec", "TableSynthesizer", "evaluate", "read_table", "write_table"]

_HOMES = {
    "Report": "evaluation",
    "Schema": "schema",
    "TableCodec": "codec",
    "TableSynthesizer": "synthesizer",
    "evaluate": "evaluation",
    "read_table": "io",
    "write_table": "io",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
