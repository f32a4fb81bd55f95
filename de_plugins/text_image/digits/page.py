"""Write the demo's page: one HTML file without script or outside resources, and its PNG files."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError
from de_plugins.text_image.digits.metrics import MEANINGS, Meaning
from de_plugins.text_image.digits.pictures import CELL_INCHES, Panel, draw_curve, draw_panel

__all__ = ["Section", "write_page"]


@attrs.frozen(eq=False)
class Section:
    """One part of the page: a title, a sentence or two, and panels, side by side where there is room."""

    title: str
    text: str
    panels: Sequence[Panel]


def write_page(
    out_dir: str | os.PathLike[str],
    sections: Sequence[Section],
    curve: Mapping[str, Sequence[float]],
    metrics: Mapping[str, float],
) -> Path:
    """Write `index.html` and its PNG files into out_dir, which is made when it is not there.

    The pictures go first and the page last, so that a page never refers to a picture that is not there.

    Args:
        out_dir: the directory; other files in it are left alone.
        sections: in the order they are shown; no two panels of the same name.
        curve: "step" -> (m,) steps, and each modality's name -> its m losses.
        metrics: the numbers of metrics.json; those that MEANINGS knows are explained.

    Returns:
        The path of the page.

    Raises:
        DiffuseError: two panels share a name, the curve is empty, or out_dir is a file.
    """
    names = ["curve", *(panel.name for section in sections for panel in section.panels)]
    for name in names:
        if names.count(name) > 1:
            raise DiffuseError(f"panel '{name}': expected one panel of that name, got {names.count(name)}")
    if "step" not in curve:
        raise DiffuseError(f"curve: expected the key 'step', got {', '.join(curve) or 'none'}")
    losses = {name: values for name, values in curve.items() if name != "step"}
    pictures = {"curve": draw_curve(curve["step"], losses)}
    pictures |= {panel.name: draw_panel(panel) for section in sections for panel in section.panels}
    page = _page(sections, metrics).encode()

    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DiffuseError(f"out directory: expected a directory at {out}, got a file") from error
    for name, content in pictures.items():
        atomic_write(out / f"{name}.png", content)
    atomic_write(out / "index.html", page)
    return out / "index.html"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "count":
        return f"{int(value):,}"
    return f"{value:.0f} s" if unit == "s" else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def _target(meaning: Meaning) -> str:
    if meaning.target is None:
        return ""
    return ("≥ " if meaning.at_least else "≤ ") + _number(meaning.target, meaning.unit)


def _rows(metrics: Mapping[str, float]) -> str:
    rows = []
    for key in [*(k for k in MEANINGS if k in metrics), *(k for k in metrics if k not in MEANINGS)]:
        meaning = MEANINGS.get(key, Meaning(key, "", unit=""))
        reached = meaning.reached(metrics[key])
        mark = "" if reached is None else "yes" if reached else "no"
        word = {"": "", "yes": "✓", "no": "missed"}[mark]
        rows.append(
            f"<tr><th scope='row'>{html.escape(meaning.title)}<code>{html.escape(key)}</code></th>"
            f"<td class='value {mark}'>{_number(metrics[key], meaning.unit)}</td>"
            f"<td class='target'>{_target(meaning)} <b class='{mark}'>{word}</b></td>"
            f"<td>{html.escape(meaning.text)}</td></tr>"
        )
    return "\n".join(rows)


def _cards(metrics: Mapping[str, float]) -> str:
    chosen = ("image_given_caption", "joint_agreement", "caption_given_image", "nearest_train_ratio")
    cards = [
        f"<div class='card'><b>{_number(metrics[key], MEANINGS[key].unit)}</b>{html.escape(MEANINGS[key].title)}</div>"
        for key in chosen
        if key in metrics
    ]
    return f"<div class='cards'>{''.join(cards)}</div>" if cards else ""


def _figure(panel: Panel) -> str:
    said = ", ".join(f"“{text}”" for text in list(panel.captions)[:12])
    alt = f"{len(panel.images)} pictures" + (f", captions {said}" if said else "")
    heading = f"<figcaption>{html.escape(panel.heading)}</figcaption>" if panel.heading else ""
    width = round(panel.columns * CELL_INCHES * 76)  # 76 of the page's pixels an inch: ten columns fill its width
    image = f"<img src='{html.escape(panel.name)}.png' width='{width}' alt='{html.escape(alt, quote=True)}'>"
    return f"<figure>{heading}{image}</figure>"


def _section(section: Section) -> str:
    figures = "\n".join(_figure(panel) for panel in section.panels)
    return (
        f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>"
        f"<div class='panels'>{figures}</div></section>"
    )


def _page(sections: Sequence[Section], metrics: Mapping[str, float]) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Diffuse Everything: one model, four kinds of data</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>One model, four kinds of data</h1>
<p>A picture, a caption, a label and a composition: each lives in its own state space and is noised by its own
process on its own clock. One network learned all of them together, from {_TRAINED}.
Whatever is given, in whole, in part or blurred by noise, it draws the rest.</p>
<ul class="spaces">
<li><b>picture</b>8×8 real numbers, Gaussian diffusion</li>
<li><b>caption</b>up to 6 words, masked one by one</li>
<li><b>label</b>a digit, jumping uniformly</li>
<li><b>ink</b>16 shares that sum to one, diffusing on the simplex</li>
</ul>
{_cards(metrics)}
</header>
<main>
{chr(10).join(_section(section) for section in sections)}
<section><h2>How it learned</h2>
<p>The joint loss is the sum of the four losses, one a state space; each falls on its own scale. The pale
line is each logged loss, the dark one its running mean.</p>
<div class="panels"><figure>
<img src="curve.png" width="988" alt="Training loss of each modality">
</figure></div>
</section>
<section><h2>What was measured</h2>
<p>Every number comes from the samples of this run; the targets are for the default budget of two minutes of
training on two cores.</p>
<div class="wide"><table>
<thead><tr><th>Number</th><th>Value</th><th>Target</th><th>What it means</th></tr></thead>
<tbody>
{_rows(metrics)}
</tbody></table></div>
</section>
</main>
<footer>Data:
Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, as it comes with scikit-learn.</footer>
</body>
</html>
"""


