"""``diffuse sample DIR --rows N --out TABLE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from de_core.errors import DiffuseError
from de_core.guidance import NoisyGuidance
from de_plugins.tabular._plain import DType
from de_plugins.tabular.commands._common import check_table_target, progress
from de_plugins.tabular.io import write_table
from de_plugins.tabular.schema import Schema

__all__ = ["Sample"]

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Sample:
    """Draw rows from a fitted table."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse sample``."""
        parser.add_argument("dir", metavar="DIR", help="what diffuse fit wrote")
        parser.add_argument("--rows", metavar="N", type=int, required=True)
        parser.add_argument("--out", metavar="TABLE", required=True, help="CSV (.gz too) or Parquet")
        parser.add_argument(
            "--given", metavar="COL=VALUE", action="append", default=[], help="a value that all rows have; repeat it"
        )
        parser.add_argument("--guidance", metavar="W[,SIGMA]", help="towards the given columns, sigma 1 by default")
        parser.add_argument("--steps", metavar="N", type=int, default=50, help="network calls a row (default 50)")
        parser.add_argument("--seed", metavar="S", type=int, default=0)

    def run(self, args: argparse.Namespace) -> int:
        """Draw and write."""
        from de_plugins.tabular.synthesizer import TableSynthesizer

        check_table_target(args.out)
        synthesizer = TableSynthesizer.load(args.dir)
        given = parse_given(args.given, synthesizer.schema)
        guidance = None if args.guidance is None else parse_guidance(args.guidance)
        frame = synthesizer.sample(args.rows, given, guidance, args.steps, rng=args.seed, progress=progress)
        write_table(frame, args.out)
        print(f"{len(frame):,} rows in {args.out}")
        return 0


def parse_given(texts: Sequence[str], schema: Schema) -> dict[str | int, Any]:
    """``COL=VALUE`` texts as values in each column's own type; nothing after the sign is a missing cell, where there
    are any.

    Raises:
        DiffuseError: not of this form, an unknown column, the same one twice, or a value of another type.
    """
    given: dict[str | int, Any] = {}
    for text in texts:
        fitting = [name for name in schema.names if text.startswith(f"{name}=")]
        if not fitting:
            name, sign, _ = text.partition("=")
            why = f"there is no column '{name}', expected one of {schema.names}" if sign else "expected COL=VALUE"
            raise DiffuseError(f"--given {text}: {why}")
        name = max(fitting, key=lambda name: len(str(name)))  # a name may hold the sign itself
        if name in given:
            raise DiffuseError(f"--given {text}: column '{name}' is given twice")
        column, value = schema[name], text[len(str(name)) + 1 :]
        given[name] = None if value == "" and column.missing else _parse(value, column.dtype, text)
    return given


def _parse(value: str, dtype: DType, text: str) -> Any:
    """The value in the type of its column; dates stay text, which the synthesizer reads."""
    if dtype.plain == "codes" and dtype.categories_dtype is not None:
        return _parse(value, dtype.categories_dtype, text)
    try:
        if dtype.plain == "int":
            return int(value)
        if dtype.plain == "float":
            return float(value)
        if dtype.plain == "bool":
            return _TRUTH[value.lower()]
    except (ValueError, KeyError):
        kind = {"int": "a whole number", "float": "a number", "bool": "true or false"}[dtype.plain]
        raise DiffuseError(f"--given {text}: expected {kind}") from None
    return value


def parse_guidance(text: str) -> NoisyGuidance:
    """``W`` or ``W,SIGMA``.

    Raises:
        DiffuseError: not of this form, or sigma outside [0, 1].
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise DiffuseError(f"--guidance {text}: expected W or W,SIGMA, such as 2.0,0.5")
    return NoisyGuidance(*numbers)
