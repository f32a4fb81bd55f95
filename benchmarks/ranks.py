"""Throughput of two one-thread ranks over one one-thread rank, at the same batch.

    python benchmarks/ranks.py [--rounds N] [--steps S] [--batch B] [--strategy ddp]

The joint process is a picture and a caption, the network an MMDiT of 4M parameters. Each round trains one process
and then two, in processes of their own, and takes the rows a second after a few steps; medians over rounds, and their
ratio by round; prints one JSON object. Needs two idle cores.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

import torch

from de_core import JointProcess, get_modality
from de_core.distributed import World
from de_core.train import Trainer

WARM = 2


def work(steps: int, batch: int, strategy: str) -> None:
    """One rank; rank 0 prints the rows a second of all."""
    from de_plugins.text_image.mmdit import MMDiT

    torch.set_num_threads(1)
    torch.manual_seed(0)
    joint = JointProcess({"image": get_modality("gaussian")((3, 24, 24)), "text": get_modality("masked")((16,), 64)})
    rng = torch.Generator().manual_seed(0)
    rows = {
        "image": torch.randn(4 * batch, 3, 24, 24, generator=rng),
        "text": torch.randint(64, (4 * batch, 16), generator=rng),
    }
    with World.here() as world:
        model = MMDiT(joint, "small")
        trainer = Trainer(joint, model, steps=WARM, batch_size=batch, strategy=strategy, progress=False)
        trainer.fit(rows)
        trainer.steps = WARM + steps
        world.barrier()
        start = time.perf_counter()
        trainer.fit(rows)
        if world.rank == 0:
            parameters = sum(p.numel() for p in model.parameters())
            print(json.dumps({"rows": steps * batch / (time.perf_counter() - start), "parameters": parameters}))


def measured(size: int, args: argparse.Namespace) -> dict[str, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [f"--{name}={getattr(args, name)}" for name in ("steps", "batch", "strategy")]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", *given],
            env={**os.environ, **common, "RANK": str(k), "LOCAL_RANK": str(k)},
            stdout=subprocess.PIPE,
        )
        for k in range(size)
    ]
    said = [rank.communicate()[0] for rank in ranks]
    return json.loads(said[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--strategy", default="ddp")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.steps, args.batch, args.strategy)
        return
    rounds = [(measured(1, args), measured(2, args)) for _ in range(args.rounds)]
    print(
        json.dumps(
            {
                "parameters": rounds[0][0]["parameters"],
                "batch": args.batch,
                "strategy": args.strategy,
                "one_rows_a_second": round(statistics.median(a["rows"] for a, _ in rounds), 1),
                "two_rows_a_second": round(statistics.median(b["rows"] for _, b in rounds), 1),
                "ratio": round(statistics.median(b["rows"] / a["rows"] for a, b in rounds), 3),
                "ratios": [round(b["rows"] / a["rows"], 3) for a, b in rounds],
                "target": 1.6,
            }
        )
    )


if __name__ == "__main__":
    main()
