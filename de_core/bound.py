"""The likelihood bound along a path through the cube of clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Modality, Noised
from de_core.paths import Path
from de_core.rng import Rng, seed_of, stream

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["Bound", "check_levels", "clock", "compute_bound"]

_CELLS = 4096  # of the table that spreads the draws along a path


@attrs.frozen(eq=False)
class Bound:
    """An upper bound on -log p(x_0), or on -log p(x_0 | given).

    Attributes:
        terms: name -> (n,), nats; the share of the bound that the modality's own clock collects. No given modality.
        total: (n,), their sum.
        stderr: (n,), Monte-Carlo standard error of the total; its square is unbiased.
        path: of the clocks.
        given: name -> level of the modalities that were held.
    """

    terms: dict[str, Tensor]
    total: Tensor
    stderr: Tensor
    path: Path
    given: dict[str, float]


def compute_bound(
    joint: JointProcess,
    model: Model,
    x0: Mapping[str, Tensor],
    *,
    rng: Rng,
    draws: int,
    path: Path,
    given: Sequence[str] | Mapping[str, float],
) -> Bound:
    """``JointProcess.bound``, in blocks of rows, each from its own stream."""
    n, levels = joint.validate(x0), check_levels(joint, given)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2 or draws % 2:
        raise DiffuseError(f"draws: expected an even whole number of at least 2, got {draws!r}")
    moving = {name: m for name, m in joint.modalities.items() if name not in levels}
    for name, m in moving.items():
        if "likelihood" not in m.capabilities:
            raise DiffuseError(f"modality '{name}' lacks the capability 'likelihood'")
    seed, device = seed_of(rng), next(iter(x0.values())).device
    even = _even(path, moving, device)
    none = torch.zeros(0, dtype=torch.float64, device=device)
    parts = [(dict.fromkeys(moving, none), none)]
    for k, index in enumerate(joint.blocks(n)):
        block = {name: x0[name][index] for name in joint.modalities}
        draw = stream(seed, "bound", k, device=device)
        parts.append(_block(joint, model, block, path, even, draws, levels, draw))
    terms = {name: torch.cat([p[0][name] for p in parts])[:n] for name in moving}
    stderr = torch.cat([p[1] for p in parts])[:n]
    return Bound(terms, torch.stack(list(terms.values())).sum(0), stderr, path, levels)


def check_levels(joint: JointProcess, given: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The level of each given modality: 0 where only names are given.

    Raises:
        DiffuseError: an unknown name, a level outside [0, 1], or no modality that is not given.
    """
    if isinstance(given, str):
        raise DiffuseError(f"given: expected names, as in given=({given!r},), got the text {given!r}")
    levels = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 0.0)
    for name, level in levels.items():
        joint.check_name(name)
        if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 <= level <= 1:
            raise DiffuseError(f"given '{name}': expected a level in [0, 1], got {level!r}")
    if len(levels) == len(joint.modalities):
        raise DiffuseError("given: every modality is given, and none is left to have a likelihood")
    return levels


def clock(joint: JointProcess, name: str, x: Tensor, t: Tensor) -> Tensor:
    """Readings (B,) in the modality's precision, for every element where its clock is elementwise."""
    shape = joint.modalities[name].element_shape if name in joint.elementwise else ()
    t = t.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    return t.reshape(-1, *[1] * len(shape)).expand(len(x), *shape).contiguous()


def _even(path: Path, moving: Mapping[str, Modality], device: torch.device) -> Tensor:
    """F(u) at evenly spaced u, from 0 to 1: the mean over the moving modalities of t_i^(1/3), scaled.

    Points even in F are dense where a clock leaves the data: a diffusion's integrand grows like 1/t there, and under
    even u its variance like 1/t_min.
    """
    clocks = path.clocks(moving, torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64, device=device))
    roots = [(m.t_min + (1 - m.t_min) * clocks[name][0]) ** (1 / 3) for name, m in moving.items()]
    mean = torch.stack(roots).mean(0)
    return (mean - mean[0]) / (mean[-1] - mean[0])


def _point(even: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """u with F(u) = w, F linear in each cell, and du/dw: exact importance weights whatever the cells are."""
    cell = (torch.searchsorted(even, w, right=True) - 1).clamp(0, _CELLS - 1)
    mass = even[cell + 1] - even[cell]
    return (cell + (w - even[cell]) / mass) / _CELLS, 1 / (_CELLS * mass)


def _block(
    joint: JointProcess,
    model: Model,
    x0: dict[str, Tensor],
    path: Path,
    even: Tensor,
    draws: int,
    levels: dict[str, float],
    rng: torch.Generator,
) -> tuple[dict[str, Tensor], Tensor]:
    """The terms of one block by name, and the standard error of their sum, each (block,).

    The integral: [0, 1] is cut into draws/2 strata of w = F(u), with two independent draws (w, noises) in each, every
    row for itself. The mean is unbiased and evenly spread, and the two halves a and b of the strata tell its error
    without bias: var = sum over strata of E (a - b)^2/4, over their number squared (Cochran 1977, Sampling Techniques,
    ch. 5). The reconstruction, whose variance is far smaller: draws/8 independent draws, at least 2.
    """
    strata, batch = draws // 2, len(next(iter(x0.values())))
    moving = {name: m for name, m in joint.modalities.items() if name not in levels}
    zero = torch.zeros(batch, device=rng.device, dtype=torch.float64)
    held = {name: clock(joint, name, x0[name], zero + level) for name, level in levels.items()}

    def look(t: dict[str, Tensor], *, check: bool) -> tuple[dict[str, Noised], dict[str, Tensor]]:
        t = held | {name: clock(joint, name, x0[name], m.t_min + (1 - m.t_min) * t[name]) for name, m in moving.items()}
        noised = joint.perturb(x0, t, rng=rng)
        return noised, joint.call(model, {name: z.xt for name, z in noised.items()}, t, check=check)

    integral: dict[str, list[Tensor]] = {name: [] for name in moving}
    for k in range(draws):
        w = (k % strata + torch.rand(batch, generator=rng, device=rng.device, dtype=torch.float64)) / strata
        u, density = _point(even, w)
        clocks = path.clocks(moving, u)
        noised, outputs = look({name: c for name, (c, _) in clocks.items()}, check=k == 0)
        for name, m in moving.items():
            value = m.loss(outputs[name], noised[name], objective="elbo").double()
            integral[name].append(density * clocks[name][1] * (1 - m.t_min) * value)
    last: dict[str, list[Tensor]] = {name: [] for name in moving}
    for _ in range(max(2, draws // 8)):
        noised, outputs = look(dict.fromkeys(moving, zero), check=False)
        for name, m in moving.items():
            last[name].append(m.reconstruction(outputs[name], noised[name]).double())
    terms, sums, ends = {}, zero, zero
    for name, m in moving.items():
        values, final = torch.stack(integral[name]), torch.stack(last[name])
        terms[name] = values.mean(0) + final.mean(0) + m.prior_kl(x0[name]).double()
        sums, ends = sums + values, ends + final
    halves = (sums[:strata] - sums[strata:]).square().sum(0) / draws**2
    return terms, (halves + ends.var(0) / len(ends)).sqrt()
