"""What the modalities' own steps cost: the masked reverse step at a large vocabulary, and every stepper at a small one.

    python benchmarks/samplers.py [--rounds N] [--threads T] [--peers --peer-python PYTHON]

"masked": vocabulary 50,257, 128 tokens, batch 16, a 64-step run with fixed logits, network excluded. Each step is
timed in turn with one ``log_softmax`` over the same logits and, less often, with a one-hot-and-Poisson leap written
here; the ratios are medians of the ratios of neighbours. "memory" is the peak of resident memory in a process of its
own over such a run, beyond what it holds before (Linux). "steps" is the time of one step of each stepper of the four
built-in modalities at batch 16, outputs made beforehand. ``--peers`` runs public samplers in their own environment, in
turn with these: PYTHON is an interpreter that has torch and any of ``bionemo-moco`` and ``diffusers``; see
samplers_peers.py. A machine that is busy wants ``--threads 1``: threads that wait for each other measure its other
work. Prints one JSON object.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from de_core import get_modality

VOCABULARY, TOKENS, BATCH, STEPS = 50_257, 128, 16, 64


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def logits_of(seed: int = 0) -> Tensor:
    """Class scores, made in place so that nothing but themselves is ever held."""
    g = torch.Generator().manual_seed(seed)
    return torch.empty(BATCH, TOKENS, VOCABULARY).normal_(generator=g)


def reverse_run(logits: Tensor) -> Iterator[Callable[[], None]]:
    """The 63 steps and the last move of a run of the masked modality, one call each, state and all."""
    m = get_modality("masked")((TOKENS,), VOCABULARY)
    rng = torch.Generator().manual_seed(0)
    state = {"x": m.prior(BATCH, rng=rng)}
    clock = [t.expand(BATCH).float() for t in m.grid(STEPS)]

    def step(t: Tensor, s: Tensor) -> None:
        state["x"], _ = m.step(logits, state["x"], t, s, rng=rng)

    def finish(t: Tensor) -> None:
        state["x"] = m.finish(logits, state["x"], t, rng=rng)

    for t, s in itertools.pairwise(clock):
        yield lambda t=t, s=s: step(t, s)
    yield lambda: finish(clock[-1])
    assert int(state["x"].max()) < VOCABULARY  # no mask is left


def leap(logits: Tensor, x: Tensor, t: float, h: float) -> Tensor:
    """Tau-leaping on the whole table: a Poisson count for every class of every token, added as one-hot vectors; an
    element with more than one jump stays. The mask is the last class."""
    masked = x == VOCABULARY
    counts = torch.poisson(h / t * logits.softmax(-1))
    counts[(counts.sum(-1) > 1) | ~masked] = 0
    moves = counts.sum(-1) > 0
    hot = functional.one_hot(x, VOCABULARY + 1)
    hot[..., :VOCABULARY] += counts.long()
    hot[..., VOCABULARY] -= moves.long()
    return hot.argmax(-1)


class Peers:
    """The public samplers in a process of their own: one line asks for one step, one line answers with its time."""

    def __init__(self, python: str, threads: int) -> None:
        worker = Path(__file__).with_name("samplers_peers.py")
        self.process = subprocess.Popen(
            [python, str(worker), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peers' process ended with code {self.process.wait()}")
        return json.loads(line)

    def seconds(self, name: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def masked(rounds: int, peers: Peers | None) -> dict[str, Any]:
    """Ratios to one log_softmax over the same logits, each of what is timed beside it."""
    logits = logits_of()
    plain = lambda: logits.log_softmax(-1)  # noqa: E731 # one word for one line
    half = torch.where(torch.arange(TOKENS) % 2 == 0, VOCABULARY, 0).expand(BATCH, -1)
    plain(), [call() for call in reverse_run(logits)], leap(logits, half, 0.5, 1 / STEPS)
    ours, times, base, every = [], [], [], []
    slow: dict[str, list[float]] = {name: [] for name in ["leap", *(peers.about["names"] if peers else [])]}
    against: dict[str, list[float]] = {name: [] for name in slow}
    for _ in range(rounds):
        for k, call in enumerate(reverse_run(logits)):
            step, soft = seconds(call), seconds(plain)
            ours.append(step / soft), times.append(step), base.append(soft)
            every.append(k)
        for name, found in slow.items():
            if name == "leap":
                found.append(seconds(lambda: leap(logits, half, 0.5, 1 / STEPS)))
                against[name].append(found[-1] / seconds(plain))
            else:
                assert peers is not None  # it named them
                found.append(peers.seconds(name))
                against[name].append(found[-1] / peers.seconds("log_softmax"))
    ratio = statistics.median(ours)
    return {
        "log_softmax_ms": round(1e3 * statistics.median(base), 2),
        "step_ms": round(1e3 * statistics.median(times), 2),
        "step_over_log_softmax": round(ratio, 4),
        "worst_step_over_log_softmax": round(max(statistics.median(ours[k::STEPS]) for k in range(STEPS)), 4),
        "target": 0.25,
        "others_over_log_softmax": {name: round(statistics.median(found), 2) for name, found in against.items()},
        "others_over_step": {name: round(statistics.median(found) / ratio, 1) for name, found in against.items()},
    } | ({"peers": peers.about} if peers else {})


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def peak() -> None:
    """In a process of its own: the peak of resident memory over a run, beyond the logits and all else held before."""
    warm = get_modality("masked")((4,), 9)  # what is loaded at a first use
    x, t = warm.prior(2, rng=0), torch.ones(2)
    warm.finish(torch.zeros(2, 4, 9), warm.step(torch.zeros(2, 4, 9), x, t, t / 2, rng=0)[0], t / 2, rng=0)
    logits = logits_of()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = resident("VmRSS")
    for call in reverse_run(logits):
        call()
    print(json.dumps({"extra": resident("VmHWM") - before, "logits": logits.numel() * logits.element_size()}))


def memory() -> dict[str, Any]:
    told = subprocess.run([sys.executable, __file__, "--peak"], capture_output=True, text=True, check=True).stdout
    found = json.loads(told)
    share = found["extra"] / found["logits"]
    return {
        "logits_mb": round(found["logits"] / 2**20, 1),
        "extra_peak_mb": round(found["extra"] / 2**20, 1),
        "extra_over_logits": round(share, 4),
        "target": 0.1,
    }


def steps(rounds: int) -> dict[str, Any]:
    """Microseconds of one step, by modality and stepper, along a run of 64 readings; second calls answer at once."""
    modalities = {
        "gaussian": get_modality("gaussian")((1, 8, 8)),
        "masked": get_modality("masked")((6,), 27),
        "uniform": get_modality("uniform")((), 10),
        "simplex": get_modality("simplex")((16,)),
    }
    report: dict[str, dict[str, float]] = {}
    for name, m in modalities.items():
        output, row = torch.zeros(BATCH, *m.output_shape), {}
        clock = [t.expand(BATCH).float() for t in m.grid(STEPS)]
        for method in m.methods():
            taken: list[float] = []
            for _ in range(rounds):
                rng, carry = torch.Generator().manual_seed(0), None
                x = m.prior(BATCH, rng=rng)
                for t, s in itertools.pairwise(clock):
                    start = time.perf_counter()
                    x, carry = m.step(
                        output, x, t, s, rng=rng, method=method, carry=carry, again=lambda y, when, o=output: o
                    )
                    taken.append(time.perf_counter() - start)
            row[method] = round(1e6 * statistics.median(taken), 1)
        report[name] = row
    default = sum(row[m.methods()[0]] for row, m in zip(report.values(), modalities.values(), strict=True))
    return {"us": report, "four_defaults_ms": round(default / 1e3, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="64-step runs of the masked step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", action="store_true", help="time public samplers too; needs --peer-python")
    parser.add_argument("--peer-python", help="an interpreter with torch and bionemo-moco or diffusers")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peers and not args.peer_python:
        parser.error("--peers needs --peer-python, an interpreter with torch and bionemo-moco or diffusers")
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        if args.peak:
            peak()
            return
        peers = Peers(args.peer_python, args.threads) if args.peers else None
        report = {
            "masked": masked(args.rounds, peers),
            "memory": memory(),
            "steps": steps(max(3, args.rounds)),
            "threads": args.threads,
            "torch": torch.__version__,
        }
        if peers:
            peers.close()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
