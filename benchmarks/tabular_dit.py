"""A training step of the default table network beside the authors' transformer, on Adult at batch 2048.

    DIFFUSE_DATA=folder python benchmarks/tabular_dit.py [--rounds N] [--threads T]

Each does whole steps of its own recipe through the trainer's parts (noising, loss, gradient, clipping, optimiser,
averaged weights), in turn, in one process; the ratio is the median over neighbours. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from tabular_sets import chosen

from de_core.plugins import get_component
from de_core.rng import stream
from de_core.train import Trainer
from de_plugins.tabular import read_table
from de_plugins.tabular._rates import crowding
from de_plugins.tabular._saving import build
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.process import TableSource, TableTimes, covariance, log_shares, table_process

BATCH = 2048


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    chosen(parser, "adult")
    torch.set_num_threads(args.threads)
    frame = read_table(Path(os.environ["DIFFUSE_DATA"]) / "adult_train.csv.gz")
    codec = TableCodec.fit(frame)
    coded = codec.encode(frame, rng=stream(0, "encode"))
    sizes, numbers = codec.class_sizes, codec.num_numbers
    spread = covariance(coded, stream(0, "covariance"))
    kinds = {"table-mlp": ("nano", "simple"), "table-dit": ("paper", "paper-tabular")}
    trainers, counts = {}, {}
    for name, (preset, objective) in kinds.items():
        settings = get_component("backbone", name).for_preset(preset, sizes, numbers)
        network = get_component("backbone", name)
        model = build(network, settings, codec, 0, log_shares(coded, sizes), spread)
        counts[name] = sum(p.numel() for p in model.parameters())
        paper = objective == "paper-tabular"
        crowded = crowding(coded, counts[name])
        times = TableTimes(0.0, 0.0, tied=True) if paper else TableTimes.of(spread, crowded)
        joint = table_process(sizes, numbers, objective)
        trainers[name] = Trainer(
            joint,
            model,
            steps=1,
            batch_size=BATCH,
            objective=objective,
            times=times,
            orthogonal=getattr(network, "orthogonal", ()),
            progress=False,
        )
    source = TableSource(coded)
    took: dict[str, list[float]] = {name: [] for name in trainers}
    for k in range(args.rounds + 2):
        for name, trainer in trainers.items():
            trainer.steps = trainer.step + (4 if name == "table-mlp" else 1)  # the fast one by fours: clocks are coarse
            count = trainer.steps - trainer.step
            began = time.perf_counter()
            trainer.fit(source)
            if k >= 2:
                took[name].append((time.perf_counter() - began) / count)
    ratios = [b / a for a, b in zip(took["table-mlp"], took["table-dit"], strict=True)]
    print(
        json.dumps(
            {
                "parameters": counts,
                "step_ms": {name: round(1e3 * statistics.median(v), 2) for name, v in took.items()},
                "dit_over_mlp": round(statistics.median(ratios), 2),
                "target": 20,
                "batch": BATCH,
                "threads": args.threads,
            }
        )
    )


if __name__ == "__main__":
    main()
