"""Classes under an absorbing chain: each element keeps its class with probability a(t), else shows the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families import Jump
from de_core.generator import JumpGenerator, rows
from de_core.modality import Again, Noised, Output, expand, times
from de_core.rng import Rng, as_generator
from de_core.schedule import survival_schedule
from de_plugins.masked.layout import Layout, Ragged, Regular

__all__ = ["AbsorbingGenerator", "Masked", "systematic"]

_OBJECTIVES = ("elbo", "simple", "paper-tabular", "paper-text-image")


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
    holds_known = True  # a kept token is exact: the optimal prediction needs the tokens, not the clock (Ou et al. 2024)

    def __init__(self, event_shape: Sequence[int], num_classes: int | Sequence[int], schedule: str = "linear") -> None:
        self.event_shape = self.element_shape = tuple(int(n) for n in event_shape)
        self.schedule, self.clock = schedule, survival_schedule(schedule)
        sizes = [num_classes] if isinstance(num_classes, int) else [int(k) for k in num_classes]
        if not sizes or min(sizes) < 1:
            raise DiffuseError(f"num_classes: expected at least 1, got {num_classes}")
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

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        hot = torch.nn.functional.one_hot(candidates, self.layout.largest).to(weights.dtype)
        marginal = (weights @ rows(hot)).reshape(len(xt), *self.event_shape, self.layout.largest)
        return self.layout.unpadded(marginal.clamp_min(torch.finfo(marginal.dtype).tiny).log())

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("analytic", "systematic", "tau_leaping", "tau_leaping_paper")

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
        """Masked elements may take a class; others never change.

        "analytic" (default; Sahoo et al. 2024): unmask with probability (a_s - a_t)/(1 - a_t), exact given p.
        Guidance mixes log-probabilities and renormalises. "systematic": each element has the same chance, but the
        number unmasked at once is its mean rounded up or down. Elements unmasked together are drawn independently of
        each other, the step's only error, and with fewer elements than steps hardly any are; the order is random and
        the optimal p does not need the clock (Ou et al. 2024), so the law stays exact. "tau_leaping": rates w(t) p(y),
        frozen over the step; a Poisson number of jumps with mean (t - s) w Z, any of them moves the element,
        Z = sum_y p_strong^w p_weak^(1-w) (1 unguided): log-rates are mixed raw. "tau_leaping_paper": as the authors'
        code, an element with more than one jump stays, so it moves with probability z e^-z.
        """
        method = method or "analytic"
        if method not in self.methods():
            raise DiffuseError(f"masked: no stepper {method!r}; expected one of {', '.join(self.methods())}")
        t, s = times(t, xt), times(s, xt)
        draw = as_generator(rng, xt.device)
        masked = (xt == self.mask(xt.device)) & expand(t > s, xt)
        if method == "systematic":
            chance = torch.where(masked, expand(self.clock.revealed(t, s), xt).double(), 0.0)
            return self.layout.draw(output, systematic(chance, draw), xt, draw, weak, weight), None
        u = torch.rand(xt.shape, generator=draw, device=xt.device, dtype=torch.float64)
        if method == "analytic":
            move = expand(self.clock.revealed(t, s), xt).double()
        else:
            mean = expand((t - s) * self.clock.reverse_hazard(t), xt).double()
            if weak is not None:
                strong, other = (self.layout.padded(self.log_probs(o)).clamp_min(-1e4) for o in (output, weak))
                mean = mean * (weight * strong + (1 - weight) * other).exp().sum(-1)
            move = -torch.expm1(-mean) if method == "tau_leaping" else mean * torch.exp(-mean)
        return self.layout.draw(output, masked & (u < move), xt, draw, weak, weight), None

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


def systematic(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Which elements of each row are picked, bool: element l with probability chance[l], and of each row floor or
    ceiling of the sum of the chances. One uniform a row is laid over the cumulative chances in random order.

    Source: Madow 1949, On the theory of systematic sampling.
    """
    flat = rows(chance)
    order = torch.rand(flat.shape, generator=generator, device=flat.device).argsort(1)
    u = torch.rand(len(flat), 1, generator=generator, device=flat.device, dtype=flat.dtype)
    marks = torch.cat([u, u + flat.gather(1, order).cumsum(1)], 1).floor()
    picked = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, marks[:, 1:] > marks[:, :-1])
    return picked.reshape(chance.shape)


class AbsorbingGenerator(JumpGenerator):
    """L f(x) = h sum_l [f(x with element l masked) - f(x)] over unmasked l.

    Neighbours come in ``largest`` slots an element: a masked element's are its classes (rate in h, rate out 0); an
    unmasked one's first is the mask (rate out h, rate in 0), the others are padding.
    """

    def __init__(self, modality: Masked, hazard: Tensor) -> None:
        self.modality, self.hazard = modality, hazard

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layout, event = self.modality.layout, self.modality.event_shape
        count, k = self.modality.elements, layout.largest
        flat = x.reshape(len(x), count)
        mask = layout.sizes(x.device).expand(event).reshape(count)
        slots = torch.arange(k, device=x.device)
        masked = (flat == mask)[..., None]
        real = slots < mask[:, None]
        value = torch.where(masked & real, slots, flat[..., None])
        value = torch.where(~masked & (slots == 0), mask[:, None], value)
        rate = self.hazard if self.hazard.ndim == 0 else rows(self.hazard)
        rate = rate.expand(len(x), count)[..., None]
        out = torch.where(~masked & (slots == 0), rate, 0.0).flatten(1)
        into = torch.where(masked & real, rate, 0.0).flatten(1)
        own = torch.eye(count, dtype=torch.bool, device=x.device)[:, None]
        y = torch.where(own, value[..., None], flat[:, None, None])
        return y.reshape(len(x), count * k, *event), out, into

    def states(self) -> Tensor:
        event = self.modality.event_shape
        sizes = self.modality.layout.sizes(torch.device("cpu")).expand(event).reshape(-1).tolist()
        return torch.cartesian_prod(*[torch.arange(n + 1) for n in sizes]).reshape(-1, *event)
