"""Classes under the uniform-rate chain: each element keeps its class with probability a(t), else shows a random one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families import Jump
from de_core.families.jump import categorical, guided_log_probs
from de_core.generator import rows, score_entropy
from de_core.modality import Again, Noised, Output, expand, shape_of, times
from de_core.rng import Rng, as_generator
from de_core.schedule import LinearSurvival
from de_plugins.uniform.analytic import analytic
from de_plugins.uniform.euler import euler
from de_plugins.uniform.generator import UniformGenerator
from de_plugins.uniform.tau_leaping import tau_leaping, tau_leaping_paper

__all__ = ["Uniform"]

_HEADS = ("posterior", "leave_one_out")
_STEPPERS: dict[str, Callable[..., Tensor]] = {
    "analytic": analytic,
    "euler": euler,
    "tau_leaping": tau_leaping,
    "tau_leaping_paper": tau_leaping_paper,
}


class Uniform(Jump):
    """Class indices 0..K-1.

    Generator: Q = h(t) (11^T/K - I), h = -a'/a, a = 1 - t. Kernel: P_t(b, x) = a 1[x = b] + (1 - a)/K; prior uniform.
    The network gives class scores of mu, with

    - ``head="posterior"``: mu = p(x_0 | x_t) (element by element), beta(j)/beta(z) = sum_b mu_b P_t(b, j)/P_t(b, z);
    - ``head="leave_one_out"``: nu = p(x_0 | x_t without this element), beta(j)/beta(z) = (K a nu_j + 1 - a)/(K a nu_z
      + 1 - a),
      the form of UDLM. The two agree through mu_b = nu_b P_t(b, z)/sum; taking one for the other gives wrong rates.

    Objectives: "elbo" the score entropy h/K sum_{j != z} [s - r log s + r log r - r]; "simple" the cross entropy of the
    posterior at every element.

    Args:
        event_shape: of one sample.
        num_classes: K, at least 2.
        head: "posterior" or "leave_one_out".

    Sources: Lou et al. 2024 (2310.16834), Schiff et al. 2024 (2412.10193).
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit"})
    inexact = frozenset({"tau_leaping_paper"})

    def __init__(self, event_shape: Sequence[int], num_classes: int, head: str = "posterior") -> None:
        if head not in _HEADS:
            raise DiffuseError(f"head: expected one of {', '.join(_HEADS)}, got {head!r}")
        if not isinstance(num_classes, Integral) or num_classes < 2:
            raise DiffuseError(f"num_classes: expected a whole number of at least 2, got {num_classes!r}")
        num_classes = int(num_classes)
        self.event_shape = self.element_shape = shape_of(event_shape)
        self.output_shape = (*self.event_shape, num_classes)
        self.num_classes, self.head = num_classes, head
        self.clock = LinearSurvival()

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape), "num_classes": self.num_classes, "head": self.head}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x, floating=False)
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.num_classes):
            worst = int(x.min()) if int(x.min()) < 0 else int(x.max())
            raise DiffuseError(f"expected class indices from 0 to {self.num_classes - 1}, got {worst}")

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        draw = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        shape = (batch, *self.event_shape)
        return torch.randint(self.num_classes, shape, generator=draw, device=draw.device)

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("uniform: the kernel runs forward, expected t >= s")
        draw = as_generator(rng, x.device)
        u = torch.rand(x.shape, generator=draw, device=x.device, dtype=torch.float64)
        other = torch.randint(self.num_classes, x.shape, generator=draw, device=x.device)
        kept = torch.where(t > s, self.clock.kept(s, t), 1.0)
        return Noised(x, torch.where(u < expand(kept, x), x, other), s, t)

    def signal(self, t: Tensor) -> Tensor:
        """a^2: for a uniform x_0, E[1{x_0 = k} | x_t] - 1/K = a (1{x_t = k} - 1/K)."""
        return self.clock.survival(t) ** 2

    def generator(self, t: Tensor | float) -> UniformGenerator:
        when = t if isinstance(t, Tensor) else torch.tensor(float(t))
        return UniformGenerator(self, self.clock.hazard(when))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        kept, lost = expand(self.clock.survival(t), xt), expand(self.clock.lost(t), xt) / self.num_classes
        return rows(torch.where(xt == x0, kept + lost, lost.expand(xt.shape)).log()).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def log_odds(self, t: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        """log c with c = P_t(b, b)/P_t(b, x != b) = 1 + K a/(1 - a), shaped (B, *event or 1s, 1)."""
        a, lost = self.clock.survival(t), self.clock.lost(t).clamp_min(1e-12)
        return torch.log1p(self.num_classes * a / lost).to(dtype).reshape(t.shape + (1,) * (x.ndim - t.ndim + 1))

    def posterior(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """log mu, mu = p(x_0 | x_t) element by element, (B, *event, K), whichever the head is."""
        log_mu = output.log_softmax(-1)
        if self.head == "posterior":
            return log_mu
        here = torch.nn.functional.one_hot(xt, self.num_classes).to(log_mu.dtype)
        return (log_mu + here * self.log_odds(times(t, xt), xt, log_mu.dtype)).log_softmax(-1)

    def log_ratios(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """log beta(j)/beta(x_t) for every class j of every element, (B, *event, K); 0 at the present class.

        s_j = 1 + mu_j (c - 1) - mu_z (1 - 1/c) = nu-form by the identity in the class docstring. Near t = 1 (c -> 1)
        log1p keeps the small difference; where s is small, s is summed from positive terms.
        """
        log_mu = self.posterior(output, xt, t)
        log_c = self.log_odds(times(t, xt), xt, log_mu.dtype)
        mu = log_mu.exp()
        z = xt[..., None]
        log_mu_z = log_mu.gather(-1, z)
        mu_z = log_mu_z.exp()
        up = mu * torch.expm1(log_c)
        change = up + mu_z * torch.expm1(-log_c)
        rest = -torch.expm1(log_mu_z.clamp_max(-1e-30))
        positive = rest + up + mu_z * torch.exp(-log_c)
        near = change > -0.5
        tiny = torch.finfo(mu.dtype).tiny
        log_s = torch.where(
            near, torch.log1p(torch.where(near, change, 0.0)), torch.where(near, 1.0, positive).clamp_min(tiny).log()
        )
        return torch.where(torch.arange(self.num_classes, device=xt.device) == z, 0.0, log_s)

    def true_ratios(self, x0: Tensor, xt: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
        """log P_t(x_0, j)/P_t(x_0, x_t) for every class j, (B, *event, K)."""
        log_c = self.log_odds(times(t, xt), xt, dtype)
        classes = torch.arange(self.num_classes, device=xt.device)
        gain = torch.where(classes == x0[..., None], log_c, 0.0)
        return gain - torch.where((xt == x0)[..., None], log_c, 0.0)

    def _others(self, xt: Tensor) -> Tensor:
        """The K - 1 other classes of each element, in the order of the neighbours."""
        return (xt[..., None] + 1 + torch.arange(self.num_classes - 1, device=xt.device)) % self.num_classes

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        return rows(self.log_ratios(output, xt, t).gather(-1, self._others(xt)))

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        t, xt, x0 = torch.where(noised.t > 0, noised.t, 0.5), noised.xt, noised.x0
        if objective == "elbo":
            log_s = self.log_ratios(output, xt, t)
            value = score_entropy(log_s, self.true_ratios(x0, xt, t, log_s.dtype))
            value = torch.where(torch.arange(self.num_classes, device=xt.device) == xt[..., None], 0.0, value).sum(-1)
            value = expand(self.clock.hazard(t) / self.num_classes, xt).to(value.dtype) * value
        elif objective == "simple":
            value = -self.posterior(output, xt, t).gather(-1, x0[..., None])[..., 0]
        else:
            raise DiffuseError(f"uniform: no objective {objective!r}; expected 'elbo' or 'simple'")
        return rows(torch.where(expand(noised.t > 0, xt), value, 0.0)).sum(1)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        hot = torch.nn.functional.one_hot(candidates, self.num_classes).to(weights.dtype)
        marginal = (weights @ rows(hot)).reshape(*xt.shape, self.num_classes)
        log_mu = marginal.clamp_min(torch.finfo(marginal.dtype).tiny).log()
        if self.head == "posterior":
            return log_mu
        here = torch.nn.functional.one_hot(xt, self.num_classes).to(log_mu.dtype)
        return (log_mu - here * self.log_odds(times(t, xt), xt, log_mu.dtype)).log_softmax(-1)

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return tuple(_STEPPERS)

    def transition(
        self,
        output: Output,
        xt: Tensor,
        t: Tensor,
        s: Tensor,
        *,
        method: str | None = None,
        weak: Output | None = None,
        weight: float = 1.0,
    ) -> Tensor:
        """log q(x_s = j | x_t) of each element, (B, *event, K) float64: what ``step`` draws from. Elements are
        independent given x_t."""
        method = method or "analytic"
        if method not in _STEPPERS:
            raise DiffuseError(f"uniform: no stepper {method!r}; expected one of {', '.join(_STEPPERS)}")
        return _STEPPERS[method](self, output, xt, times(t, xt), times(s, xt), weak, weight)

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
        """A draw of ``transition``. Each stepper's law is in its own file:

        - "analytic" (default): q(x_s | x_t), exact given mu; guidance mixes its log-probabilities and renormalises.
        - "euler", "tau_leaping": the rates of time t frozen over the step; guidance mixes log-rates, raw.
        - "tau_leaping_paper": as the authors' code, where an element with more than one jump stays.
        """
        log_q = self.transition(output, xt, t, s, method=method, weak=weak, weight=weight)
        moved = categorical(log_q, as_generator(rng, xt.device))
        return torch.where(expand(times(t, xt) > times(s, xt), xt), moved, xt), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """The analytic step to 0: a draw of mu; where t = 0, x_t itself."""
        t = times(t, xt)
        log_mu = self.posterior(output, xt, t)
        other = None if weak is None else self.posterior(weak, xt, t)
        drawn = categorical(guided_log_probs(log_mu, other, weight), as_generator(rng, xt.device))
        return torch.where(expand(t > 0, xt), drawn, xt)

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """0: a(1) = 0, the kernel is the prior."""
        return torch.zeros(len(x0), device=x0.device)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        log_mu = self.posterior(output, noised.xt, noised.t)
        return -rows(log_mu.gather(-1, noised.x0[..., None])[..., 0]).sum(1)
