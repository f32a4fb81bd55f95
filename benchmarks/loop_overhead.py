"""What the joint sampling loop costs around the modalities' own steps and the network.

    python benchmarks/loop_overhead.py [--rounds N] [--steps S]

The network answers at once, with outputs made beforehand. "null" modalities do nothing in ``step``, so that all the
time of a run is the loop's: n = 1, 4, 16, 64 of them, runs in turn. "four" is one of each built-in modality at batch
16, with the time inside their ``step`` and ``finish`` measured apart. Processor time of the one thread; medians over
rounds, and the least where neighbours on the machine make medians worthless; prints one JSON object.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from de_core import JointProcess, Modality, Noised, NoisyGuidance, get_modality
from de_core.joint import Model

BATCH = 16


class Null(Modality):
    """One number that nothing happens to."""

    event_shape = element_shape = output_shape = (1,)

    def prior(self, batch: int, *, rng: Any) -> Tensor:
        return torch.zeros(batch, 1)

    def perturb(self, x: Tensor, t: Any, *, s: Any = 0.0, rng: Any) -> Noised:
        return Noised(x, x, s, t)

    def loss(self, output: Tensor, noised: Noised, *, objective: str = "elbo") -> Tensor:
        return output[:, 0]

    def score(self, output: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return output

    def step(self, output: Tensor, xt: Tensor, t: Tensor, s: Tensor, **_: Any) -> tuple[Tensor, Any]:
        return xt, None

    def finish(self, output: Tensor, xt: Tensor, t: Tensor, **_: Any) -> Tensor:
        return xt

    def config(self) -> dict[str, Any]:
        return {}


class Timed:
    """A method that adds up the time spent in it."""

    def __init__(self, method: Any) -> None:
        self.method, self.spent = method, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        answer = self.method(*args, **kwargs)
        self.spent += time.thread_time() - start
        return answer


def at_once(joint: JointProcess) -> Model:
    """A network whose answers are made beforehand, one set for each number of rows."""
    made: dict[int, dict[str, Tensor]] = {}

    def model(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = len(next(iter(x.values())))
        if rows not in made:
            made[rows] = {name: torch.zeros(rows, *m.output_shape) for name, m in joint.modalities.items()}
        return made[rows]

    return model


def seconds(joint: JointProcess, model: Model, steps: int, **request: Any) -> float:
    start = time.thread_time()
    joint.sample(model, BATCH, steps=steps, rng=0, **request)
    return time.thread_time() - start


def nulls(rounds: int, steps: int) -> dict[str, Any]:
    """Microseconds of the loop a modality and step, by the number of modalities."""
    made = {n: JointProcess({f"m{k}": Null() for k in range(n)}, block=BATCH) for n in (1, 4, 16, 64)}
    models = {n: at_once(joint) for n, joint in made.items()}
    taken = [{n: seconds(joint, models[n], steps) / steps for n, joint in made.items()} for _ in range(rounds)]
    step = {n: statistics.median(row[n] for row in taken) for n in made}
    return {
        "us_a_modality_and_step": {n: round(1e6 * value / n, 2) for n, value in step.items()},
        "target_us": 50,
        "growth_over_n": {n: round(statistics.median(row[n] / (n * row[1]) for row in taken), 3) for n in made},
        "target_growth": 1.0,
    }


def four(rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step with the four built-in modalities, all told and outside their own steps."""
    modalities = {
        "image": get_modality("gaussian")((1, 8, 8)),
        "caption": get_modality("masked")((6,), 27),
        "label": get_modality("uniform")((), 10),
        "ink": get_modality("simplex")((16,)),
    }
    timers = {}
    for name, m in modalities.items():
        timers[name] = [Timed(m.step), Timed(m.finish)]
        m.step, m.finish = timers[name]  # type: ignore[method-assign] # timed in place
    joint = JointProcess(modalities, block=BATCH)
    model = at_once(joint)
    tokens = torch.zeros(BATCH, 6, dtype=torch.int64)
    requests = {
        "joint": {},
        "given": {"given": {"caption": tokens}},
        "guided": {"given": {"caption": tokens}, "guidance": NoisyGuidance(2.0, sigma=0.5)},
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in requests}
    for _ in range(rounds):
        for kind, request in requests.items():
            for timer in (timer for pair in timers.values() for timer in pair):
                timer.spent = 0.0
            whole = seconds(joint, model, steps, **request)
            own = {name: sum(timer.spent for timer in pair) for name, pair in timers.items()}
            rows[kind].append({"all": whole, "outside": whole - sum(own.values()), **own})
    return {
        kind: {f"{key}_ms": round(1e3 * statistics.median(r[key] for r in found) / steps, 4) for key in found[0]}
        for kind, found in rows.items()
    } | {
        "joint_all_least_ms": round(1e3 * min(r["all"] for r in rows["joint"]) / steps, 4),
        "target_joint_all_ms": 1.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for warm in (nulls, four):
        warm(2, args.steps)
    print(json.dumps({"null": nulls(args.rounds, args.steps), "four": four(args.rounds, args.steps), "batch": BATCH}))


if __name__ == "__main__":
    main()
