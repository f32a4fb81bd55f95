"""Counts under immigration and death: thinned towards, and refilled from, a Poisson law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from de_core import DiffuseError, Jump, JumpGenerator, Noised
from de_core.generator import rows, score_entropy
from de_core.modality import Again, Output, expand, shape_of, times
from de_core.rng import Rng, as_generator
from de_core.schedule import LinearSurvival
from de_counts._kernel import draw, thinned

__all__ = ["Counts", "CountsGenerator"]

_TINY = 1e-30


class CountsGenerator(JumpGenerator):
    """L f(x) = h sum_l [mu_l (f(x + e_l) - f(x)) + x_l (f(x - e_l) - f(x))]. Neighbours of an element: x + 1, x - 1.

    The space is not finite: ``states`` and ``matrix`` raise.
    """

    def __init__(self, mean: Tensor, hazard: Tensor) -> None:
        self.mean, self.hazard = mean, hazard

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat, hazard = rows(x), rows(expand(self.hazard, x).to(x.device).expand(x.shape))
        count, mean = flat.shape[1], self.mean.to(x.device).reshape(-1)
        there = flat > 0  # a jump down
        moves = torch.eye(count, dtype=x.dtype, device=x.device)
        up, down = flat[:, None] + moves, flat[:, None] - moves * there[..., None]
        y = torch.stack([up, down], 2).reshape(len(x), 2 * count, *x.shape[1:])
        out = torch.stack([hazard * mean, hazard * flat], 2)
        into = torch.stack([hazard * (flat + 1), hazard * mean * there], 2)
        return y, out.flatten(1), into.flatten(1)


class Counts(Jump):
    """Non-negative whole numbers, each element a population: individuals die, others come in.

    Generator: h(t) [mu (f(x + 1) - f(x)) + x (f(x - 1) - f(x))], h = -a'/a, a = 1 - t. Kernel: x_t is Binomial(x_0, a)
    survivors and Poisson(mu (1 - a)) newcomers; prior, stationary law and the law at t = 1: Poisson(mu).

    A network returns two numbers an element, (*event, 2), log g_up and log g_down. With pi the prior,

        beta(x + 1)/beta(x) = mu/(x + 1) (1 - a + a g_up),    beta(x - 1)/beta(x) = (x/mu)/(1 - a + a g_down):

    beta/pi = sum over x_0 of (data/pi)(x_0) p_t(x_0 | x), p_t reversible, and one more individual at x survives with
    probability a; g is what it is then worth. So any output gives positive ratios, 0 gives those of the prior, and
    a perfect g_up at x is the g_down at x + 1. g_up is E[x_0 - survivors | x_t]/(mu (1 - a)): as t -> 1, E[x_0]/mu.

    The reverse step and ``finish`` thin and add, by g_up and g_down, and stay on the whole numbers. Objectives: "elbo"
    the score entropy; "simple" that times 1 - a, whose gradient is bounded in t. Cost: of the order of the root of the
    largest count, an element.

    Args:
        event_shape: any; every entry is one count and one element.
        mean: mu > 0, one number or one an element; best near the mean of the data.

    Raises:
        DiffuseError: a mean that is not positive and finite, or of another shape.

    Sources: Chen and Zhou 2023 (2305.18375), learning to jump (thinning alone); Campbell et al. 2022 (2205.14987),
    reversal of birth-death chains.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit"})
    t_min = 1e-4

    def __init__(self, event_shape: Sequence[int] = (), mean: float | Sequence[Any] = 1.0) -> None:
        self.event_shape = self.element_shape = shape_of(event_shape)
        self.output_shape = (*self.event_shape, 2)
        given = torch.as_tensor(mean, dtype=torch.float64)
        if given.shape not in ((), self.event_shape):
            raise DiffuseError(f"mean: expected one number or shape {self.event_shape}, got {tuple(given.shape)}")
        if not bool((given.isfinite() & (given > 0)).all()):
            raise DiffuseError("mean: expected positive finite numbers")
        self.mean, self._given = given.expand(self.event_shape), given.tolist()
        self.clock = LinearSurvival()

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape), "mean": self._given}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x, floating=False)
        if x.numel() and int(x.min()) < 0:
            raise DiffuseError(f"expected counts, 0 or more, got {int(x.min())}")

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        none = torch.zeros(batch, *self.event_shape, dtype=torch.int64, device=rng.device)
        return draw(none, none, self.mean.to(rng.device), rng)

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        """Each individual survives from s to t with probability a(t)/a(s); Poisson(mu (1 - a(t)/a(s))) come in."""
        t, rng = times(t, x), as_generator(rng, x.device)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("counts: the kernel runs forward, expected t >= s")
        kept = expand(self.clock.kept(s.double(), t.double()), x)
        moved = draw(x, kept, self.mean.to(x.device) * (1 - kept), rng)
        return Noised(x, torch.where(expand(t > s, x), moved, x), s, t)

    def signal(self, t: Tensor) -> Tensor:
        """a^2: for x_0 ~ Poisson(mu), E[x_0 | x_t] = a x_t + (1 - a) mu."""
        return self.clock.survival(t) ** 2

    def generator(self, t: Tensor | float) -> CountsGenerator:
        return CountsGenerator(self.mean, self.clock.hazard(torch.as_tensor(t, dtype=torch.float64)))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        value = self._moments(xt, x0, t)[0]
        exact = torch.where(xt == x0, 0.0, -torch.inf)
        return rows(torch.where(expand(t > 0, xt), value, exact)).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def log_gain(self, output: Output, t: Tensor) -> Tensor:
        """log(1 - a + a g), (B, *event, 2) float64: log of (beta/pi)(x + 1)/(beta/pi)(x), and of (x)/(x - 1)."""
        a = expand(self._alive(t), output)
        return torch.logaddexp(torch.log1p(-a), a.log() + output.double())

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        gain, mean = self.log_gain(output, times(t, xt)), self.mean.to(xt.device)
        up = (mean / (xt + 1)).log() + gain[..., 0]
        down = (xt.clamp_min(1) / mean).log() - gain[..., 1]  # there is no x - 1 below x = 0
        return rows(torch.stack([up, down], -1)).to(output.dtype)

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        """h sum_l [(x + 1) D(s_up, r_up) + mu 1{x > 0} D(s_down, r_down)], D(s, r) = s - r log(s/r) - r: the score
        entropy of the chain (Lou et al. 2024, 2310.16834), with the kernel's own ratios r, survivors summed out."""
        if objective not in ("elbo", "simple"):
            raise DiffuseError(f"counts: no objective {objective!r}; expected 'elbo' or 'simple'")
        x, t = noised.xt, torch.where(noised.t > 0, noised.t, 0.5)
        target = self._log_g(x, t, *self._moments(x, noised.x0, t)[1:])
        # rate into x times ratio: (x + 1) mu/(x + 1) = mu from above, mu x/mu = x from below, each times its gain
        rate = torch.stack([self.mean.to(x.device).expand(x.shape), x.clamp_min(1)], -1).log()
        sign = torch.tensor([1.0, -1.0], device=x.device)
        value = score_entropy(rate + sign * self.log_gain(output, t), rate + sign * self.log_gain(target, t))
        value = torch.where(torch.stack([x >= 0, x > 0], -1), value, 0.0).sum(-1)
        weight = self.clock.hazard(t.double()) * (self.clock.lost(t.double()) if objective == "simple" else 1.0)
        return rows(torch.where(expand(noised.t > 0, x), expand(weight, x) * value, 0.0)).sum(1).to(output.dtype)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        """Both ratios are means of the conditional ones under the posterior, and these are linear in the mean numbers
        of dead and of newcomers."""
        t = times(t, xt)
        total = torch.zeros(3, *xt.shape, dtype=torch.float64, device=xt.device)
        for x0, w in zip(candidates, weights.T, strict=True):
            total = total + expand(w.double(), xt) * torch.stack(self._moments(xt, x0.expand_as(xt), t)[1:])
        return self._log_g(xt, t, *total).to(weights.dtype)

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("thinning",)

    def grid(self, steps: int) -> Tensor:
        """Even in t^(1/3), from 1 to t_min: late steps are short, since one that ends at 0 draws the last of the dead
        from a Poisson law, of variance 1 - a times the count."""
        k = torch.linspace(0, 1, steps, dtype=torch.float64)
        return (1 + k * (self.t_min ** (1 / 3) - 1)).pow(3).clamp_min(self.t_min)

    def reverse(
        self, output: Output, xt: Tensor, t: Tensor, s: Tensor, weak: Output | None = None, weight: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The step t -> s: the probability that an individual is lost, and the mean number of those that come in.

        Given x_0 and the survivors, each newcomer since 0 came after s with probability (1 - a_t/a_s)/(1 - a_t), each
        of the dead was alive at s with (a_s - a_t)/(1 - a_t), and Poisson(mu (1 - a_s)(1 - a_t/a_s)) more came and
        went. With the mean numbers in place of their laws: loss (1 - a_t/a_s)/(1 - a_t + a_t g_down), gain
        mu [g_up (a_s - a_t) + (1 - a_s)(1 - a_t/a_s)]. The mean of x_s is exact for any s, and as s -> t the rates are
        those of the reversed chain. Guidance mixes the log-ratios, raw, and cuts at 1 and at 0.
        """
        t, s = t.double(), s.double()
        gain = self.log_gain(output, t)
        if weak is not None:
            gain = weight * gain + (1 - weight) * self.log_gain(weak, t)
        up, down = gain.unbind(-1)
        a, gone = expand(self._alive(t), xt), expand(self.clock.lost(s), xt)
        missed = expand(self.clock.lost(t), xt) - gone
        late = missed / expand(self._alive(s), xt)
        came = (up.expm1() / a + 1) * missed + gone * late
        return (late * torch.exp(-down)).clamp_max(1), (self.mean.to(xt.device) * came).clamp_min(0)

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
        """Thin and add by ``reverse``: individuals and elements that move together move independently."""
        if method not in (None, *self.methods()):
            raise DiffuseError(f"counts: no stepper {method!r}; expected one of {', '.join(self.methods())}")
        t, s = times(t, xt), times(s, xt)
        lost, came = self.reverse(output, xt, t, s, weak, weight)
        return torch.where(expand(t > s, xt), draw(xt, 1 - lost, came, as_generator(rng, xt.device)), xt), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """The step to 0: newcomers are lost, the dead come back; where t = 0, x_t itself."""
        return self.step(output, xt, t, torch.zeros_like(times(t, xt)), rng=rng, weak=weak, weight=weight)[0]

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """0: a(1) = 0, the kernel is the prior."""
        return torch.zeros(len(x0), device=x0.device)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        """-log p(x_0 | x_t), p the law of ``finish``."""
        lost, came = self.reverse(output, noised.xt, noised.t, torch.zeros_like(noised.t))
        return -rows(thinned(noised.x0, noised.xt, 1 - lost, lost, came)[0]).sum(1)

    # --- insides ----------------------------------------------------------------------------------------------------

    def _alive(self, t: Tensor) -> Tensor:
        """a(t) in float64, a hair above 0 at t = 1 and a hair below 1 at t = 0, where outputs do not count."""
        return self.clock.survival(t.double()).clamp(_TINY, 1 - 1e-15)

    def _moments(self, xt: Tensor, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log p_{t|0}(x_t | x_0) of each element; the mean numbers of dead, of newcomers, of survivors."""
        kept, lost = (expand(a, xt) for a in (self.clock.survival(t.double()), self.clock.lost(t.double())))
        return thinned(xt, x0, kept, lost, self.mean.to(xt.device) * lost)

    def _log_g(self, xt: Tensor, t: Tensor, dead: Tensor, newcomers: Tensor, survivors: Tensor) -> Output:
        """g_up = dead/(mu (1 - a)), g_down = (1 - a) survivors/(a newcomers), or 1 where x = 0: their logs, at
        least log 1e-30."""
        a, lost = expand(self._alive(t), xt), expand(self.clock.lost(t).double(), xt).clamp_min(_TINY)
        up = dead / (self.mean.to(xt.device) * lost)
        down = torch.where(xt > 0, lost * survivors / (a * newcomers.clamp_min(_TINY)), 1.0)
        return torch.stack([up, down], -1).clamp_min(_TINY).log()
