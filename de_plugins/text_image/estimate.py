"""What a run will cost, before it is started: parameters and memory counted, time scaled from a small run."""

from __future__ import annotations

import time
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from de_plugins.text_image.config import Config

__all__ = ["estimate"]

_STATE = 20  # bytes a parameter: weight, gradient, two moments, average, in single precision


def _inputs(config: Config, batch: int, device: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    x = {
        "image": torch.zeros(batch, *config.image, device=device),
        "caption": torch.zeros(batch, config.length, dtype=torch.long, device=device),
    }
    return x, {name: torch.zeros(batch, device=device) for name in x}


def _forward(config: Config, device: str) -> tuple[dict[str, int], int, int]:
    """Parameters by part, operations of a forward pass of one row, and bytes that it keeps for the backward pass."""
    with torch.device(device):
        model = config.network(config.process()).train()
    x, t = _inputs(config, 1, device)
    alive: list[Tensor] = []

    def note(saved: Tensor) -> Tensor:
        alive.append(saved)
        return saved

    own = {p.untyped_storage()._cdata for p in model.parameters()}
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda saved: saved):
        model(x, t)
    kept = {s.untyped_storage()._cdata: s.untyped_storage().nbytes() for s in alive}
    return model.parameter_counts(), counter.get_total_flops(), sum(n for s, n in kept.items() if s not in own)


def estimate(config: Config) -> dict[str, Any]:
    """Count the network, and measure the rate of a narrower one on this machine.

    Operations of a training step are three times those of the forward pass, four with recomputation, which keeps the
    inputs of all blocks and the inside of one. The rate is that of the same network at a width of 256 and two blocks;
    scale it to the device at hand.

    Returns:
        "parameters" by part and in all; "state_gib": weights, gradients, moments, averages; "activations_mib": kept for
        the backward pass, a row, in single precision; "flops": of a training step of one row;
        "measured_flops_per_second": here; "days" for the whole run at that rate, where it is given in steps.
    """
    size = config.size
    counts, flops, kept = _forward(attrs.evolve(config, recompute=False), "meta")
    total, passes = sum(counts.values()), 3
    if config.recompute:
        tokens = config.length + config.image[1] * config.image[2] // config.patch**2
        blocks = size.joint + size.own
        kept, passes = kept // blocks + 4 * blocks * tokens * size.width, 4
    narrow = attrs.evolve(size, width=256, heads=4, head_width=64, condition=256, joint=1, own=1)
    rate = _rate(attrs.evolve(config, size=narrow, vocabulary=min(config.vocabulary, 512), recompute=False))
    out: dict[str, Any] = {
        "parameters": {**counts, "all": total},
        "state_gib": _STATE * total / 2**30,
        "activations_mib": kept / 2**20,
        "flops": passes * flops,
        "measured_flops_per_second": rate,
    }
    if "steps" in config.training:
        batch, whole = config.training.get("batch_size", 256), sum(stage.share for stage in config.stages)
        rows = round(config.training["steps"] * sum(s.share * (s.batch_size or batch) for s in config.stages) / whole)
        out |= {"rows": rows, "days": rows * passes * flops / rate / 86_400}
    return out


def _rate(config: Config, batch: int = 4) -> float:
    """Operations a second of a training step here, the median of three."""
    flops = 3 * batch * _forward(config, "cpu")[1]
    joint = config.process()
    model, (x0, _) = config.network(joint), _inputs(config, batch, "cpu")
    times = []
    for k in range(4):
        start = time.perf_counter()
        joint.loss(model, x0, rng=k, objective="simple").total.backward()
        times.append(time.perf_counter() - start)
    return flops / sorted(times[1:])[1]
