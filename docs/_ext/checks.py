"""The conformance kit's checks, from the kit itself: the directive ``checks`` is a table of all, the role ``check`` a
link into it, which a check that does not exist makes a warning."""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.docutils import SphinxRole
from sphinx.util.nodes import make_refnode

from de_core.testing.checks import CHECKS

PAGE = "plugins"  # where the table stands
IDS = {check.id: f"check-{check.id.replace('_', '-')}" for check in CHECKS}


class Table(Directive):
    """One row a check: its id, its level, its law and where that stands."""

    def run(self):
        table = nodes.table(classes=["checks"])
        group = nodes.tgroup(cols=4)
        table += group
        for width in (22, 10, 48, 20):
            group += nodes.colspec(colwidth=width)
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += row(*(nodes.paragraph(text=text) for text in ("check", "level", "law", "in SPEC.md")))
        for check in CHECKS:
            name = nodes.paragraph("", "", nodes.literal(text=check.id), ids=[IDS[check.id]])
            body += row(name, *(nodes.paragraph(text=text) for text in (check.level, check.law, check.spec)))
        return [table]


class Link(SphinxRole):
    """A link to a check's row."""

    def run(self):
        if self.text not in IDS:
            where = self.get_location()
            return [nodes.literal(text=self.text)], [
                self.inliner.reporter.warning(f"the kit has no check {self.text!r}: {where}")
            ]
        builder, literal = self.env.app.builder, nodes.literal(text=self.text)
        return [make_refnode(builder, self.env.docname, PAGE, IDS[self.text], literal)], []


def row(*cells):
    """A row of a table."""
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def setup(app):
    app.add_directive("checks", Table)
    app.add_role("check", Link())
    return {"parallel_read_safe": True}
