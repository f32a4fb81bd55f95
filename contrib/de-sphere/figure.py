"""Draw sphere.png: the kernel over time, and samples of the example.

python figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from de_sphere.modality import Sphere
from example import COLOURS, simulate, train
from matplotlib.axes import Axes
from torch import Tensor

__all__ = ["main"]


def main() -> None:
    """Train the example (half a minute) and draw."""
    torch.set_num_threads(1)
    joint, model = train()
    figure, (kernel, *maps) = plt.subplots(1, 4, figsize=(10, 2.6), dpi=80, layout="constrained")
    theta = torch.linspace(0, torch.pi, 300, dtype=torch.float64)
    x = torch.stack([theta.sin(), 0 * theta, theta.cos()], 1)
    pole = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(x)
    for t in (0.65, 0.75, 0.85, 0.95):
        log_p = Sphere().log_transition(x, pole, torch.full_like(theta, t))
        kernel.plot(theta, log_p.exp(), label=f"t = {t}")
    kernel.set(title="kernel", xlabel="angle from the start")
    kernel.legend(fontsize=7)
    blue = torch.full((400,), COLOURS.index("blue"))
    samples = {
        "data": simulate(1500, torch.Generator().manual_seed(1)),
        "joint samples": joint.sample(model, 1500, rng=0),
        "direction | blue": joint.sample(model, 400, rng=0, given={"colour": blue}),
    }
    for axes, (title, drawn) in zip(maps, samples.items(), strict=True):
        scatter(axes, drawn["direction"], drawn["colour"])
        axes.set(title=title, xlabel="longitude", ylabel="sine of latitude", xlim=(-3.2, 3.2), ylim=(-1.05, 1.05))
    figure.savefig(Path(__file__).with_name("sphere.png"))


def scatter(axes: Axes, x: Tensor, colour: Tensor) -> None:
    """An equal-area map: longitude against the sine of the latitude."""
    for k, name in enumerate(COLOURS):
        at = x[colour == k]
        axes.scatter(torch.atan2(at[:, 1], at[:, 0]), at[:, 2], s=2, c=name)


if __name__ == "__main__":
    main()
