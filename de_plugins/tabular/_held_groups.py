"""The conditions of ``sample`` on the columns of groups: whole rows, single parts, and sets of a part's values."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_core.errors import DiffuseError
from de_core.joint import Model
from de_core.rng import seed_of, stream
from de_plugins.tabular._drawing import draw_states
from de_plugins.tabular._parts import Part, draw_parts
from de_plugins.tabular._plain import to_plain
from de_plugins.tabular._shares import Shares
from de_plugins.tabular._wanted import ValueSet, Wanted
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["AskedGroup", "ask_groups", "draw_ranges", "hold_parts", "place_groups"]

State = dict[str, Tensor]
Block = tuple[State, State, list[Tensor]]

_ROUNDS = 16  # blocks that are drawn in search of rows whose parts lie in their sets
_FEWEST = 64  # of a block's rows, one in so many must be found


@attrs.frozen(eq=False)
class AskedGroup:
    """What is asked of one group; nothing where there are neither values nor sets.

    Args:
        group: its variable. place: of its gate among the classes, or -1.
        known: (k,) bool: which parts have a value. values: (k,) in the table's unit.
        gate: the class of the gate that the values have, if they have one.
        level: the noise level of the whole group.
        sets: of values, by column.
    """

    group: Shares
    place: int
    known: np.ndarray
    values: np.ndarray
    gate: int
    level: float
    sets: dict[str | int, ValueSet]

    @property
    def name(self) -> str:
        """Of the modality."""
        return self.group.group.name

    @property
    def whole(self) -> bool:
        """All parts have a value, or the row is a class of the gate."""
        return bool(self.known.all()) or self.gate > 0

    @property
    def partly(self) -> bool:
        """Some parts have a value, and not all."""
        return bool(self.known.any()) and not self.whole

    def settle(self, frame: pd.DataFrame) -> None:
        """Bring the other parts of a decoded table to what the values that were asked for leave of the total."""
        columns = list(self.group.group.columns)
        x = np.stack([to_plain(column_of(frame, c), self.group.dtype, c)[0].astype(np.float64) for c in columns], 1)
        y = self.group.scaled(x, np.tile(self.known, (len(x), 1)), np.tile(self.values, (len(x), 1)))
        for name, cells in self.group.decode(np.zeros(len(x), dtype=np.int64), y).items():
            frame[name] = cells


def ask_groups(codec: TableCodec, wanted: Wanted) -> list[AskedGroup]:
    """What is asked of each group of which something is.

    Raises:
        DiffuseError: a row that cannot be, levels that differ within a group, or a combination that is not drawn.
    """
    found = [_ask(group, place, wanted) for group, place in zip(codec.groups, codec.group_gates, strict=True)]
    asked = [one for one in found if one.known.any() or one.gate or one.sets]
    for one in asked:
        others = [name for name in wanted.sets if name not in one.sets]
        if one.partly and (others or one.sets):
            raise DiffuseError(
                f"columns {one.group.name}: expected all of them or none beside a set or range of values, as of column "
                f"'{(others or list(one.sets))[0]}', got a part"
            )
    return asked


def _ask(group: Shares, place: int, wanted: Wanted) -> AskedGroup:
    columns, dtype = group.group.columns, group.dtype
    plain = [to_plain(wanted.values[c], dtype, c) if c in wanted.values else None for c in columns]
    given = np.array([cell is not None for cell in plain])
    sets = {c: wanted.sets[c] for c in columns if c in wanted.sets}
    values = np.array([0.0 if cell is None else float(cell[0][0]) for cell in plain])
    if not given.any():
        return AskedGroup(group, place, given, values, 0, 0.0, sets)
    levels = {wanted.levels.get(c, 0.0) for c in columns}
    if len(levels) > 1 or (levels != {0.0} and not given.all()):
        raise DiffuseError(f"columns {group.name}: expected values of all of them at one level, as they share a clock")
    gone = np.array([cell is not None and bool(cell[1][0]) for cell in plain])
    if gone.any() and (gone != given).any():
        name = columns[int(np.flatnonzero(gone)[0])]
        raise DiffuseError(f"column '{name}': expected it missing only with all of {group.name}, got it alone")
    if gone.any() and sets:
        raise DiffuseError(f"columns {group.name}: expected no set or range beside a missing cell")
    row = pd.DataFrame({c: wanted.values[c] if c in wanted.values else pd.Series([0]) for c in columns})
    gate = int(group.encode(row, (~(given | gone.any()))[None])[0][0]) if not gone.any() else group.size - 1
    if gone.any() and not group.missing:
        raise DiffuseError(f"columns {group.name}: the cells are missing, and none were in training")
    return AskedGroup(group, place, given & (gate == 0), values, gate, levels.pop(), sets)


def place_groups(joint: JointProcess, asked: list[AskedGroup], x: State, t: State, rng: torch.Generator) -> None:
    """Write whole rows of groups, at their level, and the gates of all that are known, into a block."""
    for one in asked:
        if one.sets and not one.known.any():
            continue
        rows = len(t[one.name])
        if one.place >= 0:
            kept = torch.rand(rows, generator=rng) >= one.level
            x["classes"][:, one.place] = torch.where(kept, one.gate, x["classes"][:, one.place])
            t["classes"][:, one.place] = torch.where(kept, 0.0, 1.0)
        if one.whole and one.gate == 0:
            clean = torch.from_numpy(one.values / one.values.sum()).float().repeat(rows, 1)
            level = torch.full_like(t[one.name], one.level)
            x[one.name], t[one.name] = joint.modalities[one.name].perturb(clean, level, rng=rng).xt, level


def hold_parts(
    joint: JointProcess, model: Model, asked: list[AskedGroup], x: State, t: State, steps: int, rng: torch.Generator
) -> None:
    """Draw the groups of which a part is given, in place, all at once."""
    parts = {}
    for one in asked:
        if one.partly:
            rows = len(t[one.name])
            values = torch.from_numpy(one.values / one.group.group.total).float().repeat(rows, 1)
            known = torch.from_numpy(one.known).repeat(rows, 1)
            parts[one.name] = Part(values, known, torch.ones(rows, dtype=torch.bool))
    if parts:
        draw_parts(joint, model, x, t, parts, steps, rng)


def draw_ranges(
    codec: TableCodec,
    joint: JointProcess,
    model: Model,
    asked: list[AskedGroup],
    block: Callable[[], Block],
    steps: int,
    seed: int,
) -> Block:
    """A block in which the groups that have sets are held at rows of the model that lie in them.

    Whole rows of the model are drawn given all else, and those in the sets are kept, until there are as many as a block
    has; where that takes too long, they repeat.

    Args:
        block: draws a block of all other conditions. seed: of the rows.

    Raises:
        DiffuseError: so few rows lie in the sets that they would be copies.
    """
    kept: list[Block] = []
    count, ranged = 0, [one for one in asked if one.sets]
    for k in range(_ROUNDS):
        x, t, found = block()
        held = {name: Given(x[name], t[name], known=t[name] < 1) for name in x}
        drawn = draw_states(joint, model, joint.block, held, steps, seed_of(stream(seed, k)))
        good = np.ones(joint.block, dtype=bool)
        for one in ranged:
            good &= _inside(codec, one, drawn)
            if one.place >= 0:
                x["classes"][:, one.place], t["classes"][:, one.place] = drawn["classes"][:, one.place], 0.0
            x[one.name], t[one.name] = drawn[one.name], torch.zeros_like(t[one.name])
            if one.place >= 0:
                t[one.name] = torch.where(drawn["classes"][:, one.place] == 0, 0.0, 1.0)
        rows = torch.from_numpy(good.nonzero()[0])
        kept.append(
            ({n: v[rows] for n, v in x.items()}, {n: v[rows] for n, v in t.items()}, [part[rows] for part in found])
        )
        count += len(rows)
        if count >= joint.block:
            break
    if count * _FEWEST < joint.block:
        names = ", ".join(f"'{name}'" for one in ranged for name in one.sets)
        raise DiffuseError(
            f"columns {names}: expected a set that holds at least {max(1, joint.block // _FEWEST)} of "
            f"{_ROUNDS * joint.block:,} rows of the model, got {count}"
        )
    index = torch.arange(joint.block) % count
    states = {name: torch.cat([part[0][name] for part in kept])[index] for name in joint.modalities}
    clocks = {name: torch.cat([part[1][name] for part in kept])[index] for name in joint.modalities}
    sets = [torch.cat([part[2][j] for part in kept])[index] for j in range(len(kept[0][2]))]
    return states, clocks, sets


def _inside(codec: TableCodec, one: AskedGroup, drawn: State) -> np.ndarray:
    """Which rows, decoded, lie in the sets of one group, (n,) bool."""
    gate = drawn["classes"][:, one.place] if one.place >= 0 else torch.zeros(len(drawn[one.name]), dtype=torch.int64)
    cells = one.group.decode(gate.numpy(), codec.scaled(drawn)[one.name].numpy())
    good = np.ones(len(gate), dtype=bool)
    for name, values in one.sets.items():
        plain, missing = to_plain(cells[name], one.group.dtype, name)
        good &= np.where(missing, values.missing, values.holds(plain))
    return good
