"""Classes under an absorbing chain: each element keeps its class with probability a(t), else shows the mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families import Jump
from de_core.generator import rows
from de_core.modality import Again, Noised, Output, expand, shape_of, times
from de_core.rng import Rng, as_generator
from de_core.sampling.steppers import Move
from de_core.schedule import survival_schedule
from de_plugins.masked.analytic import analytic
from de_plugins.masked.confidence import confidence
from de_plugins.masked.euler import euler
from de_plugins.masked.first_hitting import first_hitting
from de_plugins.masked.generator import AbsorbingGenerator
from de_plugins.masked.layout import Layout, Ragged, Regular
from de_plugins.masked.systematic import systematic
from de_plugins.masked.tau_leaping import tau_leaping, tau_leaping_paper

__all__ = ["Masked"]

_OBJECTIVES = ("elbo", "simple", "paper-tabular", "paper-text-image")
_STEPPERS: dict[str, Callable[[Move[Masked]], Tensor]] = {
    "analytic": analytic,
    "systematic": systematic,
    "confidence": confidence,
    "first_hitting": first_hitting,
    "euler": euler,
    "tau_leaping": tau_leaping,
    "tau_leaping_paper": tau_leaping_paper,
}


class Masked(Jump):
    """Class indices 0..K-1, and K for the mask (each element's own K when ragged).

    Generator: Q(x, mask) = h(t) = -a'/a for an unmasked element. Kernel: x_0 with probability a(t), else the mask. The
    network gives class scores of p(x_0 | x_t); the ratio at a masked element is beta(y)/beta(x) = a/(1-a) p(y), and
    the score entropy is then exactly w(t) times the cross entropy over masked elements, w = -a'/(1-a), with nothing
    left over.

    Objectives: "elbo" that; "simple" (M+1)/m times the cross entropy over the m masked of the M elements with t > 0:
    with a = 1 - t, one uniform clock for all elements and the other modalities' clocks independent of it, this has the
    bound's own expectation, without its 1/t tail; "paper-tabular" 0.1 w(t) times the cross entropy over all elements;
    "paper-text-image" its mean over all elements (the authors' two losses).

    Args:
        event_shape: of one sample.
        num_classes: K, or one K per element of a one-dimensional event (then the output is flat, (sum of K,)).
        schedule: "linear" (a = 1 - t) or "cosine".

    Sources: Lou et al. 2024 (2310.16834), Sahoo et al. 2024 (2406.07524), Shi et al. 2024 (2406.04329), Ou et al. 2024
    (2406.03736).
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit"})
    inexact = frozenset({"confidence", "tau_leaping_paper"})
    holds_known = True  # a kept token is exact: the optimal prediction needs the tokens, not the clock (Ou et al. 2024)

    def __init__(self, event_shape: Sequence[int], num_classes: int | Sequence[int], schedule: str = "linear") -> None:
        self.event_shape = self.element_shape = shape_of(event_shape)
        self.schedule, self.clock = schedule, survival_schedule(schedule)
        num_classes = int(num_classes) if isinstance(num_classes, Integral) else num_classes
        sizes = list(num_classes) if isinstance(num_classes, Iterable) else [num_classes]
        if not sizes or not all(isinstance(k, Integral) for k in sizes) or min(sizes) < 1:
            raise DiffuseError(f"num_classes: expected whole numbers of at least 1, got {num_classes!r}")
        sizes = [int(k) for k in sizes]
        if isinstance(num_classes, int):
            self.num_classes: int | tuple[int, ...] = num_classes
            self.layout: Layout = Regular(self.event_shape, num_classes)
        else:
            if self.event_shape != (len(sizes),):
                raise DiffuseError(
                    f"num_classes: expected one for each element of {self.event_shape}, got {len(sizes)}"
                )
            self.num_classes = tuple(sizes)
            self.layout = Ragged(sizes)
        self.output_shape = self.layout.output_shape

    def config(self) -> dict[str, Any]:
        classes = self.num_classes if isinstance(self.num_classes, int) else list(self.num_classes)
        return {"event_shape": list(self.event_shape), "num_classes": classes, "schedule": self.schedule}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x, floating=False)
        self._check_range(x, masks=False)

    def validate_noised(self, x: Tensor) -> None:
        self.check_shape(x, floating=False)
        self._check_range(x, masks=True)

    def _check_range(self, x: Tensor, *, masks: bool) -> None:
        top = self.layout.sizes(x.device) - (0 if masks else 1)
        if x.numel() and bool(((x < 0) | (x > top)).any()):
            wrong = tuple(((x < 0) | (x > top)).nonzero()[0].tolist())
            highest, at = int(top.expand(x.shape)[wrong]), f" at element {wrong[1:]}" if self.event_shape else ""
            raise DiffuseError(f"expected class indices from 0 to {highest}{at}, got {int(x[wrong])} in row {wrong[0]}")

    # --- the forward process ----------------------------------------------------------------------------------------

    def mask(self, device: torch.device) -> Tensor:
        """The mask's index, broadcastable to the event."""
        return self.layout.sizes(device)

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        device = rng.device if isinstance(rng, torch.Generator) else torch.device("cpu")
        return self.mask(device).expand(batch, *self.event_shape).clone()

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("masked: the kernel runs forward, expected t >= s")
        u = torch.rand(x.shape, generator=as_generator(rng, x.device), device=x.device, dtype=torch.float64)
        kept = torch.where(t > s, self.clock.kept(s, t), 1.0)
        return Noised(x, torch.where(u < expand(kept, x), x, self.mask(x.device)), s, t)

    def signal(self, t: Tensor) -> Tensor:
        """a: an element is known with this probability, else nothing of it is."""
        return self.clock.survival(t)

    def generator(self, t: Tensor | float) -> AbsorbingGenerator:
        when = t if isinstance(t, Tensor) else torch.tensor(float(t))
        return AbsorbingGenerator(self, self.clock.hazard(when))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        kept, lost = expand(self.clock.survival(t), xt), expand(self.clock.lost(t), xt)
        value = torch.where(xt == self.mask(xt.device), lost, torch.where(xt == x0, kept, 0.0))
        return rows(value.log()).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def log_probs(self, output: Output) -> Tensor:
        """log p(x_0 | x_t) in the layout of the output."""
        return self.layout.log_softmax(output)

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt).to(output.dtype)
        odds = (self.clock.survival(t) / self.clock.lost(t).clamp_min(1e-12)).clamp_min(1e-30).log()
        log_s = expand(odds, xt)[..., None] + self.layout.padded(self.log_probs(output))
        masked = (xt == self.mask(xt.device))[..., None]
        real = self.layout.padded(torch.zeros_like(output)) == 0
        return rows(torch.where(masked & real, log_s, 0.0))

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        if objective not in _OBJECTIVES:
            raise DiffuseError(f"masked: no objective {objective!r}; expected one of {', '.join(_OBJECTIVES)}")
        t = noised.t
        live = expand(t > 0, noised.xt).expand(noised.xt.shape)
        masked = (noised.xt == self.mask(noised.xt.device)) & live
        if objective in ("elbo", "simple"):
            entropy = self._entropy(output, noised.x0, masked)
        else:
            entropy = self.layout.cross_entropy(output, noised.x0)
        if objective == "elbo":
            weight = expand(self.clock.reverse_hazard(t), noised.xt).to(entropy.dtype)
            return rows(torch.where(masked, weight * entropy, 0.0)).sum(1)
        if objective == "simple":
            count, total = rows(masked).sum(1), rows(live).sum(1)
            scale = (total + 1).to(entropy.dtype) / count.clamp_min(1)
            return scale * rows(torch.where(masked, entropy, 0.0)).sum(1)
        everything = rows(torch.where(live, entropy, 0.0))
        if objective == "paper-text-image":
            return everything.mean(1)
        weight = expand(self.clock.reverse_hazard(t), noised.xt).to(entropy.dtype)
        return 0.1 * rows(torch.where(live, weight * entropy, 0.0)).sum(1)

    def _entropy(self, output: Output, x0: Tensor, masked: Tensor) -> Tensor:
        """-log p(x0) in the rows in which something is masked, 0 in the others: those cost nothing."""
        some = rows(masked).any(1).nonzero()[:, 0]
        if len(some) == len(x0):
            return self.layout.cross_entropy(output, x0)
        found = self.layout.cross_entropy(output.index_select(0, some), x0.index_select(0, some))
        return found.new_zeros(x0.shape).index_copy(0, some, found)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        hot = torch.nn.functional.one_hot(candidates, self.layout.largest).to(weights.dtype)
        marginal = (weights @ rows(hot)).reshape(len(xt), *self.event_shape, self.layout.largest)
        return self.layout.unpadded(marginal.clamp_min(torch.finfo(marginal.dtype).tiny).log())

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return tuple(_STEPPERS)

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
        """Masked elements may take a class; others never change. Each stepper's law is in its own file:

        - "analytic" (default): exact given p; elements drawn together are independent, the step's only error.
        - "systematic": the same chance for each element, with no scatter in how many are unmasked at once.
        - "confidence": as many, the surest elements first.
        - "first_hitting": one element at a time, each with its own network call; no error but the network's.
        - "euler", "tau_leaping": the rates w(t) p(y) frozen over the step; guidance mixes log-rates, raw.
        - "tau_leaping_paper": as the authors' code, where an element with more than one jump stays.
        """
        method = method or "analytic"
        if method not in _STEPPERS:
            raise DiffuseError(f"masked: no stepper {method!r}; expected one of {', '.join(_STEPPERS)}")
        draw = as_generator(rng, xt.device)
        move = Move(self, method, output, xt, times(t, xt), times(s, xt), draw, weak, weight, again)
        return _STEPPERS[method](move), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """Every mask that is left takes a class from the guided probabilities: no mask survives."""
        where = xt == self.mask(xt.device)
        return self.layout.draw(output, where, xt, as_generator(rng, xt.device), weak, weight)

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """0: a(1) = 0, everything is masked."""
        return torch.zeros(len(x0), device=x0.device)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        masked = noised.xt == self.mask(noised.xt.device)
        return rows(torch.where(masked, self.layout.cross_entropy(output, noised.x0), 0.0)).sum(1)
