"""How the rules between the number columns of a table are found (``_rules``)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from de_plugins.tabular._numeric import EXACT
from de_plugins.tabular._plain import DType
from de_plugins.tabular._rules import ALWAYS, FORMS, ORDER, Rule, Slack, comparable, holds, ordered, rounding, said

__all__ = ["find_rules"]

LEAST_ROWS = {ORDER: 500, "always": 100, "partly": 1000}  # fewer rows keep a rule by chance, or say little of its share
_OVER = 3.0  # times as many rows as lie a step or two of the grid beside the rule
LEAST_SHARE = 0.03  # of the rows, beside the spikes of the column: a rule that holds in a part of them
DISTINCT = 0.05  # of the rows: in so many a rule says what a simpler one does not
_LOOK, _FIRST = 512, 64  # rows that are looked at first: pairs of columns, triples
# of the rows that are looked at, that may break a rule of all rows. One that 1 row in 1,000 breaks is lost where more
# than 5 of 512 do (1.6e-5), or more than 3 of 64 (6e-7)
_STRAY, _STRAYS = 0.01, 0.05
_CELLS = 2**26  # compared in all: in wide tables fewer rows are looked at
_MOST = 60  # columns among which triples are looked for: their number grows with the third power
_MANY = 20  # classes of a column that is put in order
_BEST = 4  # columns that one may equal are judged on all rows


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
    if len(names) < 2:
        return ()
    spreads = [float(np.nanmax(cells[n]) - np.nanmin(cells[n])) if n in spikes else 0.0 for n in names]
    eps = [rounding(dtypes[n]) for n in names]
    slack = Slack(np.array([steps[n] for n in names]), np.array(spreads), np.array(eps))
    slacks = {name: slack[k] for k, name in enumerate(names)}
    orders = _orders(names, x, cells, dtypes, spikes) if rows >= LEAST_ROWS[ORDER] else []
    found, whole = [], set()
    for rule in _candidates(names, x, orders, slack):
        if not all(comparable(rule.form, dtypes[rule.column], dtypes[name]) for name in rule.of):
            continue
        columns = [cells[name] for name in (rule.column, *rule.of)]
        known = ~np.isnan(np.stack(columns)).any(axis=0)
        if not known.any() or max(np.nanmax(np.abs(column)) for column in columns) >= EXACT:
            continue
        kept = holds(rule, columns[0], columns[1:], slacks[rule.column])
        share = float(kept[known].mean())
        always = share >= ALWAYS and known.sum() >= LEAST_ROWS["always"]
        if always or _partly(rule, columns, known, kept, slacks[rule.column], spikes):
            found.append(attrs.evolve(rule, share=round(share, 6)))
            whole |= {found[-1]} if known.all() else set()
    chosen = _acyclic(sorted(found, key=lambda rule: (-round(rule.share, 3), FORMS[rule.form].count)))
    given = {(name, rule.column) for rule in chosen if rule.always and rule in whole for name in rule.of}
    rules = [*chosen, *(Rule(high, ORDER, (low,)) for low, high in orders if (low, high) not in given)]
    return ordered([attrs.evolve(rule, why=said(rule)) for rule in rules])


def _partly(rule: Rule, columns: list[np.ndarray], known: Any, kept: np.ndarray, slack: Slack, spikes: Mapping) -> bool:
    """Whether enough rows keep a rule beside the spikes of its column, and more than lie a step or two beside it."""
    if rule.form not in ("equal", "middle") or not all(name in spikes for name in (rule.column, *rule.of)):
        return False
    free = known & ~np.isin(columns[0], list(spikes[rule.column]))
    beside = (kept & free).sum()
    if known.sum() < LEAST_ROWS["partly"] or beside < LEAST_SHARE * known.sum():
        return False
    if not slack.step:
        return True
    near = [holds(rule, columns[0] + k * slack.step, columns[1:], slack) & free for k in (-2, -1, 1, 2)]
    return beside >= _OVER * max(rows.sum() for rows in near)


def _varies(x: np.ndarray, least: int) -> bool:
    """At least so many distinct values, none of them in nine of ten rows."""
    values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
    return len(values) >= least and counts.max() < 0.9 * counts.sum()


def _orders(names: list, x: np.ndarray, cells: Mapping, dtypes: Mapping, spikes: Mapping) -> list[tuple]:
    """Pairs (low, high) of columns that are continuous or have many classes, the second never below the first, though
    their ranges overlap: of rows that were paired at random, ``DISTINCT`` at the least would break it. None that
    follows from two others."""
    shifted, above = np.roll(x, len(x) // 2, axis=0), np.zeros((len(names), len(names)), dtype=bool)
    inner = np.array([name in spikes or len(np.unique(x[:, k])) >= _MANY for k, name in enumerate(names)])
    there = ~np.isnan(x)
    with np.errstate(invalid="ignore"):
        for k in np.flatnonzero(inner):
            low = x[:, [k]]
            known, paired = (there & there[:, [k]]).sum(0), (~np.isnan(shifted) & there[:, [k]]).sum(0)
            above[k] = ((x < low).sum(0) <= _STRAY * known) & ((x > low).sum(0) >= DISTINCT * known)
            above[k] &= inner & (known > 0) & ((shifted < low).sum(0) >= DISTINCT * paired)
    for a, b in np.argwhere(above):
        above[a, b] = comparable(ORDER, dtypes[names[a]], dtypes[names[b]])
    judged: set = set()
    while True:  # a pair that fails on all rows implies no other
        between = above.astype(np.float32) @ above.astype(np.float32)
        pairs = [(int(a), int(b)) for a, b in np.argwhere(above & (between == 0))]
        wrong = [(a, b) for a, b in pairs if (a, b) not in judged and not _in_order(cells[names[a]], cells[names[b]])]
        if not wrong:
            return [(names[a], names[b]) for a, b in pairs]
        judged |= set(pairs)
        for pair in wrong:
            above[pair] = False


def _in_order(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether as good as no row has the one above the other, of enough that have both."""
    known = (~np.isnan(low) & ~np.isnan(high)).sum()
    return known >= LEAST_ROWS[ORDER] and (high < low).sum() <= (1 - ALWAYS) * known


