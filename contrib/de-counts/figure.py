"""Draw counts.png: the kernel over time, and samples of the example.

python figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from de_counts.modality import Counts
from example import digits, train
from torch import Tensor

__all__ = ["main"]


def main() -> None:
    """Train the example (less than a minute) and draw."""
    torch.set_num_threads(1)
    joint, model = train()
    figure, (kernel, *walls) = plt.subplots(1, 4, figsize=(11, 2.8), dpi=80, layout="constrained")
    x = torch.arange(31)
    for t in (0.1, 0.4, 0.7, 1.0):
        law = Counts((), 6.0).log_transition(x, torch.full_like(x, 20), torch.full((31,), t, dtype=torch.float64)).exp()
        kernel.plot(x, law, "o-", ms=2, lw=0.8, label=f"t = {t}")
    kernel.set(title="kernel from 20, prior Poisson(6)", xlabel="count")
    kernel.legend(fontsize=7)
    label = torch.arange(50) % 10
    samples = {
        "data": digits()[1]["ink"],
        "joint samples": joint.sample(model, 50, rng=0)["ink"],
        "ink | label = 0 to 9": joint.sample(model, 50, rng=0, given={"label": label})["ink"],
    }
    for axes, (title, ink) in zip(walls, samples.items(), strict=True):
        axes.imshow(wall(ink[:50]), cmap="Greys", vmin=0, vmax=16)
        axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(Path(__file__).with_name("counts.png"))


def wall(ink: Tensor) -> Tensor:
    """Fifty digits of 8 x 8 in five rows of ten, with a gap between."""
    framed = torch.nn.functional.pad(ink, (1, 1, 1, 1)).reshape(5, 10, 10, 10)
    return framed.transpose(1, 2).reshape(50, 100)


if __name__ == "__main__":
    main()
