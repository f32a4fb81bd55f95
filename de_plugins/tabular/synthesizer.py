"""``TableSynthesizer``: learn a table, draw new rows, fill holes, bound likelihoods; save and load."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import pandas as pd
from torch import nn

from de_core import DiffuseError, Given, JointProcess, NoisyGuidance
from de_core.joint import Model
from de_core.plugins import get_component
from de_core.rng import Rng, seed_of, stream
from de_plugins.tabular._conditions import fill_table
from de_plugins.tabular._drawing import STEPS, draw_states
from de_plugins.tabular._fitting import corrected, learn
from de_plugins.tabular._frames import as_pandas, same
from de_plugins.tabular._held import hold
from de_plugins.tabular._keeping import keep_rules
from de_plugins.tabular._lookups import keep_functions
from de_plugins.tabular._saving import load_table, save_table
from de_plugins.tabular._sums import close_sums
from de_plugins.tabular._wanted import read_given
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.process import absent_nats, draw_path, rows_of
from de_plugins.tabular.schema import Schema

__all__ = ["TableSynthesizer"]


class TableSynthesizer:
    """Learns the joint law of a table's columns and draws from any of its conditionals.

    Classes run under the absorbing chain, numbers under a gaussian diffusion, every column with its own clock, so
    that any set of columns can be given; a group of columns that sum to one is a single variable on the simplex, under
    the Wright-Fisher diffusion. After training, the marginals of the numbers are corrected once on the model's
    own draws (`Calibration`), in a table of at least 1,000 rows. Parameters are kept as they come, as scikit-learn's
    estimators do.

    Args:
        preset: "nano" (at most 64,000 parameters, all counted), "small" (300,000) or "base" (2,000,000).
        minutes: of training; coding the table comes on top, and drawing the rows that marginals are corrected by, which
            takes some seconds of a small network and minutes of a large one.
        seed: of training, and of drawing where no ``rng`` is passed.
        max_steps: an end of training in steps beside the one in minutes; a run that it ends can be repeated exactly.
        batch_size: rows a step.
        lr: peak learning rate; None is the preset's.
        backbone: name of an installed backbone; "table-dit" is the authors' transformer, whose preset "paper" has their
            width.
        objective: "simple", "elbo", or "paper-tabular": the authors' losses, schedule, one clock for all columns, and
            settings of AdamW. Conditions are then as good as a model can be that never saw a column given. Columns are
            coded, drawn and corrected as ever: theirs are standardised, and drawn in a thousand leaps.
        coding: name of an installed codec of tables.
        patience: in a table of fewer cells than the network has parameters, which can be learnt by heart, a tenth of
            the rows, at most 500, is held out, a bound on their likelihood is taken at every twentieth of the budget,
            the best weights are kept, and training ends after so many bounds in a row that are no better. None, a
            larger table, or less than 100 rows: all rows to the end.
        progress: a line on stderr while training, where that is a terminal.

    Attributes:
        schema, codec: how the columns are coded, after ``fit``.
        joint, model: the process and the trained network; None where every column is constant.
        steps, seconds, interrupted, curve: of the training; a record of ``curve`` is as ``Trainer`` writes it.
    """

    codec: TableCodec
    joint: JointProcess | None
    model: nn.Module | None

    def __init__(
        self,
        preset: str = "nano",
        minutes: float = 10.0,
        seed: int = 0,
        *,
        max_steps: int | None = None,
        batch_size: int = 1024,
        lr: float | None = None,
        backbone: str = "table-mlp",
        objective: str = "simple",
        coding: str = "table",
        patience: int | None = 10,
        progress: bool = True,
    ) -> None:
        self.preset, self.minutes, self.seed = preset, minutes, seed
        self.max_steps, self.batch_size, self.lr = max_steps, batch_size, lr
        self.backbone, self.objective, self.coding = backbone, objective, coding
        self.patience, self.progress = patience, progress

    def __repr__(self) -> str:
        return f"TableSynthesizer({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` is scikit-learn's and changes nothing here."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> TableSynthesizer:
        """Change arguments of the constructor.

        Raises:
            DiffuseError: there is no such argument.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise DiffuseError(f"there is no parameter '{name}'; expected one of {', '.join(known)}")
            setattr(self, name, value)
        return self

    @property
    def schema(self) -> Schema:
        """What each column is taken for, and why."""
        return self._fitted().schema

    @property
    def parameters(self) -> int:
        """Parameters of the network, all counted."""
        return 0 if self.model is None else sum(p.numel() for p in self.model.parameters())

    @property
    def tied(self) -> bool:
        """Whether all columns have one clock, as under "paper-tabular"."""
        return self.objective == "paper-tabular"

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(self, train: Any, target: str | int | None = None, schema: Schema | None = None) -> TableSynthesizer:
        """Learn a table; Ctrl-C while training keeps what there is (and sets ``interrupted``).

        Args:
            train: a frame of pandas, polars or pyarrow with at least one row.
            target: noted in the schema, for ``evaluate``; every column is modelled.
            schema: as edited; inferred by default.

        Raises:
            DiffuseError: the table is empty, malformed, or too wide for the preset.
        """
        self._check()
        frame, back = as_pandas(train)
        if schema is not None and target is not None:
            schema = attrs.evolve(schema, target=schema[target].name)
        network = get_component("backbone", self.backbone)
        schema = self._schema(frame, schema, target, network)
        codec: TableCodec = get_component("codec", self.coding).fit(frame, schema)
        coded = codec.with_ends(codec.encode(frame, rng=stream(self.seed, "encode")), rng=stream(self.seed, "ends"))
        joint, model, ran = None, None, (0, 0.0, False, [])
        if codec.class_sizes or codec.num_numbers or codec.group_parts:
            joint, result = learn(self, network, codec, coded)
            model, ran = result.model, (result.steps, result.seconds, result.interrupted, result.curve)
        self.codec, self.joint, self.model, self._back = codec, joint, model, back
        self.steps, self.seconds, self.interrupted, self.curve = ran
        if joint is not None and model is not None:
            try:
                self.codec = corrected(self, codec, coded, frame, joint, model)
            except KeyboardInterrupt:  # rows are then drawn without
                self.interrupted = True
        return self

    def _check(self) -> None:
        """Refuse settings out of range; the budget and the presets are the trainer's and the network's to check."""
        _count("batch_size", self.batch_size)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer):
            raise DiffuseError(f"seed: expected a whole number, got {self.seed!r}")
        for name in ("lr", "minutes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | np.number)):
                raise DiffuseError(f"{name}: expected a number, got {value!r}")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise DiffuseError(f"lr: expected a number above 0, at most 1, got {self.lr}")

    def _schema(self, frame: pd.DataFrame, schema: Schema | None, target: str | int | None, network: Any) -> Schema:
        """The schema as given, or inferred: then without groups where they cannot be read.

        Raises:
            DiffuseError: a group is in use, and the backbone or the objective takes none.
        """
        reason = ""
        if not getattr(network, "takes_groups", False):
            reason = f"backbone '{self.backbone}' takes no groups"
        elif self.tied:
            reason = "objective 'paper-tabular' has no simplex"
        if schema is None:
            found = Schema.infer(frame, target)
            return found.without_groups(f"kept apart, as {reason}") if reason else found
        if reason and schema.groups_in_use:
            raise DiffuseError(f"schema, group '{schema.groups_in_use[0].name}': expected use = false, as {reason}")
        return schema

    def _fitted(self) -> TableCodec:
        if not hasattr(self, "codec"):
            raise DiffuseError("this synthesizer is not fitted; call fit first, or load one")
        return self.codec

    # --- drawing ------------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        given: Mapping[str | int, Any] | None = None,
        guidance: NoisyGuidance | None = None,
        steps: int = STEPS,
        *,
        rng: Rng | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """New rows: the training table's columns, order, dtypes, and kind of frame.

        Args:
            n: rows; row i depends on ``rng``, not on ``n``.
            given: column -> what all rows have there; the other columns are drawn given it, without rejection. A
                value; a range (low, high), both ends in it, None an open one; a set or list of values and ranges; or
                ``Given(value, level)``, the value noised to a level in [0, 1] and drawn with the rest. Exact under the
                model for values and one set; several sets by resampling (``_among``).
            guidance: towards the given columns.
            steps: network calls a row, at most.
            rng: ``seed`` by default.
            progress: called with (rows done, rows).

        Raises:
            DiffuseError: n or steps below 1; an unknown column; a value that training did not have; guidance with
                nothing given.
        """
        codec, seed = self._fitted(), seed_of(self.seed if rng is None else rng)
        if guidance is not None and not isinstance(guidance, NoisyGuidance):
            raise DiffuseError(f"guidance: expected NoisyGuidance(weight, sigma=...), got {guidance!r}")
        _count("rows", n)
        _count("steps", steps)
        n, wanted = int(n), read_given(codec, {} if given is None else given)
        if guidance is not None and not wanted:
            raise DiffuseError("guidance: nothing to guide by, no column is given")
        held = hold(codec, self.joint, self.model, wanted, n, steps, seed) if wanted else None
        frame = self._draw(self.model, n, None if held is None else held.states, steps, seed, progress, guidance)
        frame = frame if held is None else held.settle(frame)
        free = {name: name not in wanted for name in frame}
        return self._back(close_sums(codec, keep_functions(codec.lookups, keep_rules(codec, frame, free), free), free))

    def impute(self, frame: Any, draws: int = 1, steps: int = STEPS, *, rng: Rng | None = None) -> Any:
        """A table whose missing cells are filled with draws given the row's other cells, which stay as they are.

        Every missing cell is a hole, and is filled with a value even where training had missing cells of its own.

        Args:
            frame: the training columns, in any order.
            draws: independent fillings.
            steps: network calls a row, at most.
            rng: ``seed`` by default.

        Returns:
            One frame; a list of ``draws`` frames where there are more.

        Raises:
            DiffuseError: other columns, or a known cell that training could not have held.
        """
        codec, seed = self._fitted(), seed_of(self.seed if rng is None else rng)
        _count("draws", draws)
        table, back = as_pandas(frame)

        def draw(model: Model | None, n: int, held: dict[str, Given], seed: int) -> pd.DataFrame:
            return self._draw(model, n, held, steps, seed, None)

        out = [back(filled) for filled in fill_table(codec, self.joint, self.model, draw, table, draws, steps, seed)]
        return out[0] if draws == 1 else out

    def _draw(
        self,
        model: Model | None,
        n: int,
        held: dict[str, Given] | None,
        steps: int,
        seed: int,
        progress: Callable[[int, int], None] | None,
        guidance: NoisyGuidance | None = None,
    ) -> pd.DataFrame:
        x = draw_states(self.joint, model, n, held, steps, seed, progress, guidance, self.tied)
        return self.codec.decode(x["classes"], x["numbers"], stream(seed, "decode"), self.codec.scaled(x))

    # --- likelihood ---------------------------------------------------------------------------------------------------

    def bound(self, frame: Any, draws: int = 16, *, table_units: bool = False, rng: Rng | None = None) -> np.ndarray:
        """An upper bound on -log p(row), (n,) float64, nats.

        Of the probability of the row's classes (rare values share one) times the density of its normal scores, in
        mean 0 and variance 1: the scores of another codec have another density, and two such numbers do not compare.
        With ``table_units`` it is of the numbers themselves: of the density per step of a column's grid, or per unit
        where it has none, and at tied values and the two ends of their probability (``TableCodec.log_jacobian``).

        Args:
            frame: the training columns; a missing cell is a value here.
            draws: points of the path a row, an even number.
            table_units: whether the codec's Jacobian is in it.
            rng: ``seed`` by default.

        Raises:
            DiffuseError: other columns, or a cell that training could not have held; under ``table_units`` a number
                outside the training range, off its grid, or where the map to scores is not invertible.
        """
        codec, seed = self._fitted(), seed_of(self.seed if rng is None else rng)
        table = as_pandas(frame)[0]
        coded = codec.encode(table, rng=stream(seed, "encode"))
        if self.joint is None or self.model is None:
            return np.zeros(len(coded))
        jacobian = codec.log_jacobian(table, coded).sum(1) if table_units else 0.0
        rows = rows_of(coded, stream(seed, "absent"))
        path = draw_path(self.joint.modalities, self.tied)
        total = self.joint.bound(self.model, rows, rng=seed, draws=draws, path=path).total
        return (total - absent_nats(rows, coded) - jacobian).numpy()

    # --- saving -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a directory artifact: schema, codec, process, network settings and weights, training curve.

        Raises:
            DiffuseError: not fitted, or the directory holds other things.
        """
        self._fitted()
        save_table(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TableSynthesizer:
        """Read what ``save`` wrote. Frames come back as pandas. Nothing in the directory is run.

        Raises:
            DiffuseError: there is no such artifact, it is of another kind, or it is damaged.
        """
        self = load_table(cls, path)
        self._back = same
        return self


def _count(what: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise DiffuseError(f"{what}: expected a whole number of at least 1, got {number!r}")