def _candidates(names: list, x: np.ndarray, orders: Sequence[tuple], slack: Slack) -> list[Rule]:
    """Rules that hold on the rows that are looked at, in all of them or, where columns are equal, in a part."""
    out = [Rule(mid, "middle", (a, c)) for a, mid in orders for b, c in orders if b == mid]
    with np.errstate(all="ignore"):
        for k, name in enumerate(names):  # of pairs, the later column is said by the earlier one
            a, b = x[:, :k], x[:, [k]]
            same = (np.abs(a - b) <= np.minimum(slack[:k](a, b), slack[k](a, b))).mean(0)
            best = np.argsort(-same, kind="stable")[:_BEST]
            out += [Rule(name, "equal", (names[j],)) for j in best if same[j] >= LEAST_SHARE / 2]
            out += _distances(names, x, k, slack)
        return out + _triples(names, x, slack)


def _distances(names: list, x: np.ndarray, k: int, slack: Slack) -> list[Rule]:
    """Columns that are |x_k - c|: c is read from one of the first rows, as x_k less or plus the column."""
    first = x[np.flatnonzero(~np.isnan(x[:, k]))[:16]]
    out, there = [], np.all(~(first < 0), axis=0)
    there[k] = False
    for base in range(min(8, len(first))):
        for sign in (-1.0, 1.0):
            constant = np.round(first[base, k] + sign * first[base], 9)
            said = np.abs(first[:, [k]] - constant)
            off = np.abs(said - first) > slack(first, said)  # NaN is none
            for j in np.flatnonzero(there & np.isfinite(constant) & ~off.any(0)):
                source, column = x[:, k], x[:, j]
                whole = np.abs(source - constant[j])
                known = (~np.isnan(source)).sum()
                crossed = DISTINCT * known < (source < constant[j]).sum() < (1 - DISTINCT) * known
                wrong = (np.abs(whole - column) > slack[j](column, whole)).sum()
                if crossed and not (column < 0).any() and wrong <= _STRAY * known:
                    out.append(Rule(names[j], "distance", (names[k],), constant=float(constant[j])))
                    there[j] = False
    return out


def _triples(names: list, x: np.ndarray, slack: Slack) -> list[Rule]:
    """Columns that are the sum, the product or the ratio of two others, and neither of these alone.

    Among the fullest columns, as many as have rows that miss none of them.
    """
    if len(names) > _MOST:
        return []
    order = np.argsort(np.isnan(x).sum(0), kind="stable")
    while len(order) and (~np.isnan(x[:, order]).any(1)).sum() < min(_FIRST // 2, len(x)):
        order = order[:-1]
    kept = np.sort(order)
    x = x[~np.isnan(x[:, kept]).any(1)][:_FIRST][:, kept]
    names, slack, out = [names[k] for k in kept], slack[kept], []
    for form in ("sum", "product"):
        for i, j in itertools.combinations(range(len(names)), 2):
            value = FORMS[form].value(x[:, i], x[:, j], constant=0.0)[:, None]
            for k in np.flatnonzero((np.abs(x - value) <= slack(x, value)).mean(0) >= 1 - _STRAYS):
                near = slack[k](x[:, k], value[:, 0])
                alone = [np.mean(np.abs(x[:, k] - x[:, m]) <= near) for m in (i, j)]
                if k in (i, j) or max(alone) > 1 - DISTINCT:
                    continue
                # what has a grid, or is one of few values, was there first; a quotient has none
                fine = [m for m in (i, j) if slack.step[m] == 0 and slack.spread[m] > 0]
                if form == "product" and fine and (slack.step[k] > 0 or not slack.spread[k]):
                    out.append(Rule(names[fine[0]], "ratio", (names[k], names[i + j - fine[0]])))
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
