"""The likelihood bound along a path through the cube of clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import expand

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["Bound", "Path", "Sequential", "Synchronous", "bound_block"]


class Path(Protocol):
    """Clocks along a path from all clean (u = 0) to all noise (u = 1), none ever running back."""

    def clocks(self, names: Sequence[str], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """name -> (clock in [0, 1], its derivative in u), each of the shape of ``u``."""
        ...


@attrs.frozen
class Synchronous:
    """All clocks run together: t_i = u."""

    def clocks(self, names: Sequence[str], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (u, torch.ones_like(u)) for name in names}


@attrs.frozen
class Sequential:
    """One modality after the other: the first of ``order`` is noised first (and so generated last).

    log p = log p(last) + ... + log p(first | the others): the chain rule. Modalities left out follow in their own
    order.
    """

    order: Sequence[str]

    def clocks(self, names: Sequence[str], u: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        unknown = [name for name in self.order if name not in names]
        if unknown:
            raise DiffuseError(f"path: unknown modality '{unknown[0]}'; there are {', '.join(names)}")
        order = [*self.order, *[name for name in names if name not in self.order]]
        count = len(order)
        out = {}
        for k, name in enumerate(order):
            local = count * u - k
            inside = (local >= 0) & (local < 1)
            out[name] = (local.clamp(0, 1), torch.where(inside, float(count), 0.0).to(u.dtype))
        return out


@attrs.frozen(eq=False)
class Bound:
    """An upper bound on -log p(x_0).

    Attributes:
        terms: name -> (n,), nats; the share of the bound that the modality's own clock collects.
        total: (n,), their sum.
        stderr: (n,), Monte-Carlo standard error of the total (of independent draws: evenly spread ones err less).
        path: of the clocks.
    """

    terms: dict[str, Tensor]
    total: Tensor
    stderr: Tensor
    path: Path


def bound_block(
    joint: JointProcess, model: Model, x0: dict[str, Tensor], path: Path, draws: int, rng: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    """The terms of one block by name, and the standard error of their sum, each (block,)."""
    names, batch = list(joint.modalities), len(next(iter(x0.values())))
    shift = torch.rand(batch, generator=rng, device=rng.device, dtype=torch.float64)
    ends = {name: _reading(joint, name, x0[name], torch.zeros_like(shift)) for name in names}
    samples: list[dict[str, Tensor]] = []  # of the integral and the reconstruction: both are noisy
    for k in range(draws):
        clocks = path.clocks(names, (k + shift) / draws)
        t = {name: _reading(joint, name, x0[name], clocks[name][0]) for name in names}
        noised, last = joint.perturb(x0, t, rng=rng), joint.perturb(x0, ends, rng=rng)
        outputs = joint.call(model, {name: z.xt for name, z in noised.items()}, t, check=k == 0)
        final = joint.call(model, {name: z.xt for name, z in last.items()}, ends)
        row = {}
        for name, m in joint.modalities.items():
            value = m.loss(outputs[name], noised[name], objective="elbo").double()
            end = m.reconstruction(final[name], last[name]).double()
            row[name] = clocks[name][1] * (1 - m.t_min) * value + end
        samples.append(row)
    terms = {
        name: torch.stack([row[name] for row in samples]).mean(0) + m.prior_kl(x0[name]).double()
        for name, m in joint.modalities.items()
    }
    sums = torch.stack([torch.stack(list(row.values())).sum(0) for row in samples])
    stderr = sums.std(0) / draws**0.5 if draws > 1 else torch.full_like(shift, torch.inf)
    return terms, stderr


def _reading(joint: JointProcess, name: str, x: Tensor, u: Tensor) -> Tensor:
    """The clock between t_min and 1, in the modality's precision, for every element where the clock is elementwise."""
    low = joint.modalities[name].t_min
    t = (low + (1 - low) * u).to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    if name in joint.elementwise:
        return (
            expand(t, x.reshape(len(x), *joint.modalities[name].element_shape, -1)[..., 0])
            .expand(len(x), *joint.modalities[name].element_shape)
            .contiguous()
        )
    return t
