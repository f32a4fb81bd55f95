"""Each variable on its own state space, against all of them forced into one: the same network, data and training.

    python examples/native_vs_forced.py [--seeds 5] [--steps 2000]

Three columns of six classes and two numbers, of a simulated law that is known: p(classes) is a table of 216 cells and
the numbers are normal given the classes. Three ways to diffuse the classes; the numbers are gaussian in each:

- native: "masked", the space of classes itself;
- one-hot: each class a corner (e_k - 1/6) sqrt(6) in R^6, "gaussian", read back as the nearest corner;
- embedded: each class one of six fixed normal vectors in R^4, likewise.

Body, clocks, rows, batches, steps, learning rate and network calls are the same. The first and the last layer are as
wide as the space asks for, so the counts of parameters differ by up to three percent; they are printed. Everything is
measured against the truth, and "exact" puts draws of the law itself through the same measurement: its noise.
The claim under test: Rojas et al. 2025 (2506.07903), that native state spaces make better use of a network.
"""

from __future__ import annotations

import argparse
import json
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

D, K, NUMBERS = 3, 6, 2  # columns of classes, classes a column, numbers
CELLS = K**D

# ---- the truth -------------------------------------------------------------------------------------------------------

_fixed = torch.Generator().manual_seed(0)
# gamma variables of shape 1/2: a table with likely, rare and almost empty cells
LAW = torch.randn(CELLS, generator=_fixed, dtype=torch.float64).square()
LAW = LAW / LAW.sum()
EFFECTS = torch.randn(D, K, NUMBERS, generator=_fixed, dtype=torch.float64) / math.sqrt(D)
CODES = torch.randn(D, K, 4, generator=_fixed)  # of "embedded", before they are centred and scaled
NOISE = 0.3
CLASSES = torch.cartesian_prod(*[torch.arange(K)] * D)  # (216, 3), in the order of the cells
MEANS = EFFECTS[torch.arange(D), CLASSES].sum(1)  # (216, 2)


def cell(classes: Tensor) -> Tensor:
    """The cell of each row of classes, (n, 3) -> (n,)."""
    return classes @ torch.tensor([K**2, K, 1])


