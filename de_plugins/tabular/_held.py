"""The conditions of ``sample`` as states that are held, and the cells that they fix."""

from __future__ import annotations

from functools import partial

import attrs
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_core.errors import DiffuseError
from de_core.joint import Model
from de_core.rng import seed_of, stream
from de_plugins.tabular._among import draw_among
from de_plugins.tabular._held_groups import AskedGroup, ask_groups, draw_ranges, hold_parts, place_groups
from de_plugins.tabular._plain import label, to_plain
from de_plugins.tabular._sets import Asked, ask
from de_plugins.tabular._shares import Share
from de_plugins.tabular._variables import Constant, Number
from de_plugins.tabular._wanted import Wanted
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["Held", "hold"]


@attrs.frozen(eq=False)
class Held:
    """The conditions of n rows.

    Args:
        states: name of the modality -> its known part; None where the table has no variables.
        wanted, asked: the single values, and the sets.
        drawn: (n, sets + 1) float64: the stretch that each set's number lies in, and a uniform draw.
        groups: what is asked of groups.
    """

    states: dict[str, Given] | None
    wanted: Wanted
    asked: list[Asked]
    drawn: np.ndarray
    groups: list[AskedGroup]

    def settle(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A decoded table with the very cells that were asked for."""
        for name, cell in self.wanted.values.items():
            if name not in self.wanted.levels:  # a rare value, or a number between two float32, is exact this way
                frame[name] = cell.repeat(len(frame)).reset_index(drop=True)
        for asked, stretch in zip(self.asked, self.drawn.T, strict=False):
            name = asked.variable.column.name
            frame[name] = asked.settle(column_of(frame, name), stretch.astype(np.int64), self.drawn[:, -1])
        for group in self.groups:
            if group.partly:
                group.settle(frame)
        return frame


def hold(
    codec: TableCodec, joint: JointProcess | None, model: Model | None, wanted: Wanted, n: int, steps: int, seed: int
) -> Held:
    """Code the single values, noise those that have a level, and draw the columns that have a set.

    Args:
        steps: network calls of a flow of a number whose set is a range.
        seed: row i depends on it and not on ``n``.

    Raises:
        DiffuseError: a condition of probability 0.
    """
    try:
        asked, groups = _check(codec, wanted), ask_groups(codec, wanted)
    except DiffuseError as error:
        raise DiffuseError(f"given: {str(error).replace(' in row 0', '')}") from None  # there is one row
    if joint is None or model is None:
        return Held(None, wanted, asked, np.zeros((n, 1)), groups)

    def block(rng: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor]]:
        x = {name: modality.prior(joint.block, rng=rng) for name, modality in joint.modalities.items()}
        t = {name: torch.ones(joint.block, *m.element_shape) for name, m in joint.modalities.items()}
        _place(codec, joint, wanted, x, t, rng)
        place_groups(joint, groups, x, t, rng)
        hold_parts(joint, model, groups, x, t, steps, rng)
        found = draw_among(joint, model, x, t, [a.among for a in asked], max(1, steps // 2), rng) if asked else []
        return x, t, found

    parts, drawn = [], []
    for k in range(-(-n // joint.block)):
        rng = stream(seed, "given", k)
        if any(group.sets for group in groups):
            own = seed_of(stream(seed, "given group", k))
            x, t, found = draw_ranges(codec, joint, model, groups, partial(block, rng), steps, own)
        else:
            x, t, found = block(rng)
        parts.append((x, t))
        drawn.append(torch.stack([*found, torch.rand(joint.block, generator=rng, dtype=torch.float64)], 1))
    states = {}
    for name in joint.modalities:
        value, level = (torch.cat([part[i][name] for part in parts])[:n] for i in (0, 1))
        states[name] = Given(value, level, known=level < 1)
    return Held(states, wanted, asked, torch.cat(drawn)[:n].numpy(), groups)


def _check(codec: TableCodec, wanted: Wanted) -> list[Asked]:
    """Refuse values that training did not have, and bring the sets into the model's terms."""
    asked, place, number = [], 0, 0
    for variable in codec.variables:
        name, known = variable.column.name, np.zeros(1, dtype=bool)
        values, cell = wanted.sets.get(name), wanted.values.get(name)
        if isinstance(variable, Share):
            continue
        if isinstance(variable, Constant):
            if cell is not None:
                variable.check(cell, known)
            inside = values is None or (values.holds(variable.value).any() if len(variable.value) else values.missing)
            if not inside:
                raise DiffuseError(f"column '{name}': no value of training lies in the set that is given")
            continue
        has_classes, is_number = variable.size > 1 or not isinstance(variable, Number), isinstance(variable, Number)
        if cell is not None:
            variable.encode(cell, known, None) if isinstance(variable, Number) else variable.encode(cell, known)
            if isinstance(variable, Number):
                _inside(variable, cell)
        if values is not None:
            asked.append(ask(variable, values, place if has_classes else -1, number if is_number else -1))
        place, number = place + has_classes, number + is_number
    return asked


def _inside(variable: Number, cell: pd.Series) -> None:
    """Refuse a number that is no spike and lies outside the training range."""
    dtype, name = variable.column.dtype, variable.column.name
    values, missing = to_plain(cell, dtype, name)
    if missing.any() or np.isin(values, variable.spikes).all():
        return
    index, ends = variable.grid.to_index(values), variable.ends
    if values.dtype.kind in "iu" and index[0] == 0:  # an index below the grid is cut to 0
        index = np.where(values < variable.grid.from_index(np.zeros(1), dtype), -1.0, index)
    if not ends[0] <= index[0] <= ends[1]:
        low, high = (label(v, dtype) for v in variable.grid.from_index(ends, dtype))
        raise DiffuseError(
            f"column '{name}': {label(values[0], dtype)} lies outside the training range, {low} to {high}"
        )


def _place(
    codec: TableCodec,
    joint: JointProcess,
    wanted: Wanted,
    x: dict[str, Tensor],
    t: dict[str, Tensor],
    rng: torch.Generator,
) -> None:
    """Write the single values into a block of states and clocks, at their levels.

    A number that is tied with others has a score drawn from their stretch in each row. At a level s a class is kept
    with probability 1 - s, as the absorbing chain keeps it.
    """
    place, number = 0, 0
    for variable in codec.variables:
        if isinstance(variable, Constant | Share):
            continue
        has_classes, is_number = variable.size > 1 or not isinstance(variable, Number), isinstance(variable, Number)
        cell, level = wanted.values.get(variable.column.name), wanted.levels.get(variable.column.name, 0.0)
        if cell is not None:
            classes = None
            if isinstance(variable, Number):
                column = cell.repeat(joint.block).reset_index(drop=True)
                classes, score = variable.encode(column, np.zeros(len(column), dtype=bool), rng)
                if classes[0] < variable.pieces:
                    _number(joint, x["numbers"], t["numbers"], number, torch.from_numpy(score).float(), level, rng)
            else:
                classes = variable.encode(cell, np.zeros(1, dtype=bool))
            if has_classes:
                kept = torch.rand(joint.block, generator=rng) >= level
                x["classes"][:, place] = torch.where(kept, int(classes[0]), x["classes"][:, place])
                t["classes"][:, place] = torch.where(kept, 0.0, 1.0)
        place, number = place + has_classes, number + is_number


def _number(
    joint: JointProcess, x: Tensor, t: Tensor, at: int, score: Tensor, level: float, rng: torch.Generator
) -> None:
    """Write one number's scores (rows,) into the states and clocks (rows, C), noised to a level."""
    clean, when = x.clone(), torch.zeros_like(t)
    clean[:, at], when[:, at] = score, level
    x[:, at] = joint.modalities["numbers"].perturb(clean, when, rng=rng).xt[:, at]
    t[:, at] = level
