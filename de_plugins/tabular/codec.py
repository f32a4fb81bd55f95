"""The codec of tables: a data frame as tensors of classes and normal numbers, and back to its dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.tabular._calibration import Calibration, with_ends
from de_plugins.tabular._encoded import Encoded, stack
from de_plugins.tabular._functions import Function
from de_plugins.tabular._lookups import Lookup
from de_plugins.tabular._numeric import QuantileMap
from de_plugins.tabular._plain import DType
from de_plugins.tabular._shares import Share, Shares, Variable
from de_plugins.tabular._variables import (
    Classes,
    Constant,
    Number,
    fit_variable,
    variable_from_state,
)
from de_plugins.tabular.schema import Schema, check_frame, column_of

__all__ = ["Encoded", "TableCodec"]

_RANGE = (
    10  # values of a number that is classes, from which on it has a range whose ends are to be drawn: a mark has none
)


@attrs.frozen(eq=False)
class TableCodec:
    """Learned from a training table; turns tables of the same columns into tensors and back.

    The discrete variables come in column order, the gate of a number at the place of its column, and after them the
    gates of groups. Decoding gives the same columns, order and dtypes; numbers lie on the grid of the training column
    and inside its range, and the rows of a group sum to its total.

    Args:
        schema: the kind of each column.
        variables: one a column.
        groups: one a group in use.
        lookups: one a function in use between columns that are modelled by themselves.
    """

    schema: Schema
    variables: tuple[Variable, ...]
    groups: tuple[Shares, ...] = ()
    lookups: tuple[Lookup, ...] = ()

    @classmethod
    def fit(cls, frame: pd.DataFrame, schema: Schema | None = None, target: str | int | None = None) -> TableCodec:
        """Learn from a table.

        Args:
            frame: at least one row.
            schema: as edited; inferred by default.
            target: passed to `Schema.infer`.

        Raises:
            DiffuseError: the table is empty or malformed, or does not fit the schema.
        """
        check_frame(frame)
        schema = Schema.infer(frame, target) if schema is None else schema
        _check_columns(frame, schema)
        groups = tuple(Shares.fit(group, schema[group.columns[0]].dtype, frame) for group in schema.groups_in_use)
        shared = {name: group for group in groups for name in group.group.columns}
        variables = tuple(
            shared[column.name].share(column)
            if column.name in shared
            else fit_variable(column, column_of(frame, column.name))
            for column in schema.columns
        )
        schema = attrs.evolve(schema, columns=tuple(variable.column for variable in variables))
        lookups = tuple(Lookup.fit(*one, frame) for one in _functions(schema, variables))
        return cls(schema, variables, groups, lookups)

    @property
    def _discrete(self) -> list[Classes | Number | Shares]:
        columns = [v for v in self.variables if isinstance(v, Classes) or (isinstance(v, Number) and v.size > 1)]
        return columns + [group for group in self.groups if group.size > 1]

    @property
    def _numbers(self) -> list[Number]:
        return [v for v in self.variables if isinstance(v, Number)]

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """Number of classes of each discrete variable, (D,)."""
        return tuple(v.size for v in self._discrete)

    @property
    def class_names(self) -> tuple[str | int, ...]:
        """The column that each discrete variable belongs to, (D,)."""
        return tuple(v.name if isinstance(v, Shares) else v.column.name for v in self._discrete)

    @property
    def class_missing(self) -> tuple[bool, ...]:
        """Whether the last class of each discrete variable stands for a missing cell, (D,)."""
        return tuple(v.missing if isinstance(v, Shares) else v.column.missing for v in self._discrete)

    @property
    def group_parts(self) -> dict[str, int]:
        """The number of parts of each group, by its name."""
        return {group.group.name: group.parts for group in self.groups}

    @property
    def group_gates(self) -> tuple[int, ...]:
        """For each group the discrete variable that is its gate, or -1, whose class 0 is a composition."""
        places = {id(v): d for d, v in enumerate(self._discrete)}
        return tuple(places.get(id(group), -1) for group in self.groups)

    @property
    def class_labels(self) -> tuple[list[str], ...]:
        """Readable names of the classes of each discrete variable, (D,)."""
        return tuple(v.labels() for v in self._discrete)

    @property
    def number_names(self) -> tuple[str | int, ...]:
        """The column that each number belongs to, (C,)."""
        return tuple(v.column.name for v in self._numbers)

    @property
    def num_numbers(self) -> int:
        """C."""
        return len(self._numbers)

    @property
    def gate_of(self) -> tuple[int, ...]:
        """For each number the discrete variable that is its gate, or -1, (C,)."""
        places = {id(v): d for d, v in enumerate(self._discrete)}
        return tuple(places.get(id(v), -1) for v in self._numbers)

    @property
    def gate_open(self) -> tuple[int, ...]:
        """For each number how many classes of its gate say that it is there, the first ones, (C,)."""
        return tuple(v.pieces for v in self._numbers)

    @property
    def spike_scores(self) -> Tensor | None:
        """For each number the score of the value that each class of its gate says, (C, largest gate) float64; NaN where
        the number is there, or missing, or there is no such class. None where no number has a spike."""
        numbers = self._numbers
        if not any(len(v.spikes) for v in numbers):
            return None
        out = torch.full((len(numbers), max(v.size for v in numbers)), torch.nan, dtype=torch.float64)
        for scores, v in zip(out, numbers, strict=True):
            told = torch.from_numpy(v.map.forward(v.grid.to_index(v.spikes)))
            scores[v.pieces : v.pieces + len(told)] = told
        return out

    def encode(
        self, frame: pd.DataFrame, holes: np.ndarray | pd.DataFrame | None = None, rng: Rng | None = None
    ) -> Encoded:
        """A table as tensors.

        Args:
            frame: the training columns, in any order.
            holes: (n, columns of the schema) bool, True where the cell is unknown whatever it holds; a frame
                by name.
            rng: when given, a number that is tied with many others is drawn from the stretch of the normal
                law that they own, so that the numbers are normal without lumps; else it is the middle of that
                stretch.

        Raises:
            DiffuseError: other columns, a value that does not fit its column, a category that training did
                not have, a missing cell where training had none (and that is no hole).
        """
        check_frame(frame)
        _check_columns(frame, self.schema)
        rows, names = len(frame), self.schema.names
        if isinstance(holes, pd.DataFrame):
            holes = holes.reindex(columns=names, fill_value=False).to_numpy(dtype=bool)
        holes = np.zeros((rows, len(names)), dtype=bool) if holes is None else np.asarray(holes, dtype=bool)
        if holes.shape != (rows, len(names)):
            raise DiffuseError(f"holes: expected shape {(rows, len(names))}, got {holes.shape}")
        generator = None if rng is None else as_generator(rng)
        classes, class_holes, numbers, number_holes, open_ = [], [], [], [], []
        for variable, unknown in zip(self.variables, holes.T, strict=True):
            series = column_of(frame, variable.column.name)
            if isinstance(variable, Share):
                continue
            if isinstance(variable, Constant):
                variable.check(series, unknown)
            elif isinstance(variable, Classes):
                classes.append(variable.encode(series, unknown))
                class_holes.append(unknown)
            else:
                gate, score = variable.encode(series, unknown, generator)
                numbers.append(score)
                number_holes.append(unknown)
                open_.append((gate < variable.pieces) & ~unknown)
                if variable.size > 1:
                    classes.append(gate)
                    class_holes.append(unknown)
        shares, shares_present, shares_known = {}, {}, {}
        for group in self.groups:
            name, unknown = group.group.name, holes[:, [names.index(column) for column in group.group.columns]]
            gate, values = group.encode(frame, unknown)
            shares[name] = torch.from_numpy(values)
            shares_present[name] = torch.from_numpy((gate == 0) & ~unknown.any(1))
            shares_known[name] = torch.from_numpy(~unknown)
            if group.size > 1:
                classes.append(gate)
                class_holes.append(unknown.all(1))
        return Encoded(
            stack(classes, rows, np.int64),
            stack(numbers, rows, np.float64),
            stack(open_, rows, np.bool_),
            ~stack(class_holes, rows, np.bool_),
            ~stack(number_holes, rows, np.bool_),
            shares,
            shares_present,
            shares_known,
        )

    def log_jacobian(self, frame: pd.DataFrame, coded: Encoded) -> Tensor:
        """log |dz/dx| of every number, and after them of every group, (n, C + G) float64; 0 where it is not there.

        log p(scores) plus the sum of a row is the log-density of its numbers, per step of a column's grid (whole
        numbers, cents, days: close to the probability of the value) or per unit where it has none. A value that owns a
        stretch of scores, as ties and the two ends do, counts with its probability: its score is drawn from a law q,
        and -log q(z) stands for the Jacobian it does not have, which bounds that probability from below in the mean.

        Args:
            frame: the training columns.
            coded: ``encode(frame, rng=...)``: the drawn scores are read.

        Raises:
            DiffuseError: ``coded`` was not drawn, or a column holds a value outside the training range, off its grid,
                or where the map is flat (between two neighbours that own all of the scores).
        """
        out = torch.zeros(coded.numbers.shape, dtype=torch.float64)
        for k, variable in enumerate(self._numbers):
            score, there = coded.numbers[:, k].double().numpy(), coded.present[:, k].numpy()
            out[:, k] = torch.from_numpy(variable.log_jacobian(column_of(frame, variable.column.name), score, there))
        more = [group.log_jacobian * coded.shares_present[group.group.name].double() for group in self.groups]
        return torch.cat([out, torch.stack(more, 1)], 1) if more else out

    def scaled(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The shares of each group among states of the process, (n, k) float64, in the table's unit."""
        return {
            name: torch.from_numpy(group.scaled(x[name].cpu().numpy()))
            for name, group in ((group.group.name, group) for group in self.groups)
        }

    def decode(
        self, classes: Tensor, numbers: Tensor, rng: Rng, shares: Mapping[str, Tensor] | None = None
    ) -> pd.DataFrame:
        """A table from tensors.

        Args:
            classes: (n, D) int64.
            numbers: (n, C) float; not read where the gate is shut.
            rng: for the values that share the class of rare ones.
            shares: name of a group -> (n, k) float64, in the table's unit, as `encode` and `Shares.scaled` give them.

        Raises:
            DiffuseError: wrong shape, a class out of range, a number that is not finite behind an open gate.
        """
        rows = len(classes)
        sizes, count = self.class_sizes, self.num_numbers
        if tuple(classes.shape) != (rows, len(sizes)) or tuple(numbers.shape) != (rows, count):
            got = f"{tuple(classes.shape)} and {tuple(numbers.shape)}"
            raise DiffuseError(f"decode: expected shapes (n, {len(sizes)}) and (n, {count}), got {got}")
        for name, k in self.group_parts.items():
            got = tuple(shares[name].shape) if shares and name in shares else "none"
            if got != (rows, k):
                raise DiffuseError(f"decode: expected shares of the group '{name}' of shape {(rows, k)}, got {got}")
        generator = as_generator(rng)
        c, z = classes.cpu().numpy(), numbers.cpu().numpy().astype(np.float64)
        for d, size in enumerate(sizes):
            if rows and (c[:, d].min() < 0 or c[:, d].max() >= size):
                raise DiffuseError(f"column '{self.class_names[d]}': expected classes 0 to {size - 1}, got another")
        out, d, k = {}, 0, 0
        for variable in self.variables:
            name = variable.column.name
            if isinstance(variable, Share):
                out[name] = None  # the place among the columns
            elif isinstance(variable, Constant):
                out[name] = variable.decode(rows)
            elif isinstance(variable, Classes):
                out[name] = variable.decode(c[:, d], generator)
                d += 1
            else:
                gated = variable.size > 1
                gate = c[:, d] if gated else np.zeros(rows, dtype=np.int64)
                score = np.where(gate < variable.pieces, z[:, k], 0.0)
                if not np.isfinite(score).all():
                    raise DiffuseError(f"column '{name}': expected finite numbers to decode, got NaN or infinity")
                out[name] = variable.decode(gate, score)
                d, k = d + gated, k + 1
        for group, place in zip(self.groups, self.group_gates, strict=True):
            gate = c[:, place] if place >= 0 else np.zeros(rows, dtype=np.int64)
            values = (shares or {})[group.group.name].cpu().numpy().astype(np.float64)
            if not np.isfinite(values[gate == 0]).all():
                raise DiffuseError(f"columns {group.name}: expected finite shares to decode, got NaN or infinity")
            out |= group.decode(gate, values)
        return pd.DataFrame(out)

    def with_ends(self, coded: Encoded, rng: Rng) -> Encoded:
        """A training table in which few rows moved to the ends of the range of numbers that are classes."""
        generator, classes = as_generator(rng), coded.classes.clone()
        least = min(QuantileMap.ENDS, QuantileMap.END_SHARE * len(coded))
        for d, variable in enumerate(self._discrete):
            if isinstance(variable, Classes) and variable.column.dtype.plain in ("int", "float", "ticks"):
                if len(variable.values) < _RANGE:
                    continue
                there = classes[:, d] < len(variable.values)
                classes[there, d] = with_ends(classes[there, d], len(variable.values), least, generator)
        return attrs.evolve(coded, classes=classes)

    def calibrated(self, classes: Tensor, numbers: Tensor) -> TableCodec:
        """The codec with the marginals of its numbers corrected on decoding.

        Args:
            classes, numbers: rows as a model draws them, (n, D) int64 and (n, C) float; see `Calibration`.
        """
        where, variables, k = self.gate_of, list(self.variables), 0
        for i, variable in enumerate(self.variables):
            if isinstance(variable, Number):
                z = numbers[:, k] if where[k] < 0 else numbers[classes[:, where[k]] == 0, k]
                shift = Calibration.fit(z.cpu().numpy(), variable.map.mean, variable.map.sd, variable.map.end_chances)
                variables[i] = attrs.evolve(variable, calibration=shift)
                k += 1
        return attrs.evolve(self, variables=tuple(variables))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything that is needed to rebuild the codec: JSON, and tensors by name."""
        config = {"schema": self.schema.to_dict(), "variables": [v.config() for v in self.variables]}
        if self.groups:
            config["groups"] = {group.group.name: group.config() for group in self.groups}
        if self.lookups:
            config["lookups"] = [one.config() for one in self.lookups]
        numbers = [(i, v) for i, v in enumerate(self.variables) if isinstance(v, Number)]
        knots = {f"knots.{i}": v.map.tensor() for i, v in numbers}
        knots |= {f"knots.{i}.{k}": m.tensor() for i, v in numbers for k, m in enumerate(v.clusters)}
        shifts = {f"calibration.{i}": v.calibration.tensor() for i, v in numbers if v.calibration is not None}
        return config, knots | shifts

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> TableCodec:
        """The inverse of `state`."""
        schema = Schema.from_dict(config["schema"])
        groups = tuple(
            Shares.from_config(group, schema[group.columns[0]].dtype, config["groups"][group.name])
            for group in schema.groups_in_use
        )
        shared = {name for group in groups for name in group.group.columns}
        variables = tuple(
            Share(column)
            if column.name in shared
            else variable_from_state(column, part, _knots(tensors, i), tensors.get(f"calibration.{i}"))
            for i, (column, part) in enumerate(zip(schema.columns, config["variables"], strict=True))
        )
        parts = config.get("lookups", [])
        lookups = tuple(
            Lookup.from_config(*one, part) for one, part in zip(_functions(schema, variables), parts, strict=True)
        )
        return cls(schema, variables, groups, lookups)


def _functions(schema: Schema, variables: tuple[Variable, ...]) -> list[tuple[Function, tuple[DType, DType], bool]]:
    """The functions in use between columns that are modelled by themselves, the dtypes of these, and whether the one
    that says the other is a continuous number."""
    there = {v.column.name: v for v in variables if isinstance(v, Classes | Number)}
    used = [one for one in schema.functions if one.use and one.column in there and one.of in there]
    return [
        (one, (there[one.column].column.dtype, there[one.of].column.dtype), isinstance(there[one.of], Number))
        for one in used
    ]


def _knots(tensors: dict[str, Tensor], i: int) -> list[Tensor]:
    """Of the maps of variable i: the first, then those of its clusters."""
    names, k = [f"knots.{i}"], 0
    while (name := f"knots.{i}.{k}") in tensors:
        names, k = [*names, name], k + 1
    return [tensors[name] for name in names if name in tensors]


def _check_columns(frame: pd.DataFrame, schema: Schema) -> None:
    names, got = schema.names, set(frame.columns)
    for name in names:
        if name not in got:
            raise DiffuseError(f"column '{name}' is missing from the table; it has {list(frame.columns)}")
    known = set(names)
    for name in frame.columns:
        if name not in known:
            raise DiffuseError(f"column '{name}' was not in training; expected {names}")
