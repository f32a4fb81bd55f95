"""``diffuse sample DIR --rows N --out TABLE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from de_core.errors import DiffuseError
from de_core.guidance import NoisyGuidance
from de_plugins.tabular._wanted import read_text
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.commands._common import check_table_target, progress
from de_plugins.tabular.io import write_table

__all__ = ["Sample"]


class Sample:
    """Draw rows from a fitted table."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse sample``."""
        parser.add_argument("dir", metavar="DIR", help="what diffuse fit wrote")
        parser.add_argument("--rows", metavar="N", type=int, required=True)
        parser.add_argument("--out", metavar="TABLE", required=True, help="CSV (.gz too) or Parquet")
        parser.add_argument(
            "--given",
            metavar="COL=VALUE",
            nargs="+",
            action="extend",
            default=[],
            help="what all rows have: a value, a range 30..40 (an end may be left out), a set A|B",
        )
        parser.add_argument("--guidance", metavar="W[,SIGMA]", help="towards the given columns, sigma 1 by default")
        parser.add_argument(
            "--steps", metavar="N", type=int, default=50, help="network calls a row, at most (default 50)"
        )
        parser.add_argument("--seed", metavar="S", type=int, default=0)

    def run(self, args: argparse.Namespace) -> int:
        """Draw and write."""
        from de_plugins.tabular.synthesizer import TableSynthesizer

        check_table_target(args.out)
        synthesizer = TableSynthesizer.load(args.dir)
        given = parse_given(args.given, synthesizer.codec)
        guidance = None if args.guidance is None else parse_guidance(args.guidance)
        frame = synthesizer.sample(args.rows, given, guidance, args.steps, rng=args.seed, progress=progress)
        write_table(frame, args.out)
        print(f"{len(frame):,} rows in {args.out}")
        return 0


def parse_given(texts: Sequence[str], codec: TableCodec) -> dict[str | int, Any]:
    """``COL=VALUE`` texts as values in each column's own type: one, a range ``30..40`` or a set ``A|B``; nothing after
    the sign is a missing cell, where there are any.

    Raises:
        DiffuseError: not of this form, an unknown column, the same one twice, or a value of another type.
    """
    given: dict[str | int, Any] = {}
    for text in texts:
        fitting = [v for v in codec.variables if text.startswith(f"{v.column.name}=")]
        if not fitting:
            name, sign, _ = text.partition("=")
            why = f"there is no column '{name}', expected one of {codec.schema.names}" if sign else "expected COL=VALUE"
            raise DiffuseError(f"--given {text}: {why}")
        variable = max(fitting, key=lambda v: len(str(v.column.name)))  # a name may hold the sign itself
        name = variable.column.name
        if name in given:
            raise DiffuseError(f"--given {text}: column '{name}' is given twice")
        try:
            given[name] = read_text(text[len(str(name)) + 1 :], variable)
        except DiffuseError as error:
            raise DiffuseError(f"--given {text}: {error}") from None
    return given


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
