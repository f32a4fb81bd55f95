"""Columns of classes that tell in which rows a rule of a part of the rows is kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from de_core.errors import DiffuseError
from de_plugins.tabular._rules import Rule
from de_plugins.tabular._variables import Classes
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.schema import column_of

__all__ = ["FEW", "Telling"]

FEW = 20  # rows of a class, drawn or in training: fewer do not say how many of them keep a rule
_TELLS = 0.1  # of the entropy of whether a row keeps a rule: a column of classes that tells as much is asked


class Telling:
    """The columns of classes of n rows, by name; None is one class of all of them."""

    def __init__(self, codec: TableCodec, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.variables = {v.column.name: v for v in codec.variables if isinstance(v, Classes)}
        self._classes: dict[Any, np.ndarray] = {None: np.zeros(len(frame), dtype=np.int64)}

    def _asked(self, by: Any) -> Classes:
        if by not in self.variables:
            raise DiffuseError(f"schema, rule by '{by}': expected a column of classes")
        return self.variables[by]

    def size(self, by: Any) -> int:
        """How many classes a column has."""
        return 1 if by is None else self._asked(by).size

    def classes(self, by: Any) -> np.ndarray:
        """The class of each row, as it came, (n,) int64."""
        if by not in self._classes:
            variable, series = self._asked(by), column_of(self.frame, by)
            self._classes[by] = variable.encode(series, series.isna().to_numpy() & (not variable.column.missing))
        return self._classes[by]

    def best(self, rule: Rule, there: np.ndarray, kept: np.ndarray) -> Any:
        """The column with the most mutual information with whether a row keeps a rule; None where none has a `_TELLS`
        part of its entropy. The error of its estimate, (classes - 1)/2n nats (Miller 1955), is taken off.

        Args:
            there, kept: (n,) bool, rows in which no cell of the rule is missing, and that keep it.
        """
        kept, share = kept[there], rule.share
        if not len(kept):
            return None
        best, most = None, -_TELLS * (share * math.log(share) + (1 - share) * math.log1p(-share))
        for name, variable in self.variables.items():
            if name in (rule.column, *rule.of):
                continue
            classes = self.classes(name)[there]
            joint = np.stack([np.bincount(classes[kept == k], minlength=variable.size) for k in (False, True)])
            p = joint / joint.sum()
            with np.errstate(divide="ignore", invalid="ignore"):
                told = np.nansum(p * np.log(p / (p.sum(0) * p.sum(1, keepdims=True))))
            told -= ((joint.sum(0) > 0).sum() - 1) / (2 * len(kept))
            if told >= most:
                best, most = name, float(told)
        return best

    def shares(self, rule: Rule, by: Any, there: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """The share of the rows of each class that keep a rule, drawn to that of all rows where there are few,
        (classes,)."""
        every, keep = (np.bincount(self.classes(by)[rows], minlength=self.size(by)) for rows in (there, kept))
        return (keep + FEW / 4 * rule.share) / (every + FEW / 4)
