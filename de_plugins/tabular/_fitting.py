"""What ``TableSynthesizer.fit`` does once a table is coded: train a network on it, then correct the codec by what it
draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import nn

from de_core.joint import JointProcess
from de_core.rng import seed_of, stream
from de_core.train import Trainer, TrainResult
from de_plugins.tabular._calibration import LEAST
from de_plugins.tabular._drawing import STEPS, draw_states
from de_plugins.tabular._encoded import Encoded
from de_plugins.tabular._keeping import with_tolerances
from de_plugins.tabular._rates import crowding, rates
from de_plugins.tabular._saving import build
from de_plugins.tabular.codec import TableCodec
from de_plugins.tabular.process import TableSource, TableTimes, covariance, held_out, log_shares, table_process

if TYPE_CHECKING:
    from de_plugins.tabular.synthesizer import TableSynthesizer

__all__ = ["corrected", "learn"]

_APART = 100  # rows of which a tenth says whether training still helps
_CALIBRATION = 10_000, 50_000  # rows drawn after training to correct the numbers' marginals: the table's, but within


def learn(own: TableSynthesizer, network: Any, codec: TableCodec, coded: Encoded) -> tuple[JointProcess, TrainResult]:
    """Train a backbone on coded rows by a synthesizer's settings.

    Args:
        own: whose settings are read. network: the class of its backbone.
        codec, coded: of at least one column that varies.

    Raises:
        DiffuseError: the table is too wide for the preset; as ``Trainer``.
    """
    sizes, numbers, groups = codec.class_sizes, codec.num_numbers, codec.group_parts
    paper = own.tied
    joint = table_process(sizes, numbers, own.objective, groups)
    settings = network.for_preset(own.preset, sizes, numbers, **({"groups": groups} if groups else {}))
    spread = covariance(coded, stream(own.seed, "covariance"))
    model = build(network, settings, codec, own.seed, log_shares(coded, sizes), spread)
    width, parameters = len(sizes) + numbers + sum(groups.values()), sum(p.numel() for p in model.parameters())
    small = len(coded) * width < parameters  # it can be learnt by heart
    apart = own.patience is not None and small and len(coded) >= _APART
    learnt, score = held_out(joint, coded, own.seed, tied=paper) if apart else (coded, None)
    crowded = crowding(coded, parameters)
    result = Trainer(
        joint,
        model,
        minutes=own.minutes,
        steps=own.max_steps,
        batch_size=own.batch_size,
        objective=own.objective,
        times=TableTimes(0.0, 0.0, tied=True) if paper else TableTimes.of(spread, crowded),
        weights=None if paper else dict.fromkeys(joint.modalities, 1 / width),
        orthogonal=() if paper else getattr(network, "orthogonal", ()),
        **rates(own.preset, own.lr, len(learnt), own.batch_size, crowded=crowded, paper=paper),
        seed=own.seed,
        progress=own.progress,
        held_out=score,
        patience=own.patience if apart else None,
    ).fit(TableSource(learnt))
    return joint, result


def corrected(
    own: TableSynthesizer, codec: TableCodec, coded: Encoded, frame: pd.DataFrame, joint: JointProcess, model: nn.Module
) -> TableCodec:
    """The codec with the numbers' marginals, and the distances of its rules, set by rows that the model draws.

    As it was where there are no numbers, or less than 1,000 rows, which do not say where the tails lie.

    Args:
        own: whose settings are read. codec, coded: of ``frame``, the training rows. joint, model: as trained.
    """
    if not codec.num_numbers or len(coded) < LEAST:
        return codec
    rows = min(max(len(coded), _CALIBRATION[0]), _CALIBRATION[1])
    seed = seed_of(stream(own.seed, "calibration"))
    x = draw_states(joint, model, rows, None, STEPS, seed, tied=own.tied)
    codec = codec.calibrated(x["classes"], x["numbers"])
    if not codec.schema.rules:
        return codec
    drawn = codec.decode(x["classes"], x["numbers"], stream(seed, "decode"), codec.scaled(x))
    return with_tolerances(codec, frame, drawn)
