"""The report of an evaluation: text for a terminal, and one HTML page that carries its pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from de_plugins.tabular import _pictures
from de_plugins.tabular._scores import ANCHORS, SCORES, SECTIONS, Score, score_of, shown, standing
from de_plugins.tabular._verdict import headline, verdict

if TYPE_CHECKING:
    from de_plugins.tabular.evaluation import Report

__all__ = ["html", "text"]

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem }
p { max-width: 52rem } p.lead { font-size: 1.3rem; line-height: 1.35; font-weight: 600; margin: .3rem 0 1rem }
p.w, caption, td.w, li.w { color: #555 }
ul.verdict { list-style: none; padding: 0; margin: 0 } ul.verdict li { display: flex; gap: .8rem; padding: .45rem 0;
border-top: 1px solid #ddd } ul.verdict p { margin: 0 }
.mark { flex: 0 0 3.6rem; align-self: start; margin-top: .15rem; text-align: center; font-size: .8rem; font-weight: 700;
border-radius: 3px; border: 1.5px solid; }
.good { color: #1b6b3a } .fair { color: #8a5a00 } .poor { color: #b00020 } .note { color: #555 }
table { border-collapse: collapse; font-size: .92rem } td, th { padding: .22rem .7rem; border-bottom: 1px solid #ddd;
text-align: left; font-weight: normal } thead th { border-bottom: 1.5px solid #777; font-weight: 600 }
caption { text-align: left; padding-bottom: .3rem } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
td.s { font-weight: 700 } .wide { overflow-x: auto }
img { display: block; margin-top: .6rem; height: auto; max-width: 100% }
nav a { margin-right: 1rem; white-space: nowrap; color: #24527a }
@media print { body { margin: 0; max-width: none; font-size: 10.5pt } nav { display: none } .wide { overflow: visible }
h2 { break-after: avoid } img, tr, li { break-inside: avoid } table { font-size: 8.5pt } }
"""


