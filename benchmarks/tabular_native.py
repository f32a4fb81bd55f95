"""Classes on their own space against classes forced into a gaussian: one backbone, one size, one training.

    DIFFUSE_DATA=folder python benchmarks/tabular_native.py [--data adult,shoppers] [--minutes M] [--steps N]
        [--seeds N] [--lr R] [--threads T] [--out results.json]

Three arms on the same coded rows. Numbers are gaussian in each; a column of classes is

- native: "masked", as `TableSynthesizer` has it;
- one-hot: "gaussian", a class a corner of R^size (as in STaSy, Kim et al. 2022, 2210.04018), read back by argmax;
- bits: "gaussian", a class its number in binary, ceil(log2 size) coordinates, read back as the nearest code that a
  class has (analog bits, Chen et al. 2022, 2208.04202, without their self-conditioning).

Bits and not a learned embedding, so that the state space alone changes: embeddings learned by the squared error
collapse, and CDTD (Mueller et al. 2023, 2312.10431) trains them by a cross entropy on classes, half a native model.
Codes are centred by the training shares and scaled, by the column, to the mean variance 1 that the prior assumes.

Rows, batches, clocks (one a column), rate, averaging, network calls, codec and its calibration are the same, and so are
the blocks but for their width, which makes the parameters agree within 2 %. Coded columns enter and leave through the
factored tables of classes (`CodedMLP`): as plain numbers of `TableMLP`, 498 one-hot coordinates of Adult would leave a
width of 8. Their squared error is averaged over coordinates: a column weighs as much as a number. Not shown: numbers
that the codec takes for classes (an age) are classes in all arms, where others leave them numbers; rate and clocks were
chosen for the native arm (``--lr`` moves all); nothing is held out, as bounds on densities and classes do not compare.

Scores as in `tabular.py`. Prints progress on stderr, then a table in Markdown a data set; ``--out`` holds all as JSON.
The claim under test: Rojas et al. 2025 (2506.07903), that native state spaces make better use of a network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import pandas as pd
import torch
from tabular import alone, score
from tabular_sets import chosen, load
from torch import Tensor, nn
from torch.nn import functional

from de_core import DiffuseError, JointProcess, get_modality
from de_core.artifact import atomic_write
from de_core.networks import ClockFeatures
from de_core.rng import seed_of, stream
from de_core.train import Trainer
from de_plugins.tabular import TableCodec
from de_plugins.tabular._calibration import LEAST
from de_plugins.tabular.backbone import TableMLP, count_parameters
from de_plugins.tabular.process import BLOCK, TableSource, TableTimes, log_shares, table_process

ARMS = ("native", "one-hot", "bits")
CALLS = 50  # of the network, a row
LR = 4e-3  # of preset nano in TableSynthesizer
SHOWN = {"shape": 2, "trend": 2, "utility": 3, "auc": 3}  # score -> digits in the table


@attrs.frozen(eq=False)
class Code:
    """Points that stand for classes, (size, d) a column."""

    points: tuple[Tensor, ...]

    @classmethod
    def of(cls, arm: str, shares: tuple[Tensor, ...]) -> Code:
        """``shares``: (size,) a column, of its classes in training."""
        points = []
        for p in shares:
            bits = torch.arange(len(p))[:, None] >> torch.arange((len(p) - 1).bit_length()) & 1
            at = torch.eye(len(p)) if arm == "one-hot" else bits.float()
            at = at - p @ at
            points.append(at / (p @ at.square()).mean().sqrt())
        return cls(tuple(points))

    @property
    def dims(self) -> tuple[int, ...]:  # coordinates of each column
        return tuple(at.shape[1] for at in self.points)

    def encode(self, classes: Tensor) -> Tensor:
        """(n, D) int64 -> (n, sum of dims)."""
        return torch.cat([at[classes[:, d]] for d, at in enumerate(self.points)], 1)

    def decode(self, x: Tensor) -> Tensor:
        """The nearest point of each column: for a one-hot code that is the argmax before centring and scaling."""
        parts = zip(x.split(self.dims, 1), self.points, strict=True)
        return torch.stack([(at.square().sum(1) - 2 * y @ at.T).argmin(1) for y, at in parts], 1)


class CodedMLP(TableMLP):
    """``TableMLP`` whose classes are gaussian codes: column d is ``dims[d]`` coordinates in place of a class.

    Coordinate k enters as alpha x_k times row k of its column's table, where the mask's row takes sigma; its velocity
    is a_k + b x_k with one b a column, which starts at 0.
    """

    def __init__(self, dims: tuple[int, ...], numbers: int, **settings: Any) -> None:
        super().__init__(dims, numbers, **settings)
        self.slope = nn.Linear(self.width, len(dims))
        self.slope.load_state_dict({name: torch.zeros_like(p) for name, p in self.slope.named_parameters()})
        self.coordinate_clock = ClockFeatures(1)
        self.column = torch.arange(len(dims)).repeat_interleave(torch.tensor(dims))
        self.share = torch.tensor(dims)[self.column].rsqrt()  # a column adds variance 1/D at the entry, as a class does
        self.first = self.offsets - torch.arange(len(dims))  # coordinate of each column
        self.rows = torch.cat([self.own, self.offsets + torch.tensor(dims)])

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.numbers_in is not None
        assert self.asked is not None
        assert self.velocity is not None
        code, number = x["classes"], x["numbers"]
        alpha, sigma = self.coordinate_clock(t["classes"]).unbind(-1)
        shown, table = torch.cat([self.share * alpha * code, sigma[:, self.first]], 1), self.table()
        h = self.passed(self.bias + shown @ table[self.rows] + self.numbers_in(number, t["numbers"])[0])
        level, slope = self.velocity(h).chunk(2, 1)
        scores = functional.linear(self.asked(h), self.unit * table[self.own], self.score_bias)
        own = scores + self.slope(h)[:, self.column] * code
        return {"classes": own, "numbers": level + slope * number}


def network(code: Code | None, sizes: tuple[int, ...], numbers: int, marginals: Tensor) -> TableMLP:
    """The largest of its kind within the parameters of the native one of preset nano, refused if 2 % smaller."""
    settings = TableMLP.for_preset("nano", sizes, numbers) | {"directions": 0}  # of numbers alone: no arm has them
    if code is None:
        return TableMLP(sizes, numbers, **settings, marginals=marginals)
    most, dims = count_parameters(sizes, numbers, **settings), code.dims
    same: dict[str, Any] = {name: settings[name] for name in ("depth", "passes", "rank")}

    def size(width: int) -> int:
        return (width + 1) * len(dims) + count_parameters(dims, numbers, width=width, hidden=width, **same)

    width = max((w for w in range(4, 1025, 4) if size(w) <= most), default=4)
    hidden = width + (most - size(width)) // (same["depth"] * (3 * width + 2))
    model = CodedMLP(dims, numbers, width=width, hidden=hidden, **same)
    if (got := sum(p.numel() for p in model.parameters())) < 0.98 * most:
        raise DiffuseError(f"network: expected parameters within 2 % of {most:,}, got {got:,}")
    return model


@attrs.frozen(eq=False)
class Rows(TableSource):
    """Training rows with their classes as the arm has them."""

    classes: Tensor

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {**super().batch(index, rng), "classes": self.classes[index]}


@attrs.frozen
class ColumnTimes:
    """``TableTimes`` over columns, all of one time: the coordinates of a column share its clock."""

    dims: tuple[int, ...]

    def draw(self, shapes: Any, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        columns = {"numbers": shapes["numbers"], "classes": (shapes["classes"][0], len(self.dims))}
        t = TableTimes(given=0.2, tied=True).draw(columns, rng=rng)
        return {**t, "classes": t["classes"].repeat_interleave(torch.tensor(self.dims), 1)}


def run(
    arm: str, train: pd.DataFrame, seed: int, minutes: float | None, steps: int | None = None, lr: float = LR
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train one arm on a table with classes and numbers: as many rows as it has, drawn, and what that cost."""
    codec = TableCodec.fit(train)
    coded = codec.with_ends(codec.encode(train, rng=stream(seed, "encode")), rng=stream(seed, "ends"))
    sizes, numbers = codec.class_sizes, codec.num_numbers
    marginals = log_shares(coded, sizes)
    code = None if arm == "native" else Code.of(arm, marginals.exp().split(sizes))
    joint, dims, methods = table_process(sizes, numbers), (1,) * len(sizes), {"classes": "systematic"}
    if code is not None:
        dims, methods = code.dims, {}
        spaces = {"numbers": joint.modalities["numbers"], "classes": get_modality("gaussian")((sum(dims),))}
        joint = JointProcess(spaces, elementwise=tuple(spaces), block=BLOCK)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        model = network(code, sizes, numbers, marginals)
    columns, budget = len(sizes) + numbers, {"minutes": minutes, "steps": steps, "batch_size": 2048, "lr": lr}
    weights = {"numbers": 1 / columns, "classes": len(sizes) / (sum(dims) * columns)}
    trainer = Trainer(joint, model, **budget, times=ColumnTimes(dims), weights=weights, seed=seed, progress=False)
    trained = trainer.fit(Rows(coded, coded.classes if code is None else code.encode(coded.classes)))

    def draw(n: int, rng: int) -> tuple[Tensor, Tensor]:
        x = joint.sample(trained.model, n, rng=rng, steps=CALLS, methods=methods)
        return x["classes"] if code is None else code.decode(x["classes"]), x["numbers"]

    if len(train) >= LEAST:
        codec = codec.calibrated(*draw(min(max(len(train), 10_000), 50_000), seed_of(stream(seed, "calibration"))))
    began = time.perf_counter()
    fake = codec.decode(*draw(len(train), seed), rng=stream(seed, "decode"))
    about = {"seed": seed, "parameters": sum(p.numel() for p in model.parameters()), "steps": trained.steps}
    return fake, {**about, "fit seconds": trained.seconds, "sample seconds": time.perf_counter() - began}


