"""The six data sets in the roles and splits of the published comparisons, from the folder that DIFFUSE_DATA names.

TabSyn's convention (Zhang et al. 2024, 2310.09656), which TabDiff and Diffuse Everything reuse: Adult keeps its
official split, the others are cut 90/10 by numpy's seed 1234; categories are read as text, "?" and all.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import attrs
import numpy as np
import pandas as pd
import torch

__all__ = ["AIMED", "PUBLISHED", "SETS", "WANTED", "DataSet", "chosen", "load", "training"]


@attrs.frozen
class DataSet:
    """Roles of a data set.

    Args:
        target: the column that the utility score predicts.
        regression: whether it is a number; it is scored as log(clip(y, 1, 20000)).
        categories: columns that are read as text, beside those that are text.
        dropped: columns left out.
    """

    target: str
    regression: bool = False
    categories: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


SETS = {
    "adult": DataSet("income"),
    "default": DataSet(
        "default payment next month",
        categories=("SEX", "EDUCATION", "MARRIAGE", "PAY_0", *(f"PAY_{k}" for k in range(2, 7))),
        dropped=("ID",),
    ),
    "shoppers": DataSet("Revenue", categories=("OperatingSystems", "Browser", "Region", "TrafficType")),
    "magic": DataSet("class"),
    "beijing": DataSet("pm2.5", True, ("year", "month", "day", "hour"), ("No",)),
    "news": DataSet("shares", True),
}

_ORDER = tuple(SETS)


def _row(*values: str) -> dict[str, str]:
    return dict(zip(_ORDER, values, strict=True))


PUBLISHED = {
    "trend": {
        "TabDDPM, 11.7M": _row("96.99", "95.11", "93.39", "98.30", "97.20", "86.84"),
        "TabSyn, 10.7M": _row("98.46", "97.95", "97.93", "98.94", "97.76", "98.56"),
        "TabSyn, rerun": _row("98.29", "95.25", "97.82", "99.16", "94.86", "98.52"),
        "Diffuse Everything, 64K": _row("98.75", "96.00", "98.24", "98.85", "97.42", "98.57"),
    },
    "utility, paper": {
        "TabDDPM, 11.7M": _row(".907", ".758", ".918", ".935", ".592", "4.86"),
        "TabSyn, 10.7M": _row(".915", ".764", ".920", ".938", ".582", ".861"),
        "TabSyn, rerun": _row(".910", ".755", ".916", ".939", ".655", ".851"),
        "Diffuse Everything, 64K": _row(".915", ".764", ".924", ".941", ".543", ".864"),
    },
}
"""Published figures (the poster of Diffuse Everything, ICML 2025): score -> method -> data set."""


WANTED = {
    "trend": _row("98.3", "98.2", "98.2", "98.7", "97.8", "98.3"),
    "utility": _row(".912", ".760", ".916", ".940", ".58", ".85"),
    "auc": _row(".61", ".70", ".62", ".57", ".65", ".72"),
}
"""What preset nano must reach in ten minutes on two cores; RMSE and two-sample AUC at most, all else at least."""

AIMED = {
    "trend": _row("98.75", "98.6", "98.6", "99.16", "98.2", "98.57"),
    "utility, paper": _row(".916", ".764", ".924", ".941", ".543", ".835"),
    "auc": _row(".575", ".590", ".570", ".530", ".600", ".650"),
}
"""What it aims at: the best figure of any method that is known."""


def chosen(parser: argparse.ArgumentParser, names: str) -> list[str]:
    """The data sets that ``--data`` names, with commas between; ends the command in a sentence where one is unknown, or
    the folder is not there."""
    found = names.split(",")
    if unknown := [name for name in found if name not in SETS]:
        parser.error(f"--data: unknown {', '.join(unknown)}; expected some of {', '.join(SETS)}")
    if not os.path.isdir(os.environ.get("DIFFUSE_DATA", "")):
        parser.error("expected DIFFUSE_DATA to name the folder of the six tables (adult_train.csv.gz, ...)")
    return found


def training(parser: argparse.ArgumentParser) -> None:
    """The arguments of benchmarks that train one model a data set."""
    parser.add_argument("--data", default=",".join(SETS), help="names, with commas between")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training a data set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def load(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows."""
    folder = Path(os.environ["DIFFUSE_DATA"])
    if name == "adult":
        parts = [folder / "adult_train.csv.gz", folder / "adult_test.csv.gz"]
        train, test = (pd.read_csv(part, na_values=[], keep_default_na=False) for part in parts)
        return train, test
    text: dict = dict.fromkeys((*SETS[name].categories, SETS[name].target if not SETS[name].regression else ""), str)
    table = pd.read_csv(folder / f"{name}.csv.gz", dtype=text, keep_default_na=name == "beijing")
    if name == "magic":
        table = table.iloc[1:]  # their loader takes the first row for a heading
    if name == "beijing":
        table = table.dropna(subset=["pm2.5"])
    if name == "news":
        table = _news(table)
    table = table.drop(columns=list(SETS[name].dropped)).reset_index(drop=True)
    order = np.arange(len(table))
    np.random.seed(1234)
    np.random.shuffle(order)
    cut = int(0.9 * len(table))
    return tuple(table.iloc[part].reset_index(drop=True) for part in (order[:cut], order[cut:]))


def _news(table: pd.DataFrame) -> pd.DataFrame:
    """The indicators of channel and weekday as two categories: the first largest of each group, in file order."""
    out = table
    for name, prefixes in {"data_channel": ("data_channel_is_",), "weekday": ("weekday_is_", "is_weekend")}.items():
        group = [c for c in table.columns if c.startswith(prefixes)]
        out = out.drop(columns=group).assign(**{name: table[group].to_numpy().argmax(1).astype(str)})
    return out
