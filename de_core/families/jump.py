"""The jump family: from rates and a kernel to the score entropy and the implicit form."""

from __future__ import annotations

import abc
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families.diffusion import alive
from de_core.generator import JumpGenerator
from de_core.modality import Modality, Noised, Output, expand, rows, times
from de_core.rng import Rng, as_generator

__all__ = ["Jump", "categorical", "guided_log_probs", "held", "inverse_cdf"]


class Jump(Modality):
    """A modality whose process is a continuous-time chain with finitely many neighbours a state.

    A subclass gives ``prior``, ``perturb``, ``score``, ``generator`` (a ``JumpGenerator``), ``log_transition``,
    ``step``, ``finish``, ``config``. It gets ``loss`` (score entropy with unit weights) and ``implicit``. A subclass
    with a cheaper closed form overrides ``loss``; the conformance kit holds it to the generator's own divergence.
    """

    @abc.abstractmethod
    def generator(self, t: Tensor | float) -> JumpGenerator: ...

    def target_score(self, noised: Noised) -> Tensor:
        """log p_{t|0}(y | x_0)/p_{t|0}(x_t | x_0) over the neighbours of x_t, (B, N), -inf where p(y | x_0) = 0."""
        y, _, into = self.generator(noised.t).neighbours(noised.xt)
        rows, n = y.shape[:2]
        flat = self.log_transition(
            y.flatten(0, 1), noised.x0.repeat_interleave(n, 0), noised.t.repeat_interleave(n, 0)
        ).reshape(rows, n)
        here = self.log_transition(noised.xt, noised.x0, noised.t)[:, None]
        return torch.where(into > 0, flat - here, 0.0)

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        """sum_y Q(y, x_t) [s - r log s + r log r - r], (B,): the score entropy. Source: Lou et al. 2024
        (2310.16834)."""
        if objective not in ("elbo", "simple"):
            raise DiffuseError(f"{type(self).__name__}: no objective {objective!r}; expected 'elbo' or 'simple'")
        safe = alive(noised)
        generator = self.generator(safe.t)
        target = self.target_score(safe)
        score = self.score(output, safe.xt, safe.t)
        score = torch.where(held(generator, safe.xt, noised.t), target, score)
        return generator.bregman(target, score, safe.xt).to(output.dtype)

    def implicit(self, head: Callable[[Tensor], Output], xt: Tensor, t: Tensor, *, rng: Rng, probes: int = 1) -> Tensor:
        """sum_y Q(y, x) s(x, y) + Q(x, x) - sum_y Q(x, y) log s(y, x), (B,), with s(x, y) = beta(y)/beta(x).

        This is L* beta/beta + L log beta. The last sum is estimated by ``probes`` jumps y ~ Q(x, .)/|Q(x, x)|, each
        with one more call of ``head``; ``probes=0`` runs over all neighbours. It needs ratios into x only, so
        absorbing chains are safe.
        """
        draw = as_generator(rng, xt.device)
        given, t = times(t, xt), times(t, xt)
        t = torch.where(t > 0, t, 0.5)
        generator = self.generator(t)
        y, out, into = generator.neighbours(xt)
        fixed = held(generator, xt, given)
        out, into = torch.where(fixed, 0.0, out), torch.where(fixed, 0.0, into)
        ratios = self.score(head(xt), xt, t)
        value = torch.where(into > 0, into * torch.where(into > 0, ratios, 0.0).exp(), 0.0).sum(1) - out.sum(1)

        def log_back(k: Tensor) -> Tensor:
            """log s(y_k, x) for one neighbour index a row, (B,)."""
            there = y[torch.arange(len(k), device=k.device), k]
            back, _, _ = generator.neighbours(there)
            same = rows(back == xt[:, None], 2).all(2)
            found = self.score(head(there), there, t).gather(1, same.to(torch.int64).argmax(1, keepdim=True))[:, 0]
            return torch.where(same.any(1), found, 0.0)

        total = out.sum(1)
        if probes:
            some = total > 0
            rates = torch.where(some[:, None], out, 1.0)
            picks = torch.multinomial(rates.double(), probes, replacement=True, generator=draw)
            back = torch.stack([log_back(picks[:, j]) for j in range(probes)]).mean(0)
            return value - torch.where(some, total * back, 0.0)
        for k in range(y.shape[1]):
            rate = out[:, k]
            term = log_back(torch.full((len(xt),), k, device=xt.device))
            value = value - torch.where(rate > 0, rate * term, 0.0)
        return value


def held(generator: JumpGenerator, x: Tensor, t: Tensor) -> Tensor:
    """Which neighbours of x differ from it in an element that is clean and fixed, t = 0: jumps that do not count, (B,
    N) or, where all move, (1, 1)."""
    if bool((t > 0).all()):
        return torch.zeros(1, 1, dtype=torch.bool, device=x.device)
    changed = generator.neighbours(x)[0] != x[:, None]
    return rows(changed & expand(t == 0, x)[:, None], 2).any(2)


def categorical(log_probs: Tensor, generator: torch.Generator) -> Tensor:
    """One draw a row from unnormalised log-probabilities over the last axis, int64.

    Inverse CDF in float64: a float32 Gumbel race lowers the temperature (Zheng et al. 2024, 2409.02908).
    """
    flat = log_probs.reshape(-1, log_probs.shape[-1])
    u = torch.rand(len(flat), generator=generator, dtype=torch.float64, device=flat.device)
    return inverse_cdf(flat, u).reshape(log_probs.shape[:-1])


def inverse_cdf(log_probs: Tensor, u: Tensor) -> Tensor:
    """The class into whose stretch of [0, 1) each uniform falls: log_probs (n, K) unnormalised, u (n,) float64."""
    cdf = (log_probs - log_probs.amax(-1, keepdim=True)).double().exp_().cumsum_(-1)
    total = cdf[:, -1:]
    # u < 1, but the product can round up to the total; below it, a class without mass is never drawn
    mark = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, mark, right=True)[:, 0]


def guided_log_probs(log_probs: Tensor, weak: Tensor | None, weight: float) -> Tensor:
    """weight * strong + (1 - weight) * weak in log-probabilities, renormalised over the last axis.

    Logs are clamped at -1e4 first, so that a negative weight does not turn -inf into +inf. Source: Schiff et al. 2024
    (2412.10193), D-CFG.
    """
    if weak is None:
        return log_probs
    mixed = weight * log_probs.clamp_min(-1e4) + (1 - weight) * weak.clamp_min(-1e4)
    return mixed.log_softmax(-1)