def scored(arm: str, name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One training and its scores."""
    torch.set_num_threads(args.threads)
    train, test = load(name)
    fake, about = run(arm, train, seed, args.minutes, args.steps, args.lr)
    return {**about, **score(name, train, test, fake)}


def markdown(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """One table a data set: rows are arms."""
    lines = []
    for name, found in results.items():
        lines += [f"\n{name}\n", "| | parameters | steps | Shape | Trend | MLE | two-sample AUC |", "|---" * 7 + "|"]
        for arm, each in found.items():
            cells = [f"{each[0]['parameters']:,}", f"{statistics.mean(one['steps'] for one in each):,.0f}"]
            for key, digits in SHOWN.items():
                values = [one[key] for one in each]
                spread = f" ± {statistics.stdev(values):.{digits}f}" if len(each) > 1 else ""
                cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
            lines.append(" | ".join([f"| {arm}", *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="adult,shoppers", help="names, with commas between")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training an arm, data set and seed")
    parser.add_argument("--steps", type=int, help="an end of training in steps beside the one in minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=LR, help="peak learning rate of all arms")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = chosen(parser, args.data)
    about = {"minutes": args.minutes, "steps": args.steps, "lr": args.lr, "threads": args.threads, "calls": CALLS}
    results: dict[str, dict[str, list[dict[str, Any]]]] = {name: {arm: [] for arm in ARMS} for name in names}
    for name in names:
        for seed in range(args.seeds):
            for arm in ARMS:  # one after the other, so that they share what else the machine does
                results[name][arm].append(alone(scored, arm, name, seed, args))
                print(f"{name}, {arm}, seed {seed}: {json.dumps(results[name][arm][-1])}", file=sys.stderr, flush=True)
                if args.out:
                    atomic_write(args.out, json.dumps({**about, "results": results}, indent=1) + "\n")
    print(markdown(results))


if __name__ == "__main__":
    main()
