"""A training step where the process keeps what a step frees, beside one where the C library gives it back.

    DIFFUSE_DATA=folder python benchmarks/freed_memory.py [--rounds N] [--steps K] [--threads T]

Each run is a process of its own that fits Adult (preset nano) for a number of steps, in turn: once as it is, once with
an environment that names glibc's own settings, which leaves them alone. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from de_plugins.tabular import TableSynthesizer, read_table

ARENAS = str(8 * (os.cpu_count() or 1))  # what glibc has by itself


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        torch.set_num_threads(args.threads)
        table = read_table(Path(os.environ["DIFFUSE_DATA"]) / "adult_train.csv.gz")
        fitted = TableSynthesizer(minutes=60, max_steps=args.steps, progress=False).fit(table)
        print(1e3 * fitted.seconds / fitted.steps)
        return
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kinds = {"kept": plain, "given_back": plain | {"MALLOC_ARENA_MAX": ARENAS}}
    took: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(args.rounds):
        for name, environment in kinds.items():
            command = [sys.executable, __file__, "--one", "--steps", str(args.steps), "--threads", str(args.threads)]
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            took[name].append(float(run.stdout))
    ratios = [a / b for a, b in zip(took["kept"], took["given_back"], strict=True)]
    medians = {name: round(statistics.median(v), 2) for name, v in took.items()}
    ratio = round(statistics.median(ratios), 3)
    print(json.dumps({"step_ms": medians, "kept_over_given_back": ratio, "rounds": args.rounds}))


if __name__ == "__main__":
    main()
