"""The MMDiT: tokens of several modalities in joint attention blocks, then blocks of each modality's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from de_core import JointProcess
from de_core.errors import DiffuseError
from de_core.networks import ClockFeatures
from de_plugins.text_image.blocks import MODULATIONS, Block, modulated
from de_plugins.text_image.ports import Port, port_of

__all__ = ["SIZES", "MMDiT", "Size"]

_BANDS = 8  # of the clock's features


@attrs.frozen
class Size:
    """How large an MMDiT is.

    Args:
        width: of a token. heads, head_width: of the attention.
        joint, own: how many blocks all modalities share, and how many each has behind them.
        condition: width of the clocks' embedding.
    """

    width: int
    heads: int
    head_width: int
    joint: int
    own: int
    condition: int


SIZES = {
    "tiny": Size(64, 4, 16, 2, 1, 64),
    "nano": Size(128, 4, 32, 3, 1, 64),
    "small": Size(144, 6, 24, 4, 2, 96),
    "medium": Size(384, 6, 64, 6, 4, 384),
    "large": Size(768, 8, 64, 8, 6, 768),
    "paper": Size(1024, 8, 64, 8, 6, 1024),
}


class _Own(nn.Module):
    """What belongs to one modality outside the joint blocks: the way in, its clock, its blocks, the way out."""

    def __init__(self, port: Port, size: Size) -> None:
        super().__init__()
        self.port = port
        self.place = nn.Parameter(0.5 * torch.randn(port.tokens, size.width))
        self.clock = nn.Sequential(
            nn.Linear(2 * _BANDS, size.condition), nn.SiLU(), nn.Linear(size.condition, size.condition)
        )
        self.blocks = nn.ModuleList(Block(1, size.width, size.heads, size.head_width) for _ in range(size.own))
        self.modulate = nn.ModuleList(_modulation(size, MODULATIONS) for _ in range(size.own))
        self.last = _modulation(size, 2)


class MMDiT(nn.Module):
    """Any number of modalities, each a row of tokens with weights of its own, that meet in attention.

    Pictures enter as patches, classes as embedded words, anything else as one token. Every modality has its own clock;
    the blocks are scaled, shifted and gated by the sum of the clocks' embeddings, so that each knows all of them.

    The parts by name, as ``freeze`` takes them: "joint", and each modality's.

    Args:
        joint: the process whose modalities it answers for; clocks of one reading a sample.
        size: a name of ``SIZES`` or a ``Size``.
        patch: side of a patch of the pictures.
        pictures: name -> (n, C, H, W), whose pixels' moments precondition the velocity (``NormalVelocity``).
        recompute: whether a block's activations are computed anew in the backward pass in place of kept.

    Raises:
        DiffuseError: unknown size; an elementwise clock; a picture that patches do not tile.

    Sources: Esser et al. 2024 (2403.03206); Peebles and Xie 2023 (2212.09748); Rojas et al. 2025 (2506.07903), joint
    blocks, then unimodal ones. At the size "paper" its blocks are the authors': width 1024, 8 heads of 64, 8 joint and
    6 own blocks.
    """

    def __init__(
        self,
        joint: JointProcess,
        size: str | Size = "small",
        *,
        patch: int = 2,
        pictures: Mapping[str, Tensor] | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(size, str) and size not in SIZES:
            raise DiffuseError(f"size: expected one of {', '.join(SIZES)}, got {size!r}")
        if joint.elementwise:
            raise DiffuseError(
                f"mmdit: expected one clock a sample, but {sorted(joint.elementwise)} have one an element"
            )
        size = SIZES[size] if isinstance(size, str) else size
        self.settings: dict[str, Any] = {"size": attrs.asdict(size), "patch": patch}
        self.recompute = recompute
        self.names = tuple(joint.modalities)
        self.features = ClockFeatures(_BANDS)
        self.own = nn.ModuleDict()
        for name, modality in joint.modalities.items():
            port = port_of(name, modality, size.width, patch, (pictures or {}).get(name))
            self.own[name] = _Own(port, size)
        count = len(self.names)
        self.joint = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(
                    Block(count, size.width, size.heads, size.head_width) for _ in range(size.joint)
                ),
                "modulate": nn.ModuleList(
                    nn.ModuleList(_modulation(size, MODULATIONS) for _ in range(count)) for _ in range(size.joint)
                ),
            }
        )

    @property
    def orthogonal(self) -> tuple[str, ...]:
        """The parts whose matrices ``Trainer(orthogonal=)`` may train by Muon: the blocks, joint and own."""
        owned = self.names if self.settings["size"]["own"] else ()
        return ("joint.blocks", *(f"own.{name}.blocks" for name in owned))

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        own: Mapping[str, _Own] = self.own  # type: ignore[assignment] # what the dictionary holds
        clocks = [own[name].clock(self.features(t[name].to(torch.float32))) for name in self.names]
        condition = nn.functional.silu(torch.stack(clocks).sum(0))[:, None]
        tokens = [own[name].port.enter(x[name], t[name]) + own[name].place for name in self.names]
        for block, modulate in zip(self.joint["blocks"], self.joint["modulate"], strict=True):  # type: ignore[arg-type]
            tokens = self._run(block, tokens, [_parts(m(condition), MODULATIONS) for m in modulate])
        out = {}
        for name, h in zip(self.names, tokens, strict=True):
            part = own[name]
            for block, modulate in zip(part.blocks, part.modulate, strict=True):
                (h,) = self._run(block, [h], [_parts(modulate(condition), MODULATIONS)])
            scale, shift = _parts(part.last(condition), 2)
            out[name] = part.port.leave(modulated(h, scale, shift), x[name], t[name])
        return out

    def _run(self, block: Any, tokens: Sequence[Tensor], modulations: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        if self.recompute and self.training:
            return checkpoint(block, tokens, modulations, use_reentrant=False)  # type: ignore[return-value]
        return block(tokens, modulations)

    def freeze(self, parts: Sequence[str]) -> None:
        """Hold these parts still and let all others learn.

        Args:
            parts: of "joint" and the modalities' names.

        Raises:
            DiffuseError: an unknown part, or nothing would be left to learn.
        """
        known = ("joint", *self.names)
        if unknown := sorted(set(parts) - set(known)):
            raise DiffuseError(f"freeze: there is no part '{unknown[0]}'; expected some of {', '.join(known)}")
        if set(parts) == set(known):
            raise DiffuseError("freeze: every part is held still, nothing would be trained")
        self.requires_grad_(True)
        for part in parts:
            (self.joint if part == "joint" else self.own[part]).requires_grad_(False)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part: the blocks that all share, each modality's blocks, and its embeddings."""
        counts = {"joint": _count(self.joint)}
        for name, part in self.own.items():
            embeddings = _count(part.port)  # type: ignore[arg-type] # a port
            counts[name], counts[f"{name} embeddings"] = _count(part) - embeddings, embeddings
        return counts


def _modulation(size: Size, parts: int) -> nn.Linear:
    """From the clocks' embedding to scales, shifts and gates; a fresh block is the identity."""
    layer = nn.Linear(size.condition, parts * size.width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for k in range(0, parts, 3):
            layer.bias[k * size.width : (k + 1) * size.width] = 1.0  # a scale
    return layer


def _parts(x: Tensor, count: int) -> list[Tensor]:
    return list(x.chunk(count, -1))


def _count(module: nn.Module) -> int:
    return sum(math.prod(p.shape) for p in module.parameters())
