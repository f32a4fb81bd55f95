"""A fitted table as an artifact directory, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from de_core import DiffuseError, JointProcess, load_artifact, save_artifact
from de_core.plugins import get_component
from de_core.rng import seed_of
from de_plugins.tabular.codec import TableCodec

if TYPE_CHECKING:
    from de_plugins.tabular.synthesizer import TableSynthesizer

__all__ = ["build", "load_table", "save_table"]

_TRAINING = ("steps", "seconds", "interrupted")


def build(
    network: Any,
    settings: Mapping[str, Any],
    codec: TableCodec,
    seed: int,
    marginals: Tensor | None,
    covariance: Tensor | None = None,
) -> nn.Module:
    """The network with initial weights of ``seed``; torch's global generator is left as it was.

    Args:
        marginals, covariance: of training rows; None of a network whose weights are loaded.
    """
    more: dict[str, Any] = {"groups": codec.group_parts} if codec.group_parts else {}
    spikes = getattr(codec, "spike_scores", None) if getattr(network, "takes_spikes", False) else None
    if spikes is not None and (marginals is not None or settings.get("spiked")):  # not one that learnt without
        more["spikes"] = (codec.gate_of, spikes)
    settings = {name: value for name, value in settings.items() if name != "spiked"}
    if covariance is not None and getattr(network, "takes_covariance", False):
        more["covariance"] = covariance
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        return network(codec.class_sizes, codec.num_numbers, **settings, marginals=marginals, **more)


def save_table(synth: TableSynthesizer, path: str | os.PathLike[str]) -> None:
    """Write what a fitted synthesizer is made of."""
    config, tensors = synth.codec.state()
    tensors = {f"codec.{name}": tensor for name, tensor in tensors.items()}
    if synth.model is not None:
        tensors |= {f"model.{name}": tensor for name, tensor in synth.model.state_dict().items()}
    config = {
        "kind": "tabular",
        "parameters": synth.parameters,
        "synthesizer": {k: v.item() if isinstance(v, np.generic) else v for k, v in synth.get_params().items()},
        "training": {name: getattr(synth, name) for name in _TRAINING},
        "joint": None if synth.joint is None else synth.joint.config(),
        "backbone": None if synth.model is None else synth.model.settings,
        **config,
    }
    curve = "".join(json.dumps(record) + "\n" for record in synth.curve)
    save_artifact(path, config, tensors, {"curve.jsonl": curve, "schema.toml": synth.schema.to_toml()})


def load_table(cls: type[TableSynthesizer], path: str | os.PathLike[str]) -> TableSynthesizer:
    """A synthesizer of class ``cls`` from what ``save_table`` wrote.

    Raises:
        DiffuseError: there is no such artifact, it is of another kind, or it is damaged.
    """
    artifact = load_artifact(path)
    config = artifact.config
    if config["kind"] != "tabular":
        raise DiffuseError(f"artifact {path}: expected a fitted table, got an artifact of kind {config['kind']!r}")
    try:
        synth = cls(**config["synthesizer"])
        codec = get_component("codec", synth.coding).from_state(config, _under(artifact.tensors, "codec."))
        joint = JointProcess.from_config(config["joint"]) if config["joint"] is not None else None
        model = None
        if config["backbone"] is not None:
            network = get_component("backbone", synth.backbone)
            model = build(network, config["backbone"], codec, synth.seed, None)
            model.load_state_dict(_under(artifact.tensors, "model."))
            model.eval()
        curve = artifact.path / "curve.jsonl"
        lines = curve.read_text(encoding="utf-8").splitlines() if curve.is_file() else []
        synth.codec, synth.joint, synth.model, synth.curve = codec, joint, model, [json.loads(line) for line in lines]
        synth.steps, synth.seconds, synth.interrupted = (config["training"][name] for name in _TRAINING)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DiffuseError(
            f"artifact {path}: damaged or of another version ({type(error).__name__}: {error})"
        ) from error
    return synth


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
