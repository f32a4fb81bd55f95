"""The pictures of the report, as SVG inside the page."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from de_plugins.tabular.evaluation import Report

__all__ = ["distances", "heat_map", "imputed", "marginals", "pairs", "targets", "tells"]

REAL, FAKE, THIRD = "#3b6ea5", "#c8590a", "#777777"
MOST_PANELS = 24
MOST_BARS = 12
MOST_PAIRS = 3
MOST_LINES = 40
EXACT = 2.0**52  # halves of whole numbers are numbers up to here
WIDEST = 1e300
MOST_STEPS = 100  # whole numbers over such a range have a bar each
RC: Any = {
    "svg.hashsalt": "report",  # the same report, byte by byte
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
}


def marginals(report: Report) -> str:
    """Every column, real and synthetic; small multiples, the least alike first."""
    scores = report.results["shape"]
    names = [str(name) for name in report.real.names]
    order = sorted(range(len(names)), key=lambda c: scores[names[c]] if scores[names[c]] is not None else 2.0)
    order = order[:MOST_PANELS]
    across = min(4, len(order))
    down = -(-len(order) // across)
    figure, rc = _figure(10.4 if across > 2 else 3.2 * across, 0.4 + 1.75 * down)
    with rc:
        drawn: list[Any] = []
        for place, c in enumerate(order):
            axes = figure.add_subplot(down, across, place + 1)
            drawn = (_bars if not report.real.numeric[c] else _histogram)(axes, report, c)
            score = scores[names[c]]
            axes.set_title(f"{_short(names[c])}  {'' if score is None else format(100 * score, '.1f')}")
            axes.tick_params(labelsize=6.5)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        figure.legend(drawn, ["real", "synthetic"], loc="outside upper right", ncols=2, frameon=False)
        first = ", ".join(names[c] for c in order[:3])
        return _image(
            figure, f"How the cells of {len(order)} columns are distributed, real and synthetic; least alike: {first}."
        )


def _histogram(axes: Any, report: Report, c: int) -> list[Any]:
    a, b = (x[~np.isnan(x)] for x in _columns(report, c))
    both = np.concatenate([a, b])
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, 41)
    if high - low <= MOST_STEPS and abs(high) < EXACT and (both == np.round(both)).all():
        edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    drawn = []
    for values, colour, filled in ((a, REAL, True), (b, FAKE, False)):
        heights = np.histogram(np.clip(values, low, high), edges)[0] / max(len(values), 1)
        drawn.append(axes.stairs(heights, edges, fill=filled, color=colour, alpha=0.45 if filled else 1.0))
    return drawn


def _columns(report: Report, c: int) -> list[np.ndarray]:
    """Column c of both tables, cut to what an axis can hold."""
    return [np.clip(m.values[:, c], -WIDEST, WIDEST) for m in (report.real, report.synthetic)]


def _bars(axes: Any, report: Report, c: int) -> list[Any]:
    size = int(report.real.sizes[c])
    a, b = (np.bincount(m.values[:, c].astype(int), minlength=size) / len(m) for m in (report.real, report.synthetic))
    top = np.argsort(-a, kind="stable")[:MOST_BARS]
    top = top[(a[top] > 0) | (b[top] > 0)]
    place = np.arange(len(top))
    drawn = [
        axes.bar(place, a[top], width=0.8, color=REAL, alpha=0.45),
        axes.bar(place, b[top], width=0.8, fill=False, edgecolor=FAKE),
    ]
    axes.set_xticks(place, [_short(_words(report, c)[k], 10) for k in top], rotation=60, ha="right")
    return drawn


def heat_map(report: Report) -> str:
    """Trend of every pair of columns."""
    names = [_short(str(name), 18) for name in report.real.names]
    side = min(9.0, 3.2 + 0.27 * len(names))
    figure, rc = _figure(side + 0.8, side)
    with rc:
        axes = figure.add_subplot()
        image = axes.imshow(100 * report.trend, cmap="magma", vmin=90, vmax=100)
        if len(names) <= 60:
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.7, label="Trend, % (black: 90 and below)")
        worst = "; ".join(f"{a} and {b}, {100 * s:.1f}" for a, b, s in report.results["worst_pairs"][:3])
        return _image(
            figure, f"Trend of every pair of columns in per cent. Least alike: {worst or 'none'}.", side + 0.8
        )


def pairs(report: Report) -> str:
    """How the rows fall over the least alike pairs of columns: real, synthetic, and the difference."""
    from matplotlib.colors import LogNorm

    names = [str(name) for name in report.real.names]
    worst = [(names.index(a), names.index(b)) for a, b, _ in report.results["worst_pairs"][:MOST_PAIRS]]
    figure, rc = _figure(3.4 * len(worst), 7.2)
    with rc:
        for place, (i, j) in enumerate(worst):
            (x, labels_x), (y, labels_y) = _cut(report, i), _cut(report, j)
            cells = []
            for row in range(2):
                shares = np.zeros((len(labels_y), len(labels_x)))
                np.add.at(shares, (y[row], x[row]), 100 / max(len(x[row]), 1))
                cells.append(shares)
            gap = max(float(np.abs(cells[1] - cells[0]).max()), 1e-9)
            looks: list[dict[str, Any]] = [{"cmap": "viridis", "norm": LogNorm(1e-2, 30)}] * 2
            looks.append({"cmap": "PuOr_r", "vmin": -gap, "vmax": gap})
            shown = [np.maximum(cells[0], 1e-3), np.maximum(cells[1], 1e-3), cells[1] - cells[0]]
            for row, (title, look) in enumerate(zip(("real", "synthetic", "synthetic - real"), looks, strict=True)):
                axes = figure.add_subplot(3, len(worst), row * len(worst) + place + 1)
                image = axes.imshow(shown[row], origin="lower", aspect="auto", **look)
                axes.set_title(f"{_short(names[i], 16)} / {_short(names[j], 16)}: {title}")
                _few_ticks(axes.set_xticks, labels_x if row == 2 else [""] * len(labels_x), 60)
                _few_ticks(axes.set_yticks, labels_y)
                figure.colorbar(image, ax=axes, format="%g").ax.tick_params(labelsize=6)
        said = "; ".join(f"{names[i]} and {names[j]}" for i, j in worst)
        return _image(
            figure, f"Share of rows by cell for the least alike pairs, real, synthetic and their difference: {said}."
        )


def _cut(report: Report, c: int) -> tuple[list[np.ndarray], list[str]]:
    """Cells of both tables as 0, 1, ..., and a label for each: 20 bins of a number, the most frequent categories."""
    columns = _columns(report, c)
    if report.real.numeric[c]:
        known = columns[0][~np.isnan(columns[0])]
        low, high = np.quantile(known, [0.005, 0.995]) if len(known) else (0.0, 1.0)
        edges = np.linspace(low, high if high > low else low + 1, 21)
        codes = [np.clip(np.digitize(x, edges) - 1, 0, 19) for x in columns]
        codes = [np.where(np.isnan(x), 20, code) for x, code in zip(columns, codes, strict=True)]
        labels = [f"{edge:.3g}" for edge in edges[:-1]]
        return codes, [*labels, "missing"] if any((code == 20).any() for code in codes) else labels
    top = np.argsort(-np.bincount(columns[0].astype(int), minlength=report.real.sizes[c]), kind="stable")[:MOST_BARS]
    code = np.full(report.real.sizes[c], len(top))
    code[top] = np.arange(len(top))
    labels = [_short(_words(report, c)[k], 10) for k in top]
    return [code[x.astype(int)] for x in columns], [*labels, "others"]


def _few_ticks(set_ticks: Any, labels: list[str], rotation: int = 0) -> None:
    step = 1 if len(labels) <= MOST_BARS + 1 else 5
    set_ticks(range(0, len(labels), step), labels[::step], fontsize=6.5, rotation=rotation)


def tells(report: Report) -> str:
    """The columns that the classifier went by, in the three views."""
    titles = {"full": "as they are", "marginal": "single columns only", "dependence": "dependence only"}
    figure, rc = _figure(10.4, 3.0)
    with rc:
        for place, (view, found) in enumerate(report.results["two_sample"].items()):
            axes = figure.add_subplot(1, 3, place + 1)
            top = found["columns"][:MOST_BARS][::-1]
            axes.barh([_short(str(name)) for name, _ in top], [lost for _, lost in top], color=FAKE)
            axes.set_xlim(min(0.0, *(lost for _, lost in top)), max(0.02, *(lost for _, lost in top)))
            axes.set_title(f"{titles[view]}: AUC {found['auc']:.3f}")
            axes.set_xlabel("AUC lost without the column")
        said = "; ".join(f"{name}, {lost:.3f}" for name, lost in report.results["two_sample"]["full"]["columns"][:3])
        return _image(figure, f"AUC that a classifier loses when a column is shuffled; most: {said}.")


def targets(report: Report) -> str:
    """Every column as the target: learnt from synthetic rows beside learnt from real rows."""
    found = list(report.results["every_target"].items())
    kinds = [("auc", "categories, AUC (0.5 is a guess)"), ("r2", "numbers, variance explained (0 is the mean)")]
    shown = [(title, [f for f in found if f[1]["metric"] == kind]) for kind, title in kinds]
    shown = [
        (title, sorted(rows, key=lambda f: f[1]["synthetic"] - f[1]["real"])[:MOST_LINES])
        for title, rows in shown
        if rows
    ]
    figure, rc = _figure(5.2 * len(shown), 1.1 + 0.19 * max(len(rows) for _, rows in shown))
    with rc:
        dots: list[Any] = []
        for place, (title, rows) in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            ours, real = ([max(f[key], -0.5) for _, f in rows] for key in ("synthetic", "real"))
            height = np.arange(len(rows))[::-1]
            axes.hlines(height, ours, real, color="#bbbbbb", linewidth=2)
            dots = [
                axes.scatter(real, height, color=REAL, s=18),
                axes.scatter(ours, height, color=FAKE, s=18, marker="D"),
            ]
            axes.set_yticks(height, [_short(name) for name, _ in rows])
            axes.set_title(title)
            axes.grid(axis="x", color="#eeeeee")
        figure.legend(
            dots,
            ["learnt from real rows", "learnt from synthetic rows"],
            loc="outside upper right",
            ncols=2,
            frameon=False,
        )
        worst = ", ".join(name for _, rows in shown for name, _ in rows[:1])
        return _image(
            figure, f"How well each column is predicted, learnt from real and synthetic rows; most lost: {worst}."
        )


def distances(report: Report) -> str:
    """Distances of synthetic rows to the nearest training row and to the nearest row held out."""
    found = report.results["privacy"]
    figure, rc = _figure(5.2, 2.8)
    with rc:
        axes = figure.add_subplot()
        share = np.linspace(0, 100, len(found["distances"]["train"]))
        axes.plot(found["distances"]["test"], share, color=THIRD, linewidth=4, alpha=0.6, label="row held out")
        axes.plot(found["distances"]["train"], share, color=FAKE, linewidth=1.5, label="training row")
        axes.set_xlabel("distance to the nearest (columns that differ)")
        axes.set_ylabel("synthetic rows that are nearer, %")
        axes.set_ylim(0, 100)
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
        middle = [found["distances"][name][len(share) // 2] for name in ("train", "test")]
        alt = "Distances of synthetic rows to the nearest training row and row held out; medians {:.2f} and {:.2f}."
        return _image(figure, alt.format(*middle), 5.2)


def imputed(report: Report) -> str:
    """Scores of imputation by column, beside the two simple imputers."""
    columns = report.results["imputation"]["columns"]
    kinds = [("crps", "numbers, CRPS in standard deviations"), ("nats", "categories, log score in nats")]
    shown = [
        (key, title, [(c, s) for c, s in columns.items() if key in s["model"]][:MOST_LINES]) for key, title in kinds
    ]
    shown = [part for part in shown if part[2]]
    figure, rc = _figure(5.2 * len(shown), 1.1 + 0.19 * max(len(part[2]) for part in shown))
    looks = {"iterative": (THIRD, "s"), "neighbours": (REAL, "o"), "model": (FAKE, "D")}
    with rc:
        dots: list[Any] = []
        for place, (key, title, rows) in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            height = np.arange(len(rows))[::-1]
            dots = [
                axes.scatter([s[name][key] for _, s in rows], height, color=colour, s=18, marker=marker)
                for name, (colour, marker) in looks.items()
            ]
            axes.set_yticks(height, [_short(c) for c, _ in rows])
            axes.set_xlim(left=0)
            axes.set_title(f"{title} (less is better)")
            axes.grid(axis="x", color="#eeeeee")
        figure.legend(
            dots,
            ["chained regressions", "nearest neighbours", "the model"],
            loc="outside upper right",
            ncols=3,
            frameon=False,
        )
        return _image(
            figure, "Scores of filling hidden cells, by column: the model, nearest neighbours, chained regressions."
        )


def _words(report: Report, c: int) -> tuple[str, ...]:
    return (*report.real.words[c], "(missing)")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure, and the settings to draw it under."""
    import matplotlib
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained"), matplotlib.rc_context(RC)


def _image(figure: Figure, alt: str, width: float = 10.4) -> str:
    """An <img> that carries its picture; `width` in inches of a page of 10.4."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue().encode()).decode()
    share = min(100, round(100 * width / 10.4))
    return f"<img alt='{escape(alt, quote=True)}' style='width:{share}%' src='data:image/svg+xml;base64,{data}'>"


def _short(name: str, length: int = 22) -> str:
    """Names cut to a length, dollar signs kept from starting a formula."""
    cut = name if len(name) <= length else name[: length - 1] + "…"
    return cut.replace("$", r"\$")