def text(report: Report) -> str:
    """The scores, one a line, with the anchors to their right; then the verdict."""
    head = ["score", "synthetic", *ANCHORS.values()]
    rows = [head] + [[score.title, *cells] for _, score, cells in _rows(report.results)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    lines = [
        "  ".join(
            f"{cell:<{w}}" if c == 0 else f"{cell:>{w}}" for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    said = [headline(report.results), *(f"{j.level:>5}: {j.sentence}" for j in verdict(report.results))]
    folded = [textwrap.fill(line, 110, subsequent_indent="       " if k else "") for k, line in enumerate(said)]
    return "\n".join([*(line.rstrip() for line in lines), "", *folded])


def html(report: Report) -> str:
    """The page."""
    results = report.results
    size = ", ".join(f"{_table_name(name)} {count:,} rows" for name, count in results["rows"].items())
    items = "".join(
        f"<li><span class='mark {j.level}'>{j.level}</span><p><strong>{escape(j.topic)}.</strong> "
        f"{escape(j.sentence)}</p></li>"
        for j in verdict(results)
    )
    sections = _sections(report)
    contents = " ".join(f"<a href='#s{k}'>{escape(title)}</a>" for k, (title, _) in enumerate(sections))
    body = "\n".join(
        f"<section><h2 id='s{k}'>{escape(title)}</h2>{part}</section>" for k, (title, part) in enumerate(sections)
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Synthetic table report</title><style>{STYLE}</style></head><body><main>"
        f"<h1>Synthetic table report</h1><p class=w>{size}; {results['columns']} columns.</p>"
        f"<p class=lead>{escape(headline(results))}</p><ul class=verdict>{items}</ul><nav "
        f"aria-label=Contents><p>{contents}</p></nav>\n{body}\n</main></body></html>\n"
    )


def _sections(report: Report) -> list[tuple[str, str]]:
    """(title, body) of what there is to show."""
    results = report.results
    out = [("Scores beside their anchors", _score_table(results))]
    note = (
        "<p class=w>Filled: real. Outlined: synthetic. Beside each name its Shape in per cent, the least alike "
        "first.</p>"
    )
    out.append(("Single columns", note + _pictures.marginals(report)))
    if results["worst_pairs"]:
        note = (
            "<p class=w>Trend of each pair with the real table's bins. Below, how the rows fall over the least alike "
            "pairs; brighter cells hold more rows (per cent; logarithmic), orange is too many and purple too few.</p>"
        )
        rows = [[a, b, f"{100 * s:.2f}"] for a, b, s in results["worst_pairs"]]
        table = _table(["column", "column", "Trend, %"], rows, "The least alike pairs")
        out.append(("Pairs of columns", note + _pictures.heat_map(report) + _pictures.pairs(report) + table))
    note = (
        "<p class=w>A classifier (300 boosted trees) learns to tell rows of the "
        f"{_table_name(results['two_sample_against'])} table from synthetic ones and is judged on rows it has not "
        "seen. The bars say how much of its AUC it loses when a column is shuffled: the columns to look at first.</p>"
    )
    out.append(("What gives the synthetic rows away", note + _pictures.tells(report)))
    if results.get("every_target"):
        note = (
            "<p class=w>Each column in turn is predicted from all others on held-out rows, once learnt from real and "
            "once from synthetic rows. Where the marks lie on each other, nothing was lost.</p>"
        )
        out.append(("Every column as the target", note + _pictures.targets(report)))
    if "privacy" in results:
        out.append(("Privacy", _privacy(results["privacy"]) + _pictures.distances(report)))
    if "imputation" in results and results["imputation"]["columns"]:
        out.append(("Filling hidden cells", _imputation(results["imputation"]) + _pictures.imputed(report)))
    if "bound" in results:
        out.append(("Surprise at held-out rows", _bound(results["bound"])))
    if "cost" in results:
        out.append(("What it cost", _cost(results)))
    head = ["column", "outside, %", "off the grid, %", "never seen, %", "ends attained", "missing, % more than real"]
    out.append(("Impossible and missing cells", _table(head, _cells(results), "Shares of the synthetic rows")))
    if any(results["rules"].values()):
        note = (
            "<p class=w>What the training rows keep, always or in part, and how many rows keep it; a rule that should "
            "not be one is taken out of the schema.</p>"
        )
        tables = [name for name in ("train", "test", "synthetic") if name in results["rules"]]
        shares = {rule: [results["rules"][name][rule] for name in tables] for rule in results["rules"]["train"]}
        rows = [[rule, *("" if s is None else f"{100 * s:.1f}" for s in row)] for rule, row in shares.items()]
        out.append(("Rules", note + _table(["rule", *(f"{_table_name(name)}, %" for name in tables)], rows)))
    for name, section in results.items():
        if name not in SECTIONS and isinstance(section, dict):
            title = name.replace("_", " ")
            out.append((title[:1].upper() + title[1:], _table(["", ""], [[k, _plain(v)] for k, v in section.items()])))
    return out


def _rows(results: Mapping[str, Any]) -> list[tuple[str, Score, list[str]]]:
    """(key, score, cells) of every score there is."""
    scores, anchors = results["scores"], results.get("anchors", {})
    out = []
    for key in [*(key for key in SCORES if key in scores), *(key for key in scores if key not in SCORES)]:
        score = score_of(key, results)
        beside = [shown(score, anchors.get(name, {}).get(key)) for name in ANCHORS]
        out.append((key, score, [shown(score, scores[key]), *beside]))
    return out


def _score_table(results: Mapping[str, Any]) -> str:
    note = (
        "<p class=w>A number says little alone, so each stands beside three others: what another real sample of the "
        "same size would have, what the training table has with every column shuffled, and what a copy of it has. "
        "The mark shows where the synthetic table lies between shuffled columns (left) and a perfect sample "
        "(right); there is none where shuffled columns do as well.</p>"
    )
    head = "".join(f"<th scope=col class=n>{name}</th>" for name in ("synthetic", *ANCHORS.values()))
    lines = []
    for key, score, (first, *rest) in _rows(results):
        cells = f"<td class='n s'>{first}</td>" + "".join(f"<td class=n>{cell}</td>" for cell in rest)
        place = _gauge(standing(key, results))
        lines.append(
            f"<tr><th scope=row>{escape(score.title)}</th>{cells}<td>{place}</td>"
            f"<td class=w>{escape(score.says)}</td></tr>"
        )
    return (
        f"{note}<div class=wide><table><thead><tr><th scope=col>score</th>{head}<th scope=col>place</th>"
        f"<th scope=col>what it is</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _gauge(place: float | None) -> str:
    """A mark on a line from shuffled columns to a perfect sample."""
    if place is None:
        return ""
    x = 4 + 72 * min(max(place, 0.0), 1.0)
    said = f"{min(max(place, 0.0), 1.0):.0%} of the way from shuffled columns to a perfect sample"
    return (
        f"<svg role=img aria-label='{said}' width=80 height=12><line x1=4 x2=76 y1=6 y2=6 stroke='#bbb' "
        f"stroke-width=3 /><circle cx={x:.1f} cy=6 r=4.5 fill='{_pictures.FAKE}'/></svg>"
    )


def _privacy(found: Mapping[str, Any]) -> str:
    rows = [
        ["rows that occur in the synthetic table", f"{found['exact_train']:.3%}", f"{found['exact_test']:.3%}"],
        [
            "distance to the nearest row over the second nearest, median",
            _plain(found["neighbour_ratio_train"]),
            _plain(found["neighbour_ratio_test"]),
        ],
    ]
    note = (
        f"<p class=w>{found['rows']:,} rows of each kind, looked at from the synthetic table. Where nothing is "
        "memorised, training rows and rows held out look alike; a copy lies nearer to training rows.</p>"
    )
    return note + _table(["", "training", "held out"], rows)


def _imputation(found: Mapping[str, Any]) -> str:
    titles = {"model": "the model", "neighbours": "nearest neighbours", "iterative": "chained regressions"}
    rows = [
        [title, *(_plain(found["summary"][name].get(key)) for key in ("crps", "nats", "accuracy"))]
        for name, title in titles.items()
    ]
    note = (
        f"<p class=w>{found['holes']:,} cells of {found['rows']:,} held-out rows were hidden and filled "
        f"{found['draws']} times given the others. Chained regressions are scikit-learn's IterativeImputer with "
        "posterior draws.</p>"
    )
    return note + _table(["", "CRPS, numbers", "log score, categories", "share right"], rows, "Means over the columns")


def _bound(found: Mapping[str, Any]) -> str:
    rows = [
        [
            title,
            f"{found[name]:.3f}",
            f"{found[f'{name}_error']:.3f}",
            f"{found[f'{name}_rows']:,}",
            str(found[f"{name}_left_out"]),
        ]
        for name, title in (("test", "rows held out"), ("train", "training rows"))
        if name in found
    ]
    note = (
        "<p class=w>An upper bound on minus the log-probability that the model gives a row. Much less for training "
        "rows than for others would say that it learnt rows by heart. Rows with a cell that training rules out are "
        "left out.</p>"
    )
    return note + _table(["", "nats per row", "standard error", "rows", "left out"], rows)


def _cost(results: Mapping[str, Any]) -> str:
    found = results["cost"]
    speed = found["sampling_rows"] / max(found["sampling_seconds"], 1e-9)
    rows = [
        ["parameters", f"{found['parameters']:,}"],
        ["training", f"{found['training_seconds']:,.1f} s, {found['training_steps']:,} steps"],
        ["drawing", f"{found['sampling_seconds']:,.1f} s for {found['sampling_rows']:,} rows ({speed:,.0f} a second)"],
    ]
    return _table(["", ""], [*rows, ["this report", f"{results['seconds']:,.1f} s"]])


def _cells(results: Mapping[str, Any]) -> list[list[str]]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.2f}"

    out = []
    for name, cells in results["validity"].items():
        ends = {True: "yes", False: "no", None: ""}[cells.get("attained")]
        shares = [percent(cells.get(key)) for key in ("outside", "off_grid", "unseen")]
        out.append([name, *shares, ends, percent(results["missing"].get(name))])
    return out


def _table(head: list[str], rows: list[list[str]], caption: str = "") -> str:
    top = (
        f"<thead><tr>{''.join(f'<th scope=col>{escape(cell)}</th>' for cell in head)}</tr></thead>" if any(head) else ""
    )
    body = "".join(
        f"<tr><th scope=row>{escape(str(first))}</th>{''.join(f'<td>{escape(str(cell))}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<div class=wide><table>{said}{top}<tbody>{body}</tbody></table></div>"


def _table_name(name: str) -> str:
    return {"train": "training", "test": "held-out"}.get(name, name)


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
