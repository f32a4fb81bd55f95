"""Rows to be filled of which a group is known in part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_core.joint import Model
from de_core.rng import stream
from de_plugins.tabular._encoded import Encoded
from de_plugins.tabular._parts import Part, draw_parts
from de_plugins.tabular._plain import from_plain, to_plain
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["close_groups", "complete_groups"]


def partly(coded: Encoded, name: str) -> Tensor:
    """Rows of which some cells of a group are known, and not all, (n,) bool."""
    known = coded.shares_known[name]
    return known.any(1) & ~known.all(1)


def complete_groups(
    codec: TableCodec,
    joint: JointProcess,
    model: Model,
    coded: Encoded,
    held: dict[str, Given],
    block: int,
    steps: int,
    seed: int,
) -> dict[str, Given]:
    """The known cells of rows with the groups that are known in part drawn given them, and then known too."""
    totals = {group.group.name: group.group.total for group in codec.groups}
    open_ = {name: partly(coded, name) for name in totals}
    rows = torch.stack(list(open_.values())).any(0).nonzero()[:, 0] if open_ else torch.zeros(0, dtype=torch.int64)
    if not len(rows):
        return held
    value = {name: held[name].value.clone() for name in totals}
    for k, some in enumerate(rows.split(block)):
        rng = stream(seed, "parts", k)
        x, t = {}, {}
        for name, modality in joint.modalities.items():
            known = held[name].known
            assert known is not None  # as `fill_table` made it
            known, noise = known[some], modality.prior(len(some), rng=rng)
            wide = known[:, None] if name in totals else known
            x[name], t[name] = torch.where(wide, held[name].value[some], noise), torch.where(known, 0.0, 1.0)
        parts = {
            name: Part((coded.shares[name][some] / total).float(), coded.shares_known[name][some], open_[name][some])
            for name, total in totals.items()
        }
        draw_parts(joint, model, x, t, parts, steps, rng)
        for name in totals:
            value[name][some] = torch.where(open_[name][some][:, None], x[name], value[name][some])
    done = {name: Given(value[name], known=coded.shares_present[name] | open_[name]) for name in totals}
    return held | done


def close_groups(codec: TableCodec, drawn: pd.DataFrame, table: pd.DataFrame, holes: pd.DataFrame) -> pd.DataFrame:
    """Drawn rows whose holes in a group sum to the total with the cells that are known, as exactly as floats do."""
    drawn = drawn.copy()
    for group in codec.groups:
        columns = list(group.group.columns)
        hole = holes[columns].to_numpy(dtype=bool)
        some = hole.any(1) & ~hole.all(1)
        if not some.any():
            continue
        cells = [to_plain(column_of(drawn, c), group.dtype, c)[0] for c in columns]
        x = np.stack(cells, 1).astype(np.float64)
        known = np.stack([to_plain(column_of(table, c), group.dtype, c)[0] for c in columns], 1).astype(np.float64)
        closed = group.scaled(x[some], ~hole[some], known[some])
        for i, name in enumerate(columns):
            gone = column_of(drawn, name).isna().to_numpy(dtype=bool)
            values = cells[i].copy()
            values[some] = np.rint(closed[:, i]) if group.dtype.plain == "int" else closed[:, i]
            drawn[name] = from_plain(values, gone & ~some, group.dtype)
    return drawn
