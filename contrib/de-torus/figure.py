"""Draw torus.png: the kernel over time, and samples of the example.

python figure.py
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from de_torus.modality import Torus
from example import simulate, train

__all__ = ["main"]


def main() -> None:
    """Train the example (about ten seconds) and draw."""
    torch.set_num_threads(1)
    joint, model = train()
    figure, (kernel, data, free, given) = plt.subplots(1, 4, figsize=(10, 2.6), dpi=80, layout="constrained")
    x = torch.linspace(-math.pi, math.pi, 400, dtype=torch.float64)
    for t in (0.6, 0.7, 0.8, 0.9):
        log_p = Torus(()).log_transition(x, torch.full_like(x, 2.0), torch.full_like(x, t))
        kernel.plot(x, log_p.exp(), label=f"t = {t}")
    kernel.set_title("kernel from angle 2")
    kernel.legend(fontsize=7)
    rows = {
        data: ("data", simulate(1500, torch.Generator().manual_seed(1))),
        free: ("joint samples", joint.sample(model, 1500, rng=0)),
        given: ("angles | label = 1", joint.sample(model, 500, rng=0, given={"label": torch.ones(500).long()})),
    }
    for axes, (title, x) in rows.items():
        axes.scatter(*x["angles"].T, c=x["label"], s=3, cmap="viridis", vmin=0, vmax=2)
        axes.set(title=title, xlim=(-math.pi, math.pi), ylim=(-math.pi, math.pi), xlabel="phi", ylabel="psi")
    figure.savefig(Path(__file__).with_name("torus.png"))


if __name__ == "__main__":
    main()
