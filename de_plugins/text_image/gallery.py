"""A page of pictures with captions: one HTML file without script or outside resources."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from torch import Tensor

from de_core.artifact import atomic_write
from de_core.errors import DiffuseError

__all__ = ["Grid", "figure_of", "png_of", "write_gallery"]


@attrs.frozen(eq=False)
class Grid:
    """One section: pictures with what was said of them.

    Args:
        title, text: heads it.
        images: (n, C, H, W) in [-1, 1], C of 1 or 3.
        captions: n texts.
        right: n verdicts, True, False or None; or () for none.
        columns: pictures a row.
    """

    title: str
    text: str
    images: Tensor
    captions: Sequence[str]
    right: Sequence[bool | None] = ()
    columns: int = 8

    def __attrs_post_init__(self) -> None:
        n = len(self.images)
        if not n or len(self.captions) != n or len(self.right) not in (0, n):
            raise DiffuseError(
                f"grid '{self.title}': expected pictures, each with a caption and a verdict or none, got {n} pictures, "
                f"{len(self.captions)} captions, {len(self.right)} verdicts"
            )


def png_of(image: Tensor) -> bytes:
    """One picture (C, H, W) in [-1, 1] as PNG, a pixel a pixel."""
    from PIL import Image

    pixels = ((image.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    picture = Image.fromarray(pixels[0], "L") if len(pixels) == 1 else Image.fromarray(pixels.transpose(1, 2, 0), "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def figure_of(draw: object) -> bytes:
    """A matplotlib figure as PNG."""
    buffer = io.BytesIO()
    draw.savefig(buffer, format="png", dpi=140)  # type: ignore[attr-defined] # a Figure
    return buffer.getvalue()


def write_gallery(
    path: str | os.PathLike[str],
    title: str,
    lead: str,
    grids: Sequence[Grid],
    numbers: Mapping[str, Mapping[str, str]],
    figures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file; its directory is made.
        title, lead: head the page.
        grids: in order.
        numbers: tables, title -> (row -> value).
        figures: title -> PNG.
    """
    parts = [_grid(grid) for grid in grids]
    for name, content in (figures or {}).items():
        picture = f"<img class='figure' src='{_uri(content)}' alt='{html.escape(name, quote=True)}'>"
        parts.append(f"<section><h2>{html.escape(name)}</h2><div class='wide'>{picture}</div></section>")
    for name, rows in numbers.items():
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
        parts.append(f"<section><h2>{html.escape(name)}</h2><div class='wide'><table>{cells}</table></div></section>")
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>{''.join(parts)}</body></html>\n"
    )
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, page.encode())
    return out


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _grid(grid: Grid) -> str:
    cells = []
    for k, (image, caption) in enumerate(zip(grid.images, grid.captions, strict=True)):
        verdict = grid.right[k] if grid.right else None
        mark = "" if verdict is None else " class='yes'" if verdict else " class='no'"
        said = html.escape(caption or "(no word)", quote=True)
        cells.append(
            f"<figure><img src='{_uri(png_of(image))}' alt='{said}'><figcaption{mark}>{said}</figcaption></figure>"
        )
    return (
        f"<section><h2>{html.escape(grid.title)}</h2><p>{html.escape(grid.text)}</p>"
        f"<div class='grid' style='--columns:{grid.columns}'>{''.join(cells)}</div></section>"
    )


_STYLE = """
:root { --ink: #1b2333; --muted: #6b7280; --line: #e6dfd0; --paper: #faf7f0; --yes: #2c7a4b; --no: #b3261e; }
body { margin: 0 auto; max-width: 1120px; padding: 40px 20px; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font: 600 36px/1.2 Georgia, serif; margin: 0 0 10px; } h2 { font: 600 22px/1.3 Georgia, serif; margin: 0 0 4px; }
p { max-width: 48em; margin: 0 0 14px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 22px; margin: 22px 0; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }
figure { margin: 0; } figcaption { font-size: 12px; line-height: 1.3; margin-top: 4px; color: var(--muted); }
.grid img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
.figure { max-width: 100%; } .wide { overflow-x: auto; }
.yes { color: var(--yes); } .no { color: var(--no); }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); font-weight: 400; }
td { font-variant-numeric: tabular-nums; font-weight: 600; }
@media (max-width: 700px) { .grid { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
"""
