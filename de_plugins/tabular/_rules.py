"""Rules between number columns: what the schema says of them. ``_rule_search`` finds them, ``_keeping`` keeps them.

A rule says what one column is, given others: the same value, the sum of two, never below. Some hold in every training
row, some in a part of them (the least and the greatest of what is often a single value).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError
from de_plugins.tabular._plain import DType

__all__ = ["ALWAYS", "ORDER", "Rule", "Slack", "comparable", "holds", "ordered", "rounding", "said"]

ALWAYS = 0.999  # of the rows: the rule is one that every drawn row keeps
ORDER = "at least"
_NEAR = 1e-6  # of a value, and of what its column spans: the same, where there is no grid


@attrs.frozen
class Form:
    """A kind of rule.

    Args:
        value: what it says, from (n,) each of the columns that it reads, and the constant.
        solved: for each of these the function that gives it, from the value and the others; none where there is none.
    """

    value: Callable[..., np.ndarray]
    solved: tuple[Callable[..., np.ndarray], ...] = ()
    count: int = 2


FORMS = {
    "equal": Form(lambda a, constant: a, (lambda v: v,), count=1),
    "distance": Form(lambda a, constant: np.abs(a - constant), count=1),
    "sum": Form(lambda a, b, constant: a + b, (lambda v, b: v - b, lambda v, a: v - a)),
    "product": Form(lambda a, b, constant: a * b, (lambda v, b: v / b, lambda v, a: v / a)),
    "ratio": Form(lambda a, b, constant: a / b, (lambda v, b: v * b, lambda v, a: a / v)),
    "middle": Form(lambda a, b, constant: (a + b) / 2, (lambda v, b: 2 * v - b, lambda v, a: 2 * v - a)),
    ORDER: Form(lambda a, constant: a, count=1),
}


@attrs.frozen
class Slack:
    """How far a cell may be from what a rule says: half a step of its grid, a millionth of what there is without one,
    and rounding: of the cells that are read, of what is worked from them and of the cell, four units each way at the
    most. Arrays where it is of several columns.

    Args:
        step: of the grid, 0 for none. spread: greatest less least value; 0 of classes, which are exact.
        eps: relative rounding of the dtype.
    """

    step: Any
    spread: Any
    eps: Any

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of cells a that should be b."""
        size = np.maximum(np.abs(a), np.abs(b))
        inner = np.where(self.step > 0, 0.5 * self.step * (1 + 1e-9), _NEAR * np.minimum(size, self.spread))
        return inner + 8 * self.eps * size

    def __getitem__(self, k: Any) -> Slack:
        """Of some columns."""
        return Slack(self.step[k], self.spread[k], self.eps[k])


def rounding(dtype: DType) -> float:
    """The relative rounding of a column's numbers."""
    narrow = dtype.narrow
    return float(np.finfo(narrow).eps) if narrow is not None and np.dtype(narrow).kind == "f" else 2.0**-52


