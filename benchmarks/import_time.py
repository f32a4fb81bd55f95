"""What ``import de_core`` costs over ``import torch``, and what it loads that it should not.

    python benchmarks/import_time.py [--runs N]

Prints one JSON object: the median over fresh interpreters of the seconds between the end of ``import torch`` and the
end of ``import de_core``, the same as a ratio to ``import torch``, and the heavy modules that were loaded (expected:
none).
"""

import argparse
import json
import statistics
import subprocess
import sys

CHILD = """
import json, sys, time
a = time.perf_counter()
import torch
b = time.perf_counter()
before = set(sys.modules)
import de_core
c = time.perf_counter()
heavy = ("pandas", "hypothesis", "pytest", "sklearn", "matplotlib", "pyarrow", "de_plugins", "de_core.testing")
loaded = [m for m in heavy if m in sys.modules and m not in before]
print(json.dumps([b - a, c - b, loaded]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    rows = []
    for _ in range(runs + 1):
        out = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(out))
    rows = rows[1:]  # the first run warms the disk
    torch_s = statistics.median(row[0] for row in rows)
    core_s = statistics.median(row[1] for row in rows)
    report = {
        "torch_seconds": round(torch_s, 4),
        "de_core_seconds": round(core_s, 4),
        "de_core_seconds_min": round(min(row[1] for row in rows), 4),
        "ratio": round(core_s / torch_s, 4),
        "target_seconds": 0.1,
        "heavy_modules_loaded": rows[-1][2],
        "runs": runs,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
