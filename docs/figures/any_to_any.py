"""Run the code of the guide "sample anything given anything" and draw its pictures from what it leaves.

python docs/figures/any_to_any.py
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

DOCS = Path(__file__).resolve().parents[1]
OUT = DOCS / "images" / "any"
FIGURES, SIDES = ("ring", "cross", "line"), ("left", "right")
COLOURS = [["#9ec5e8", "#1f77b4"], ["#f5c397", "#d9660b"], ["#a5d6a5", "#2a8a2a"]]  # by figure and side
PAIRS = [(figure, side) for figure in range(3) for side in range(2)]


def canvas(panels: int = 1):
    """A row of square panels."""
    figure, axes = plt.subplots(1, panels, figsize=(2.2 * panels, 2.2), dpi=80, layout="constrained", squeeze=False)
    return figure, axes[0]


def save(figure, name: str) -> None:
    """Without a time or a version in the file, so that the same picture is the same file."""
    figure.savefig(OUT / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def scatter(axes, x, y=None, title: str = "") -> None:
    """Points, coloured by their words where there are some."""
    colours = "#444444" if y is None else [COLOURS[figure][side] for figure, side in y.tolist()]
    axes.scatter(x[:, 0], x[:, 1], c=colours, s=7, alpha=0.6, linewidths=0)
    axes.set(xlim=(-2, 2), ylim=(-2, 2), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=9)


def bars(axes, y, bayes=None, title: str = "") -> None:
    """Shares of the six pairs of words, with ticks where Bayes' rule has them."""
    shares = [float(((y[:, 0] == figure) & (y[:, 1] == side)).float().mean()) for figure, side in PAIRS]
    axes.bar(range(6), shares, color=[COLOURS[figure][side] for figure, side in PAIRS])
    if bayes is not None:
        axes.scatter(range(6), bayes, marker="_", s=250, color="black")
    axes.set_xticks(range(6), [f"{FIGURES[f]} {SIDES[s]}" for f, s in PAIRS], rotation=60, ha="right", fontsize=7)
    axes.set(ylim=(0, 1))
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title(title, fontsize=9)


def posterior(g: SimpleNamespace, x, level: float):
    """P(pair of words | x at its level) by Bayes' rule, six numbers."""
    t = torch.tensor([level], dtype=torch.float64)
    nothing = {"y": torch.tensor([[3, 2]]), "x": x}
    weights = g.model.log_posterior(nothing, {"x": t, "y": torch.ones_like(t)}).exp()[0]
    y = g.data["y"]
    return [float(weights[(y[:, 0] == figure) & (y[:, 1] == side)].sum()) for figure, side in PAIRS]


def modes(g: SimpleNamespace) -> None:
    """The data and the seven modes."""
    drawn = {
        "data": (g.data, True),
        "mode_1": (g.both, True),
        "mode_2": (g.x_given_y, True),
        "mode_4": (g.x_given_noisy_y, False),
        "mode_6": (g.x_alone, False),
    }
    for name, (x, coloured) in drawn.items():
        figure, (axes,) = canvas()
        scatter(axes, x["x"], x["y"] if coloured else None)
        save(figure, name)
    told = {
        "mode_3": (g.y_given_x, g.crossing, 0.0),
        "mode_5": (g.y_given_noisy_x, g.blurred, 0.3),
        "mode_7": (g.y_alone, g.nowhere.value, 1.0),
    }
    for name, (x, value, level) in told.items():
        figure, (axes,) = canvas()
        bars(axes, x["y"], posterior(g, value[:1], level))
        save(figure, name)


