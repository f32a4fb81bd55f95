"""Docstrings here are plain text with ``literals`` and Google sections: what reStructuredText would take for markup in
their formulas is escaped, and an indented formula becomes a literal block."""

import re

LITERAL = re.compile(r"(``.+?``)")
MARKUP = re.compile(r"([*|`\\]|(?<=\w)_(?!\w))")
SECTION = re.compile(r"^(Args|Arguments|Attributes|Raises|Returns|Yields|Note|Example):$")


def escape(line):
    """The line with markup escaped outside of its literals."""
    parts = LITERAL.split(line)
    return "".join(part if k % 2 else MARKUP.sub(r"\\\1", part) for k, part in enumerate(parts))


def plain(app, what, name, obj, options, lines):
    """Escape a docstring in place; a paragraph indented after an empty line, outside of a section, is a formula."""
    out, section, formula = [], False, False
    for line in lines:
        indented = line.startswith(" ")
        if line and not indented:
            section, formula = bool(SECTION.match(line)), False
        elif indented and not section and not formula and not (out and out[-1]):
            formula = True
            out += [] if "".join(out).endswith("::") else ["::", ""]
        out.append(line if formula else escape(line))
    lines[:] = out


def setup(app):
    app.connect("autodoc-process-docstring", plain, priority=400)  # before napoleon, at 500
    return {"parallel_read_safe": True}
