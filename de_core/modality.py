"""The contract of a modality: one state space, one forward Markov process on it, and how a network speaks about its
score.

The law behind every method is in SPEC.md, section "Modality"; the conformance kit checks each.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, SupportsIndex

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.generator import Generator, rows
from de_core.rng import Rng

__all__ = ["CAPABILITIES", "Modality", "Noised", "Output", "expand", "rows", "shape_of", "times"]

CAPABILITIES = frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode", "compile"})
Output = Tensor
Again = Callable[[Tensor, Tensor], "Tensor | tuple[Tensor, Tensor | None]"]


@attrs.frozen(eq=False)
class Noised:
    """A draw of the forward kernel p_{t|s}(. | x_s), with what the loss reads.

    Attributes:
        x0: the state the kernel started from, at time s (the data when s = 0), (B, *event).
        xt: the state at time t, (B, *event).
        s: the time it started from, in [0, 1], (B,) or (B, *element).
        t: the time it reached, likewise.
        aux: what the kernel drew, row by row: {"eps"}, {"counts"}, ... or nothing.
    """

    x0: Tensor
    xt: Tensor
    s: Tensor
    t: Tensor
    aux: Mapping[str, Tensor] = attrs.field(factory=dict)

    def pick(self, index: Tensor | slice) -> Noised:
        """Some rows of the draw."""
        aux = {key: value[index] for key, value in self.aux.items()}
        return Noised(self.x0[index], self.xt[index], self.s[index], self.t[index], aux)


def times(t: Tensor | float, x: Tensor) -> Tensor:
    """``t`` as a floating tensor with a leading batch axis, (B,) or (B, *element), on the device of ``x``.

    A float or a 0-d tensor is repeated over the batch. The precision is that of ``t`` where it is a floating tensor,
    else that of ``x`` where that is floating, else float32.
    """
    if not isinstance(t, Tensor) or not t.is_floating_point():
        dtype = x.dtype if x.is_floating_point() else torch.float32
        t = torch.as_tensor(t, dtype=dtype, device=x.device)
    return t.to(x.device).expand(x.shape[0]) if t.ndim == 0 else t.to(x.device)


def expand(t: Tensor, x: Tensor) -> Tensor:
    """``t`` of shape (B,) or (B, *element), with axes of length one behind, so that it multiplies ``x`` (B, *event)."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def shape_of(event_shape: Iterable[SupportsIndex]) -> tuple[int, ...]:
    """The shape of an event as a tuple of ints.

    Raises:
        DiffuseError: it is no sequence of whole numbers of at least 0.
    """
    try:
        shape = tuple(operator.index(n) for n in event_shape)
    except TypeError:
        shape = (-1,)
    if min(shape, default=0) < 0:
        raise DiffuseError(f"event_shape: expected a tuple of whole numbers, such as (3, 8), got {event_shape!r}")
    return shape


