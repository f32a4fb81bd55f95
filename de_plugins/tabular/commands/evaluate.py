"""``diffuse evaluate --train T --synthetic S --out DIR``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from de_plugins.tabular._plain import describe
from de_plugins.tabular.commands._common import check_folder_target
from de_plugins.tabular.io import read_like, read_table
from de_plugins.tabular.schema import column_of

__all__ = ["Evaluate"]

_METRICS, _PAGE = "metrics.json", "report.html"


class Evaluate:
    """Judge a synthetic table beside the real one."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The arguments of ``diffuse evaluate``."""
        parser.add_argument("--train", metavar="T", required=True, help="what the synthesizer saw")
        parser.add_argument("--synthetic", metavar="S", required=True)
        parser.add_argument("--test", metavar="H", help="rows of the same source that it did not see")
        parser.add_argument(
            "--target", metavar="COL", help="the column that is to be predicted; the model's by default"
        )
        parser.add_argument("--model", metavar="M", help="what fit wrote: adds imputation, a bound, and what it cost")
        parser.add_argument("--out", metavar="DIR", required=True, help=f"gets {_PAGE} and {_METRICS}")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def run(self, args: argparse.Namespace) -> int:
        """Judge, write, print."""
        from de_plugins.tabular.evaluation import evaluate
        from de_plugins.tabular.synthesizer import TableSynthesizer

        check_folder_target(args.out, _METRICS)
        model = None if args.model is None else TableSynthesizer.load(args.model)
        target = args.target if args.target or model is None else model.schema.target
        train = read_table(args.train)
        dtypes = {name: describe(column_of(train, name), name) for name in train.columns}
        synthetic = read_like(args.synthetic, dtypes)
        test = None if args.test is None else read_like(args.test, dtypes)
        report = evaluate(train, synthetic, test, target, model=model)
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        report.to_html(folder / _PAGE)
        report.to_json(folder / _METRICS)
        print(json.dumps(report.to_dict()) if args.json else report.to_text())
        if not args.json:
            print(f"written to {folder / _PAGE} and {folder / _METRICS}")
        return 0