@attrs.frozen
class Rule:
    """A column that others say something of.

    Args:
        column: what the rule is of.
        form: "equal" to the other, its "distance" from the constant, the "sum", "product", "ratio" or "middle" of
            two, or "at least" the other.
        of: the other columns.
        share: of the training rows, in which it holds.
        by: of a rule that holds in a part of the rows: a column of classes that tells in which, if there is one; set by
            ``fit``, as is ``within``.
        within: how far from the rule, in normal scores, a drawn row is taken for one that keeps it, in each class of
            ``by``, else in all rows: so that as many do as in training.
        constant: of "distance".
        use: drawn rows are made to keep it.
        why: one sentence.
    """

    column: str | int
    form: str
    of: tuple[str | int, ...]
    share: float = 1.0
    by: str | int | None = None
    within: tuple[float, ...] = ()
    constant: float = 0.0
    use: bool = True
    why: str = "set by hand"

    @property
    def always(self) -> bool:
        """Whether all rows keep it."""
        return self.share >= ALWAYS

    def value(self, *sources: np.ndarray) -> np.ndarray:
        """What it says of the column, (n,), from float64 (n,) each."""
        return FORMS[self.form].value(*sources, constant=self.constant)

    def to_dict(self) -> dict[str, Any]:
        """JSON: only what applies to the form."""
        out = attrs.asdict(self) | {"of": list(self.of), "within": list(self.within)}
        applies = {"by": self.by is not None, "within": bool(self.within), "constant": self.form == "distance"}
        for key, use in applies.items():
            if not use:
                del out[key]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dtypes: Mapping[str | int, DType]) -> Rule:
        """The inverse of `to_dict`.

        Args:
            dtypes: of the columns that there are.

        Raises:
            DiffuseError: an unknown or missing key, an unknown form, a number out of range, or columns that there are
                not, are no numbers, or are too many or too few.
        """
        known = [field.name for field in attrs.fields(cls)]
        where = f"schema, rule of '{data.get('column', '?')}'"
        for key in data:
            if key not in known:
                raise DiffuseError(f"{where}: unknown key '{key}'; expected {known}")
        column, form, of = data.get("column"), data.get("form"), data.get("of")
        if not isinstance(form, str) or form not in FORMS:
            raise DiffuseError(f"{where}: expected a form of {', '.join(FORMS)}, got {form!r}")
        count = FORMS[form].count
        names = [column, *of] if isinstance(of, list) else []
        if len(names) != count + 1 or len({(type(name), str(name)) for name in names}) <= count:
            raise DiffuseError(f"{where}: expected {count} other columns in 'of', got {of}")
        for name in names:
            if not isinstance(name, str | int) or name not in dtypes:
                raise DiffuseError(f"{where}: column '{name}' is not in the schema")
        for name in names:
            if not comparable(form, dtypes[name], dtypes[names[1]]):
                raise DiffuseError(f"{where}: expected numbers of one kind, got {dtypes[name].name} in '{name}'")
        for key, (least, most) in {"share": (0.0, 1.0), "constant": (-np.inf, np.inf)}.items():
            value = data.get(key, 1.0)
            if not _finite(value) or not least <= value <= most or (key == "share" and value == 0):
                raise DiffuseError(f"{where}: expected {key} as a number from {least:g} to {most:g}, got {value!r}")
        within = data.get("within", [])
        if not isinstance(within, list) or not all(_finite(value) and value >= 0 for value in within):
            raise DiffuseError(f"{where}: expected within as a list of numbers of at least 0, got {within!r}")
        by = data.get("by")
        if by is not None and (not isinstance(by, str | int) or by not in dtypes):
            raise DiffuseError(f"{where}: column '{by}' is not in the schema")
        for key, kind, expected in (("use", bool, "true or false"), ("why", str, "text")):
            if key in data and not isinstance(data[key], kind):
                raise DiffuseError(f"{where}: expected {key} as {expected}, got {data[key]!r}")
        return cls(**{**data, "of": tuple(names[1:]), "within": tuple(float(value) for value in within)})


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def comparable(form: str, one: DType, other: DType) -> bool:
    """Whether columns of two dtypes can be in a rule: numbers; or, to be in order, times of one dtype."""
    if form == ORDER and one.plain == other.plain == "int":  # a cell that is put in order may not fit below zero
        return len({"uint" in dtype.name.lower() for dtype in (one, other)}) == 1
    if form == ORDER and one.plain == "ticks":
        return one == other
    return all(dtype.plain in ("int", "float") for dtype in (one, other))


def said(rule: Rule) -> str:
    """The rule in words."""
    a, b = rule.of[0], rule.of[-1]
    what = {
        "equal": f"equals '{a}'",
        "distance": f"is the distance of '{a}' from {rule.constant:g}",
        "sum": f"is the sum of '{a}' and '{b}'",
        "product": f"is the product of '{a}' and '{b}'",
        "ratio": f"is the ratio of '{a}' and '{b}'",
        "middle": f"lies in the middle of '{a}' and '{b}'",
        ORDER: f"is at least '{a}'",
    }[rule.form]
    return f"'{rule.column}' {what} in {'all rows' if rule.always else f'{rule.share:.0%} of the rows'}"


def holds(rule: Rule, column: np.ndarray, sources: Sequence[np.ndarray], slack: Slack) -> np.ndarray:
    """Which rows keep the rule, (n,) bool; NaN keeps none.

    Args:
        column, sources: float64 (n,). slack: of the column.
    """
    with np.errstate(all="ignore"):
        value = rule.value(*sources)
        return column >= value if rule.form == ORDER else np.abs(column - value) <= slack(column, value)


def ordered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules such that each reads columns that are done; columns that are equal in a part of the rows as soon as can be,
    copies as late as can be, and orders last.

    Raises:
        DiffuseError: they go in a circle, or a column has two that are no orders.
    """
    left, out = {}, []
    for rule in rules:
        if rule.form != ORDER and rule.column in left:
            raise DiffuseError(f"schema, rule of '{rule.column}': the column has another rule, and one says what it is")
        if rule.form != ORDER:
            left[rule.column] = rule
    while left:
        ready = [rule for rule in left.values() if left.keys().isdisjoint(rule.of)]
        first = [rule for rule in ready if rule.form == "equal" and not rule.always]
        ready = first or [rule for rule in ready if rule.form != "equal"] or ready
        if not ready:
            raise DiffuseError(f"schema, rule of '{next(iter(left))}': the rules go in a circle")
        out += ready
        left = {column: rule for column, rule in left.items() if rule not in ready}
    return (*out, *(rule for rule in rules if rule.form == ORDER))
