"""Ordered classes: each element jumps to a class next to its own, or by any reversible rate matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from de_core import DiffuseError, Jump, JumpGenerator, Noised
from de_core.families.jump import categorical, guided_log_probs
from de_core.generator import score_entropy
from de_core.modality import Again, Output, expand, rows, shape_of, times
from de_core.rng import Rng, as_generator
from de_ordinal._chain import Chain, neighbour_rates, read_rates

__all__ = ["Ordinal", "OrdinalGenerator"]

_LEAST = 1e-300  # of a probability whose logarithm is taken


def _flat(t: Tensor) -> Tensor:
    """The readings of the clock in a row, (M,) float64."""
    return t.double().reshape(-1)


class Ordinal(Jump):
    """Class indices 0..K-1, each under one reversible chain with rates Q and stationary law pi, the prior.

    Generator: sigma'(t) Q. Kernel: P_t = exp(sigma(t) Q); at t = 1 it is pi. Clock: the information of order 2 about a
    stationary start falls evenly, see ``de_ordinal._chain.Chain``; a common factor of the rates has no effect.
    The network gives class scores of mu = p(x_0 | x_t), element by element:

        beta(j)/beta(z) = sum_b mu_b P_t(b, j)/P_t(b, z),      p(x_s = j | x_t = z) = sum_b mu_b P_s(b, j) P_{t|s}(j, z)
                                                                                      /P_t(b, z).

    Objectives: "elbo" the score entropy sum_j sigma' Q(j, z) [s - r log s + r log r - r]; "simple" the cross entropy
    of the posterior at every element. A reading of the clock costs a few products of (K, K) matrices.

    Args:
        event_shape: of one sample; every entry is one class and one element.
        num_classes: K, at least 2.
        rates: Q(x, y) >= 0 off the diagonal, which is not read, (K, K), reversible; None is rate 1 to each class
            next to one's own, with the uniform law.

    Raises:
        DiffuseError: fewer than 2 classes; rates of another shape, negative, not reversible or not connected.

    Sources: Campbell et al. 2022 (2205.14987), ordered rates; Lou et al. 2024 (2310.16834), score entropy and the
    analytic step.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit"})
    t_min = (
        0.01  # one element in a hundred has jumped; below it, the ratios of a posterior not quite sharp grow like 1/t
    )

    def __init__(
        self, event_shape: Sequence[int], num_classes: int, rates: Sequence[Sequence[float]] | None = None
    ) -> None:
        if num_classes < 2:
            raise DiffuseError(f"num_classes: expected at least 2, got {num_classes}")
        self.event_shape = self.element_shape = shape_of(event_shape)
        self.output_shape = (*self.event_shape, num_classes)
        self.num_classes = num_classes
        self.rates = None if rates is None else read_rates(rates, num_classes).tolist()
        self.chain = Chain(neighbour_rates(num_classes) if rates is None else read_rates(rates, num_classes))

    @classmethod
    def examples(cls) -> list[tuple[Ordinal, Tensor]]:
        """What ``diffuse plugins check`` looks at: binomial rates, and two ratings that go together."""
        first = torch.randint(3, (256,), generator=torch.Generator().manual_seed(0))
        rates = [[0, 3, 0, 0], [1, 0, 2, 0], [0, 2, 0, 1], [0, 0, 3, 0]]
        return [(cls((2,), 4, rates), torch.stack([first, (first + 1) % 4], 1))]

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape), "num_classes": self.num_classes, "rates": self.rates}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x, floating=False)
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.num_classes):
            worst = int(x.min()) if int(x.min()) < 0 else int(x.max())
            raise DiffuseError(f"expected class indices from 0 to {self.num_classes - 1}, got {worst}")

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        draw = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return categorical(self.chain.log_law.to(draw.device).expand(batch, *self.event_shape, -1), draw)

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("ordinal: the kernel runs forward, expected t >= s")
        start = one_hot(self._fold(x, t), self.num_classes).double()
        probs = self.chain.on(x.device).kernel(_flat(t), _flat(s), start)
        moved = categorical(probs.clamp_min(_LEAST).log(), as_generator(rng, x.device)).reshape(x.shape)
        return Noised(x, torch.where(expand(t > s, x), moved, x), s, t)

    def generator(self, t: Tensor | float) -> OrdinalGenerator:
        when = torch.as_tensor(t, dtype=torch.float64)
        chain = self.chain.on(when.device)
        return OrdinalGenerator(self, chain, chain.speed(when))

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        start = one_hot(self._fold(x0, t), self.num_classes).double()
        probs = self.chain.on(xt.device).kernel(_flat(t), left=start)
        return rows(probs.gather(2, self._fold(xt, t)[..., None]).log().reshape(xt.shape)).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def _fold(self, x: Tensor, t: Tensor) -> Tensor:
        """``x`` as (M, R, ...), one row of R elements for each of the M readings of the clock."""
        return x.reshape(t.numel(), self.elements if t.ndim == 1 else 1, *x.shape[1 + len(self.event_shape) :])

    def _kernel(self, t: Tensor) -> Tensor:
        """P_t, (M, K, K)."""
        return self.chain.on(t.device).kernel(_flat(t))

    def _against(self, log_mu: Tensor, kernel: Tensor, z: Tensor, forward: Tensor) -> Tensor:
        """log sum_b mu_b/P_t(b, z) F(b, j), (M, R, K), for log mu (M, R, K), P_t and F (M, K, K), z (M, R)."""
        index = z[:, None].expand(-1, self.num_classes, -1)
        odds = log_mu - kernel.gather(2, index).transpose(1, 2).clamp_min(_LEAST).log()
        top = odds.detach().amax(-1, keepdim=True)
        return ((odds - top).exp() @ forward).clamp_min(_LEAST).log() + top

    def log_ratios(self, output: Output, xt: Tensor, t: Tensor, kernel: Tensor | None = None) -> Tensor:
        """log beta(j)/beta(x_t) for every class j of every element, (B, *event, K) float64; 0 at the present class.
        ``kernel`` is P_t, (M, K, K), where it is at hand."""
        t = times(t, xt)
        kernel = self._kernel(t) if kernel is None else kernel
        log_mu, z = self._fold(output.double().log_softmax(-1), t), self._fold(xt, t)
        log_s = self._against(log_mu, kernel, z, kernel)
        present = torch.arange(self.num_classes, device=xt.device) == z[..., None]
        return torch.where(present, 0.0, log_s).reshape(output.shape)

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        return rows(self.log_ratios(output, xt, t).gather(-1, self.chain.on(xt.device).nearby[xt])).to(output.dtype)

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        t, xt, x0 = torch.where(noised.t > 0, noised.t, 0.5), noised.xt, noised.x0
        chain = self.chain.on(xt.device)
        if objective == "elbo":
            kernel, start = self._kernel(t), self._fold(x0, t)[..., None].expand(-1, -1, self.num_classes)
            log_p = kernel.gather(1, start).clamp_min(_LEAST).log()
            log_r = (log_p - log_p.gather(2, self._fold(xt, t)[..., None])).reshape(output.shape)
            value = score_entropy(self.log_ratios(output, xt, t, kernel), log_r)
            into = chain.rates.T[xt]  # Q(j, x_t)
            value = expand(chain.speed(t.double()), xt) * torch.where(into > 0, into * value, 0.0).sum(-1)
        elif objective == "simple":
            value = -output.log_softmax(-1).gather(-1, x0[..., None])[..., 0]
        else:
            raise DiffuseError(f"ordinal: no objective {objective!r}; expected 'elbo' or 'simple'")
        return rows(torch.where(expand(noised.t > 0, xt), value, 0.0)).sum(1).to(output.dtype)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        hot = one_hot(candidates, self.num_classes).to(weights.dtype)
        marginal = (weights @ rows(hot)).reshape(*xt.shape, self.num_classes)
        return marginal.clamp_min(torch.finfo(marginal.dtype).tiny).log()

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("analytic",)

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
        """log p(x_s = j | x_t) of each element, (B, *event, K) float64: what ``step`` draws from, one by one."""
        if method not in (None, "analytic"):
            raise DiffuseError(f"ordinal: no stepper {method!r}; expected 'analytic'")
        t, s = times(t, xt), times(s, xt)
        z, start, kernel = self._fold(xt, t), self._kernel(s), self._kernel(t)
        between = self.chain.on(xt.device).kernel(_flat(t), _flat(s))
        into = between.gather(2, z[:, None].expand(-1, self.num_classes, -1)).transpose(1, 2)  # P_{t|s}(j, z)

        def bayes(output: Output) -> Tensor:
            log_back = self._against(self._fold(output.double().log_softmax(-1), t), kernel, z, start)
            return (log_back + into.clamp_min(_LEAST).log()).log_softmax(-1).reshape(output.shape)

        return guided_log_probs(bayes(output), None if weak is None else bayes(weak), weight)

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
        """A draw of ``transition``: p(x_s | x_t), exact given mu. Guidance mixes its log-probabilities and
        renormalises (Schiff et al. 2024, 2412.10193)."""
        log_q = self.transition(output, xt, t, s, method=method, weak=weak, weight=weight)
        moved = categorical(log_q, as_generator(rng, xt.device))
        return torch.where(expand(times(t, xt) > times(s, xt), xt), moved, xt), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """The step to 0: a draw of mu; where t = 0, x_t itself."""
        log_mu = output.log_softmax(-1)
        other = None if weak is None else weak.log_softmax(-1)
        drawn = categorical(guided_log_probs(log_mu, other, weight), as_generator(rng, xt.device))
        return torch.where(expand(times(t, xt) > 0, xt), drawn, xt)

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """0: at t = 1 the kernel is the prior."""
        return torch.zeros(len(x0), device=x0.device)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        return -rows(output.log_softmax(-1).gather(-1, noised.x0[..., None])[..., 0]).sum(1)


