"""The right modalities that the kit is held to, each with clean data, small enough that a full run takes seconds.

The four built-ins in several settings, and the five of ``contrib`` by name where they are installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from de_core.modality import Modality
from de_core.plugins import get_modality
from de_core.testing.conformance import example
from de_plugins.gaussian.modality import Gaussian
from de_plugins.masked.modality import Masked
from de_plugins.simplex.modality import Simplex
from de_plugins.uniform.modality import Uniform

__all__ = ["RIGHT", "Right"]


@attrs.frozen
class Right:
    """One right modality.

    Attributes:
        plugin: the name of the plugin that it comes from.
        modality: makes it.
        data: makes clean rows of it, (64, *event).
    """

    plugin: str
    modality: Callable[[], Modality]
    data: Callable[[], Tensor]


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _numbers() -> Tensor:
    return torch.randn(64, 2, generator=_stream(0), dtype=torch.float64)


def _classes(*sizes: int) -> Callable[[], Tensor]:
    return lambda: torch.stack([(torch.arange(64) // (k + 1)) % n for k, n in enumerate(sizes)], 1)


def _shares() -> Tensor:
    x = torch.tensor([0.2, 0.5, 1.0]) * (0.1 + torch.rand(64, 3, generator=_stream(1), dtype=torch.float64))
    return x / x.sum(1, keepdim=True)


def _corners() -> Tensor:
    return torch.eye(3, dtype=torch.float64)[torch.arange(64) % 3]


def _angles() -> Tensor:
    """Two clouds, one across the cut."""
    x = math.pi * (2 * torch.rand(64, 2, generator=_stream(2), dtype=torch.float64) - 1)
    return torch.where(x > 0, 0.3 * x + 2.5, 0.2 * x).clamp(-math.pi, math.pi)


def _directions() -> Tensor:
    x = torch.randn(64, 3, generator=_stream(3), dtype=torch.float64) + torch.tensor([0.0, 0.5, 1.0])
    return x / x.norm(dim=-1, keepdim=True)


def _rotations() -> Tensor:
    """exp of the cross product with vectors of a length about 1."""
    a, b, c = (0.7 * torch.randn(64, 3, generator=_stream(4), dtype=torch.float64)).unbind(1)
    zero = torch.zeros_like(a)
    return torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], 1).reshape(64, 3, 3).matrix_exp()


def _counts() -> Tensor:
    return torch.stack([torch.arange(64) % 6, (torch.arange(64) // 6) % 3], 1)


def _made(name: str, *arguments: object) -> Callable[[], Modality]:
    return lambda: get_modality(name)(*arguments)


RIGHT: dict[str, Right] = {
    "gaussian": Right("gaussian", lambda: Gaussian((2,)), _numbers),
    "gaussian, linear, x0": Right("gaussian", lambda: Gaussian((2,), "linear", "x0"), _numbers),
    "gaussian, edm": Right("gaussian", lambda: Gaussian((2,), "edm"), _numbers),
    "masked": Right("masked", lambda: Masked((2,), 3), _classes(3, 3)),
    "masked, ragged, cosine": Right("masked", lambda: Masked((2,), (2, 4), "cosine"), _classes(2, 4)),
    "uniform": Right("uniform", lambda: Uniform((2,), 3), _classes(3, 3)),
    "uniform, leave-one-out": Right("uniform", lambda: Uniform((2,), 3, "leave_one_out"), _classes(3, 3)),
    "simplex": Right("simplex", lambda: Simplex((3,)), _shares),
    "simplex, its own example": Right("simplex", lambda: Simplex((3,)), lambda: example(Simplex)[0][1]),
    "simplex, posterior": Right("simplex", lambda: Simplex((3,), "posterior"), _corners),
    "torus": Right("torus", _made("torus", (2,)), _angles),
    "sphere": Right("sphere", _made("sphere", (3,)), _directions),
    "so3": Right("so3", _made("so3", (3, 3)), _rotations),
    "counts": Right("counts", _made("counts", (2,), 2.0), _counts),
    "ordinal": Right(
        "ordinal", _made("ordinal", (2,), 4, [[0, 3, 0, 0], [1, 0, 2, 0], [0, 2, 0, 1], [0, 0, 3, 0]]), _classes(3, 4)
    ),
}
