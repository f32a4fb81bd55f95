"""Draw PNG pictures: grids of digits with what was said of them, and the training curve.

Drawn with matplotlib's Figure on its Agg canvas, never through pyplot: no window, no global state.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import TILES, ink_of, pixels_of

__all__ = ["CELL_INCHES", "Panel", "draw_curve", "draw_panel"]

INK, PAPER, MUTED, ACCENT = "#1b2333", "#f3eee3", "#6b7280", "#c2562f"
RIGHT, WRONG = "#2c7a4b", "#b3261e"
CELL_INCHES = 1.3  # the width of one picture with its margin
_DPI = 160
_COLOURS = LinearSegmentedColormap.from_list("ink", [PAPER, INK])
_BARS, _LINE, _TITLE = (
    0.34,
    0.125,
    0.28,
)  # heights in units of one picture: ink bars, one line of text, titles


@attrs.frozen(eq=False)
class Panel:
    """One grid of pictures, which becomes one PNG file.

    Attributes:
        name: the file's stem, e.g. "joint".
        images: (n, 1, 8, 8) in [-1, 1], row by row; a NaN pixel is shown as "not given".
        columns: pictures in a row of the grid.
        captions: n texts under the pictures, or () for none.
        right: n verdicts that colour each text, True right, False wrong, None without a verdict; or () for
        none. ink: (n, 16) ink shares, drawn as bars under each picture with the picture's own as ticks; or
        None. titles: one text over each column, or () for none.
        heading: the panel's own title on the page, "" for none.
    """

    name: str
    images: Tensor
    columns: int
    captions: Sequence[str] = ()
    right: Sequence[bool | None] = ()
    ink: Tensor | None = None
    titles: Sequence[str] = ()
    heading: str = ""

    def __attrs_post_init__(self) -> None:
        n = len(self.images)
        if n == 0 or self.columns < 1:
            raise DiffuseError(f"panel '{self.name}': expected a picture and a column or more, got {n}, {self.columns}")
        parts = {"captions": self.captions, "right": self.right, "ink": () if self.ink is None else self.ink}
        for part, values in parts.items():
            if len(values) not in (0, n):
                raise DiffuseError(f"panel '{self.name}': expected {n} values in {part}, got {len(values)}")
        if len(self.titles) not in (0, self.columns):
            raise DiffuseError(f"panel '{self.name}': expected {self.columns} titles, got {len(self.titles)}")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    return buffer.getvalue()


def _bars(axes: Axes, left: float, top: float, ink: np.ndarray, own: np.ndarray, highest: float) -> None:
    """Sixteen bars for the sampled shares; a dark tick on each bar at the share the picture really has."""
    width = 1 / TILES
    scale = _BARS * 0.86 / highest
    x = left + width * np.arange(TILES)
    base = top + _BARS
    bars = [Rectangle((a + 0.15 * width, base), 0.7 * width, -scale * h) for a, h in zip(x, ink.clip(0), strict=True)]
    axes.add_collection(PatchCollection(bars, facecolor=ACCENT, edgecolor="none"))
    ticks = [[(a, base - scale * h), (a + width, base - scale * h)] for a, h in zip(x, own, strict=True)]
    axes.add_collection(LineCollection([*ticks, [(left, base), (left + 1, base)]], colors=INK, linewidths=0.7))


def draw_panel(panel: Panel) -> bytes:
    """The panel as PNG bytes, CELL_INCHES wide a column: ink on paper, one square a pixel, not smoothed."""
    n = len(panel.images)
    columns, rows = panel.columns, math.ceil(n / panel.columns)
    texts = ["\n".join(textwrap.wrap(text, 18)) for text in panel.captions]
    lines = max((text.count("\n") + 1 for text in texts), default=0)
    bars = 0.0 if panel.ink is None else _BARS + 0.04
    gap_x, gap_y = 0.28, 0.2
    cell_x, cell_y = 1 + gap_x, 1 + bars + lines * _LINE + gap_y
    top = _TITLE if panel.titles else 0.1
    width, height = columns * cell_x, top + rows * cell_y
    inches = CELL_INCHES / cell_x  # of one picture
    figure = Figure(figsize=(width * inches, height * inches))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, width), ylim=(height, 0))

    for column, title in enumerate(panel.titles):
        centre = column * cell_x + cell_x / 2
        axes.text(centre, top * 0.45, title, ha="center", va="center", fontsize=8, color=MUTED)
    own = None if panel.ink is None else ink_of(panel.images).cpu().numpy()
    ink = None if panel.ink is None else panel.ink.double().cpu().numpy()
    pixels = pixels_of(panel.images).cpu().numpy() / 16
    for i in range(n):
        left, upper = (i % columns) * cell_x + gap_x / 2, top + (i // columns) * cell_y
        _picture(axes, pixels[i], left, upper)
        if ink is not None and own is not None:
            _bars(axes, left, upper + 1.04, ink[i], own[i], float(max(ink.max(), own.max(), 1e-9)))
        if texts:
            verdict = panel.right[i] if panel.right else None
            colour = INK if verdict is None else RIGHT if verdict else WRONG
            place = (left + 0.5, upper + 1.05 + bars)
            axes.text(*place, texts[i], ha="center", va="top", fontsize=7.5, color=colour, linespacing=1.2)
    return _png(figure)


def _picture(axes: Axes, pixels: np.ndarray, left: float, upper: float) -> None:
    unknown = np.isnan(pixels)
    frame = FancyBboxPatch(
        (left, upper), 1, 1, boxstyle="round,pad=0,rounding_size=0.06", ec="#ddd6c6", fc="none", lw=0.8
    )
    axes.add_patch(frame)
    if unknown.any():  # behind the pixels, which lie at 0
        hatched = Rectangle((left, upper), 1, 1, facecolor="white", edgecolor="#c9c4b8", hatch="////", lw=0, zorder=-1)
        axes.add_patch(hatched).set_clip_path(frame)
    shown = np.ma.masked_array(pixels, unknown)
    picture = axes.imshow(
        shown,
        cmap=_COLOURS,
        vmin=0,
        vmax=1,
        extent=(left, left + 1, upper + 1, upper),
        interpolation="nearest",
        aspect="auto",
    )
    picture.set_clip_path(frame)


def draw_curve(steps: Sequence[float], losses: Mapping[str, Sequence[float]]) -> bytes:
    """The training curve as PNG bytes: a small chart a modality, each with its own scale.

    The pale line is what was logged, the dark one its running mean over a tenth of what was logged so far.

    Args:
        steps: (m,) increasing optimiser steps.
        losses: name of the modality -> its m losses.

    Raises:
        DiffuseError: nothing was logged, or a modality's losses are not one a step.
    """
    if len(steps) == 0 or not losses:
        raise DiffuseError("curve: expected a step and a modality or more, got none")
    columns = min(len(losses), 4)
    rows = math.ceil(len(losses) / columns)
    figure = Figure(figsize=(10.4, 2.3 * rows), layout="constrained")
    charts = figure.subplots(rows, columns, squeeze=False).flatten()
    x = np.asarray(steps, dtype=float)
    for axes, (name, values) in zip(charts, losses.items(), strict=False):
        y = np.asarray(values, dtype=float)
        if y.shape != x.shape:
            raise DiffuseError(f"curve '{name}': expected one loss a step ({len(x)}), got {len(y)}")
        total = np.concatenate([[0.0], np.cumsum(y)])
        end = np.arange(1, len(y) + 1)
        start = end - np.maximum(1, end // 10)
        axes.plot(x, y, color=ACCENT, alpha=0.3, lw=0.8)
        axes.plot(x, (total[end] - total[start]) / (end - start), color=ACCENT, lw=1.8)
        axes.set_title(name, fontsize=10, color=INK, loc="left", fontweight="bold")
        axes.set_xlabel("step", fontsize=8, color=MUTED)
        axes.tick_params(labelsize=8, colors=MUTED, length=2)
        axes.grid(color="#ece7db", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#cfc8b8")
        if len(y) > 20:  # the first losses of an untrained network would flatten everything after them
            low, high = np.quantile(y[len(y) // 20 :], [0, 1])
            room = 0.08 * max(high - low, 1e-9)
            axes.set_ylim(low - room, high + room)
    for axes in charts[len(losses) :]:
        axes.axis("off")
    return _png(figure)
