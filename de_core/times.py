"""How training draws the clocks. A policy is a frozen value with one method, ``draw``.

Any-to-any sampling needs times that are drawn independently, with some mass on the faces of the cube: tied times alone
never show a network a clean condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["Bell", "Faces", "Independent", "Mixed", "Staged", "Stratified", "Tied", "TimePolicy", "default_times"]

Shapes = Mapping[str, tuple[int, ...]]


class TimePolicy(Protocol):
    """Draws one time for each modality and sample (or element): ``{name: tensor of shapes[name]}`` in [0, 1]."""

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        """``shapes``: (B,) or (B, *element) by name. ``progress``: the share of training that is done, in [0, 1]."""
        ...


def _uniform(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=rng, device=rng.device)


def _low_discrepancy(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """(perm + u)/n over the batch axis, one shift u for the batch: each value is uniform, the batch is evenly spread.

    Each element of an elementwise clock has its own permutation and shift. Source: Kingma et al. 2021 (2107.00630),
    app. I.1.
    """
    n, rest = shape[0], math.prod(shape[1:])
    order = torch.rand(rest, n, generator=rng, device=rng.device).argsort(1)
    shift = torch.rand(rest, 1, generator=rng, device=rng.device)
    return ((order + shift) / max(n, 1)).T.reshape(shape)


@attrs.frozen
class Independent:
    """Every modality (and every element of an elementwise clock) has its own t ~ U(0, 1)."""

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        return {name: _uniform(shape, rng) for name, shape in shapes.items()}


@attrs.frozen
class Stratified:
    """As ``Independent``, but evenly spread over the batch: the same mean with less noise."""

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        return {name: _low_discrepancy(shape, rng) for name, shape in shapes.items()}


@attrs.frozen
class Tied:
    """One t ~ U(0, 1) a sample for all modalities and elements, evenly spread over the batch."""

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        batch = next(iter(shapes.values()))[0]
        t = _low_discrepancy((batch,), rng)
        return {name: t.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone() for name, shape in shapes.items()}


@attrs.frozen
class Faces:
    """A share of the samples on the faces of the cube, the rest from another policy.

    In such a sample each modality is clean (t = 0) or absent (t = 1) with probability ``ends``/2 each, and otherwise
    keeps the time that ``inner`` drew; a sample whose modalities would all be clean keeps its first time, since it
    would teach nothing.

    Args:
        inner: the policy of the other samples.
        share: of the samples, in [0, 1].
        ends: probability that a modality of such a sample lies at an end.
    """

    inner: TimePolicy = attrs.field(factory=Stratified)
    share: float = 0.3
    ends: float = 0.7

    def __attrs_post_init__(self) -> None:
        for what, value in (("share", self.share), ("ends", self.ends)):
            if not 0 <= value <= 1:
                raise DiffuseError(f"faces: expected {what} in [0, 1], got {value}")

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        t = self.inner.draw(shapes, rng=rng, progress=progress)
        batch = next(iter(shapes.values()))[0]
        face = _uniform((batch,), rng) < self.share
        coin = _uniform((len(shapes), batch), rng)
        clean = (coin < self.ends / 2) & face
        clean[:, clean.all(0)] = False
        absent = (coin > 1 - self.ends / 2) & face
        out = {}
        for k, (name, value) in enumerate(t.items()):
            lead = (batch, *[1] * (value.ndim - 1))
            value = torch.where(clean[k].reshape(lead), 0.0, value)
            out[name] = torch.where(absent[k].reshape(lead), 1.0, value)
        return out


@attrs.frozen
class Staged:
    """A policy for each stretch of training, with modalities held at fixed times on demand.

    Args:
        stages: (until, policy, held) in order: up to ``until`` (a share of the training, the last one 1), draw by
            ``policy``, then set every modality of ``held`` to its fixed time in [0, 1].
    """

    stages: Sequence[tuple[float, TimePolicy, Mapping[str, float]]]

    def __attrs_post_init__(self) -> None:
        ends = [until for until, _, _ in self.stages]
        if not ends or sorted(ends) != ends or ends[-1] != 1:
            raise DiffuseError(f"stages: expected increasing ends of which the last is 1, got {ends}")
        for name, t in (item for _, _, held in self.stages for item in held.items()):
            if not 0 <= t <= 1:
                raise DiffuseError(f"stages: expected '{name}' held at a time in [0, 1], got {t}")

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        _, policy, held = next((s for s in self.stages if progress < s[0]), self.stages[-1])
        if set(held) - set(shapes):
            raise DiffuseError(f"stages: no modality {sorted(set(held) - set(shapes))}; there are {sorted(shapes)}")
        t = policy.draw(shapes, rng=rng, progress=progress)
        return {name: torch.full_like(v, held[name]) if name in held else v for name, v in t.items()}


@attrs.frozen
class Bell:
    """Times of another policy, some of them bent from uniform to logit-normal: more of training where it counts.

    t = 1/(1 + exp(-(mean + spread z))), z the normal quantile of the time that ``inner`` drew, which is to be uniform.

    Args:
        bells: name -> (mean, spread) of logit t, spread above 0; other modalities keep their times.
        share: of the samples whose times are bent, in [0, 1]; the rest keep theirs, so that none is left out.
        inner: the policy that is bent.

    Source: Esser et al. 2024 (2403.03206), logit-normal sampling.
    """

    bells: Mapping[str, tuple[float, float]]
    share: float = 0.85
    inner: TimePolicy = attrs.field(factory=Stratified)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise DiffuseError(f"bell: expected share in [0, 1], got {self.share}")
        for name, (_, spread) in self.bells.items():
            if not spread > 0:
                raise DiffuseError(f"bell: expected a spread above 0 for '{name}', got {spread}")

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        _check_names("bell", self.bells, shapes)
        t = self.inner.draw(shapes, rng=rng, progress=progress)
        bent = _uniform((next(iter(shapes.values()))[0],), rng) < self.share
        for name, (mean, spread) in self.bells.items():
            z = torch.special.ndtri(t[name].clamp(1e-6, 1 - 1e-6))
            rows = bent.reshape(-1, *[1] * (z.ndim - 1))
            t[name] = torch.where(rows, torch.sigmoid(mean + spread * z), t[name])
        return t


@attrs.frozen
class Mixed:
    """Each sample by one of several policies, with modalities held at fixed times on demand.

    Args:
        parts: (share, policy, held): of the samples so many, up to less than one a batch, are drawn by ``policy``, with
            every modality of ``held`` set to its fixed time in [0, 1]. Shares are above 0 and need not sum to 1.
    """

    parts: Sequence[tuple[float, TimePolicy, Mapping[str, float]]]

    def __attrs_post_init__(self) -> None:
        if not self.parts or not all(share > 0 for share, _, _ in self.parts):
            raise DiffuseError(f"mixed: expected parts of shares above 0, got {[share for share, _, _ in self.parts]}")
        for name, t in (item for _, _, held in self.parts for item in held.items()):
            if not 0 <= t <= 1:
                raise DiffuseError(f"mixed: expected '{name}' held at a time in [0, 1], got {t}")

    def draw(self, shapes: Shapes, *, rng: torch.Generator, progress: float = 0.0) -> dict[str, Tensor]:
        batch = next(iter(shapes.values()))[0]
        shares = torch.tensor([share for share, _, _ in self.parts], device=rng.device)
        place = _low_discrepancy((batch,), rng)
        which = torch.bucketize(place, (shares.cumsum(0) / shares.sum())[:-1], right=True)
        out = {name: torch.empty(shape, device=rng.device) for name, shape in shapes.items()}
        for k, (_, policy, held) in enumerate(self.parts):
            _check_names("mixed", held, shapes)
            rows = (which == k).nonzero()[:, 0]
            if not len(rows):
                continue
            t = policy.draw({n: (len(rows), *shape[1:]) for n, shape in shapes.items()}, rng=rng, progress=progress)
            for name in shapes:
                out[name][rows] = torch.full_like(t[name], held[name]) if name in held else t[name]
        return out


def _check_names(what: str, names: Mapping[str, object], shapes: Shapes) -> None:
    if unknown := sorted(set(names) - set(shapes)):
        raise DiffuseError(f"{what}: no modality {unknown}; there are {sorted(shapes)}")


def default_times() -> TimePolicy:
    """Stratified, independent per modality, with a share on the faces."""
    return Faces()
