"""Small parts that networks of joint processes share: features of a clock, and a gated residual block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ClockFeatures", "GatedBlock"]


class ClockFeatures(nn.Module):
    """Cosines and sines of a clock at frequencies pi/2 * 2^k, k = 0..bands-1: t in [0, 1] of shape (...) -> (..., 2
    bands)."""

    frequencies: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(bands), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[..., None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], -1)


class GatedBlock(nn.Module):
    """x + down(silu(a) * b), (a, b) = up(norm(x) (1 + scale) + shift), with (scale, shift) linear in a condition.

    The last map starts at zero, so a new block is the identity. Source: Shazeer 2020 (2002.05202), gated units;
    Peebles and Xie 2023 (2212.09748), adaptive norm.

    Args:
        width: of x. hidden: of the gate. condition: width of the condition; 0 is none.
    """

    def __init__(self, width: int, hidden: int, condition: int = 0) -> None:
        super().__init__()
        self.width = width
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.modulate = nn.Linear(condition, 2 * width) if condition else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = functional.layer_norm(x, (self.width,))
        if self.modulate is not None and condition is not None:
            scale, shift = self.modulate(condition).chunk(2, -1)
            h = torch.addcmul(h + shift, h, scale)
        # two products in place of one whose result is cut: what follows runs over whole blocks of memory
        weights, biases = self.up.weight.chunk(2), self.up.bias.chunk(2)
        a, b = (functional.linear(h, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        return x + self.down(functional.silu(a) * b)
