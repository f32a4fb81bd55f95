"""Rules that hold in training and are kept when cells are drawn (``_rules``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._numeric import EXACT
from de_plugins.tabular._plain import filled_in, from_plain, to_plain
from de_plugins.tabular._rules import FORMS, ORDER, Rule, holds
from de_plugins.tabular._telling import FEW, Telling
from de_plugins.tabular._variables import Classes, Number, slack_of, step_of
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["keep_rules", "with_tolerances"]

_LOOK = 50_000  # training rows that say in which rows a rule is kept


def keep_rules(codec: TableCodec, frame: pd.DataFrame, free: Mapping[Any, Any] | pd.DataFrame) -> pd.DataFrame:
    """A decoded table whose rows keep the rules of the schema that are in use.

    Cells that are not in order change places; the others take the value that the rule says, always or, where the rule
    holds in a part of the rows, if they were drawn near to it. A row stays as it is where a cell is missing, nothing is
    free, or the cell would leave what its column may hold.

    Args:
        free: column -> whether its cells may move, one bool or one a row.
    """
    rules = _usable(codec)
    if not rules:
        return frame
    cells = _Cells(codec, frame, rules, free)
    for rule in cells.turns(rules):
        cells.settle(rule)
    return cells.written(frame)


def with_tolerances(codec: TableCodec, train: pd.DataFrame, drawn: pd.DataFrame) -> TableCodec:
    """The codec whose rules of a part of the rows are kept by as many drawn rows as training had: in each class of the
    column that tells most of a rule, where one tells a tenth of what there is to know.

    Args:
        drawn: rows as the model draws them.
    """
    rules, found = _usable(codec), {}
    some = train.iloc[np.linspace(0, len(train) - 1, min(len(train), _LOOK)).astype(int)].reset_index(drop=True)
    known = _Cells(codec, some, rules, dict.fromkeys(train, False))
    cells = _Cells(codec, drawn, rules, dict.fromkeys(drawn, True))
    for rule in cells.turns(rules):
        if not rule.always:
            there, kept = known.there(rule), known.keeps(rule)
            by = known.telling.best(rule, there, kept)
            far = cells.distance(rule, *cells.said(rule), cells.keeps(rule))
            within = _limits(far, cells.telling.classes(by), known.telling.shares(rule, by, there, kept))
            found[rule] = attrs.evolve(rule, by=by, within=within)
        cells.settle(found.get(rule, rule))
    new = tuple(found.get(rule, rule) for rule in codec.schema.rules)
    return attrs.evolve(codec, schema=attrs.evolve(codec.schema, rules=new))


def _limits(far: np.ndarray, classes: np.ndarray, shares: np.ndarray) -> tuple[float, ...]:
    """The distance within which lies a share of the rows of each class, and of all rows where it has few; 0 where the
    column can hold what the rule says in none."""
    there = ~np.isnan(far)
    mean = float(shares[classes[there]].mean()) if there.any() else 0.0

    def limit(distances: np.ndarray, share: float) -> float:
        distances = np.sort(distances)
        place = min(int(np.ceil(share * len(distances))), int(np.isfinite(distances).sum())) - 1
        return float(distances[max(place, 0)]) if place >= 0 else 0.0

    whole = limit(far[there], mean)
    parts = [far[there & (classes == k)] for k in range(len(shares))]
    return tuple(limit(part, share) if len(part) >= FEW else whole for part, share in zip(parts, shares, strict=True))


def _usable(codec: TableCodec) -> list[Rule]:
    """The rules in use whose columns are modelled as numbers or classes of their own."""
    there = {v.column.name for v in codec.variables if isinstance(v, Classes | Number)}
    return [rule for rule in codec.schema.rules if rule.use and there.issuperset((rule.column, *rule.of))]


class _Cells:
    """The columns of some rules as plain values, which move."""

    def __init__(self, codec: TableCodec, frame: pd.DataFrame, rules: list[Rule], free: Any) -> None:
        names = {name for rule in rules for name in (rule.column, *rule.of)}
        self.variables = {
            v.column.name: v for v in codec.variables if isinstance(v, Classes | Number) and v.column.name in names
        }
        self.telling = Telling(codec, frame)
        self.rows, self.values, self.missing, self.free, self.moved = len(frame), {}, {}, {}, {}
        for name, variable in self.variables.items():
            dtype = variable.column.dtype
            self.values[name], self.missing[name] = to_plain(column_of(frame, name), dtype, name)
            self.free[name] = np.broadcast_to(np.asarray(free[name], dtype=bool), self.rows)

    def there(self, rule: Rule) -> np.ndarray:
        """Rows in which no cell of the rule is missing."""
        there = np.ones(self.rows, dtype=bool)
        for name in (rule.column, *rule.of):
            there &= ~self.missing[name]
        return there

    def onto(self, name: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values as the column can hold them, and where it can: on its grid, in its range, among its classes."""
        variable, dtype = self.variables[name], self.variables[name].column.dtype
        plain = self.values[name].dtype
        if plain.kind == "f":
            values = values.astype(np.float64)
        small = np.abs(values) < EXACT if values.dtype != plain else np.ones(len(values), dtype=bool)
        if isinstance(variable, Classes):
            known, slack = variable.values, slack_of(variable)
            place = np.clip(np.searchsorted(known, values), 1, max(1, len(known) - 1))
            nearer = np.abs(known[place - 1] - values) <= np.abs(known[np.minimum(place, len(known) - 1)] - values)
            found = known[np.where(nearer, place - 1, np.minimum(place, len(known) - 1))]
            return found.astype(plain), small & (np.abs(found - values) <= slack(found, values))
        spikes = np.isin(values, variable.spikes)
        index = variable.grid.to_index(np.where(small, values, 0).astype(values.dtype))
        reach = 0.5 if variable.grid.step else 1e-9 * np.abs(variable.ends).max()
        good = small & (index >= variable.ends[0] - reach) & (index <= variable.ends[1] + reach)
        index = np.where(good, np.clip(index, *variable.ends), variable.ends[0])
        snapped = variable.grid.from_index(index, dtype)
        return np.where(spikes, values, snapped).astype(plain), good | spikes

    def put(self, name: Any, values: np.ndarray, where: np.ndarray) -> None:
        """Write values into some rows."""
        if where.any():
            self.values[name] = np.where(where, values, self.values[name]).astype(self.values[name].dtype)
            self.moved[name] = self.moved.get(name, False) | where

    def floats(self, name: Any) -> np.ndarray:
        """A column as float64."""
        return self.values[name].astype(np.float64)

    def keeps(self, rule: Rule) -> np.ndarray:
        """Rows that keep a rule, of those in which no cell of it is missing."""
        sources = [self.floats(name) for name in rule.of]
        return self.there(rule) & holds(rule, self.floats(rule.column), sources, slack_of(self.variables[rule.column]))

    def said(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """What a rule says of its column, as that can hold it, and where it can."""
        with np.errstate(all="ignore"):
            value = rule.value(*(self.floats(name) for name in rule.of))
        finite = np.isfinite(value)
        values, good = self.onto(rule.column, np.where(finite, value, 0.0))
        return values, good & finite

    def distance(self, rule: Rule, values: np.ndarray, good: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """How far each row is from a rule, in normal scores, given ``said`` and ``keeps``; NaN where a cell is missing,
        infinite where the column cannot hold what the rule says."""
        variable, far = self.variables[rule.column], np.full(self.rows, np.inf)
        if isinstance(variable, Number):
            column = self.values[rule.column]
            here, there = (variable.map.forward(variable.grid.to_index(cells)) for cells in (column, values))
            far = np.where(good, np.abs(here - there), np.inf)
        return np.where(self.there(rule), np.where(kept, 0.0, far), np.nan)

    def limits(self, rule: Rule) -> np.ndarray:
        """How far from a rule each row may be, (n,)."""
        size = self.telling.size(rule.by)
        if len(rule.within or (0.0,)) != size:
            raise DiffuseError(
                f"schema, rule of '{rule.column}': expected within as {size} numbers, one a class of '{rule.by}', "
                f"got {len(rule.within)}"
            )
        return np.array(rule.within or (0.0,))[self.telling.classes(rule.by)]

    def settle(self, rule: Rule) -> None:
        """The column takes what the rule says, in rows so near to it; where it may not move, the last of the others
        that may takes what is left. Cells that keep a rule move no more."""
        (values, good), kept = self.said(rule), self.keeps(rule)
        near = self.there(rule) if rule.always else self.distance(rule, values, good, kept) <= self.limits(rule)
        here = near & ~kept & good & self.free[rule.column]
        self.put(rule.column, values, here)
        done = kept | here | self._solve(rule, near & ~kept & ~self.free[rule.column])
        copy = rule.form == "equal" and rule.always  # which comes last, and takes nothing from what it copies
        for name in (rule.column, *(() if copy else rule.of)):
            self.free[name] = self.free[name] & ~done

    def _solve(self, rule: Rule, left: np.ndarray) -> np.ndarray:
        """Of rows whose column stays as it is, those in which another one that may move took what is left, if the
        rule then holds."""
        done = np.zeros(self.rows, dtype=bool)
        for k, solved in reversed(list(enumerate(FORMS[rule.form].solved))):
            name = rule.of[k]
            able = left & ~done & self.free[name]
            if not able.any():
                continue
            with np.errstate(all="ignore"):
                rest = solved(self.floats(rule.column), *(self.floats(n) for i, n in enumerate(rule.of) if i != k))
            finite = np.isfinite(rest)
            values, good = self.onto(name, np.where(finite, rest, 0.0))
            before = self.values[name]
            self.values[name] = np.where(able & finite & good, values, before).astype(before.dtype)
            taken, self.values[name] = able & finite & good & self.keeps(rule), before
            self.put(name, values, taken)
            done |= taken
        return done

    def turns(self, rules: list[Rule]) -> Iterator[Rule]:
        """The rules that are no orders, each when it is its turn; orders are mended in between.

        Cells that are equal in a part of the rows are found as they were drawn: of two that were put in order first,
        the one would be too small and the other too great.
        """
        self.sort(rules, swap=False)
        for rule in rules:
            if rule.form == ORDER:
                continue
            if rule.form != "equal":
                self.sort(rules)
            yield rule
        self.sort(rules)

    def sort(self, rules: list[Rule], *, swap: bool = True) -> None:
        """Pairs that are not in order change places; where one may not move, the other takes its value."""
        orders = [rule for rule in rules if rule.form == ORDER]
        for _ in range(len(orders)):
            moved = [self._exchange(rule, swap=swap) for rule in orders]
            if not any(moved):
                return

    def _exchange(self, rule: Rule, *, swap: bool) -> bool:
        high, low = rule.column, rule.of[0]
        wrong = self.there(rule) & (self.values[high] < self.values[low])
        if not wrong.any():
            return False
        up, fits_up = self._beyond(high, self.values[low], 1)
        down, fits_down = self._beyond(low, self.values[high], -1)
        both = self.free[high] & self.free[low]
        swapped = wrong & both & fits_up & fits_down & swap
        raised, lowered = wrong & self.free[high] & ~both & fits_up, wrong & self.free[low] & ~both & fits_down
        self.put(high, up, swapped | raised)
        self.put(low, down, swapped | lowered)
        return bool((swapped | raised | lowered).any())

    def _beyond(self, name: Any, values: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
        """Values as the column can hold them, a step further where its grid is too coarse to be at them."""
        found, good = self.onto(name, values)
        short = found < values if sign > 0 else found > values
        variable = self.variables[name]
        if not short.any() or not isinstance(variable, Number):
            return found, good & ~short
        step = np.array(step_of(variable)).astype(values.dtype)
        more, fits = self.onto(name, values + step if sign > 0 else values - step)
        return np.where(short, more, found), np.where(short, fits, good)

    def written(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with what moved; the other cells are the very same."""
        for name, rows in self.moved.items():
            dtype = self.variables[name].column.dtype
            moved = from_plain(self.values[name], self.missing[name], dtype)
            frame[name] = filled_in(column_of(frame, name), moved, rows, dtype, name)
        return frame
