"""Loss forward and backward through JointProcess against the same losses written out by hand, for the same network.

    python benchmarks/joint_overhead.py [--rounds N] [--batch B] [--threads T]

The hand-written side draws the same kind of clocks and noises and computes the same "simple" losses in plain torch (the
Wright-Fisher draw and score are the plugin's own functions), with no checks and no policy objects. The two are timed in
turn; the ratio is that of the medians, and the median of the ratios of neighbours. Prints one JSON object.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core import JointProcess, Stratified, get_modality
from de_core.networks import ClockFeatures, GatedBlock
from de_plugins.simplex._wright_fisher import mean_count, quadratic, sample_forward

WORDS, LENGTH, LABELS, PARTS = 27, 6, 10, 16


def build(copies: int) -> tuple[JointProcess, dict[str, str]]:
    """``copies`` of each of the four modalities of the demo, and the kind of each."""
    make: dict[str, Callable[[], object]] = {
        "image": lambda: get_modality("gaussian")((1, 8, 8)),
        "caption": lambda: get_modality("masked")((LENGTH,), num_classes=WORDS),
        "label": lambda: get_modality("uniform")((), num_classes=LABELS),
        "ink": lambda: get_modality("simplex")((PARTS,)),
    }
    names = {f"{kind}{k}": kind for k in range(copies) for kind in make}
    return JointProcess({name: make[kind]() for name, kind in names.items()}), names  # type: ignore[misc] # the builders are typed loosely


class Net(nn.Module):
    """A gated MLP over all states and clocks, as the demo's."""

    def __init__(self, names: dict[str, str], width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.names = names
        self.clock, self.words, self.digits = ClockFeatures(6), nn.Embedding(WORDS + 1, 24), nn.Embedding(LABELS, 24)
        sizes = {"image": 64, "caption": LENGTH * 24, "label": 24, "ink": PARTS}
        heads = {"image": 64, "caption": LENGTH * WORDS, "label": LABELS, "ink": PARTS}
        self.condition = nn.Linear(12 * len(names), 128)
        self.enter = nn.Linear(sum(sizes[kind] for kind in names.values()), width)
        self.blocks = nn.ModuleList(GatedBlock(width, 2 * width, 128) for _ in range(depth))
        self.heads = nn.ModuleDict({name: nn.Linear(width, heads[kind]) for name, kind in names.items()})

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        condition = self.condition(self.clock(torch.stack([t[name] for name in self.names], 1)).flatten(1))
        embed = {
            "image": lambda v: v.flatten(1),
            "caption": lambda v: self.words(v).flatten(1),
            "label": self.digits,
            "ink": lambda v: PARTS * v,
        }
        h = self.enter(torch.cat([embed[kind](x[name]) for name, kind in self.names.items()], 1))
        for block in self.blocks:
            h = block(h, condition)
        shape = {"image": (1, 8, 8), "caption": (LENGTH, WORDS), "label": (LABELS,), "ink": (PARTS,)}
        return {name: self.heads[name](h).reshape(-1, *shape[kind]) for name, kind in self.names.items()}


def by_hand(net: Net, x0: dict[str, Tensor], names: dict[str, str], g: torch.Generator) -> Tensor:
    """The joint "simple" loss in plain torch."""
    batch = len(next(iter(x0.values())))
    t, xt, keep = {}, {}, {}
    for name in names:
        order = torch.rand(1, batch, generator=g).argsort(1)[0]
        low = {"image": 1e-3, "caption": 1e-3, "label": 1e-3, "ink": 0.01}[names[name]]
        t[name] = low + (1 - low) * (order + torch.rand(1, generator=g)) / batch
    for name, kind in names.items():
        x, u = x0[name], t[name]
        if kind == "image":
            eps = torch.randn(x.shape, generator=g)
            a, b = (f(math.pi / 2 * u)[:, None, None, None] for f in (torch.cos, torch.sin))
            xt[name], keep[name] = a * x + b * eps, a * eps - b * x
        elif kind == "caption":
            keep[name] = torch.rand(x.shape, generator=g, dtype=torch.float64) >= 1 - u[:, None]
            xt[name] = torch.where(keep[name], WORDS, x)
        elif kind == "label":
            stay = torch.rand(x.shape, generator=g, dtype=torch.float64) < 1 - u
            xt[name] = torch.where(stay, x, torch.randint(LABELS, x.shape, generator=g))
        else:
            tau = -(2 / PARTS) * torch.log1p(-0.999 * u)
            xt[name], counts, _ = sample_forward(x, tau.double(), float(PARTS), g)
            keep[name] = (counts, tau)
    out = net(xt, t)
    total = torch.zeros(())
    for name, kind in names.items():
        o, x = out[name], x0[name]
        if kind == "image":
            term = (o - keep[name]).square().flatten(1).sum(1)
        elif kind == "caption":
            entropy = -o.log_softmax(-1).gather(-1, x[..., None])[..., 0]
            count = keep[name].sum(1)
            term = (LENGTH + 1) / count.clamp_min(1) * torch.where(keep[name], entropy, 0.0).sum(1)
        elif kind == "label":
            term = functional.cross_entropy(o, x, reduction="none")
        else:
            counts, tau = keep[name]
            c = mean_count(tau, float(PARTS))
            s = c[:, None] * functional.softplus(o)
            pull = (s * (counts - counts.sum(-1, keepdim=True) * xt[name])).sum(-1)
            term = PARTS * c**-1.5 * (0.5 * quadratic(s, xt[name]) - pull)
        total = total + term.mean()
    return total


def compare(copies: int, rounds: int, batch: int) -> dict[str, float]:
    joint, names = build(copies)
    net = Net(names)
    g = torch.Generator().manual_seed(0)
    draw = {
        "image": lambda: torch.randn(batch, 1, 8, 8, generator=g),
        "caption": lambda: torch.randint(WORDS, (batch, LENGTH), generator=g),
        "label": lambda: torch.randint(LABELS, (batch,), generator=g),
        "ink": lambda: torch.rand(batch, PARTS, generator=g).softmax(-1),
    }
    x0 = {name: draw[kind]() for name, kind in names.items()}

    def framework() -> float:
        start = time.perf_counter()
        net.zero_grad(set_to_none=True)
        joint.loss(net, x0, rng=g, times=Stratified(), objective="simple").total.backward()
        return time.perf_counter() - start

    def hand() -> float:
        start = time.perf_counter()
        net.zero_grad(set_to_none=True)
        by_hand(net, x0, names, g).backward()
        return time.perf_counter() - start

    for _ in range(5):
        framework(), hand()
    pairs = [(framework(), hand()) for _ in range(rounds)]
    ours, theirs = (statistics.median(p[k] for p in pairs) for k in (0, 1))
    return {
        "modalities": len(names),
        "joint_ms": round(1e3 * ours, 2),
        "by_hand_ms": round(1e3 * theirs, 2),
        "ratio": round(ours / theirs, 4),
        "median_of_ratios": round(statistics.median(a / b for a, b in pairs), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = {
        "four": compare(1, args.rounds, args.batch) | {"target": 1.05},
        "sixteen": compare(4, args.rounds, args.batch) | {"target": 1.10},
        "batch": args.batch,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
