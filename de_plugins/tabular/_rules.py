"""Rules between number columns: what the schema says of them, and how they are found.

A rule says what one column is, given others: the same value, the sum of two, never below. Some hold in every training
row, some in a part of them (the least and the greatest of what is often a single value).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from de_core.errors import DiffuseError
from de_plugins.tabular._numeric import EXACT
from de_plugins.tabular._plain import DType

__all__ = ["ALWAYS", "ORDER", "Rule", "comparable", "find_rules", "holds", "ordered", "said"]

ALWAYS = 0.999  # of the rows: the rule is one that every drawn row keeps
ORDER = "at least"
LEAST_ROWS = {ORDER: 500, "always": 100, "partly": 1000}  # fewer rows keep a rule by chance, or say little of its share
LEAST_SHARE = 0.03  # of the rows, beside the spikes of the column: a rule that holds in a part of them
DISTINCT = 0.05  # of the rows: in so many a rule says what a simpler one does not
_LOOK, _FIRST = 512, 64  # rows that are looked at first: pairs of columns, triples
_CELLS = 2**26  # compared in all: in wide tables fewer rows are looked at
_MOST = 60  # columns among which triples are looked for: their number grows with the third power
_BEST = 4  # columns that one may equal are judged on all rows
_NEAR = 1e-6  # of a value: the same but for rounding


@attrs.frozen
class Form:
    """A kind of rule.

    Args:
        count: how many columns it reads.
        value: what it says, from (n,) each and the constant.
        inverse: the last of the columns that it reads, from its value and the others; None where that is not one.
    """

    count: int
    value: Callable[..., np.ndarray]
    inverse: Callable[..., np.ndarray] | None = None


FORMS = {
    "equal": Form(1, lambda a, constant: a, lambda value: value),
    "distance": Form(1, lambda a, constant: np.abs(a - constant)),
    "sum": Form(2, lambda a, b, constant: a + b, lambda value, other: value - other),
    "product": Form(2, lambda a, b, constant: a * b, lambda value, other: value / other),
    "middle": Form(2, lambda a, b, constant: (a + b) / 2, lambda value, other: 2 * value - other),
    ORDER: Form(1, lambda a, constant: a),
}


@attrs.frozen
class Rule:
    """A column that others say something of.

    Args:
        column: what the rule is of.
        form: "equal" to the other, its "distance" from the constant, the "sum", "product" or "middle" of two, or "at
            least" the other.
        of: the other columns.
        share: of the training rows, in which it holds.
        within: of a rule that holds in a part of the rows: how far from it, in normal scores, a drawn row is taken for
            one that keeps it; set by ``fit``, so that as many do as in training.
        constant: of "distance".
        use: drawn rows are made to keep it.
        why: one sentence.
    """

    column: str | int
    form: str
    of: tuple[str | int, ...]
    share: float = 1.0
    within: float = 0.0
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
        out = attrs.asdict(self) | {"of": list(self.of)}
        for key, applies in {"within": not self.always, "constant": self.form == "distance"}.items():
            if not applies:
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
        column, form, of = data.get("column", "?"), data.get("form"), data.get("of")
        if form not in FORMS:
            raise DiffuseError(f"{where}: expected a form of {', '.join(FORMS)}, got {form!r}")
        count = FORMS[form].count
        if not isinstance(of, list) or len(of) != count or len({str(name) for name in (column, *of)}) <= count:
            raise DiffuseError(f"{where}: expected {count} other columns in 'of', got {of}")
        for name in (column, *of):
            if name not in dtypes:
                raise DiffuseError(f"{where}: column '{name}' is not in the schema")
            if not comparable(form, dtypes[name], dtypes[of[0]]):
                raise DiffuseError(f"{where}: expected numbers of one kind, got {dtypes[name].name} in '{name}'")
        for key, most in {"share": 1.0, "within": float("inf"), "constant": float("inf")}.items():
            value = data.get(key, 0.0)
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= most:
                raise DiffuseError(f"{where}: expected {key} as a number of at most {most:g}, got {value!r}")
        if not isinstance(data.get("use", True), bool):
            raise DiffuseError(f"{where}: expected use as true or false, got {data['use']!r}")
        return cls(**{**data, "of": tuple(of)})


def comparable(form: str, one: DType, other: DType) -> bool:
    """Whether columns of two dtypes can be in a rule: numbers; or, to be in order, times of one dtype."""
    numbers = all(dtype.plain in ("int", "float") for dtype in (one, other))
    return numbers or (form == ORDER and one.plain == "ticks" and one == other)


def said(rule: Rule) -> str:
    """The rule in words."""
    a, b = rule.of[0], rule.of[-1]
    what = {
        "equal": f"equals '{a}'",
        "distance": f"is the distance of '{a}' from {rule.constant:g}",
        "sum": f"is the sum of '{a}' and '{b}'",
        "product": f"is the product of '{a}' and '{b}'",
        "middle": f"lies in the middle of '{a}' and '{b}'",
        ORDER: f"is at least '{a}'",
    }[rule.form]
    return f"'{rule.column}' {what} in {'all rows' if rule.always else f'{rule.share:.0%} of the rows'}"


def holds(rule: Rule, column: np.ndarray, sources: Sequence[np.ndarray], step: float) -> np.ndarray:
    """Which rows keep the rule, (n,) bool; NaN keeps none.

    Args:
        column, sources: float64 (n,). step: of the column's grid.
    """
    value = rule.value(*sources)
    if rule.form == ORDER:
        return column >= value
    return np.abs(column - value) <= _NEAR * np.maximum(np.abs(column), np.abs(value)) + 0.5 * step * (1 + 1e-9)


def find_rules(
    cells: Mapping[str | int, np.ndarray],
    dtypes: Mapping[str | int, DType],
    steps: Mapping[str | int, float],
    spikes: Mapping[str | int, Sequence],
) -> tuple[Rule, ...]:
    """The rules of a table, those that drawn rows are to keep, in an order in which each reads columns that are done.

    Looked for on some rows, and then judged on all. No column has two rules but for orders, of which those that
    follow from others are left out; where two columns say each other, the later one has the rule.

    Args:
        cells: float64 (n,) of the columns of numbers and times, NaN where missing.
        dtypes: of those columns.
        steps: of their grids, 0 for none.
        spikes: of those that are continuous: the values that pile up.
    """
    names = list(cells)
    rows = len(cells[names[0]]) if names else 0
    if rows < min(LEAST_ROWS.values()) or len(names) < 2:
        return ()
    count = max(2 * _FIRST, min(_LOOK, _CELLS // len(names) ** 2))
    look = np.sort(np.random.default_rng(0).choice(rows, min(rows, count), replace=False))
    x = np.stack([cells[name][look] for name in names], 1)
    # only columns that vary say something
    varied = [k for k, name in enumerate(names) if _varies(x[:, k], min(3, 2 + (name in spikes)))]
    names, x = [names[k] for k in varied], x[:, varied]
    orders = _orders(names, x, cells, dtypes, spikes) if rows >= LEAST_ROWS[ORDER] else []
    found: list[Rule] = []
    for rule in _candidates(names, x, orders):
        if not all(comparable(rule.form, dtypes[rule.column], dtypes[name]) for name in rule.of):
            continue
        columns = [cells[name] for name in (rule.column, *rule.of)]
        known = ~np.isnan(np.stack(columns)).any(0)
        if not known.any() or max(np.nanmax(np.abs(column)) for column in columns) >= EXACT:
            continue
        kept = holds(rule, columns[0], columns[1:], steps[rule.column])
        share = float(kept[known].mean())
        free = known & ~np.isin(columns[0], list(spikes.get(rule.column, ())))
        beside = float((kept & free).sum() / known.sum())
        partly = rule.form in ("equal", "middle") and rule.column in spikes and beside >= LEAST_SHARE
        partly = partly and all(name in spikes for name in rule.of) and known.sum() >= LEAST_ROWS["partly"]
        if (share >= ALWAYS and known.sum() >= LEAST_ROWS["always"]) or partly:
            found.append(attrs.evolve(rule, share=round(share, 6)))
    chosen = _acyclic(sorted(found, key=lambda rule: (-round(rule.share, 3), len(rule.of))))
    given = {(name, rule.column) for rule in chosen if rule.always for name in rule.of}
    rules = [*chosen, *(Rule(high, ORDER, (low,)) for low, high in orders if (low, high) not in given)]
    return ordered([attrs.evolve(rule, why=said(rule)) for rule in rules])


def _varies(x: np.ndarray, least: int) -> bool:
    """At least so many distinct values, none of them in nine of ten rows."""
    values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
    return len(values) >= least and counts.max() < 0.9 * counts.sum()


def _orders(names: list, x: np.ndarray, cells: Mapping, dtypes: Mapping, spikes: Mapping) -> list[tuple]:
    """Pairs (low, high) of continuous columns, the second never below the first, though their ranges overlap: of rows
    that were paired at random, ``DISTINCT`` at the least would break it. None that follows from two others."""
    shifted, above = np.roll(x, len(x) // 2, axis=0), np.zeros((len(names), len(names)), dtype=bool)
    inner = np.array([name in spikes for name in names])
    with np.errstate(invalid="ignore"):
        for k in np.flatnonzero(inner):
            low = x[:, [k]]
            above[k] = ((x < low).mean(0) <= 0.01) & ((x > low).mean(0) >= DISTINCT) & inner
            above[k] &= (shifted < low).mean(0) >= DISTINCT
    between = above.astype(np.float32) @ above.astype(np.float32)
    pairs = [(names[a], names[b]) for a, b in np.argwhere(above & (between == 0))]
    return [
        (a, b)
        for a, b in pairs
        if comparable(ORDER, dtypes[a], dtypes[b]) and (cells[b] < cells[a]).mean() <= 1 - ALWAYS
    ]


def _candidates(names: list, x: np.ndarray, orders: Sequence[tuple]) -> list[Rule]:
    """Rules that hold on the rows that are looked at, in all of them or, where columns are equal, in a part."""
    out = [Rule(mid, "middle", (a, c)) for a, mid in orders for b, c in orders if b == mid]
    with np.errstate(invalid="ignore", over="ignore"):
        for k, name in enumerate(names):  # of pairs, the later column is said by the earlier one
            same = (np.abs(x[:, :k] - x[:, [k]]) <= _NEAR * np.abs(x[:, [k]])).mean(0)
            best = np.argsort(-same, kind="stable")[:_BEST]
            out += [Rule(name, "equal", (names[j],)) for j in best if same[j] >= LEAST_SHARE / 2]
            out += _distances(names, x, k)
        whole = x[~np.isnan(x).any(1)][:_FIRST]
        if len(names) <= _MOST and len(whole) >= _FIRST // 2:
            out += _triples(names, whole)
    return out


def _distances(names: list, x: np.ndarray, k: int) -> list[Rule]:
    """Columns that are |x_k - c|: c is read from one of the first rows, as x_k less or plus the column."""
    out, source, near = [], x[:, [k]], _NEAR * (1 + np.abs(x[:, [k]]))
    there = np.all(~(x < 0), axis=0)
    there[k] = False
    for base in range(3):
        for sign in (-1.0, 1.0):
            constant = np.round(source[base] + sign * x[base], 9)
            first = np.abs(np.abs(source[:16] - constant) - x[:16]) > near[:16]  # NaN is none
            for j in np.flatnonzero(there & np.isfinite(constant) & ~first.any(0)):
                crossed = DISTINCT < (source < constant[j]).mean() < 1 - DISTINCT
                off = np.abs(np.abs(source[:, 0] - constant[j]) - x[:, j]) > near[:, 0]
                if crossed and off.mean() <= 0.01:
                    out.append(Rule(names[j], "distance", (names[k],), constant=float(constant[j])))
                    there[j] = False
    return out


def _triples(names: list, x: np.ndarray) -> list[Rule]:
    """Columns that are the sum or the product of two others, and neither of these alone."""
    out = []
    for form in ("sum", "product"):
        for i, j in itertools.combinations(range(len(names)), 2):
            value = FORMS[form].value(x[:, i], x[:, j], constant=0.0)[:, None]
            near = _NEAR * (1 + np.abs(value))
            for k in np.flatnonzero((np.abs(x - value) <= near).mean(0) >= 0.95):
                alone = [np.mean(np.abs(x[:, k] - x[:, m]) <= near[:, 0]) for m in (i, j)]
                if k not in (i, j) and max(alone) <= 1 - DISTINCT:
                    out.append(Rule(names[k], form, (names[i], names[j])))
    return out


def _acyclic(rules: Sequence[Rule]) -> list[Rule]:
    """The first rule of each column, unless it closes a circle."""
    chosen: dict[Any, Rule] = {}
    for rule in rules:
        below, left = set(), list(rule.of)  # all that the rule rests on
        while left:
            name = left.pop()
            if name not in below:
                below.add(name)
                left += chosen[name].of if name in chosen else ()
        if rule.column not in chosen and rule.column not in below:
            chosen[rule.column] = rule
    return list(chosen.values())


def ordered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules such that each reads columns that are done, equal ones as soon as can be; orders come last.

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
        ready = [rule for rule in ready if rule.form == "equal"] or ready
        if not ready:
            raise DiffuseError(f"schema, rule of '{next(iter(left))}': the rules go in a circle")
        out += ready
        left = {column: rule for column, rule in left.items() if rule not in ready}
    return (*out, *(rule for rule in rules if rule.form == ORDER))
