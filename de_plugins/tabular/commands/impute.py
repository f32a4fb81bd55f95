"""``diffuse impute DIR TABLE --out TABLE``."""

from __future__ import annotations

import argparse

import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular.commands._common import check_table_target
from de_plugins.tabular.io import read_like, write_table

__all__ = ["Impute"]


class Impute:
    """Fill the missing cells of a table."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse impute``."""
        parser.add_argument("dir", metavar="DIR", help="what diffuse fit wrote")
        parser.add_argument("table", metavar="TABLE", help="a table with missing cells: CSV (.gz too) or Parquet")
        parser.add_argument("--out", metavar="TABLE", required=True, help="CSV (.gz too) or Parquet")
        parser.add_argument(
            "--draws",
            metavar="K",
            type=int,
            default=1,
            help="independent fillings, one below the other with a column 'draw'",
        )
        parser.add_argument("--seed", metavar="S", type=int, default=0)

    def run(self, args: argparse.Namespace) -> int:
        """Fill and write."""
        from de_plugins.tabular.synthesizer import TableSynthesizer

        check_table_target(args.out)
        synthesizer = TableSynthesizer.load(args.dir)
        frame = read_like(args.table, {column.name: column.dtype for column in synthesizer.schema.columns})
        if args.draws > 1 and "draw" in frame.columns:
            raise DiffuseError(f"table '{args.table}': it has a column 'draw' of its own; ask for one draw at a time")
        filled = synthesizer.impute(frame, args.draws, rng=args.seed)
        if args.draws > 1:
            unnamed = all(name is None for name in frame.index.names)
            filled = pd.concat([part.assign(draw=k) for k, part in enumerate(filled)], ignore_index=unnamed)
        write_table(filled, args.out)
        print(f"{int(frame.isna().to_numpy().sum()):,} cells filled; {len(filled):,} rows in {args.out}")
        return 0