_TRAINED = "1,437 handwritten digits in a few minutes on an ordinary processor"
_STYLE = """
:root { color-scheme: light; --ink: #1b2333; --muted: #6b7280; --accent: #c2562f; --line: #e6dfd0;
  --paper: #faf7f0; --right: #2c7a4b; --wrong: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 56px; }
h1 { font: 600 42px/1.15 Georgia, "Times New Roman", serif; margin: 0 0 14px; letter-spacing: -0.01em; }
h2 { font: 600 24px/1.25 Georgia, "Times New Roman", serif; margin: 0 0 6px; }
p { max-width: 46em; margin: 0 0 16px; }
.spaces { list-style: none; padding: 0; margin: 22px 0; display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); }
.spaces li { border-left: 3px solid var(--accent); padding: 2px 0 2px 12px; font-size: 14px;
  line-height: 1.45; color: var(--muted); }
.spaces b { display: block; color: var(--ink); font-size: 15px; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr));
  margin: 26px 0 34px; }
.card { background: var(--ink); color: #e9e4d8; border-radius: 12px; padding: 16px 18px; font-size: 14px; }
.card b { display: block; font: 600 30px/1.2 Georgia, serif; color: #fff; }
section { background: #fff; border: 1px solid var(--line); border-radius: 14px; padding: 26px 22px 18px;
  margin: 0 0 26px; }
.panels { display: flex; flex-wrap: wrap; gap: 18px 26px; }
figure { margin: 0; max-width: 100%; }
figcaption { font-weight: 600; font-size: 14px; color: var(--accent); margin: 0 0 6px 10px; }
img { display: block; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; line-height: 1.45; }
th, td { text-align: left; vertical-align: top; padding: 10px 12px; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--muted); font-weight: 500; }
tbody th { font-weight: 600; min-width: 190px; }
code { display: block; font: 12px/1.4 ui-monospace, Consolas, monospace; color: var(--muted);
  font-weight: 400; }
.value { font-variant-numeric: tabular-nums; font-weight: 600; white-space: nowrap; }
.target { color: var(--muted); white-space: nowrap; font-variant-numeric: tabular-nums; }
.yes { color: var(--right); }
.no { color: var(--wrong); }
footer { color: var(--muted); font-size: 13px; padding-bottom: 48px; }
"""
