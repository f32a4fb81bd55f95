"""The figures of the claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from de_plugins.text_image.claims.arms import SHARES
from de_plugins.text_image.gallery import figure_of

__all__ = ["arms_figure", "guidance_figure"]

_WORDS = {
    "image_given_caption_one": "picture | caption, one object",
    "image_given_caption_two": "picture | caption, two",
    "caption_given_image_one": "caption | picture, one",
    "caption_given_image_two": "caption | picture, two",
    "joint": "both at once",
}


def _new(columns: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def guidance_figure(found: Mapping[str, Any]) -> bytes:
    """A column an interval: variety over accuracy, a line for each sigma along its weights; and the Fréchet distance
    over the weight in a last one, with the floor."""
    cells = found["cells"]
    none = next(cell for cell in cells if cell["sigma"] is None)
    intervals = sorted({tuple(cell["interval"]) for cell in cells if cell["sigma"] is not None})
    sigmas = sorted({cell["sigma"] for cell in cells if cell["sigma"] is not None})
    figure, axes = _new(len(intervals) + 1, 3.6 * (len(intervals) + 1), 3.4)
    for ax, interval in zip(axes, intervals, strict=False):
        for k, sigma in enumerate(sigmas):
            line = [none, *(c for c in cells if c["sigma"] == sigma and tuple(c["interval"]) == interval)]
            style = {"color": "black", "linewidth": 2} if sigma == 1 else {"color": f"C{k}"}
            label = "classifier-free" if sigma == 1 else f"sigma = {sigma:g}"
            ax.plot([c["accuracy"] for c in line], [c["variety"] for c in line], "o-", ms=3, label=label, **style)
            weights, distances = [c["weight"] for c in line], [c["frechet"] for c in line]
            if interval == intervals[0]:
                axes[-1].plot(weights, distances, "o-", ms=3, **style)
        ax.set(title=f"guided for t in ({interval[0]:g}, {interval[1]:g})", xlabel="right, by the judge")
        ax.set_ylabel("variety of right ones, over that of real")
        ax.plot(found["real"]["accuracy"], 1.0, "*", color="grey", ms=10, label="real pictures")
        ax.legend(fontsize=7)
    axes[-1].axhline(found["real"]["frechet"], color="grey", linestyle=":")
    axes[-1].set(title="distance to real pictures", xlabel="weight", ylabel="Fréchet, judge's features", yscale="log")
    return figure_of(figure)


def arms_figure(found: Mapping[str, Any]) -> bytes:
    """The shares of right answers as bars, an arm a colour, each seed a dot; and the caption's bound beside them."""
    figure, axes = _new(2, 9.0, 3.6)
    for k, (name, numbers) in enumerate(found["arms"].items()):
        for place, share in enumerate(SHARES):
            at, values = place + 0.4 * k - 0.2, [line[share] for line in numbers]
            axes[0].barh(at, sum(values) / len(values), 0.36, color=f"C{k}", label=name if place == 0 else None)
            axes[0].plot(values, [at] * len(values), ".", color="black", ms=4)
        bounds = [line["caption_bound_nats_per_word"] for line in numbers]
        axes[1].bar(k, sum(bounds) / len(bounds), 0.6, color=f"C{k}")
        axes[1].plot([k] * len(bounds), bounds, ".", color="black", ms=4)
    axes[0].set(yticks=range(len(SHARES)), xlim=(0, 1), xlabel="right, by the judge")
    axes[0].set_yticklabels([_WORDS[share] for share in SHARES])
    axes[0].invert_yaxis()
    axes[0].legend(fontsize=8)
    axes[1].set(xticks=range(len(found["arms"])), ylabel="caption given picture, nats a word, at most")
    axes[1].set_xticklabels(list(found["arms"]))
    return figure_of(figure)
