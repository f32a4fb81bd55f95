"""Public hypothesis strategies: modalities, joint laws with finite support, clocks, finite products.

The built-in modalities are looked up by name among the installed plugins, as any caller would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from hypothesis import strategies as st
from torch import Tensor

from de_core.joint import JointProcess
from de_core.modality import Modality
from de_core.plugins import get_modality
from de_core.testing.finite import FiniteProduct, RateGenerator

__all__ = [
    "BUILT_IN",
    "clean",
    "finite_products",
    "joint_laws",
    "modalities",
    "rate_matrices",
    "seeds",
    "times",
]

BUILT_IN = ("gaussian", "masked", "uniform", "simplex")


def _build(kind: str, *args: Any) -> Any:
    """A modality by name; its class is a plugin's, so its arguments are not known here."""
    return cast(Any, get_modality(kind))(*args)


def seeds() -> st.SearchStrategy[int]:
    """Seeds of torch generators: what is drawn from one is a function of it, so examples replay."""
    return st.integers(0, 2**31 - 1)


@st.composite
def modalities(draw: st.DrawFn, kinds: Sequence[str] = BUILT_IN) -> Modality:
    """One small built-in modality of the kinds named: any schedule, prediction, head, vocabulary."""
    kind = draw(st.sampled_from(list(kinds)))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    if kind == "gaussian":
        schedule = draw(st.sampled_from(["cosine", "linear", "edm"]))
        return _build(kind, shape, schedule, draw(st.sampled_from(["v", "x0", "eps", "score"])))
    if kind == "masked":
        schedule = draw(st.sampled_from(["linear", "cosine"]))
        if draw(st.booleans()):
            sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
            return _build(kind, (len(sizes),), sizes, schedule)
        return _build(kind, shape, draw(st.integers(1, 5)), schedule)
    if kind == "uniform":
        head = draw(st.sampled_from(["posterior", "leave_one_out"]))
        return _build(kind, shape, draw(st.integers(2, 5)), head)
    if kind == "simplex":
        shape = draw(st.sampled_from([(2,), (4,), (2, 3)]))
        return _build(kind, shape, draw(st.sampled_from(["score", "posterior"])))
    raise ValueError(f"kinds: expected of {', '.join(BUILT_IN)}, got {kind!r}")


def clean(modality: Modality, n: int, rng: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """``n`` clean states of a built-in modality, (n, *event): normal numbers, classes, shares or one-hot
    shares."""
    config, shape = modality.config(), (n, *modality.event_shape)
    if "num_classes" in config:
        u = torch.rand(shape, generator=rng, dtype=torch.float64)
        return (u * torch.as_tensor(config["num_classes"])).long()
    if "head" not in config:
        return torch.randn(shape, generator=rng, dtype=dtype)
    raw = -torch.rand(shape, generator=rng, dtype=dtype).log()  # exponential: flat shares
    if config["head"] == "score":
        return raw / raw.sum(-1, keepdim=True)
    return torch.nn.functional.one_hot(raw.argmax(-1), shape[-1]).to(dtype)


@st.composite
def joint_laws(draw: st.DrawFn, joint: JointProcess, *, max_atoms: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    """A data law with finite support for a process of built-in modalities: atoms (n, *event) by name,
    weights (n,)."""
    n, rng = draw(st.integers(1, max_atoms)), torch.Generator().manual_seed(draw(seeds()))
    data = {name: clean(m, n, rng) for name, m in joint.modalities.items()}
    return data, 0.1 + torch.rand(n, generator=rng, dtype=torch.float64)


@st.composite
def times(
    draw: st.DrawFn, shapes: Mapping[str, tuple[int, ...]], *, ends: bool = True, low: float = 0.02
) -> dict[str, Tensor]:
    """A clock for every modality, float64, in the shapes of ``joint.time_shapes``.

    Inside [low, 1 - low], and with ``ends`` sometimes at 0 and 1 too."""
    rng = torch.Generator().manual_seed(draw(seeds()))
    share = draw(st.sampled_from([0.0, 0.3])) if ends else 0.0
    out = {}
    for name, shape in shapes.items():
        t = low + (1 - 2 * low) * torch.rand(shape, generator=rng, dtype=torch.float64)
        coin = torch.rand(shape, generator=rng, dtype=torch.float64)
        out[name] = torch.where(coin < share / 2, 0.0, torch.where(coin > 1 - share / 2, 1.0, t))
    return out


@st.composite
def rate_matrices(draw: st.DrawFn, n: int) -> Tensor:
    """A rate matrix on n states, rates in [.1, 1.1]: dense, nearest-neighbour, or one-way and absorbed at
    its end."""
    rng = torch.Generator().manual_seed(draw(seeds()))
    rates = 0.1 + torch.rand(n, n, generator=rng, dtype=torch.float64)
    gap = torch.arange(n) - torch.arange(n)[:, None]
    kind = draw(st.sampled_from(["dense", "nearest", "one-way"]))
    allowed = {"dense": gap != 0, "nearest": gap.abs() == 1, "one-way": gap == 1}[kind]
    return torch.where(allowed, rates, 0.0)


@st.composite
def finite_products(draw: st.DrawFn, *, max_parts: int = 3) -> FiniteProduct:
    """A random law on a product of 1 to ``max_parts`` chains at random times, of at most 36 states.

    The chains are masked and uniform modalities of up to two elements, and chains of random rates."""
    generators, kernels = {}, {}
    size = 1
    for k in range(draw(st.integers(1, max_parts))):
        kind = draw(st.sampled_from(["masked", "uniform", "rates"]))
        span = draw(st.floats(0.1, 1.5))  # the accumulated rate
        room = 36 // size
        if kind == "rates" or room < 4:
            if room < 2:
                break
            chain = RateGenerator(draw(rate_matrices(draw(st.integers(2, min(4, room))))))
        else:
            elements = draw(st.sampled_from([(), (2,)] if room >= 9 else [()]))
            chain = _build(kind, elements, 2 if kind == "masked" or elements else 3).generator(
                torch.tensor(draw(st.floats(0.1, 0.9)), dtype=torch.float64)
            )
        matrix = chain.matrix()
        name = f"{kind}{k}"
        generators[name] = chain
        kernels[name] = torch.matrix_exp(matrix * (span / max(1.0, float(-matrix.diagonal().min()))))
        size *= len(matrix)
    rng = torch.Generator().manual_seed(draw(seeds()))
    law = torch.rand([len(k) for k in kernels.values()], generator=rng, dtype=torch.float64)
    atoms = draw(st.integers(1, 6))
    keep = torch.rand(law.numel(), generator=rng).argsort()[:atoms]
    sparse = torch.zeros(law.numel(), dtype=torch.float64)
    sparse[keep] = law.reshape(-1)[keep]
    return FiniteProduct(generators, kernels, sparse.reshape(law.shape))
