"""What a perfect sample, shuffled columns and a copy of the training table score."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from de_core.plugins import PluginWarning, get_component, list_components
from de_core.rng import stream
from de_plugins.tabular.metrics import detection
from de_plugins.tabular.metrics.fidelity import extrapolated
from de_plugins.tabular.metrics.matrix import Matrix
from de_plugins.tabular.metrics.privacy import Privacy, privacy
from de_plugins.tabular.metrics.utility import utility
from de_plugins.tabular.metrics.validity import exact_matches

__all__ = ["PRIVACY", "anchors", "likeness", "views"]

PRIVACY = (
    "exact_train",
    "exact_test",
    "closer_to_train",
    "distance_ratio",
    "distance_ratio_low",
    "attack_auc",
    "attack_tpr",
)
LEAST = 10  # rows of a training table that is worth halving


def likeness(real: Matrix, synthetic: Matrix) -> dict[str, float]:
    """Every installed metric with the capability "table", by its name without "table-".

    A metric of another plugin that fails is NaN, with a warning.
    """
    out = {}
    for info in list_components("metric"):
        if "table" not in info.capabilities:
            continue
        try:
            value = float(get_component("metric", info.name)(real, synthetic))
        except Exception as error:
            if info.target.startswith("de_plugins.tabular."):
                raise
            warnings.warn(f"metric '{info.name}': {error}", PluginWarning, stacklevel=2)
            value = float("nan")
        out[info.name.removeprefix("table-").replace("-", "_")] = value
    return out


def views(found: dict[str, detection.Detection]) -> dict[str, float]:
    """The two-sample test's views as scores."""
    return {"auc" if name == "full" else f"auc_{name}": view.auc for name, view in found.items()}


def anchors(
    train: Matrix,
    held: Matrix | None,
    target: str | int | None,
    *,
    seed: int,
    paper: bool,
    log_target: bool,
    threads: int | None,
) -> dict[str, dict[str, float]]:
    """Scores by anchor, "perfect", "shuffled" and "copied".

    The perfect sample is one half of the training table against the other, extrapolated to the full size where the
    score is a distance between samples. Against rows held out the training table itself is a perfect sample, so the
    two-sample test and learning have the same anchor for both.

    Args:
        train, held: coded alike.
        target: for learning.
        seed: of every draw.
        paper, log_target, threads: as in `evaluate`.
    """
    if len(train) < LEAST:
        return {}
    order = torch.randperm(len(train), generator=stream(seed, "halves")).numpy()
    half = len(train) // 2
    a, b = train.rows(order[:half]), train.rows(order[half : 2 * half])
    shuffled = train.shuffled(stream(seed, "anchors"))
    out = {
        "perfect": {key: _to_full_size(key, value) for key, value in likeness(a, b).items()},
        "shuffled": likeness(train, shuffled),
        "copied": likeness(train, train),
    }
    cases = {"perfect": (a, b), "shuffled": (train, shuffled), "copied": (train, train)}
    once: dict[str, Any] = {"seed": seed, "seeds": 1, "threads": threads}
    if held is None:
        for name, (one, other) in cases.items():
            out[name] |= views(detection.detection(one, other, **once))
            out[name]["exact_train"] = exact_matches(one, other)
        return out
    if len(held) >= 5:
        fair = views(detection.detection(held, train, **once))
        out["perfect"] |= fair
        out["copied"] |= fair
        # shuffling leaves the columns right and only the dependence wrong
        auc = detection.two_sample_auc(held, shuffled, **once).auc
        out["shuffled"] |= {"auc": auc, "auc_marginal": fair["auc_marginal"], "auc_dependence": auc}
    for name, (one, other) in cases.items():
        out[name] |= private(privacy(one, held, other, rng=stream(seed, "privacy", name)))
    if target is not None:
        chosen: dict[str, Any] = {"seed": seed, "log_target": log_target, "threads": threads}
        for key, faults in {"mle": False, "mle_paper": True}.items():
            if not faults or paper:
                real = utility(train, held, target, paper=faults, **chosen).score
                out["perfect"][key] = out["copied"][key] = real
                out["shuffled"][key] = utility(shuffled, held, target, paper=faults, full=False, **chosen).score
    return out


def private(found: Privacy) -> dict[str, float]:
    """The figures of privacy that are scores."""
    return {name: getattr(found, name) for name in PRIVACY}


def _to_full_size(key: str, value: float) -> float:
    if key.startswith("k_way"):
        return float(value / np.sqrt(2.0))
    return float(extrapolated(value)) if key == "shape" or key.startswith("trend") else value