class OrdinalGenerator(JumpGenerator):
    """L f(x) = sigma' sum_l sum_j Q(x_l, j) [f(x with element l = j) - f(x)]; neighbours element by element."""

    def __init__(self, modality: Ordinal, chain: Chain, speed: Tensor) -> None:
        self.modality, self.chain, self.speed = modality, chain, speed

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        event, count, chain = self.modality.event_shape, self.modality.elements, self.chain.on(x.device)
        flat = x.reshape(len(x), count)
        value = chain.nearby[flat]  # (B, elements, N)
        n = value.shape[2]
        own = torch.eye(count, dtype=torch.bool, device=x.device)[:, None]
        y = torch.where(own, value[..., None], flat[:, None, None]).reshape(len(x), count * n, *event)
        speed = (self.speed if self.speed.ndim == 0 else rows(self.speed)).to(x.device)
        speed = speed.expand(len(x), count)[..., None]
        out, into = chain.rates[flat[..., None], value], chain.rates[value, flat[..., None]]
        return y, (speed * out).flatten(1), (speed * into).flatten(1)

    def states(self) -> Tensor:
        axes = [torch.arange(self.modality.num_classes)] * self.modality.elements
        return torch.cartesian_prod(*axes).reshape(-1, *self.modality.event_shape)
