"""Run the code of the tutorial and draw its picture from what it leaves.

python docs/figures/tutorial.py
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

DOCS = Path(__file__).resolve().parents[1]


def main() -> None:
    """The tutorial's blocks in order in one namespace, then four panels."""
    torch.set_num_threads(1)
    space: dict = {}
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where the tutorial saves
        for block in re.findall(r"```python\n(.*?)```", page, re.S):
            exec(block, space)
        os.chdir(DOCS)
    panels = {
        "data": space["test"],
        "joint samples": space["both"],
        "point | upper, middle": space["one"],
        "point | masked, middle": {"point": space["either"]["point"], "words": None},
    }
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), dpi=80, layout="constrained")
    for ax, (title, x) in zip(axes, panels.items(), strict=True):
        colours = "#444444" if x["words"] is None else plt.get_cmap("Paired")(3 * x["words"][:, 0] + x["words"][:, 1])
        ax.scatter(*x["point"].T, c=colours, s=5)
        ax.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), xticks=[], yticks=[])
        ax.set_title(title, fontsize=9)
    figure.savefig(DOCS / "images" / "tutorial.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
