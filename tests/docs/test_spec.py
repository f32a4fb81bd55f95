"""SPEC.md names every check of the conformance kit with its law, and no other."""

import re
from pathlib import Path

from de_core.testing.checks import CHECKS

SPEC = (Path(__file__).parents[2] / "SPEC.md").read_text(encoding="utf-8")


def test_every_check_stands_in_the_spec_with_its_law():
    section = SPEC[SPEC.index("## 10. Conformance kit") :]
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:\w+) \| (.*) \|$", section, re.M))
    assert {c.id: c.law for c in CHECKS}.items() <= rows.items()
    assert set(rows) - {c.id for c in CHECKS} == {"capabilities_checked"}


def test_every_check_points_at_a_section_that_is_there():
    titles = set(re.findall(r"^## (\d+\. [^\n]+)$", SPEC, re.M))
    for check in CHECKS:
        for place in check.spec.split(";"):
            number = place.strip().split(",")[0]
            assert any(title.startswith(number.split(". ")[0] + ". ") for title in titles), (check.id, place)
