"""Holes of the six tables filled by the model, by chained regressions and by nearest neighbours.

    DIFFUSE_DATA=folder python benchmarks/tabular_imputation.py [--data adult,magic] [--preset P] [--minutes M]
        [--seed S] [--rows N] [--threads T] [--models FOLDER]

For each data set a `TableSynthesizer` learns the training rows (or one is read that ``tabular.py --keep`` saved); of
3,000 test rows, or all, 20 % of the cells are hidden and filled 20 times by it, by scikit-learn's IterativeImputer with
``sample_posterior=True``, of 10,000 training rows, and by donors among the nearest training rows. Prints one JSON
object: mean over the columns of the CRPS of numbers (in standard deviations) and of the smoothed log score of classes,
and whether the model is ahead as it must be: of both in CRPS, of the neighbours in nats.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tabular_sets import chosen, load, training

from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular._model_scores import imputed


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training(parser)
    parser.add_argument("--rows", type=int, default=3000, help="of the test table, at most")
    parser.add_argument("--models", type=Path, help="trained before: FOLDER of tabular.py --keep")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = chosen(parser, args.data)
    results: dict[str, Any] = {}
    for name in names:
        train, test = load(name)
        if args.models:
            model = TableSynthesizer.load(args.models / name)
        else:
            model = TableSynthesizer(args.preset, args.minutes, args.seed, progress=False).fit(train)
        found = imputed(model, train, test, None, args.seed, args.rows)
        scores = found["summary"]
        ours, near, chained = (scores[key] for key in ("model", "neighbours", "iterative"))
        ahead = {"crps": ours["crps"] < min(near["crps"], chained["crps"])}  # each of the six has numbers
        if "nats" in ours:
            ahead["nats"] = ours["nats"] < near["nats"]
        results[name] = {"scores": scores, "ahead": ahead, "rows": found["rows"], "holes": found["holes"]}
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    about = {"preset": args.preset, "minutes": args.minutes, "seed": args.seed, "threads": args.threads}
    about["models"] = args.models is not None
    print(json.dumps({**about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
