"""How one column becomes variables of the model: a discrete one, a number behind a gate, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_plugins.tabular._calibration import Calibration
from de_plugins.tabular._clusters import inside
from de_plugins.tabular._numeric import Grid, QuantileMap
from de_plugins.tabular._plain import array_of, from_plain, label, to_plain
from de_plugins.tabular._rules import Slack, rounding
from de_plugins.tabular.schema import Column

__all__ = ["Classes", "Constant", "Number", "fit_variable", "variable_from_state"]


@attrs.frozen(eq=False)
class Constant:
    """A column with one value, or with none: nothing is modelled."""

    column: Column
    value: np.ndarray  # (1,) plain, or (0,) where every cell is missing

    @classmethod
    def fit(cls, column: Column, values: np.ndarray, missing: np.ndarray) -> Constant:
        """The one value of the column."""
        distinct = pd.unique(values[~missing])
        if len(distinct) > 1 or (len(distinct) == 1 and missing.any()):
            raise DiffuseError(
                f"column '{column.name}': expected one value, as its kind is 'constant', got {len(distinct)}"
            )
        return cls(column, np.asarray(distinct))

    def check(self, series: pd.Series, unknown: np.ndarray) -> None:
        """Refuse a cell that is known and another than the one value."""
        values, missing = to_plain(series.loc[~unknown], self.column.dtype, self.column.name)
        good = missing if len(self.value) == 0 else ~missing & (values == self.value[:1])
        if not np.all(good):
            was = label(self.value[0], self.column.dtype) if len(self.value) else "missing"
            raise DiffuseError(f"column '{self.column.name}': every cell was {was} in training, got another")

    def decode(self, rows: int) -> pd.Series:
        """`rows` copies."""
        if len(self.value) == 0:
            dtype = self.column.dtype
            filler = array_of([0] * rows, dtype) if dtype.plain not in ("text", "codes") else np.zeros(rows, dtype=int)
            return from_plain(filler, np.ones(rows, bool), dtype)
        return from_plain(np.repeat(self.value, rows), np.zeros(rows, bool), self.column.dtype)

    def config(self) -> dict[str, Any]:
        """JSON part of the state."""
        return {"value": self.value.tolist()}


@attrs.frozen(eq=False)
class Classes:
    """A discrete variable: the values in order, then one class for rare values and one for missing."""

    column: Column
    values: np.ndarray  # (m,) plain
    rare: np.ndarray  # (r,) plain, most frequent first
    rare_counts: np.ndarray  # (r,)
    _index: pd.Index = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_index", pd.Index(self.values))

    @classmethod
    def fit(cls, column: Column, values: np.ndarray, missing: np.ndarray) -> Classes:
        """Text by falling frequency, anything else in its own order."""
        if column.max_classes < 1:
            raise DiffuseError(f"column '{column.name}': expected max_classes of at least 1, got {column.max_classes}")
        codes, distinct = pd.factorize(values[~missing], sort=True)
        distinct, counts = np.asarray(distinct), np.bincount(codes, minlength=len(distinct))
        order = np.argsort(-counts, kind="stable")
        head, tail = order[: column.max_classes], order[column.max_classes :]
        if column.dtype.plain != "text":
            head = np.sort(head)
        return cls(column, distinct[head], distinct[tail], counts[tail])

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self.values) + bool(len(self.rare)) + self.column.missing

    def labels(self) -> list[str]:
        """Readable names of the classes."""
        out = [label(value, self.column.dtype) for value in self.values]
        return out + ["(rare)"] * bool(len(self.rare)) + ["(missing)"] * self.column.missing

    def encode(self, series: pd.Series, unknown: np.ndarray) -> np.ndarray:
        """Class of every cell (n,) int64, 0 where `unknown`."""
        column = self.column
        values, missing = to_plain(series, column.dtype, column.name)
        out = np.asarray(self._index.get_indexer(pd.Index(values)), dtype=np.int64)
        if len(self.rare):
            out[out < 0] = len(self.values)
        new = (out < 0) & ~missing & ~unknown
        if new.any():
            row = int(np.flatnonzero(new)[0])
            raise DiffuseError(f"column '{column.name}': '{series.iloc[row]}' in row {row} did not occur in training")
        _place_missing(column, out, missing, unknown, self.size - 1)
        return np.where(unknown, 0, out)

    def occurs(self, cell: pd.Series) -> bool:
        """Whether the one cell of a column of one row occurred in training: `encode` takes any other one for rare."""
        values, missing = to_plain(cell, self.column.dtype, self.column.name)
        return bool(missing[0] or (self.values == values[0]).any() or (self.rare == values[0]).any())

    def decode(self, classes: np.ndarray, rng: torch.Generator) -> pd.Series:
        """The column (n,) of classes (n,); a rare value is drawn by its frequency in training."""
        m = len(self.values)
        missing = np.full(len(classes), bool(self.column.missing)) & (classes == self.size - 1)
        values = self.values[np.minimum(classes, m - 1)]
        if len(self.rare):
            rare = (classes == m) & ~missing
            draw = torch.rand(
                len(classes), generator=rng, dtype=torch.float64
            ).numpy()  # one a row, whatever the classes
            cumulative = np.cumsum(self.rare_counts) / self.rare_counts.sum()
            picked = np.minimum(np.searchsorted(cumulative, draw[rare], side="right"), len(self.rare) - 1)
            values[rare] = self.rare[picked]
        return from_plain(values, missing, self.column.dtype)

    def config(self) -> dict[str, Any]:
        """JSON part of the state."""
        return {
            "values": self.values.tolist(),
            "rare": self.rare.tolist(),
            "rare_counts": self.rare_counts.tolist(),
        }


@attrs.frozen(eq=False)
class Number:
    """A continuous variable, behind a gate if values are spikes or missing, or lie in clusters.

    The classes of the gate in order: a number beside all clusters, one class a cluster, one a spike, missing. In the
    first 1 + clusters of them the number is there, and each of these has a map of its own.
    """

    column: Column
    spikes: np.ndarray  # (s,) plain, sorted
    grid: Grid
    map: QuantileMap
    clusters: tuple[QuantileMap, ...] = ()
    calibration: Calibration | None = None  # of the model's draws beside the clusters; what is given is coded without

    @classmethod
    def fit(cls, column: Column, values: np.ndarray, missing: np.ndarray) -> Number:
        """The maps are of the cells that are neither spikes nor missing."""
        dtype = column.dtype
        if dtype.plain not in ("int", "float", "ticks"):
            raise DiffuseError(f"column '{column.name}': dtype {dtype.name} cannot be a number")
        spikes = np.sort(array_of(column.spikes, dtype))
        free = values[~missing & ~np.isin(values, spikes)]
        if len(free) == 0:
            raise DiffuseError(f"column '{column.name}': no value is left beside its spikes; make its kind 'classes'")
        if column.resolution is None:
            column = attrs.evolve(column, resolution=Grid.infer(values[~missing], dtype).resolution(dtype))
        assert column.resolution is not None
        grid = Grid.of(column.resolution, free, dtype, column.name)
        piece, index = inside(free, column.clusters), grid.to_index(free)
        for k in range(len(column.clusters) + 1):
            if not (piece == k).any():
                where = f"in the cluster {list(column.clusters[k - 1])}" if k else "beside its clusters"
                raise DiffuseError(f"column '{column.name}': no value lies {where}; edit its clusters")
        maps = tuple(QuantileMap.fit(index[piece == k]) for k in range(len(column.clusters) + 1))
        return cls(column, spikes, grid, maps[0], maps[1:])

    @property
    def maps(self) -> tuple[QuantileMap, ...]:
        """Of each class of the gate in which the number is there."""
        return (self.map, *self.clusters)

    @property
    def pieces(self) -> int:
        """How many classes of the gate have the number there, the first ones."""
        return 1 + len(self.clusters)

    @property
    def ends(self) -> np.ndarray:
        """The least and the greatest index of training beside the spikes, (2,)."""
        found = np.stack([mapping.value[[0, -1]] for mapping in self.maps])
        return np.array([found[:, 0].min(), found[:, 1].max()])

    @property
    def size(self) -> int:
        """Number of classes of the gate; 1 where there is none."""
        return self.pieces + len(self.spikes) + self.column.missing

    def labels(self) -> list[str]:
        """Readable names of the gate's classes."""
        dtype = self.column.dtype
        clusters = [f"{label(low, dtype)} to {label(high, dtype)}" for low, high in self.column.clusters]
        spikes = [label(v, dtype) for v in self.spikes]
        return ["(number)", *clusters, *spikes] + ["(missing)"] * self.column.missing

    def encode(
        self, series: pd.Series, unknown: np.ndarray, rng: torch.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gate (n,) int64 and score (n,) float64; both 0 if `unknown`, the score if the number is not there."""
        column = self.column
        values, missing = to_plain(series, column.dtype, column.name)
        gate = inside(values, column.clusters)
        if len(self.spikes):
            place = np.minimum(np.searchsorted(self.spikes, values), len(self.spikes) - 1)
            gate = np.where(self.spikes[place] == values, place + self.pieces, gate)
        _place_missing(column, gate, missing, unknown, self.size - 1)
        gate = np.where(unknown, 0, gate)
        index = self.grid.to_index(values)
        score = self.map.forward(index, rng)
        for k, mapping in enumerate(self.clusters):
            score[gate == k + 1] = mapping.forward(index[gate == k + 1], rng)
        return gate, np.where(unknown | missing | (gate >= self.pieces), 0.0, score)

    def log_jacobian(self, series: pd.Series, score: np.ndarray, there: np.ndarray) -> np.ndarray:
        """log |d score/d value| (n,), per step of the grid, or per unit where there is none; 0 where the number is not
        ``there``."""
        name, dtype = self.column.name, self.column.dtype
        values, _ = to_plain(series, dtype, name)
        index, piece = self.grid.to_index(values), inside(values, self.column.clusters)
        out, undrawn = np.zeros(len(values)), False
        for k, mapping in enumerate(self.maps):
            here = there & (piece == k)
            undrawn |= mapping.undrawn(index[here], score[here])
            out[here] = mapping.log_jacobian(index[here], score[here], float(self.grid.step > 0))
        if undrawn:
            raise DiffuseError(f"column '{name}': expected scores that were drawn, from encode with rng=")
        back = self.grid.from_index(index, dtype)
        kept = np.isclose(back, values, rtol=1e-6, atol=0) if dtype.plain == "float" else back == values
        bad = ~np.isfinite(out) | (there & ~kept)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DiffuseError(
                f"column '{name}': the score of '{series.iloc[row]}' in row {row} has no Jacobian, expected a value on "
                "the training grid and in its range, where the map to scores is invertible"
            )
        return out

    def values_at(self, score: np.ndarray) -> np.ndarray:
        """The plain numbers (n,), beside all clusters, of scores (n,) that a model drew; never decreasing."""
        score = score if self.calibration is None else self.calibration(score)
        return self.grid.from_index(self.map.inverse(score), self.column.dtype)

    def decode(self, gate: np.ndarray, score: np.ndarray) -> pd.Series:
        """The column (n,) of gate classes (n,) and scores (n,)."""
        missing = np.full(len(gate), bool(self.column.missing)) & (gate == self.size - 1)
        values = self.values_at(score)
        for k, mapping in enumerate(self.clusters):
            here = gate == k + 1
            values[here] = self.grid.from_index(mapping.inverse(score[here]), self.column.dtype)
        if len(self.spikes):
            spike = self.spikes[np.clip(gate - self.pieces, 0, len(self.spikes) - 1)]
            values = np.where((gate >= self.pieces) & ~missing, spike, values)
        return from_plain(values, missing, self.column.dtype)

    def config(self) -> dict[str, Any]:
        """JSON part of the state."""
        out = {"grid": attrs.asdict(self.grid), "map": self.map.config()}
        return out | ({"clusters": [mapping.config() for mapping in self.clusters]} if self.clusters else {})


def _place_missing(column: Column, out: np.ndarray, missing: np.ndarray, unknown: np.ndarray, last: int) -> None:
    """Write the class `last` where a cell is missing; refuse one where training had none."""
    bad = missing & ~unknown
    if bad.any() and not column.missing:
        row = int(np.flatnonzero(bad)[0])
        raise DiffuseError(f"column '{column.name}': the cell in row {row} is missing, and none was in training")
    out[missing] = last


def step_of(variable: object) -> float:
    """The spacing of a number's grid in the column's own unit (ticks, of time); 0 where it has none."""
    return variable.grid.step / 10.0**variable.grid.decimals if isinstance(variable, Number) else 0.0


def slack_of(variable: Any) -> Slack:
    """How far a cell of the column may be from what a rule says."""
    spread = float(np.ptp(variable.ends)) if isinstance(variable, Number) else 0.0
    return Slack(step_of(variable), spread, rounding(variable.column.dtype))


def fit_variable(column: Column, series: pd.Series) -> Constant | Classes | Number:
    """Learn the values, the grid and the map of one column.

    Raises:
        DiffuseError: the column does not fit its schema.
    """
    values, missing = to_plain(series, column.dtype, column.name)
    if missing.any() and not column.missing:
        column = attrs.evolve(column, missing=True, dtype=column.dtype.nullable)
    if missing.all() and column.kind != "constant":
        raise DiffuseError(f"column '{column.name}': every cell is missing; make its kind 'constant'")
    return {"constant": Constant, "classes": Classes, "number": Number}[column.kind].fit(column, values, missing)


def variable_from_state(
    column: Column, config: dict[str, Any], knots: Sequence[Tensor], calibration: Tensor | None
) -> Constant | Classes | Number:
    """The inverse of a variable's `config`, of `QuantileMap.tensor` of its maps, and of `Calibration.tensor`."""
    if column.kind == "constant":
        return Constant(column, array_of(config["value"], column.dtype))
    if column.kind == "classes":
        values, rare = (array_of(config[key], column.dtype) for key in ("values", "rare"))
        return Classes(column, values, rare, np.asarray(config["rare_counts"], dtype=np.int64))
    states = [config["map"], *config.get("clusters", ())]
    if len(knots) != len(states):
        raise DiffuseError(f"column '{column.name}': expected {len(states)} saved maps, got {len(knots)}")
    maps = [QuantileMap.from_state(state, knot) for state, knot in zip(states, knots, strict=True)]
    moved = None if calibration is None else Calibration.from_tensor(calibration)
    spikes = np.sort(array_of(column.spikes, column.dtype))
    return Number(column, spikes, Grid(**config["grid"]), maps[0], tuple(maps[1:]), moved)