def simulate(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """``n`` rows: "classes" (n, 3) int64, "numbers" (n, 2)."""
    k = torch.multinomial(LAW, n, replacement=True, generator=rng)
    z = torch.randn(n, NUMBERS, generator=rng, dtype=torch.float64)
    return {"classes": CLASSES[k], "numbers": (MEANS[k] + NOISE * z).float()}


def posterior(numbers: Tensor) -> Tensor:
    """p(cell | numbers), (n, 216), by Bayes."""
    gaps = (numbers.double()[:, None] - MEANS) / NOISE
    return (LAW.log() - 0.5 * (gaps**2).sum(-1)).softmax(1)


# ---- the three ways --------------------------------------------------------------------------------------------------


def corners(way: str) -> Tensor:
    """The points of R^d that stand for the classes, (3, 6, d): centred, of variance one a coordinate on average."""
    points = torch.eye(K).expand(D, K, K) if way == "one-hot" else CODES
    points = points - points.mean(1, keepdim=True)
    return points / points.square().mean((1, 2), keepdim=True).sqrt()


def encode(way: str, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows as the process sees them."""
    if way == "native" or "classes" not in x:
        return x
    return {**x, "classes": corners(way)[torch.arange(D), x["classes"]].flatten(1)}


def decode(way: str, x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows as the table has them: classes by the nearest point."""
    if way == "native":
        return x
    points = corners(way)
    gaps = (x["classes"].unflatten(1, (D, 1, -1)) - points).square().sum(-1)
    return {**x, "classes": gaps.argmin(-1)}


def process(way: str) -> JointProcess:
    """The classes and the numbers, each with a clock."""
    dims = 0 if way == "native" else D * corners(way).shape[-1]
    classes = get_modality("gaussian")((dims,)) if dims else get_modality("masked")((D,), num_classes=K)
    return JointProcess({"classes": classes, "numbers": get_modality("gaussian")((NUMBERS,))}, block=1000)


class Network(nn.Module):
    """One body for all ways; only ``enter`` and ``leave`` know how many numbers the classes are."""

    def __init__(self, way: str, width: int = 128) -> None:
        super().__init__()
        self.way, out = way, math.prod(process(way).modalities["classes"].output_shape)
        self.clock = ClockFeatures(4)
        self.enter = nn.Linear((D * (K + 1) if way == "native" else out) + NUMBERS + 2 * 8, width)
        self.body = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.leave = nn.Linear(width, out + NUMBERS)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        classes = one_hot(x["classes"], K + 1).flatten(1) if self.way == "native" else x["classes"]
        h = self.enter(torch.cat([classes, x["numbers"], self.clock(t["classes"]), self.clock(t["numbers"])], 1))
        for layer in self.body:
            h = h + layer(nn.functional.silu(h))
        out = self.leave(nn.functional.silu(h))
        classes = out[:, :-NUMBERS].unflatten(1, (D, K)) if self.way == "native" else out[:, :-NUMBERS]
        return {"classes": classes, "numbers": out[:, -NUMBERS:]}


def parameters(way: str) -> int:
    """How many the network has."""
    return sum(p.numel() for p in Network(way).parameters())


# ---- the measurement -------------------------------------------------------------------------------------------------


def energy(x: Tensor, y: Tensor) -> float:
    """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| without bias, of (n, 2) and (m, 2): 0 for equal laws."""
    n, m = len(x), len(y)
    same = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - same)


def measure(draw, seed: int, rows: int) -> dict[str, float]:
    """Four distances from the truth of what ``draw(n, given)`` gives.

    - "classes": total variation of the joint law of the classes, from 5 ``rows`` draws;
    - "numbers": energy distance of the numbers drawn along with them, over ``rows``;
    - "classes | numbers": total variation from Bayes' rule, ``rows``/4 draws at each of 20 conditions, the mean;
    - "numbers | classes": energy distance of (numbers - mean)/sd given the classes from the standard normal law.
    """
    rng = torch.Generator().manual_seed(10_000 + seed)
    test, fresh = simulate(rows, rng), simulate(rows, rng)
    both = draw(5 * rows, {})
    variation = 0.5 * (cell(both["classes"]).bincount(minlength=CELLS) / (5 * rows) - LAW).abs().sum()
    each, conditions = rows // 4, test["numbers"][:20]
    drawn = cell(draw(20 * each, {"numbers": conditions.repeat_interleave(each, 0)})["classes"])
    shares = torch.stack([part.bincount(minlength=CELLS) / each for part in drawn.split(each)])
    given = draw(rows, {"classes": test["classes"]})
    z = (given["numbers"].double() - MEANS[cell(given["classes"])]) / NOISE
    return {
        "classes": float(variation),
        "numbers": energy(both["numbers"][:rows].double(), fresh["numbers"].double()),
        "classes | numbers": float(0.5 * (shares - posterior(conditions)).abs().sum(1).mean()),
        "numbers | classes": energy(z, torch.randn(rows, NUMBERS, generator=rng, dtype=torch.float64)),
    }


def run(way: str, seed: int, steps: int, rows: int = 2000) -> dict[str, float]:
    """Train one way with one seed and measure it; "exact" draws from the law."""
    if way == "exact":
        rng = torch.Generator().manual_seed(20_000 + seed)

        def draw(n: int, given: dict[str, Tensor]) -> dict[str, Tensor]:
            if "numbers" in given:
                k = torch.multinomial(posterior(given["numbers"]), 1, generator=rng)[:, 0]
                return {**given, "classes": CLASSES[k]}
            x = simulate(n, rng)
            if "classes" in given:
                shift = MEANS[cell(given["classes"])] - MEANS[cell(x["classes"])]
                return {**given, "numbers": (x["numbers"] + shift).float()}
            return x
    else:
        joint = process(way)
        data = encode(way, simulate(100_000, torch.Generator().manual_seed(seed)))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Network(way)
        model = Trainer(joint, network, steps=steps, batch_size=512, lr=3e-3, seed=seed).fit(data).model

        def draw(n: int, given: dict[str, Tensor]) -> dict[str, Tensor]:
            held = {name: encode(way, given)[name] for name in given}
            return decode(way, joint.sample(model, n, rng=seed, given=held))

    return measure(draw, seed, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {"seeds": args.seeds, "steps": args.steps, "ways": {}}
    for way in ("native", "one-hot", "embedded", "exact"):
        runs = [run(way, seed, args.steps) for seed in range(args.seeds)]
        values = {name: torch.tensor([r[name] for r in runs]).double() for name in runs[0]}
        result["ways"][way] = {
            "parameters": None if way == "exact" else parameters(way),
            "mean": {name: round(float(v.mean()), 5) for name, v in values.items()},
            "sd": {name: round(float(v.std()), 5) for name, v in values.items()} if args.seeds > 1 else None,
        }
        print(way, "done", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
