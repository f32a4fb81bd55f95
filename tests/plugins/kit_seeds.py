"""The kit must not cry wolf: right modalities under many seeds of the kit. ``make kit-seeds``, or

    python tests/plugins/kit_seeds.py [--seeds 20] [--only NAME]

Prints one line a modality: failures, of how many runs, and seconds a run.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from rights import RIGHT

from de_core.plugins import list_modalities
from de_core.testing import check_modality


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", help="a modality of rights.py, by name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    installed, failures = {info.name for info in list_modalities()}, 0
    for name, right in RIGHT.items():
        if args.only not in (None, name):
            continue
        if right.plugin not in installed:
            print(f"{name:26} not installed", flush=True)
            continue
        began, bad = time.perf_counter(), []
        for seed in range(args.seeds):
            report = check_modality(right.modality(), right.data(), seed=seed)
            bad += [f"seed {seed}: {r.check.id}: {r.message}" for r in report.results if r.status == "failed"]
        took = (time.perf_counter() - began) / args.seeds
        print(f"{name:26} {len(bad)} failed, {args.seeds} seeds, {took:.1f} s a run", flush=True)
        for line in bad:
            print(f"    {line}", flush=True)
        failures += len(bad)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
