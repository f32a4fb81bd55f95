"""Peak memory of sampling a table of 15 columns.

    python benchmarks/sampling_memory.py [--rows N] [--steps S] [--guided] [--threads T]

A nano synthesizer is fitted for a few steps to simulated rows (five numbers, one of them a count and one with missing
cells, nine text columns of 2 to 42 categories, one date) and saved. Two processes load it and sample, one a single
block, the other all rows; each reports its peak resident memory. How well the model is trained and how many steps are
taken plays no part. Prints one JSON object; the target is 4 GiB for a million rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from de_core import ClassifierFreeGuidance
from de_plugins.tabular import TableSynthesizer
from de_plugins.tabular.process import BLOCK

GIB = 2**30
CATEGORIES = (2, 3, 5, 6, 7, 9, 15, 16, 42)


def table(rows: int) -> pd.DataFrame:
    """Simulated rows in the make-up of Adult."""
    rng = np.random.default_rng(0)
    age = rng.integers(17, 90, rows)
    columns = {
        "age": age,
        "weight": rng.lognormal(12, 0.5, rows),
        "hours": np.clip(rng.normal(40, 12, rows), 1, 99).round(1),
        "gain": np.where(rng.random(rows) < 0.9, 0.0, rng.lognormal(8, 1, rows).round(2)),
        "score": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows) + 0.02 * age),
        "since": pd.Timestamp("2000-01-01") + pd.to_timedelta(rng.integers(0, 9000, rows), unit="D"),
    }
    for size in CATEGORIES:
        names = np.array([f"kind {size} value {k}" for k in range(size)], dtype=object)
        columns[f"kind_{size}"] = names[(rng.random(rows) ** 2 * size).astype(int)]
    return pd.DataFrame(columns)


def peak_memory() -> int:
    """Bytes: the high-water mark of this process's own memory (Linux; getrusage's would count the parent's too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def child(path: str, rows: int, steps: int, guided: bool) -> None:
    """Sample and report, in a process of its own: peak memory never falls."""
    synthesizer = TableSynthesizer.load(path)
    loaded = peak_memory()
    seen: list[int] = []
    given = {"kind_2": "kind 2 value 1"} if guided else None
    start = time.perf_counter()
    frame = synthesizer.sample(
        rows,
        given,
        ClassifierFreeGuidance(2.0) if guided else None,
        steps,
        rng=0,
        progress=lambda done, n: seen.append(peak_memory()),
    )
    peak = peak_memory()
    print(
        json.dumps(
            {
                "rows": len(frame),
                "columns": frame.shape[1],
                "loaded_gib": round(loaded / GIB, 3),
                "sampled_gib": round(seen[-1] / GIB, 3),
                "peak_gib": round(peak / GIB, 3),
                "frame_gib": round(float(frame.memory_usage(deep=True).sum()) / GIB, 3),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guided", action="store_true", help="with a given column and classifier-free guidance")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        child(args.child, args.rows, args.steps, args.guided)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        TableSynthesizer(preset="nano", minutes=5, max_steps=20, progress=False).fit(table(5000)).save(path)
        runs = []
        for rows in (BLOCK, args.rows):
            command = [sys.executable, __file__, "--child", path, "--rows", str(rows), "--steps", str(args.steps)]
            command += ["--threads", str(args.threads)] + (["--guided"] if args.guided else [])
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    one, many = runs
    report = {"one_block": one, "all": many, "steps": args.steps, "guided": args.guided, "target_gib": 4.0}
    added = (many["peak_gib"] - one["peak_gib"]) * GIB / (many["rows"] - one["rows"])
    print(json.dumps(report | {"bytes_a_row": round(added, 1)}))


if __name__ == "__main__":
    main()