class Modality(abc.ABC):
    """One state space with its forward Markov process. A plain class: parameters live in the network.

    ``t`` has shape (B,), or (B, *element_shape) where the joint process runs an elementwise clock; t = 0 is data, t =
    1 the prior. Losses are in nats, summed over elements, one number a sample.

    Attributes:
        event_shape: one clean sample, without batch; () is allowed.
        element_shape: the shape of an elementwise clock and of a ``known`` mask: a leading part of ``event_shape``.
        output_shape: what a network returns for it, without batch.
        capabilities: of CAPABILITIES; any other name is an error.
        t_min: where training times, the bound and the reverse steps stop; ``finish`` goes from there to the data.
        holds_known: True where keeping the known elements clean under one shared clock is exact inpainting.
        inexact: names of steppers that are not held to the law: forms kept as they were printed, orders of choice.
    """

    event_shape: tuple[int, ...]
    element_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    t_min: float = 1e-3
    holds_known: ClassVar[bool] = False
    inexact: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = set(cls.capabilities) - CAPABILITIES
        if unknown:
            raise DiffuseError(
                f"{cls.__name__}: unknown capability {sorted(unknown)}; expected of {sorted(CAPABILITIES)}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"

    # --- the forward process ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        """A draw at t = 1, (batch, *event). A generator's device is the device of the draw."""

    @abc.abstractmethod
    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        """x_t ~ p_{t|s}(. | x_s = x). One kernel for training (s = 0), noisy guidance (s -> sigma) and resampling.

        Laws: t = s returns x bit for bit; t = 1 > s draws from the prior; s -> u -> t has the law of s -> t.

        Raises:
            DiffuseError: t < s somewhere.
        """

    # --- what a network says ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        """The denoising integrand at ``noised``, (B,): under "elbo" Phi(p_{t|0}(. | x_0)/beta) of the generator at t.

        Laws: finite on [0, 1], and exactly 0 with zero gradient where t = 0. Its expectation is least at the posterior.

        Raises:
            DiffuseError: an objective this modality does not have.
        """

    @abc.abstractmethod
    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """A difference of log beta. Diffusions: the tangent gradient of log(beta/reference), (B, *event). Jumps:
        log beta(y)/beta(x) over ``generator(t).neighbours(xt)``, (B, N)."""

    # --- the reverse process ----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def step(
        self,
        output: Output,
        xt: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        rng: Rng,
        method: str | None = None,
        weak: Output | None = None,
        weight: float = 1.0,
        again: Again | None = None,
        carry: Any = None,
    ) -> tuple[Tensor, Any]:
        """A reverse move t -> s <= t. Elements whose two times are equal stay as they are.

        Args:
            output: of the network at (xt, t), (B, *output).
            method: one of the modality's stepper names; None is its default.
            weak, weight: the guiding output; weight * strong + (1 - weight) * weak, mixed in the method's own law.
            again: a second network call at another state and time of this modality, the others held (Heun). Returns an
                output, or the pair (output, weak) when guided.
            carry: what the method returned from the step before (multistep methods), None at the start.

        Returns:
            (x_s, carry).
        """

    @abc.abstractmethod
    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """The last move, from t to data: no mask is left, the state lies in the support."""

    def methods(self) -> tuple[str, ...]:
        """The names ``step`` takes for ``method``, the default first."""
        return ()

    def grid(self, steps: int) -> Tensor:
        """The clock readings at which a run of ``steps`` network calls looks, descending from 1, (steps,) float64.

        The last call, at the last reading, is ``finish``. Default: 1, 1 - 1/steps, ..., 1/steps, none below ``t_min``.
        """
        return (1 - torch.arange(steps, dtype=torch.float64) / steps).clamp_min(self.t_min)

    def signal(self, t: Tensor) -> Tensor:
        """The share of the data's variance that x_t explains, for one element whose data have the reference law: 1 at t
        = 0, falling; SNR/(1 + SNR) for numbers. What the path ``Matched`` makes equal.

        Raises:
            DiffuseError: this modality does not say.
        """
        raise DiffuseError(f"{type(self).__name__} has no signal(t), which the path Matched needs")

    # --- by capability ----------------------------------------------------------------------------------------------

    def generator(self, t: Tensor | float) -> Generator:
        """Capability "generator": the operator L of the forward process at time t."""
        raise self._lacks("generator")

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Capability "density": log p_{t|0}(x_t | x_0) against the generator's reference, (B,); at t = 0 it is 0
        where the two are equal and -inf elsewhere; at t = 1 it is the prior's density, whatever x_0."""
        raise self._lacks("density")

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        """Capability "density": the output a perfect network gives if x_0 is candidates[j] with posterior probability
        weights[:, j]. candidates (n, *event), weights (B, n)."""
        raise self._lacks("density")

    def implicit(self, head: Callable[[Tensor], Output], xt: Tensor, t: Tensor, *, rng: Rng, probes: int = 1) -> Tensor:
        """Capability "implicit": L* beta/beta + L log beta at xt, (B,), where head(x) is the output at this
        modality's x.

        ``probes`` random directions or jumps estimate it without bias; 0 takes the exact sum. Elements at t = 0 add
        nothing.
        """
        raise self._lacks("implicit")

    def prior_kl(self, x0: Tensor) -> Tensor:
        """Capability "likelihood": KL(p_{1|0}(. | x_0) || prior), (B,), nats."""
        raise self._lacks("likelihood")

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        """Capability "likelihood": -log p(x_0 | x_t) at t = t_min, (B,), nats."""
        raise self._lacks("likelihood")

    # --- housekeeping -----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON: ``type(m)(**m.config())`` is the same modality."""

    def validate(self, x: Tensor) -> None:
        """Refuse a clean state that is not in the space. The sentence starts with what was expected.

        Raises:
            DiffuseError: wrong shape, dtype or range.
        """
        self.check_shape(x)

    def validate_noised(self, x: Tensor) -> None:
        """Refuse a state that no x_t is, 0 < t <= 1: as ``validate``, unless noise leaves the space of the data (a
        mask, the inside of a simplex).

        Raises:
            DiffuseError: wrong shape, dtype or range.
        """
        self.validate(x)

    def check_shape(self, x: Tensor, *, floating: bool = True) -> None:
        """The part of ``validate`` that every space shares: (B, *event), floating or int64.

        Raises:
            DiffuseError: another shape or dtype.
        """
        right = x.is_floating_point() if floating else x.dtype == torch.int64
        if tuple(x.shape[1:]) != tuple(self.event_shape) or x.ndim == 0 or not right:
            want = ", ".join(["B", *map(str, self.event_shape)]) + ("," if not self.event_shape else "")
            kind = "floating" if floating else "int64"
            raise DiffuseError(f"expected ({want}) {kind}, got {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}")

    @property
    def elements(self) -> int:
        """How many elements an event has."""
        return math.prod(self.element_shape)

    def _lacks(self, capability: str) -> DiffuseError:
        return DiffuseError(f"{type(self).__name__} lacks the capability '{capability}'")
