"""Holes of a table: the known cells as conditions, and what is put into the holes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_core.rng import seed_of, stream
from de_plugins.tabular._encoded import Encoded, joined, take
from de_plugins.tabular._group_holes import close_groups, complete_groups
from de_plugins.tabular._keeping import keep_rules
from de_plugins.tabular._lookups import keep_functions
from de_plugins.tabular._plain import filled_in
from de_plugins.tabular._sums import close_sums
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.process import BLOCK, rows_of
from de_plugins.tabular.schema import check_frame, column_of

__all__ = ["fill_table"]


class _NeverMissing:
    """A model that gives the classes that stand for a missing cell no mass, so that a filled cell has a value."""

    def __init__(self, model: Callable[..., dict[str, Tensor]], codec: TableCodec) -> None:
        self.model = model
        ends = np.cumsum(codec.class_sizes, dtype=int)
        banned = [end - 1 for end, has in zip(ends, codec.class_missing, strict=True) if has]
        self.banned = torch.tensor(banned, dtype=torch.int64)

    def __call__(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        out = dict(self.model(x, t))
        if "classes" in out and len(self.banned):
            # finite, so that the check for NaN and infinity still says something
            out["classes"] = out["classes"].index_fill(1, self.banned, -1e9)
        return out


def _known_cells(coded: Encoded, rng: torch.Generator) -> dict[str, Given]:
    """The known cells as conditions. A number behind a shut or unknown gate is none: it is drawn and not read."""
    rows = rows_of(coded, rng)
    known = {"classes": coded.classes_known, "numbers": coded.numbers_known & coded.present, **coded.shares_present}
    return {name: Given(rows[name], known=known[name]) for name in rows}


Draw = Callable[[Callable[..., dict[str, Tensor]] | None, int, dict[str, Given], int], pd.DataFrame]


def fill_table(
    codec: TableCodec,
    joint: JointProcess | None,
    model: Any,
    draw: Draw,
    table: pd.DataFrame,
    draws: int,
    steps: int,
    seed: int,
) -> list:
    """The fillings of a table.

    Args:
        joint: of the codec's variables; None where there are none.
        model: of the codec's variables; None where there are none.
        draw: (model, rows, known cells, seed) -> decoded rows.
        table: with holes.
        steps: network calls for a group that is known in part.
    """
    check_frame(table)
    plain = table.reset_index(drop=True)
    holes = plain.reindex(columns=codec.schema.names).isna()
    some = holes.to_numpy(dtype=bool).any(1)
    rows, place = torch.from_numpy(some.nonzero()[0]), np.maximum(some.cumsum() - 1, 0)
    model = None if model is None else _NeverMissing(model, codec)
    coded = codec.encode(plain, holes=holes.to_numpy(), rng=stream(seed, "encode"))
    if not len(rows):
        return [table.copy() for _ in range(draws)]
    together, out = max(1, BLOCK // len(rows)), []  # a block costs the same however few of its rows are asked for
    for first in range(0, draws, together):
        parts, pieces, count = [], [], min(together, draws - first)
        for k in range(first, first + count):
            again = coded if k == 0 else codec.encode(plain, holes=holes.to_numpy(), rng=stream(seed, "encode", k))
            pieces.append(take(again, rows))
            parts.append(_known_cells(pieces[-1], stream(seed, "absent", k)))
        held = {
            name: Given(torch.cat([p[name].value for p in parts]), known=torch.cat([p[name].known for p in parts]))
            for name in parts[0]
        }
        if codec.groups and joint is not None and model is not None:
            seed_parts = seed_of(stream(seed, "groups", first))
            held = complete_groups(codec, joint, model, joined(pieces), held, BLOCK, steps, seed_parts)
        drawn = draw(model, count * len(rows), held, seed_of(stream(seed, "draw", first)))
        for k in range(count):
            mine = drawn.iloc[k * len(rows) + place].reset_index(drop=True)  # a row without holes reads none of it
            mine = close_groups(codec, mine, plain, holes) if codec.groups else mine
            filled = {
                c: filled_in(column_of(plain, c), column_of(mine, c), holes[c].to_numpy(), codec.schema[c].dtype, c)
                for c in plain.columns
            }
            kept = keep_functions(codec.lookups, keep_rules(codec, pd.DataFrame(filled), holes), holes)
            out.append(close_sums(codec, kept, holes).set_axis(table.index))
    return out
