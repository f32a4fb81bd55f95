"""Shares that sum to one under the Wright-Fisher diffusion with a Dirichlet stationary law."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from de_core.errors import DiffuseError
from de_core.families import Diffusion
from de_core.families.jump import categorical, guided_log_probs
from de_core.generator import rows
from de_core.modality import Again, Noised, Output, expand, shape_of, times
from de_core.rng import Rng, as_generator
from de_core.sampling.steppers import Move, euler, heun
from de_plugins.simplex._wright_fisher import (
    apply_A,
    conditional_log_density,
    conditional_score,
    dirichlet,
    mean_count,
    one_hot_log_G,
    quadratic,
    sample_forward,
)
from de_plugins.simplex.dirichlet_euler import dirichlet_euler
from de_plugins.simplex.generator import WrightFisherGenerator
from de_plugins.simplex.implicit import implicit

__all__ = ["Simplex"]

_HEADS = ("score", "posterior")
_LEFT = (
    1e-3  # what is left of the data's mean at the end of the clock, so that b stays finite; t = 1 itself is the prior
)
_STEPPERS: dict[str, Callable[[Move[Simplex]], Tensor]] = {
    "dirichlet_euler": dirichlet_euler,
    "euler": lambda m: euler(m.modality, m.output, m.xt, m.t, m.s),
    "heun": lambda m: heun(m.modality, m.output, m.xt, m.t, m.s, again=m.again, weight=m.weight),
}


class Simplex(Diffusion):
    """Vectors of K shares (the last axis), each a Wright-Fisher diffusion with stationary law D = Dir(1, ..., 1), psi
    = K.

    WF-time tau runs with the clock as e^{-psi tau/2} = 1 - 0.999 t, b = d tau/dt. Generator per unit of t:
    b [psi/2 (pi - x) . grad + 1/2 A : grad^2], A = diag(x) - x x^T. Kernel: m lineages survive, l ~ Multinomial(m,
    x_0), x_t ~ Dir(1 + l); E[x_t | x_0] = pi + e^{-psi tau/2} (x_0 - pi).
    The score s = grad log(beta/D) is needed up to a constant in all parts, since A 1 = 0. True s_i = E[l_i | x_t]/x_i.

    - ``head="score"``, for compositions: s = E[m | tau] softplus(output): the scale of s over all times, and s >= 0.
    - ``head="posterior"``, for one-hot data: scores of mu = p(x_0 | x_t); s_i = mu_i (log G_i)'(x_i).

    Objectives: "elbo" b/2 (u - s)^T A (u - s) with the marginal target u = grad log p_{t|0}/D; "simple" the count
    target u_i = l_i/x_i up to what s does not enter, K c^{-3/2} [s^T A s/2 - s^T (l - m x)] with c = E[m | tau]: no
    series, and the noise of the gradient in s/c is about the same at all times (under b it grows as c^2 at small t).
    It may be negative.

    Args:
        event_shape: of one sample; its last axis is the K >= 2 parts.
        head: "score" or "posterior".

    Sources: Griffiths and Li 1983, Jenkins and Spano 2017 (1506.06998), Benton et al. 2022 (2211.03595); SPEC.md,
    "Simplex".
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"})

    def __init__(self, event_shape: Sequence[int], head: str = "score") -> None:
        self.event_shape = self.output_shape = shape_of(event_shape)
        if not self.event_shape or self.event_shape[-1] < 2:
            raise DiffuseError(f"event_shape: expected a last axis of at least 2 parts, got {self.event_shape}")
        if head not in _HEADS:
            raise DiffuseError(f"head: expected one of {', '.join(_HEADS)}, got {head!r}")
        self.element_shape = self.event_shape[:-1]
        self.head, self.parts = head, self.event_shape[-1]
        self.psi = float(self.parts)
        # compositions are resolved down to e^{-psi tau/2} = 0.99; one-hot data need no more than tau = 0.04, and of
        # many parts, whose psi tau is large there, half of the mass on the right one
        self.t_min = 0.01 if head == "score" else min(max(0.01, -math.expm1(-0.02 * self.psi)), 0.5)

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape), "head": self.head}

    def validate(self, x: Tensor) -> None:
        self.validate_noised(x)
        if self.head == "posterior" and x.numel() and float(x.amax(-1).min()) < 1 - 1e-4:
            row = int(rows(x.amax(-1)).amin(1).argmin())
            raise DiffuseError(f"expected one-hot shares, for the head 'posterior', got a mixture in row {row}")

    def validate_noised(self, x: Tensor) -> None:
        self.check_shape(x)
        if not bool(x.isfinite().all()):
            raise DiffuseError(f"expected finite shares, got {int((~x.isfinite()).sum())} that are NaN or infinite")
        if x.numel() and float(x.min()) < 0:
            raise DiffuseError(f"expected shares of at least 0, got {float(x.min()):.6g}")
        off = (x.sum(-1) - 1).abs()
        if x.numel() and float(off.max()) > 1e-4:
            row = int(rows(off).amax(1).argmax())
            worst = float(x.sum(-1).flatten()[off.flatten().argmax()])
            raise DiffuseError(f"expected shares that sum to 1, got {worst:.6g} in row {row}")

    # --- the clock --------------------------------------------------------------------------------------------------

    def tau(self, t: Tensor) -> Tensor:
        """WF-time at the clock t, -(2/psi) log(1 - 0.999 t)."""
        return -(2 / self.psi) * torch.log1p(-(1 - _LEFT) * t)

    def clock_at(self, tau: Tensor) -> Tensor:
        """The clock at WF-time tau: the inverse of ``tau``."""
        return -torch.expm1(-0.5 * self.psi * tau) / (1 - _LEFT)

    def rate(self, t: Tensor) -> Tensor:
        """b = d tau/dt."""
        return (2 / self.psi) * (1 - _LEFT) / (1 - (1 - _LEFT) * t)

    def grid(self, steps: int) -> Tensor:
        """Geometric in WF-time: a uniform grid of the clock breaks the simplex-preserving step near 0."""
        ends = self.tau(torch.tensor([1.0, self.t_min], dtype=torch.float64)).log()
        tau = torch.lerp(ends[0], ends[1], torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)).exp()
        t = self.clock_at(tau)
        t[0] = 1.0
        return t

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        draw = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return dirichlet(torch.ones(batch, *self.event_shape, device=draw.device), draw, torch.get_default_dtype())

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("simplex: the kernel runs forward, expected t >= s")
        draw = as_generator(rng, x.device)
        moving = (t > s) & (t < 1)
        tau = torch.where(moving, self.tau(t.double()) - self.tau(s.double()), 1.0)
        clean = x.clamp_min(0)
        xt, counts, _ = sample_forward(clean / clean.sum(-1, keepdim=True), tau, self.psi, draw)
        end = expand(t == 1, x)
        if bool(end.any()):
            xt = torch.where(end, dirichlet(torch.ones_like(x), draw, x.dtype), xt)
        counts = torch.where(expand(moving, x), counts, 0)
        return Noised(x, self.stay(xt, x, t, s), s, t, {"counts": counts})

    def signal(self, t: Tensor) -> Tensor:
        """e^{-psi tau}: for x_0 ~ D, E[x_0 | x_t] - pi = e^{-psi tau/2} (x_t - pi), the process being reversible."""
        return (1 - (1 - _LEFT) * t) ** 2

    def generator(self, t: Tensor | float) -> WrightFisherGenerator:
        when = t if isinstance(t, Tensor) else torch.tensor(float(t))
        return WrightFisherGenerator(self.psi, self.rate(when))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        element = xt.shape[:-1]
        t_el = t.reshape(t.shape + (1,) * (len(element) - t.ndim)).expand(element)
        inside = (t_el > 0) & (t_el < 1)
        value = conditional_log_density(xt, x0, self.tau(torch.where(inside, t_el, 0.5)), self.psi)
        exact = torch.where((xt == x0).all(-1), 0.0, -torch.inf)
        value = torch.where(inside, value, torch.where(t_el == 0, exact, 0.0).to(value.dtype))
        return rows(value).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        tau = self._running(times(t, xt))
        return self._score(output, xt, tau, mean_count(tau, self.psi) if self.head == "score" else None)

    def _running(self, t: Tensor) -> Tensor:
        """WF-time; a held element has no score, and near tau = 0 it would be dear: it is read at t = 0.5."""
        return self.tau(torch.where(t > 0, t, 0.5))

    def _score(self, output: Output, xt: Tensor, tau: Tensor, count: Tensor | None) -> Tensor:
        """The score; ``count`` is E[m | tau], of which the posterior head has no need."""
        if self.head == "score" and count is not None:
            return expand(count, xt).to(output.dtype) * softplus(output)
        slope = one_hot_log_G(xt, tau, self.psi)[1]
        return output.softmax(-1) * slope.to(output.dtype)

    def conditional_score(self, noised: Noised) -> Tensor:
        """The marginal target u_i = E[l_i | x_t, x_0]/x_i; 0 at t = 1."""
        t = times(noised.t, noised.xt)
        inside = (t > 0) & (t < 1)
        u = conditional_score(noised.xt, noised.x0, self.tau(torch.where(inside, t, 0.5)), self.psi)
        return torch.where(expand(inside, noised.xt), u, 0.0).to(noised.xt.dtype)

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        if objective != "simple":
            return super().loss(output, noised, objective=objective)
        tau = self._running(noised.t)
        count = mean_count(tau, self.psi)
        x, counts = noised.xt, noised.aux["counts"].to(output.dtype)
        s = self._score(output, x, tau, count)
        pull = (s * (counts - counts.sum(-1, keepdim=True) * x)).sum(-1)
        weight = self.parts * count**-1.5
        value = expand(weight, pull).to(s.dtype) * (0.5 * quadratic(s, x) - pull)
        return rows(torch.where(expand(noised.t > 0, value), value, 0.0)).sum(1)

    def implicit(self, head: Callable[[Tensor], Output], xt: Tensor, t: Tensor, *, rng: Rng, probes: int = 1) -> Tensor:
        return implicit(self, head, xt, times(t, xt), as_generator(rng, xt.device), probes)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        tiny = torch.finfo(xt.dtype).tiny
        if self.head == "posterior":
            return (weights.to(xt.dtype) @ rows(candidates).to(xt.dtype)).reshape(xt.shape).clamp_min(tiny).log()
        t = times(t, xt)
        inside = (t > 0) & (t < 1)
        tau = self.tau(torch.where(inside, t, 0.5))
        s = torch.zeros_like(xt, dtype=torch.float64)
        for j, x0 in enumerate(candidates):
            s = s + expand(weights[:, j].double(), xt) * conditional_score(xt, x0.expand_as(xt), tau, self.psi)
        s = torch.where(expand(inside, xt), s, 0.0)
        y = (s / expand(mean_count(self.tau(t), self.psi), xt)).clamp_min(1e-30)
        return (y + torch.log(-torch.expm1(-y))).to(xt.dtype)  # the inverse of softplus

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return tuple(_STEPPERS)

    def retract(self, x: Tensor) -> Tensor:
        """Parts below zero are set to a tiny number, and the rest is scaled to sum one."""
        x = x.clamp_min(torch.finfo(x.dtype).tiny)
        return x / x.sum(-1, keepdim=True)

    def velocity(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """dx/dt = -b A s/2: the drift of a reversible process is undone by the reference's own score."""
        return -0.5 * expand(self.rate(times(t, xt)), xt) * apply_A(self.score(output, xt, t), xt)

    def blend(self, output: Output, weak: Output | None, weight: float) -> Output:
        """The guided output at the outputs' own (x_t, t): s mixes linearly and is cut at 0. For a posterior head s is
        linear in mu, so mu mixes; a scaled softplus mixes before its inverse."""
        if weak is None:
            return output
        link: Callable[[Tensor], Tensor] = softplus if self.head == "score" else (lambda o: o.softmax(-1))
        mixed = (weight * link(output) + (1 - weight) * link(weak)).clamp_min(1e-12)
        return mixed.log() if self.head == "posterior" else mixed + torch.log(-torch.expm1(-mixed))

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
        """Guidance mixes the scores s linearly, cut at 0.

        - "dirichlet_euler" (default): the reverse diffusion, on the simplex always; first order.
        - "euler", "heun": the probability flow dx = -b A s/2 dt, first and second order; Heun calls the network twice.
        """
        method = method or "dirichlet_euler"
        if method not in _STEPPERS:
            raise DiffuseError(f"simplex: no stepper {method!r}; expected one of {', '.join(_STEPPERS)}")
        t, s, output = times(t, xt), times(s, xt), self.blend(output, weak, weight)
        draw = as_generator(rng, xt.device)
        move = Move(self, method, output, xt, t, s, draw, weight=weight, again=again)
        return self.stay(_STEPPERS[method](move), xt, t, s), None

    def reverse_drift(self, output: Output, x: Tensor, t: Tensor) -> Tensor:
        """psi/2 (pi - x) + A s, per unit of WF-time run backwards."""
        return 0.5 * self.psi * (1 / self.parts - x) + apply_A(self.score(output, x, t), x)

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """Compositions: the data's mean given x_t, x + tau [psi/2 (pi - x) + A s], brought onto the simplex. One-hot:
        a draw of mu. Where t = 0, x_t itself."""
        t = times(t, xt)
        if self.head == "posterior":
            log_mu = guided_log_probs(output.log_softmax(-1), None if weak is None else weak.log_softmax(-1), weight)
            drawn = categorical(log_mu, as_generator(rng, xt.device))
            x0 = torch.nn.functional.one_hot(drawn, self.parts).to(xt.dtype)
        else:
            x0 = self._data_mean(self.blend(output, weak, weight), xt, torch.where(t > 0, t, 0.5))
        return torch.where(expand(t > 0, xt), x0, xt)

    def _data_mean(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        return self.retract(xt + expand(self.tau(t), xt) * self.reverse_drift(output, xt, t))

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """c^2 (psi + 1) (sum_i x_0i^2/pi_i - 1)/2, c = e^{-psi tau/2} at the end of the clock: the leading term in c
        = 1e-3, from p/D = 1 + c (psi + 1) (sum_i x_i x_0i/pi_i - 1) + O(c^2)."""
        spread = self.parts * (x0**2).sum(-1) - 1
        return rows(0.5 * _LEFT**2 * (self.psi + 1) * spread).sum(1)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        """One-hot: -log mu of the truth. Compositions: minus the log-density, against D, of the kernel of length
        tau(t_min) started at the data's mean given x_t: a proper density, finite on the faces."""
        if self.head == "posterior":
            return -rows((output.log_softmax(-1) * noised.x0).sum(-1)).sum(1)
        t = times(noised.t, noised.xt)
        mean = self._data_mean(output, noised.xt, t)
        return -rows(conditional_log_density(noised.x0, mean, self.tau(t), self.psi)).sum(1)
