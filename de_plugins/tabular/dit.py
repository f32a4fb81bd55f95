"""The authors' tabular transformer, rebuilt: a token a column, adaptive layer norm from the clocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from de_core.errors import DiffuseError
from de_plugins.tabular.backbone import PRESETS

__all__ = ["TableDiT"]

_DEPTH, _HEADS, _FREQUENCIES = 4, 4, 128


class _Block(nn.Module):
    """Attention and MLP, each on a layer norm that the clock scales and shifts, each behind a gate from the clock."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulate = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulate(clock).chunk(6, -1)
        h = _norm(x) * (1 + scale) + shift
        q, k, v = self.mix(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate * self.join(h)
        h = _norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.down(functional.gelu(self.up(h), approximate="tanh"))


class TableDiT(nn.Module):
    """Class scores and the numbers' outputs of all columns by a diffusion transformer over columns.

    At width 24, depth 4 and 4 heads ("paper") the network of the authors' tabular code, to the parameter: 70,194 on
    Adult, 55,204 on Magic. A number enters through an MLP that all numbers share plus a vector of its column, a class
    through an embedding in which the mask is one more class. A head of three layers for each class column, and one
    for all numbers. The heads have a logit for the mask class too, which is dropped: it has no mass. Where the columns'
    clocks differ each token is conditioned on its own; the authors' code ties them.

    Args:
        class_sizes: (D,). numbers: C.
        width: a multiple of ``heads``. depth: of the blocks. heads: of attention.
        marginals: not used; the authors start from nothing.

    Sources: the code of Diffuse Everything (Rojas et al. 2025, 2506.07903), tabular part; Peebles and Xie 2023
    (2212.09748).
    """

    def __init__(
        self,
        class_sizes: Sequence[int],
        numbers: int,
        *,
        width: int,
        depth: int = _DEPTH,
        heads: int = _HEADS,
        marginals: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.class_sizes, self.numbers = tuple(int(size) for size in class_sizes), int(numbers)
        self.settings = {"width": width, "depth": depth, "heads": heads}
        shown = [size + 1 for size in self.class_sizes]
        self.offsets: Tensor
        self.frequencies: Tensor
        self.register_buffer("offsets", torch.tensor([0, *shown]).cumsum(0)[: len(shown)], persistent=False)
        falling = torch.exp(-math.log(10_000) * torch.arange(_FREQUENCIES) / _FREQUENCIES)
        self.register_buffer("frequencies", falling, persistent=False)
        self.clock = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.column = nn.Parameter(0.02 * torch.randn(self.numbers + len(shown), width))
        self.classes = nn.Embedding(sum(shown), width)
        self.kind = nn.Parameter(torch.randn(self.numbers, width))
        self.number = _head(1, width, width) if numbers else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.last = nn.Linear(width, 2 * width)
        self.value = _head(width, width, 1) if numbers else None
        self.scores = nn.ModuleList(_head(width, width, size) for size in shown)
        self._start()

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name.startswith(("clock.", "number.")):
                nn.init.normal_(module.weight, std=0.02)
        for layer in [self.last, *(block.modulate for block in self.blocks)]:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type] # a linear layer

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        clocks = torch.cat([t[name].to(torch.float32) for name in ("numbers", "classes") if name in t], 1)
        if bool((clocks == clocks[:, :1]).all()):
            clocks = clocks[:, :1]
        angle = clocks[..., None] * self.frequencies
        clock = functional.silu(self.clock(torch.cat([angle.cos(), angle.sin()], -1)))
        tokens = []
        if self.number is not None:
            tokens.append(self.number(x["numbers"][..., None]) + self.kind)
        if self.class_sizes:
            tokens.append(self.classes(x["classes"] + self.offsets))
        h = torch.cat(tokens, 1) + self.column
        for block in self.blocks:
            h = block(h, clock)
        shift, scale = self.last(clock).chunk(2, -1)
        h = _norm(h) * (1 + scale) + shift
        out = {}
        if self.value is not None:
            out["numbers"] = self.value(h[:, : self.numbers])[..., 0]
        if self.class_sizes:
            scores = [head(h[:, self.numbers + d])[:, :-1] for d, head in enumerate(self.scores)]
            out["classes"] = torch.cat(scores, 1)
        return out

    @classmethod
    def for_preset(cls, preset: str, class_sizes: Sequence[int], numbers: int) -> dict[str, Any]:
        """The preset "paper" is width 24; any other the widest network within its parameters; depth 4 and 4 heads.

        Raises:
            DiffuseError: an unknown preset, or a table whose smallest network is larger.
        """
        if preset == "paper":
            return {"width": 24, "depth": _DEPTH, "heads": _HEADS}
        if preset not in PRESETS:
            raise DiffuseError(f"preset: expected one of paper, {', '.join(PRESETS)}, got {preset!r}")
        widths = range(_HEADS, 1025, _HEADS)
        width = max((w for w in widths if _count(class_sizes, numbers, w) <= PRESETS[preset]), default=0)
        if not width:
            raise DiffuseError(
                f"preset '{preset}' has at most {PRESETS[preset]:,} parameters, but a table of {numbers} numbers and "
                f"{sum(class_sizes):,} classes needs {_count(class_sizes, numbers, _HEADS):,} at the least"
            )
        return {"width": width, "depth": _DEPTH, "heads": _HEADS}


def _head(enter: int, width: int, out: int) -> nn.Sequential:
    """Three layers."""
    return nn.Sequential(nn.Linear(enter, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, out))


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _count(class_sizes: Sequence[int], numbers: int, w: int) -> int:
    """Parameters at depth 4, without making the network."""
    shown, columns = sum(class_sizes) + len(class_sizes), len(class_sizes)
    linear = w * (w + 1)
    number = numbers * w + 2 * w + 2 * linear + 2 * linear + w + 1 if numbers else 0
    classes = shown * w + columns * 2 * linear + shown * (w + 1)
    clock = 2 * _FREQUENCIES * w + w + linear
    return _DEPTH * (18 * w * w + 15 * w) + 2 * linear + clock + (numbers + columns) * w + number + classes
