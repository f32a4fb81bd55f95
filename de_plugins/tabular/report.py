"""The report of an evaluation: text for a terminal, and one HTML page that carries its pictures."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from de_plugins.tabular.evaluation import PERCENT, SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from de_plugins.tabular.evaluation import Report

__all__ = ["html", "text"]

REAL, FAKE = "#4878a8", "#e08214"
MOST_PANELS = 24
MOST_BARS = 12
ANCHORS = {"perfect": "perfect sample", "shuffled": "columns shuffled", "copied": "training copied"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color:
#222 } h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align:
left } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } td.s { font-weight: 600 } td.w {
color: #666 } img { max-width: 100% } p.w { color: #666 }
"""


def text(report: Report) -> str:
    """The scores, one a line, with the anchors to their right."""
    head = ["score", "synthetic", *ANCHORS.values()]
    rows = [head] + [[title, *cells] for title, cells, _ in _rows(report)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    lines = [
        "  ".join(f"{cell:<{w}}" if c == 0 else f"{cell:>{w}}" for c, (cell, w) in _paired(row, widths)) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def html(report: Report) -> str:
    """The page."""
    results = report.results
    size = ", ".join(f"{name} {count:,} rows" for name, count in results["rows"].items())
    parts = [
        f"<p class=w>{size}; {results['columns']} columns. Bold: the synthetic table. To its right what "
        "a perfect sample, the training table with its columns shuffled, and a copy of it score.</p>",
        _score_table(report),
        "<h2>Columns</h2><p class=w>Least alike first; the number is Shape.</p>",
        _picture(_marginals(report), "the law of each column, real and synthetic"),
        "<h2>Pairs of columns</h2>",
        _picture(_heat_map(report), "Trend of each pair of columns"),
        _table(["column", "column", "Trend, %"], [[a, b, f"{100 * s:.2f}"] for a, b, s in results["worst_pairs"]]),
        "<h2>What gives the synthetic rows away</h2>"
        "<p class=w>Share of the classifier's gain by column; real rows are from the "
        f"{results['two_sample_against']} table.</p>",
        _picture(_tells(report), "columns that a classifier used to tell real from synthetic"),
        "<h2>Impossible and missing cells</h2>",
        _table(
            ["column", "outside, %", "off the grid, %", "never seen, %", "ends attained", "missing, % more"],
            _cells(report),
        ),
    ]
    known = {
        "rows",
        "columns",
        "target",
        "scores",
        "shape",
        "missing",
        "worst_pairs",
        "k_way",
        "validity",
        "anchors",
    }
    known |= {"two_sample_against", "two_sample", "seconds", "every_target"}
    if "every_target" in results:
        rows = [
            [n, f["metric"], f"{f['synthetic']:.3f}", f"{f['real']:.3f}"] for n, f in results["every_target"].items()
        ]
        parts += ["<h2>Every column as the target</h2>", _table(["target", "", "from synthetic", "from real"], rows)]
    for name, section in results.items():
        if name not in known and isinstance(section, dict):
            rows = [[str(k), f"{v:.4g}" if isinstance(v, float) else str(v)] for k, v in section.items()]
            parts += [f"<h2>{escape(name.replace('_', ' ').capitalize())}</h2>", _table(["", ""], rows)]
    body = "\n".join(parts)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Synthetic table report</title><style>{STYLE}</style>"
        f"<h1>Synthetic table report</h1>\n{body}\n</html>\n"
    )


def _paired(row: list[str], widths: list[int]):
    return enumerate(zip(row, widths, strict=True))


def _rows(report: Report) -> list[tuple[str, list[str], str]]:
    """(title, cells, what it says) of every score there is."""
    scores, anchors = report.results["scores"], report.results.get("anchors", {})
    out = []
    for key, (title, says) in SCORES.items():
        if key in scores:
            metric = report.results.get("learning", {}).get("metric", "")
            title = f"{title}, {metric.upper()}" if key == "mle" else title
            cells = [_number(key, scores[key])] + [_number(key, anchors.get(name, {}).get(key)) for name in ANCHORS]
            out.append((title, cells, says))
    return out


def _number(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.2f}" if key in PERCENT else f"{value:.3f}"


def _score_table(report: Report) -> str:
    head = "".join(f"<th class=n>{name}</th>" for name in ("synthetic", *ANCHORS.values()))
    lines = [f"<tr><th>score</th>{head}<th></th></tr>"]
    for title, (first, *rest), says in _rows(report):
        cells = f"<td class='n s'>{first}</td>" + "".join(f"<td class=n>{cell}</td>" for cell in rest)
        lines.append(f"<tr><td>{title}</td>{cells}<td class=w>{says}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _cells(report: Report) -> list[list[str]]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    out = []
    for name, cells in report.results["validity"].items():
        ends = {True: "yes", False: "no", None: ""}[cells.get("attained")]
        shares = [percent(cells.get(key)) for key in ("outside", "off_grid", "unseen")]
        out.append([name, *shares, ends, percent(report.results["missing"][name])])
    return out


def _picture(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{escape(alt)}' src='data:image/png;base64,{data}'>"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _marginals(report: Report) -> Figure:
    """Small multiples, the least alike first."""
    scores = report.results["shape"]
    names = [str(name) for name in report.real.names]
    order = sorted(range(len(names)), key=lambda c: scores[names[c]] if scores[names[c]] is not None else 2.0)
    order = order[:MOST_PANELS]
    across = min(4, len(order))
    down = -(-len(order) // across)
    figure = _figure(2.7 * across, 1.9 * down)
    for place, c in enumerate(order):
        axes = figure.add_subplot(down, across, place + 1)
        (_bars if not report.real.numeric[c] else _histogram)(axes, report, c)
        score = scores[names[c]]
        axes.set_title(f"{_short(names[c])}  {'' if score is None else format(100 * score, '.1f')}", fontsize=8)
        axes.tick_params(labelsize=6)
        axes.set_yticks([])
    figure.legend(["real", "synthetic"], loc="outside upper right", fontsize=8, ncols=2)
    return figure


def _histogram(axes: Any, report: Report, c: int) -> None:
    a, b = (m.values[:, c][~np.isnan(m.values[:, c])] for m in (report.real, report.synthetic))
    both = np.concatenate([a, b])
    low, high = np.quantile(both, [0.005, 0.995]) if len(both) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, 41)
    for values, colour, filled in ((a, REAL, True), (b, FAKE, False)):
        heights = np.histogram(np.clip(values, low, high), edges)[0] / max(len(values), 1)
        axes.stairs(heights, edges, fill=filled, color=colour, alpha=0.5 if filled else 1.0)


def _bars(axes: Any, report: Report, c: int) -> None:
    size = int(report.real.sizes[c])
    a, b = (np.bincount(m.values[:, c].astype(int), minlength=size) / len(m) for m in (report.real, report.synthetic))
    top = np.argsort(-a, kind="stable")[:MOST_BARS]
    top = top[(a[top] > 0) | (b[top] > 0)]
    words = [*report.real.words[c], "(missing)"]
    place = np.arange(len(top))
    axes.bar(place, a[top], width=0.8, color=REAL, alpha=0.5)
    axes.bar(place, b[top], width=0.8, fill=False, edgecolor=FAKE)
    axes.set_xticks(place, [_short(words[k], 9) for k in top], rotation=60)


def _heat_map(report: Report) -> Figure:
    names = [_short(str(name), 16) for name in report.real.names]
    side = min(11.0, 3.0 + 0.35 * len(names))
    figure = _figure(side, side * 0.9)
    axes = figure.add_subplot()
    image = axes.imshow(100 * report.trend, cmap="magma", vmin=90, vmax=100)
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.7, label="Trend, % (90 and below are black)")
    return figure


def _tells(report: Report) -> Figure:
    figure = _figure(10.5, 3.2)
    for place, (view, found) in enumerate(report.results["two_sample"].items()):
        axes = figure.add_subplot(1, 3, place + 1)
        top = found["columns"][:MOST_BARS][::-1]
        axes.barh([_short(str(name)) for name, _ in top], [share for _, share in top], color=FAKE)
        axes.set_title(f"{view}: AUC {found['auc']:.3f} ± {found['spread']:.3f}", fontsize=9)
        axes.tick_params(labelsize=7)
    return figure


def _short(name: str, length: int = 22) -> str:
    """Names cut to a length, dollar signs kept from starting a formula."""
    cut = name if len(name) <= length else name[: length - 1] + "…"
    return cut.replace("$", r"\$")
