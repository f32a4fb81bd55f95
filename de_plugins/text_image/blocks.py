"""The block of the MMDiT: attention across the tokens of all modalities, and an MLP each, under adaptive layer norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MODULATIONS", "Block", "modulated"]

MODULATIONS = 6  # scale, shift, gate of the attention; scale, shift, gate of the MLP


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """norm(x) * scale + shift: (B, N, width) under (B, 1 or N, width); the scale starts at 1."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), scale)


def _attention(qkv: Tensor) -> Tensor:
    """(3, B, heads, N, head_width) -> (B, N, heads * head_width).

    On a CPU always in float32: torch's backward pass in bfloat16 takes eight times as long.
    """
    q, k, v = qkv
    if qkv.device.type != "cpu" or qkv.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    with torch.autocast("cpu", enabled=False):
        seen = functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    return seen.transpose(1, 2).flatten(2).to(qkv.dtype)


class _Stream(nn.Module):
    """One modality's weights in a block."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 3 * inner)
        self.join = nn.Linear(inner, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)


class Block(nn.Module):
    """One step of the residual streams of one or several modalities.

    h_i <- h_i + gate_i * join_i(attention over all tokens of all modalities, their q, k, v side by side)
    h_i <- h_i + gate'_i * down_i(gelu(up_i(norm(h_i) * scale'_i + shift'_i)))

    Every modality has weights and modulations of its own; with one modality it is a plain DiT block.

    Args:
        count: modalities. width: of their tokens. heads, head_width: of the attention.

    Sources: Esser et al. 2024 (2403.03206), MMDiT; Peebles and Xie 2023 (2212.09748), adaptive norm.
    """

    def __init__(self, count: int, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.streams = nn.ModuleList(_Stream(width, heads * head_width) for _ in range(count))

    def forward(self, tokens: Sequence[Tensor], modulations: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Tokens (B, N_i, width) and, for each, six modulations (B, 1 or N_i, width)."""
        streams: Sequence[_Stream] = self.streams  # type: ignore[assignment] # what the list holds
        mixed = [
            stream.mix(modulated(h, scale, shift))
            for stream, h, (scale, shift, *_) in zip(streams, tokens, modulations, strict=True)
        ]
        mixed = mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)
        seen = _attention(mixed.unflatten(-1, (3, self.heads, self.head_width)).permute(2, 0, 3, 1, 4))
        out, start = [], 0
        for stream, h, (_, _, gate, scale, shift, gate2) in zip(streams, tokens, modulations, strict=True):
            part = seen if len(tokens) == 1 else seen[:, start : start + h.shape[1]]
            start += h.shape[1]
            h = torch.addcmul(h, gate, stream.join(part))
            wide = functional.gelu(stream.up(modulated(h, scale, shift)))  # on a CPU thrice as fast as its tanh form
            out.append(torch.addcmul(h, gate2, stream.down(wide)))
        return out
