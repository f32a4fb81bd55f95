"""``diffuse fit TABLE --out DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from de_core.errors import DiffuseError
from de_plugins.tabular.commands._common import check_artifact_target
from de_plugins.tabular.io import read_like, read_table
from de_plugins.tabular.schema import Schema

__all__ = ["Fit"]


class Fit:
    """Learn a table and write it as an artifact directory."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse fit``."""
        parser.add_argument("table", metavar="TABLE", help="CSV (.gz too) or Parquet")
        parser.add_argument("--out", metavar="DIR", required=True, help="the artifact directory")
        parser.add_argument("--target", metavar="COL", help="the column that is to be predicted, for evaluate")
        parser.add_argument("--schema", metavar="FILE", help="a schema.toml, edited; inferred by default")
        parser.add_argument("--preset", choices=("nano", "small", "base"), default="nano", help="size (default nano)")
        parser.add_argument("--minutes", metavar="M", type=float, default=10.0, help="of training (default 10)")
        parser.add_argument("--seed", metavar="S", type=int, default=0)

    def run(self, args: argparse.Namespace) -> int:
        """Train and save; after Ctrl-C what there is, and exit code 130."""
        from de_plugins.tabular.backbone import TableMLP
        from de_plugins.tabular.synthesizer import TableSynthesizer

        check_artifact_target(args.out)
        if not args.minutes > 0:
            raise DiffuseError(f"--minutes: expected a number above 0, got {args.minutes}")
        if args.schema is None:
            frame = read_table(args.table)
            schema = Schema.infer(frame, args.target)
        else:
            schema = _read_schema(args.schema)
            frame = read_like(args.table, {column.name: column.dtype for column in schema.columns})
        print(f"{args.table}: {len(frame):,} rows, {len(schema.columns)} columns")
        for column in schema.columns:
            print(f"  {column.name}: {column.why}")
        for group in schema.groups:
            print(f"  group '{group.name}'{'' if group.use else ', not in use'}: {group.why}")
        for rule in (*schema.rules, *schema.functions):
            print(f"  rule{'' if rule.use else ', not in use'}: {rule.why}")
        synthesizer = TableSynthesizer(args.preset, args.minutes, args.seed)
        synthesizer.fit(frame, args.target, schema)
        synthesizer.save(args.out)
        loss = f", loss {synthesizer.curve[-1]['loss']:.4f}" if synthesizer.curve else ""
        print(
            f"{synthesizer.parameters:,} parameters, {synthesizer.steps:,} steps in {synthesizer.seconds:.0f} s{loss}"
        )
        network = synthesizer.model
        if args.preset == "nano" and isinstance(network, TableMLP) and network.narrow:
            print("the columns leave preset nano a narrow network; --preset small learns such a table better")
        if synthesizer.interrupted:
            print(f"interrupted; {args.out} holds what was learned so far and can be used")
            return 130
        print(f"saved in {args.out}; next: diffuse sample {args.out} --rows {len(frame)} --out synthetic.csv")
        return 0


def _read_schema(path: str) -> Schema:
    file = Path(path)
    if not file.is_file():
        raise DiffuseError(f"--schema {path}: no such file")
    try:
        return Schema.from_toml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise DiffuseError(f"--schema {path}: expected TOML in UTF-8") from None
