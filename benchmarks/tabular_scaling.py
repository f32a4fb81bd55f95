"""How time and memory grow with rows and with columns.

    python benchmarks/tabular_scaling.py [--rows 1000 10000 ...] [--columns 10 100 ...] [--threads T]

Simulated tables, half of the columns numbers and half text of eight categories. Each size runs in a process of its own:
coding the table, ten training steps of the default batch (fewer rows, fewer), sampling as many rows as there are (at
most 20,000, ten steps), peak memory (Linux). The exponent is the slope of log time, or log memory beyond an empty
process's, between the two largest sizes: 1 is linear. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from sampling_memory import GIB, peak_memory

from de_plugins.tabular import TableCodec, TableSynthesizer

ROWS, COLUMNS = 20_000, 20  # what is held while the other grows
PRESET = "small"  # the least that holds the widest of these tables, for all sizes


def table(rows: int, columns: int) -> pd.DataFrame:
    """Numbers and text, each with something of the column before it."""
    draw = np.random.default_rng(0)
    kinds = np.array([f"kind {k}" for k in range(8)], dtype=object)
    base, out = draw.normal(size=rows), {}
    for k in range(columns):
        base = 0.5 * base + draw.normal(size=rows)
        out[f"c{k}"] = base if k % 2 else kinds[(np.abs(2 * base)).astype(int).clip(0, 7)]
    return pd.DataFrame(out)


def child(rows: int, columns: int, threads: int) -> None:
    """Run one size and report."""
    torch.set_num_threads(threads)
    empty = peak_memory()
    frame = table(rows, columns)
    began = time.perf_counter()
    codec = TableCodec.fit(frame)
    codec.encode(frame, rng=0)
    coding = time.perf_counter() - began
    synth = TableSynthesizer(PRESET, 60, max_steps=10, patience=None, progress=False).fit(frame)
    began = time.perf_counter()
    count = min(rows, 20_000)
    synth.sample(count, steps=10, rng=0)
    sampling = time.perf_counter() - began
    found = {
        "rows": rows,
        "columns": columns,
        "preset": PRESET,
        "coding_seconds": round(coding, 3),
        "ms_per_step": round(100 * synth.seconds, 2),
        "sampling_us_per_row": round(1e6 * sampling / count, 2),
        "memory_gib": round((peak_memory() - empty) / GIB, 3),
    }
    print(json.dumps(found))


def slope(found: list[dict[str, Any]], by: str, what: str) -> float:
    """Of log what against log by, between the two largest sizes."""
    a, b = found[-2:]
    return round(math.log(max(b[what], 1e-9) / max(a[what], 1e-9)) / math.log(b[by] / a[by]), 2)


def main() -> None:
    """Run all sizes and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(*args.child, args.threads)

    def run(rows: int, columns: int) -> dict[str, Any]:
        command = [sys.executable, __file__, "--child", str(rows), str(columns), "--threads", str(args.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(done.stdout.strip(), file=sys.stderr, flush=True)
        return json.loads(done.stdout)

    rows = [run(n, COLUMNS) for n in args.rows]
    columns = [run(ROWS, n) for n in args.columns]
    print(
        json.dumps(
            {
                "rows": rows,
                "columns": columns,
                "exponents": {
                    "coding by rows": slope(rows, "rows", "coding_seconds"),
                    "memory by rows": slope(rows, "rows", "memory_gib"),
                    "coding by columns": slope(columns, "columns", "coding_seconds"),
                    "training step by columns": slope(columns, "columns", "ms_per_step"),
                    "sampling by columns": slope(columns, "columns", "sampling_us_per_row"),
                    "memory by columns": slope(columns, "columns", "memory_gib"),
                },
                "threads": args.threads,
            },
            indent=1,
        )
    )
    return None


if __name__ == "__main__":
    main()
