"""The diffusion family: from a kernel and a conditional score to the loss, the implicit form and the probability
flow."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.generator import DiffusionGenerator, Generator
from de_core.modality import Modality, Noised, Output, expand, rows, times
from de_core.rng import Rng, as_generator

__all__ = ["Diffusion", "alive", "slope"]


class Diffusion(Modality):
    """A modality whose process is a diffusion dX = b dt + sigma dW.

    A subclass gives ``prior``, ``perturb``, ``score``, ``conditional_score``, ``generator``, ``step``, ``finish``,
    ``config``; with the capability "density" also ``log_transition`` and ``posterior_output``. It gets ``loss`` (unit
    weights), ``implicit`` and ``velocity``. A subclass with a cheaper closed form overrides ``loss``; the conformance
    kit holds it to the generator's own divergence.
    """

    @abc.abstractmethod
    def conditional_score(self, noised: Noised) -> Tensor:
        """The target: tangent gradient at x_t of log(p_{t|0}(x_t | x_0)/reference), or an unbiased stand-in for it
        given the kernel's own draws (``noised.aux``), (B, *event)."""

    @abc.abstractmethod
    def generator(self, t: Tensor | float) -> Generator: ...

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        """|sigma^T (grad log p_{t|0} - score)|^2/2, (B,). Source: THEORY of SPEC.md; Song et al. 2021 (2101.09258)."""
        if objective not in ("elbo", "simple"):
            raise DiffuseError(f"{type(self).__name__}: no objective {objective!r}; expected 'elbo' or 'simple'")
        safe = alive(noised)
        target = self.conditional_score(safe)
        score = self.score(output, safe.xt, safe.t)
        score = torch.where(expand(noised.t > 0, score), score, target)  # t = 0: clean and fixed, no loss
        return self.generator(safe.t).bregman(target, score, safe.xt).to(output.dtype)

    def implicit(self, head: Callable[[Tensor], Output], xt: Tensor, t: Tensor, *, rng: Rng, probes: int = 1) -> Tensor:
        """-div b + sum_k [V_k V_k log beta + (V_k log beta)^2/2], (B,).

        This is L* beta/beta + L log beta for divergence-free fields V_k; on R^n with sigma = g it is Hyvarinen's
        g^2 (|s|^2/2 + div s) - div b. The sum over k and div b are exact for ``probes=0``, with one gradient a
        coordinate; else the mean over standard normal combinations of the fields, and one direction of signs for div
        b, which is exact where b moves each coordinate by itself (Hutchinson).
        """
        t = times(t, xt)
        live, safe = t > 0, torch.where(t > 0, t, 0.5)
        generator = self.generator(safe)
        if not isinstance(generator, DiffusionGenerator):
            raise self._lacks("implicit")
        draw = as_generator(rng, xt.device)
        x = xt.detach().requires_grad_()
        with torch.enable_grad():
            score = self.score(head(x), x, safe)
            score = torch.where(expand(live, score), score, 0.0)

            def second(z: Tensor) -> Tensor:
                along = rows(generator.fields(x, z) * score).sum(1)
                return rows(generator.fields(x, z) * slope(along, x)).sum(1)

            def drifting(y: Tensor) -> Tensor:
                return torch.where(expand(live, y), generator.drift(y), 0.0)

            if probes:
                curvature = torch.stack([second(generator.noise(x, draw)) for _ in range(probes)]).mean(0)
                sign = 2.0 * torch.randint(2, x.shape, generator=draw, device=x.device).to(x.dtype) - 1
                drift = rows(sign * slope(sign * drifting(x), x)).sum(1)
            else:
                curvature = torch.stack([second(z) for z in generator.basis(x)]).sum(0)
                drift = generator.divergence(drifting, x)
            return curvature + 0.5 * generator.squared(score, x) - drift.detach()

    def velocity(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """Capability "ode": dx/dt of the probability flow in forward time, (B, *event)."""
        raise self._lacks("ode")

    def retract(self, x: Tensor) -> Tensor:
        """Back onto the space after a straight move, e.g. wrapping an angle. Here: x itself."""
        return x

    def blend(self, output: Output, weak: Output | None, weight: float) -> Output:
        """The guided output where the score is affine in the output, as it is for a diffusion whose network predicts
        a score, a velocity, the noise or the data: weight * output + (1 - weight) * weak."""
        return output if weak is None else weight * output + (1 - weight) * weak

    def stay(self, moved: Tensor, xt: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """``moved`` where t > s, else ``xt`` bit for bit."""
        t, s = times(t, xt), times(s, xt)
        return torch.where(expand(t == s, xt), xt, moved)

    def again_output(self, answer: Any, weight: float) -> Output:
        """What ``again`` returned, guided: an output, or the pair (output, weak)."""
        if not isinstance(answer, tuple):
            return answer
        output, weak = answer
        return self.blend(output, weak, weight)


def slope(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of the sum of ``value`` in x, differentiable again; zero where ``value`` does not depend on x."""
    (grad,) = (
        torch.autograd.grad(value.sum(), x, create_graph=True, allow_unused=True) if value.requires_grad else (None,)
    )
    return torch.zeros_like(x) if grad is None else grad


def alive(noised: Noised) -> Noised:
    """The draw with a harmless time in place of t = 0; the caller masks those elements out."""
    return Noised(noised.x0, noised.xt, noised.s, torch.where(noised.t > 0, noised.t, 0.5), noised.aux)
