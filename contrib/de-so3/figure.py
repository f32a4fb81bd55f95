"""Draw so3.png: the kernel over time, and samples of the example.

python figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from de_so3._kernel import axial, hat
from de_so3.modality import SO3
from example import SHARES, simulate, train
from matplotlib.axes import Axes
from torch import Tensor

__all__ = ["main"]


def main() -> None:
    """Train the example (less than a minute) and draw."""
    torch.set_num_threads(1)
    joint, model = train()
    figure, (kernel, *maps) = plt.subplots(1, 4, figsize=(10, 2.6), dpi=80, layout="constrained")
    omega = torch.linspace(0, torch.pi, 300, dtype=torch.float64)
    k = hat(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    one = torch.eye(3, dtype=torch.float64)
    x = one + omega.sin()[:, None, None] * k + (1 - omega.cos())[:, None, None] * k @ k
    for t in (0.65, 0.75, 0.85, 0.95):
        log_p = SO3().log_transition(x, one.expand_as(x), torch.full_like(omega, t))
        kernel.plot(omega, 8 * torch.pi * log_p.exp() * (1 - omega.cos()), label=f"t = {t}")
    kernel.set(title="kernel: law of the angle", xlabel="angle from the start")
    kernel.legend(fontsize=7)
    samples = {
        "data": simulate(1500, torch.Generator().manual_seed(1)),
        "joint samples": joint.sample(model, 1500, rng=0),
        "rotation | label = 1": joint.sample(model, 500, rng=0, given={"label": torch.ones(500).long()}),
    }
    for axes, (title, drawn) in zip(maps, samples.items(), strict=True):
        scatter(axes, drawn["rotation"], drawn["label"])
        axes.set(title=title, xlabel="angle", ylabel="|z part of the axis|", xlim=(-0.1, 3.25), ylim=(-0.05, 1.05))
    figure.savefig(Path(__file__).with_name("so3.png"))


def scatter(axes: Axes, x: Tensor, label: Tensor) -> None:
    """The angle of each rotation against how far its axis, a line, lies along z: 1 is a turn about z."""
    w = axial(x.double())
    omega = torch.atan2(w.norm(dim=1), (x.diagonal(dim1=1, dim2=2).sum(1).double() - 1) / 2)
    # (R + R^T)/2 = cos omega + (1 - cos omega) a a^T, which has the axis a at half turns too
    square = (x[:, 2, 2] - omega.cos()) / (1 - omega.cos()).clamp_min(1e-9)
    axes.scatter(omega, square.clamp(0, 1).sqrt(), c=label, s=3, cmap="viridis", vmin=0, vmax=len(SHARES) - 1)


if __name__ == "__main__":
    main()
