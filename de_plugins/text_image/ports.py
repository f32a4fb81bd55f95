"""How a modality enters a transformer as tokens and leaves it as its network output."""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core import Jump, Modality
from de_core.errors import DiffuseError
from de_plugins.text_image.precondition import NormalVelocity

__all__ = ["Port", "port_of"]


class Port(Protocol):
    """The way in and out of one modality."""

    tokens: int

    def enter(self, x: Tensor, t: Tensor) -> Tensor:
        """State (B, *event) and clock (B,) -> (B, tokens, width)."""
        ...

    def leave(self, h: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """(B, tokens, width), the state and its clock -> (B, *output_shape)."""
        ...


class _Patches(nn.Module):
    """A picture (C, H, W), cut into patches that do not overlap.

    The state is scaled to unit variance (where moments are known) before it enters.
    """

    def __init__(self, shape: tuple[int, int, int], patch: int, width: int, pictures: Tensor | None) -> None:
        super().__init__()
        channels, height, side = shape
        self.shape, self.patch = shape, patch
        self.tokens = (height // patch) * (side // patch)
        self.embed = nn.Linear(channels * patch**2, width)
        self.out = _silent(nn.Linear(width, channels * patch**2))
        self.velocity = None if pictures is None else NormalVelocity(shape, pictures)

    def enter(self, x: Tensor, t: Tensor) -> Tensor:
        x = functional.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)
        return self.embed(x)

    def leave(self, h: Tensor, x: Tensor, t: Tensor) -> Tensor:
        _, height, side = self.shape
        h = self.out(h).transpose(1, 2).unflatten(2, (height // self.patch, side // self.patch))
        residual = functional.pixel_shuffle(h, self.patch)
        return residual if self.velocity is None else self.velocity(x, t, residual)


class _Words(nn.Module):
    """Classes (*element,), each an embedded word; scored against the embedding that it enters by.

    Words enter at unit variance, above the places: where they are much smaller, attention is long in finding them.
    """

    def __init__(self, modality: Jump, width: int) -> None:
        super().__init__()
        self.shape = modality.output_shape
        self.tokens, self.classes = math.prod(modality.element_shape), modality.output_shape[-1]
        self.embed = nn.Embedding(self.classes + 1, width)  # one more than clean: the mask
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.bias = nn.Parameter(torch.zeros(self.tokens, self.classes))
        self.out = nn.Linear(width, width)

    def enter(self, x: Tensor, t: Tensor) -> Tensor:
        return self.embed(x.reshape(len(x), self.tokens)) * self.embed.embedding_dim**0.5

    def leave(self, h: Tensor, x: Tensor, t: Tensor) -> Tensor:
        scores = self.out(h) @ self.embed.weight[: self.classes].T + self.bias
        return scores.reshape(len(h), *self.shape)


class _Whole(nn.Module):
    """Any other state: one token."""

    def __init__(self, modality: Modality, width: int) -> None:
        super().__init__()
        self.tokens, self.shape = 1, modality.output_shape
        self.embed = nn.Linear(math.prod(modality.event_shape), width)
        self.out = _silent(nn.Linear(width, math.prod(self.shape)))

    def enter(self, x: Tensor, t: Tensor) -> Tensor:
        return self.embed(x.reshape(len(x), 1, -1).to(self.embed.weight))

    def leave(self, h: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return self.out(h).reshape(len(h), *self.shape)


def _silent(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def port_of(name: str, modality: Modality, width: int, patch: int, pictures: Tensor | None = None) -> Port:
    """The port of a modality, by its family and the shape of its events.

    Raises:
        DiffuseError: a picture that patches do not tile; pictures of another shape.
    """
    if isinstance(modality, Jump):
        return cast("Port", _Words(modality, width))
    shape = tuple(modality.event_shape)
    if len(shape) != 3 or tuple(modality.output_shape) != shape:
        return cast("Port", _Whole(modality, width))
    if shape[1] % patch or shape[2] % patch:
        raise DiffuseError(f"modality '{name}': patches of {patch} do not tile a picture of {shape[1]} x {shape[2]}")
    if pictures is not None and tuple(pictures.shape[1:]) != shape:
        raise DiffuseError(f"modality '{name}': expected pictures of shape {shape}, got {tuple(pictures.shape[1:])}")
    return cast("Port", _Patches((shape[0], shape[1], shape[2]), patch, width, pictures))
