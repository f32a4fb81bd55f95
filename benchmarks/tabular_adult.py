"""Fit the training part of a table, draw as many rows as it has, and score them: the numbers of a table in minutes.

    DIFFUSE_DATA=folder python benchmarks/tabular_adult.py [--minutes M | --steps N] [--preset P] [--draws K] [--data
    NAME]

Shape and Trend are as published (sdmetrics' definitions, Trend over all pairs), Trend with the real table's bins
beside it. `sampling_ratio` is the time of sampling over the time of its network calls, both read in the same run.
Prints one JSON object: scores in per cent, mean over the samplings and each.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_plugins.tabular import TableSynthesizer, read_table
from de_plugins.tabular.metrics import fidelity
from de_plugins.tabular.metrics.matrix import matrices


class Timed:
    """A model that adds up the time of its calls."""

    def __init__(self, model: Callable[..., dict[str, Tensor]]) -> None:
        self.model, self.seconds, self.calls = model, 0.0, 0

    def __call__(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        began = time.perf_counter()
        out = self.model(x, t)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return out


def scores(real: Any, fake: Any) -> dict[str, float]:
    """Shape and Trend in per cent, and the share of pairs' worst."""
    coded = matrices({"real": real, "synthetic": fake})
    pair = (coded["real"], coded["synthetic"])
    return {
        "shape": 100 * float(np.nanmean(fidelity.shape(*pair))),
        "trend": 100 * float(np.nanmean(fidelity.trend(*pair))),
        "trend_real_bins": 100 * float(np.nanmean(fidelity.trend(*pair, bins="real"))),
    }


def checks(real: Any, fake: Any) -> dict[str, Any]:
    """Columns and dtypes; cells out of range, off the grid or never seen; columns whose ends are missed."""
    numbers = [c for c in real.columns if pd.api.types.is_numeric_dtype(real[c]) and real[c].nunique() > 2]
    words = [c for c in real.columns if c not in numbers]
    whole = [c for c in numbers if (real[c].dropna() % 1 == 0).all()]
    return {
        "same_dtypes": fake.dtypes.equals(real.dtypes),
        "outside_range": sum(int(((fake[c] < real[c].min()) | (fake[c] > real[c].max())).sum()) for c in numbers),
        "off_grid": sum(int((fake[c].dropna() % 1 != 0).sum()) for c in whole),
        "never_seen": sum(int((~fake[c].isin(real[c].unique())).sum()) for c in words),
        "ends_missed": [c for c in numbers if fake[c].min() != real[c].min() or fake[c].max() != real[c].max()],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--steps", type=int, help="end training after so many steps")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--draws", type=int, default=1, help="samplings of the one model")
    parser.add_argument("--sampling-steps", type=int, default=50)
    parser.add_argument("--data", default="adult_train")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    real = read_table(Path(os.environ["DIFFUSE_DATA"]) / f"{args.data}.csv.gz")
    synthesizer = TableSynthesizer(args.preset, args.minutes, args.seed, max_steps=args.steps).fit(real)
    network = synthesizer.model
    assert network is not None  # no known data set is constant
    timed = Timed(network.forward)
    # every call of the network is timed, and nothing else changes
    network.forward = timed  # type: ignore[method-assign]
    seconds, rows, ends = [], [], []
    for k in range(args.draws):
        began = time.perf_counter()
        fake = synthesizer.sample(len(real), steps=args.sampling_steps, rng=k)
        seconds.append(time.perf_counter() - began)
        rows.append(scores(real, fake))
        ends.append(checks(real, fake))
    means = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    ratio = sum(seconds) / timed.seconds
    print(
        json.dumps(
            {
                "data": args.data,
                "rows": len(real),
                "preset": args.preset,
                "parameters": synthesizer.parameters,
                "threads": torch.get_num_threads(),
                "training_steps": synthesizer.steps,
                "training_seconds": synthesizer.seconds,
                "ms_per_step": 1000 * synthesizer.seconds / synthesizer.steps,
                "sampling_steps": args.sampling_steps,
                "sampling_seconds": statistics.mean(seconds),
                "sampling_ratio": ratio,
                **means,
                "each": rows,
                "checks": ends,
            }
        )
    )


if __name__ == "__main__":
    main()