def options(g: SimpleNamespace) -> None:
    """Known parts, paths, steps, a run, guidance, steppers."""
    figure, axes = canvas(4)
    scatter(axes[0], g.one_word["x"], g.one_word["y"], "known: cross")
    there = g.data["x"][g.data["x"][:, 0] == 0.5, 1].unique()
    panels = {"resample=1": g.replaced, "resample=8": g.resampled, "own clock": g.exact}
    for ax, (title, x) in zip(axes[1:], panels.items(), strict=True):
        ax.hlines(there, 0, 60, color="#dddddd", lw=1)
        ax.hist(x["x"][:, 1], bins=120, range=(-1.5, 1.5), orientation="horizontal", color="#444444")
        ax.set(xlim=(0, 45), ylim=(-1.5, 1.5))
        ax.tick_params(labelsize=7)
        ax.set_title(title, fontsize=9)
    save(figure, "known")

    panels = {"8": g.few, "16": g.some, "64": g.many, "64, words 4": g.mixed, "nine readings": g.own}
    figure, axes = canvas(len(panels))
    for ax, (title, x) in zip(axes, panels.items(), strict=True):
        scatter(ax, x["x"], x["y"], title)
    save(figure, "steps")

    figure, axes = canvas(len(g.paths))
    for ax, path, t in zip(axes, g.paths, g.clocks, strict=True):
        for name in ("x", "y"):
            ax.plot(t[name][:, 0], label=name)
        ax.set_title(type(path).__name__, fontsize=9)
        ax.tick_params(labelsize=7)
    axes[0].legend(fontsize=8)
    save(figure, "paths")

    figure, axes = canvas(len(g.frames))
    for ax, x, step in zip(axes, g.frames, range(32, 65, 8), strict=True):
        scatter(ax, x, None, f"{step} calls")
    save(figure, "run")

    figure, axes = canvas(len(g.guided))
    bayes = posterior(g, g.blurred[:1], 0.3)
    for ax, (name, x) in zip(axes, g.guided.items(), strict=True):
        bars(ax, x["y"], bayes, name)
    save(figure, "guidance")

    half = g.data["x"][(g.data["y"] == torch.tensor([0, 0])).all(1)]
    half = half[torch.atan2(half[:, 1], -half[:, 0]).argsort()]
    figure, axes = canvas(len(g.by_stepper))
    for ax, (name, x) in zip(axes, g.by_stepper.items(), strict=True):
        ax.bar(range(len(half)), torch.bincount((x[:, None] - half).norm(dim=2).argmin(1), minlength=len(half)))
        ax.axhline(len(x) / len(half), color="black", lw=1)
        ax.set(ylim=(0, 100))
        ax.tick_params(labelsize=7)
        ax.set_title(name, fontsize=9)
    save(figure, "steppers")


def likelihood(g: SimpleNamespace) -> None:
    """The bound on the words given a noisy point, beside E[-log p(y | x_t)] by Bayes' rule."""
    exact = []
    for level in g.levels:
        x = g.data["x"].repeat(200, 1)
        xt = g.joint.modalities["x"].perturb(x, level, rng=1).xt
        t = torch.full((len(xt),), level, dtype=torch.float64)
        nothing = {"x": xt, "y": torch.tensor([[3, 2]]).repeat(len(xt), 1)}
        weights = g.model.log_posterior(nothing, {"x": t, "y": torch.ones_like(t)}).exp()
        same = (g.data["y"].repeat(200, 1)[:, None] == g.data["y"]).all(2)
        exact.append(float(-(weights * same).sum(1).log().mean()))
    figure, axes = plt.subplots(figsize=(4.4, 2.4), dpi=80, layout="constrained")
    axes.plot(g.levels, exact, color="black", lw=1, label="E[−log p(words | point)], exact")
    mean = [float(b.total.mean()) for b in g.bounds]
    error = [float(b.stderr.square().sum().sqrt()) / len(b.stderr) for b in g.bounds]
    axes.errorbar(g.levels, mean, error, fmt="o", ms=4, label="bound, 128 draws a row")
    axes.set(xlabel="level of the point", ylabel="nats")
    axes.legend(fontsize=8)
    save(figure, "bound")


def main() -> None:
    """The guide's blocks in order in one namespace, then the pictures."""
    torch.set_num_threads(1)
    space: dict = {}
    page = (DOCS / "guides" / "sample-anything.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(block, space)
    OUT.mkdir(parents=True, exist_ok=True)
    g = SimpleNamespace(**space)
    modes(g)
    options(g)
    likelihood(g)


if __name__ == "__main__":
    main()
