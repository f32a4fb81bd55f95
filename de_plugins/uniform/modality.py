"""Classes under the uniform-rate chain: each element keeps its class with probability a(t), else shows a random one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families import Jump
from de_core.families.jump import categorical, guided_log_probs
from de_core.generator import JumpGenerator, rows, score_entropy
from de_core.modality import Again, Noised, Output, expand, times
from de_core.rng import Rng, as_generator
from de_core.schedule import LinearSurvival

__all__ = ["Uniform", "UniformGenerator"]

_HEADS = ("posterior", "leave_one_out")


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

    def __init__(self, event_shape: Sequence[int], num_classes: int, head: str = "posterior") -> None:
        if head not in _HEADS:
            raise DiffuseError(f"head: expected one of {', '.join(_HEADS)}, got {head!r}")
        if num_classes < 2:
            raise DiffuseError(f"num_classes: expected at least 2, got {num_classes}")
        self.event_shape = self.element_shape = tuple(int(n) for n in event_shape)
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

    def generator(self, t: Tensor | float) -> UniformGenerator:
        when = t if isinstance(t, Tensor) else torch.tensor(float(t))
        return UniformGenerator(self, self.clock.hazard(when))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        kept, lost = expand(self.clock.survival(t), xt), expand(self.clock.lost(t), xt) / self.num_classes
        return rows(torch.where(xt == x0, kept + lost, lost.expand(xt.shape)).log()).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def _odds(self, t: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        """log c with c = P_t(b, b)/P_t(b, x != b) = 1 + K a/(1 - a), shaped (B, *event or 1s, 1)."""
        a, lost = self.clock.survival(t), self.clock.lost(t).clamp_min(1e-12)
        return torch.log1p(self.num_classes * a / lost).to(dtype).reshape(t.shape + (1,) * (x.ndim - t.ndim + 1))

    def posterior(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """log mu, mu = p(x_0 | x_t) element by element, (B, *event, K), whichever the head is."""
        log_mu = output.log_softmax(-1)
        if self.head == "posterior":
            return log_mu
        here = torch.nn.functional.one_hot(xt, self.num_classes).to(log_mu.dtype)
        return (log_mu + here * self._odds(times(t, xt), xt, log_mu.dtype)).log_softmax(-1)

    def log_ratios(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """log beta(j)/beta(x_t) for every class j of every element, (B, *event, K); 0 at the present class.

        s_j = 1 + mu_j (c - 1) - mu_z (1 - 1/c) = nu-form by the identity in the class docstring. Near t = 1 (c -> 1)
        log1p keeps the small difference; where s is small, s is summed from positive terms.
        """
        log_mu = self.posterior(output, xt, t)
        log_c = self._odds(times(t, xt), xt, log_mu.dtype)
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
        log_c = self._odds(times(t, xt), xt, dtype)
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
        return (log_mu - here * self._odds(times(t, xt), xt, log_mu.dtype)).log_softmax(-1)

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("analytic", "tau_leaping")

    def reverse_log_probs(self, output: Output, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """log q(x_s = j | x_t) = log sum_b mu_b P_s(b, j) P_{t|s}(j, z)/P_t(b, z), (B, *event, K), float64."""
        log_mu = self.posterior(output, xt, t).double()
        t, s = times(t, xt).double(), times(s, xt).double()
        k, z = self.num_classes, xt[..., None]
        classes = torch.arange(k, device=xt.device)
        log_c = self._odds(t, xt, torch.float64)
        loo = (log_mu - torch.where(classes == z, log_c, 0.0)).softmax(-1)  # nu_b, proportional to mu_b/P_t(b, z)
        a_s, a_ts = self.clock.survival(s), self.clock.kept(s, t)
        a_s, a_ts = (a.reshape(a.shape + (1,) * (xt.ndim - a.ndim + 1)) for a in (a_s, a_ts))
        back = a_s * loo + (1 - a_s) / k
        return (back * (torch.where(classes == z, a_ts, 0.0) + (1 - a_ts) / k)).log().log_softmax(-1)

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
        """ "analytic" (default): a draw of q(x_s | x_t), exact given mu; guidance mixes its log-probabilities and
        renormalises (Schiff et al. 2024). "tau_leaping": rates h/K beta(j)/beta(x_t) frozen over the step, a jump
        with probability 1 - exp(-(t - s) total); guidance mixes log-rates."""
        method = method or "analytic"
        if method not in self.methods():
            raise DiffuseError(f"uniform: no stepper {method!r}; expected one of {', '.join(self.methods())}")
        t, s = times(t, xt), times(s, xt)
        draw = as_generator(rng, xt.device)
        if method == "analytic":
            log_q = self.reverse_log_probs(output, xt, t, s)
            other = None if weak is None else self.reverse_log_probs(weak, xt, t, s)
            moved = categorical(guided_log_probs(log_q, other, weight), draw)
        else:
            log_s = self.log_ratios(output, xt, t).double()
            if weak is not None:
                log_s = weight * log_s + (1 - weight) * self.log_ratios(weak, xt, t).double()
            present = torch.arange(self.num_classes, device=xt.device) == xt[..., None]
            rates = torch.where(present, 0.0, log_s.exp())
            mean = expand((t - s) * self.clock.hazard(t) / self.num_classes, xt) * rates.sum(-1)
            u = torch.rand(xt.shape, generator=draw, device=xt.device, dtype=torch.float64)
            target = categorical(torch.where(present, -torch.inf, log_s), draw)
            moved = torch.where(u < -torch.expm1(-mean), target, xt)
        return torch.where(expand(t > s, xt), moved, xt), None

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


class UniformGenerator(JumpGenerator):
    """L f(x) = h/K sum_l sum_j [f(x with element l = j) - f(x)]. Neighbours of an element: x+1, x+2, ... modulo K."""

    def __init__(self, modality: Uniform, hazard: Tensor) -> None:
        self.modality, self.hazard = modality, hazard

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        event, count, k = self.modality.event_shape, self.modality.elements, self.modality.num_classes
        flat = x.reshape(len(x), count)
        value = (flat[..., None] + 1 + torch.arange(k - 1, device=x.device)) % k
        own = torch.eye(count, dtype=torch.bool, device=x.device)[:, None]
        y = torch.where(own, value[..., None], flat[:, None, None]).reshape(len(x), count * (k - 1), *event)
        rate = self.hazard if self.hazard.ndim == 0 else rows(self.hazard)
        rate = (rate.expand(len(x), count) / k)[..., None].expand(-1, -1, k - 1).flatten(1)
        return y, rate, rate

    def states(self) -> Tensor:
        axes = [torch.arange(self.modality.num_classes)] * self.modality.elements
        return torch.cartesian_prod(*axes).reshape(-1, *self.modality.event_shape)
