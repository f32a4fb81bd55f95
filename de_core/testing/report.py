"""What a conformance run says: one result a check, and the report over all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from de_core.testing.case import Case

__all__ = ["LEVELS", "Check", "Failed", "Report", "Result", "Skipped", "check", "require"]

LEVELS = ("contract", "law", "numerics")


class Failed(Exception):
    """The modality breaks the law that is checked: what was measured, against what bound."""


class Skipped(Exception):
    """The check has nothing to say about this modality, and why."""


def require(holds: object, message: str) -> None:
    """Fail the check that runs, with what was expected and what came, unless ``holds``."""
    if not bool(holds):
        raise Failed(message)


@attrs.frozen
class Check:
    """One law, as a function of a case.

    Attributes:
        id: its name, for ever.
        level: "contract", "law" or "numerics".
        since: the version of the kit in which it appeared.
        law: what must hold, one sentence.
        spec: where the law stands in SPEC.md.
        needs: capabilities without which it is skipped.
        run: returns what was measured against what bound; raises ``Failed`` or ``Skipped``.
    """

    id: str
    level: str
    since: str
    law: str
    spec: str
    needs: frozenset[str]
    run: Callable[[Case], str]


def check(
    id: str, level: str, *, spec: str, needs: tuple[str, ...] = (), since: str = "0.1"
) -> Callable[[Callable[[Case], str]], Check]:
    """Make a check of a function of the case; its docstring is the law."""

    def wrap(run: Callable[[Case], str]) -> Check:
        law = " ".join((run.__doc__ or "").split())
        return Check(id, level, since, law, spec, frozenset(needs), run)

    return wrap


@attrs.frozen
class Result:
    """How one check ended.

    Attributes:
        check: which.
        status: "passed", "failed" or "skipped".
        message: what was measured against what bound, or why it was skipped.
        seconds: that it took.
    """

    check: Check
    status: str
    message: str
    seconds: float

    def to_text(self) -> str:
        """One line; a failure says the law and where it stands, too."""
        line = f"{self.status:<7}  {self.check.level:<8}  {self.check.id:<22}  {self.message}"
        if self.status == "failed":
            line += f"\n{'':19}law: {self.check.law} (SPEC.md, {self.check.spec}; since {self.check.since})"
        return line


@attrs.frozen
class Report:
    """A whole run.

    Attributes:
        subject: the modality, as it shows itself.
        results: one a check, in the order in which they ran.
        speed: the cost of noising, loss and step over a gaussian's of the same event; nan where it was not timed.
    """

    subject: str
    results: tuple[Result, ...]
    speed: float = float("nan")

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of the checks that failed."""
        return tuple(r.check.id for r in self.results if r.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether some check ran and none failed."""
        return not self.failed and any(r.status == "passed" for r in self.results)

    def to_text(self) -> str:
        """All results, the failures last, and a summary."""
        counts = {status: sum(r.status == status for r in self.results) for status in ("passed", "failed", "skipped")}
        lines = [r.to_text() for r in sorted(self.results, key=lambda r: r.status == "failed")]
        seconds = sum(r.seconds for r in self.results)
        summary = ", ".join(f"{n} {status}" for status, n in counts.items())
        tail = "" if self.ok or self.failed else " (no check ran: that is a failure)"
        pace = "" if self.speed != self.speed else f"; noising, loss and step cost {self.speed:.1f} times a gaussian's"
        return "\n".join([*lines, f"{self.subject}: {summary}{tail} in {seconds:.1f} s{pace}"])

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        results = [
            {
                "id": r.check.id,
                "level": r.check.level,
                "since": r.check.since,
                "status": r.status,
                "message": r.message,
                "law": r.check.law,
                "spec": r.check.spec,
                "seconds": round(r.seconds, 4),
            }
            for r in self.results
        ]
        speed = None if self.speed != self.speed else round(self.speed, 2)
        return {"subject": self.subject, "ok": self.ok, "failed": list(self.failed), "speed": speed, "results": results}
