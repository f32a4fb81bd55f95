"""Draw ordinal.png: the kernel over time, and samples of the example.

python figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from de_ordinal.modality import Ordinal
from example import GRADES, patients, train
from matplotlib.axes import Axes
from torch import Tensor

__all__ = ["main"]


def main() -> None:
    """Train the example (half a minute) and draw."""
    torch.set_num_threads(1)
    joint, model = train()
    figure, (near, tilted, data, free, given) = plt.subplots(1, 5, figsize=(12, 2.6), dpi=80, layout="constrained")
    steps = torch.arange(10)
    flips = [[float(max(9 - x, 0) * (y == x + 1) + x * (y == x - 1)) for y in range(10)] for x in range(10)]
    for axes, title, rates in ((near, "kernel, uniform law", None), (tilted, "kernel, binomial law", flips)):
        for t in (0.2, 0.4, 0.6, 0.8, 1.0):
            start = torch.full((10,), 2)
            log_p = Ordinal((), 10, rates).log_transition(steps, start, torch.full((10,), t, dtype=torch.float64))
            axes.plot(steps, log_p.exp(), ".-", label=f"t = {t}")
        axes.set(title=title, xlabel="class, from class 2", ylim=(0, 0.8))
    near.legend(fontsize=7)
    seen, _ = patients()
    spread(data, "patients", seen)
    spread(free, "joint samples", joint.sample(model, 342, rng=0))
    each = torch.arange(GRADES).repeat_interleave(70)
    spread(given, "measures | grade", joint.sample(model, len(each), rng=0, given={"grade": each}))
    figure.savefig(Path(__file__).with_name("ordinal.png"))


def spread(axes: Axes, title: str, x: dict[str, Tensor]) -> None:
    """The body mass index over the grade, with its mean."""
    shift = 0.5 * torch.rand(len(x["grade"]), generator=torch.Generator().manual_seed(0)) - 0.25
    axes.scatter(x["grade"] + shift, x["measures"][:, 0], s=3, alpha=0.6)
    means = [float(x["measures"][x["grade"] == k, 0].mean()) for k in range(GRADES)]
    axes.plot(range(GRADES), means, "k_", ms=18)
    axes.set(title=title, xlabel="grade", ylabel="body mass index", ylim=(-3, 4))


if __name__ == "__main__":
    main()
