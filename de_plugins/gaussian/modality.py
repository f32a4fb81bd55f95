"""Real numbers under dX = f X dt + g dW: x_t = alpha x_0 + sigma eps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.families import Diffusion
from de_core.generator import DiffusionGenerator, rows
from de_core.modality import Again, Noised, Output, expand, shape_of, times
from de_core.rng import Rng, as_generator
from de_core.sampling.steppers import Move, euler, heun
from de_core.schedule import path_schedule
from de_plugins.gaussian.ancestral import ancestral
from de_plugins.gaussian.churn import churn
from de_plugins.gaussian.dpm_solver import dpm_solver
from de_plugins.gaussian.heun_paper import heun_paper
from de_plugins.gaussian.predictions import LEAST_ALPHA, PREDICTIONS, convert

__all__ = ["Gaussian"]

_OBJECTIVES = ("elbo", "simple", "paper-tabular", "paper-text-image")
_STEPPERS: dict[str, Callable[[Move[Gaussian]], tuple[Tensor, Any]]] = {
    "dpm_solver": dpm_solver,
    "euler": lambda m: (euler(m.modality, m.output, m.xt, m.t, m.s), None),
    "heun": lambda m: (heun(m.modality, m.output, m.xt, m.t, m.s, again=m.again, weight=m.weight), None),
    "heun_paper": heun_paper,
    "ancestral": ancestral,
    "churn": churn,
}


class Gaussian(Diffusion):
    """R^n with the kernel N(alpha_t x_0, sigma_t^2 I).

    Generator: L u = f x . grad u + g^2/2 Laplacian u, f = alpha'/alpha, g^2 = 2 sigma sigma' - 2 f sigma^2.
    A network predicts v = (alpha eps - sigma x_0)/n, n^2 = alpha^2 + sigma^2 (for EDM this is Karras's preconditioned
    output, up to sign, at unit data variance; the network scales its own input), or x_0, eps, or the score -eps/sigma.
    ``convert`` turns any into any.

    Objectives, per sample and summed over elements: "elbo" g^2/2 |score error|^2; "simple" the squared error of the
    prediction itself; "paper-tabular" |eps error|^2; "paper-text-image" its mean over elements (the authors' two
    losses).

    Args:
        event_shape: of one sample.
        schedule: "cosine", "linear" (rate 0.1 + 19.9 t), "linear-tabular" (twice that) or "edm" (sigma from 0.002 to
            80, rho 7).
        prediction: "v", "x0", "eps" or "score".

    Sources: Song et al. 2021 (2011.13456), Kingma et al. 2021 (2107.00630), Salimans and Ho 2022 (2202.00512, v),
    Karras et al. 2022 (2206.00364).
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"})
    inexact = frozenset({"heun_paper"})

    def __init__(self, event_shape: tuple[int, ...], schedule: str = "cosine", prediction: str = "v") -> None:
        if prediction not in PREDICTIONS:
            raise DiffuseError(f"prediction: expected one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        self.event_shape = self.element_shape = self.output_shape = shape_of(event_shape)
        self.schedule, self.prediction = schedule, prediction
        self.path = path_schedule(schedule)

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape), "schedule": self.schedule, "prediction": self.prediction}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x)
        if not bool(x.isfinite().all()):
            raise DiffuseError(f"expected finite numbers, got {int((~x.isfinite()).sum())} that are NaN or infinite")

    # --- the forward process ----------------------------------------------------------------------------------------

    def _scale(self) -> float:
        """Standard deviation of the prior."""
        return float(self.path.sigma(torch.ones((), dtype=torch.float64))) if self.schedule == "edm" else 1.0

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        draw = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return self._scale() * torch.randn(batch, *self.event_shape, generator=draw, device=draw.device)

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        clean = isinstance(s, float) and s == 0
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("gaussian: the kernel runs forward, expected t >= s")
        eps = torch.randn(x.shape, generator=as_generator(rng, x.device), dtype=x.dtype, device=x.device)
        if clean:
            alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        else:
            alpha, variance = self.path.between(s, t)
            sigma = variance.sqrt()
        if bool((t == 1).any()):  # the prior, which the linear and EDM kernels only approach
            alpha, sigma = torch.where(t == 1, 0.0, alpha), torch.where(t == 1, self._scale(), sigma)
        xt = expand(alpha, x).to(x.dtype) * x + expand(sigma, x).to(x.dtype) * eps
        return Noised(x, self.stay(xt, x, t, s), s, t, {"eps": eps})

    def signal(self, t: Tensor) -> Tensor:
        """alpha^2/(alpha^2 + sigma^2): E[x_0 | x_t] for x_0 ~ N(0, 1) has this variance."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return alpha**2 / (alpha**2 + sigma**2)

    def generator(self, t: Tensor | float) -> DiffusionGenerator:
        when = torch.as_tensor(t)
        when = when if when.is_floating_point() else when.to(torch.get_default_dtype())
        f, g = self.path.drift(when), self.path.diffusion(when).sqrt()
        return DiffusionGenerator(lambda x: _over(f, x) * x, lambda x, z: _over(g, x) * z)

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = times(t, xt)
        alpha, sigma = self._kernel(t, xt)
        safe = torch.where(sigma > 0, sigma, 1.0)
        z = (xt - alpha * x0) / safe
        value = -0.5 * z**2 - safe.log() - 0.5 * math.log(2 * math.pi)
        exact = torch.where(xt == x0, 0.0, -torch.inf)
        return rows(torch.where(sigma > 0, value, exact)).sum(1)

    def _kernel(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of p_{t|0}, the prior's own at t = 1, shaped to multiply x."""
        alpha = torch.where(t == 1, 0.0, self.path.alpha(t))
        sigma = torch.where(t == 1, self._scale(), self.path.sigma(t))
        return expand(alpha, x), expand(sigma, x)

    # --- what a network says ----------------------------------------------------------------------------------------

    def convert(self, output: Output, xt: Tensor, t: Tensor, to: str, source: str | None = None) -> Tensor:
        """One prediction as another, at (x_t, t), t > 0: ``source`` (this modality's own by default) to ``to``."""
        return convert(self.path, output, xt, t, to, source or self.prediction)

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        return self.convert(output, xt, t, "score")

    def conditional_score(self, noised: Noised) -> Tensor:
        """-(x_t - alpha x_0)/sigma^2."""
        alpha, sigma = self._kernel(times(noised.t, noised.xt), noised.xt)
        return -(noised.xt - alpha * noised.x0) / sigma**2

    def loss(self, output: Output, noised: Noised, *, objective: str = "elbo") -> Tensor:
        """Equal to the family's g^2/2 |score error|^2 under "elbo", in the prediction's own error so that no end is
        singular:

        r = sigma'/sigma - alpha'/alpha = g^2/(2 sigma^2);  v: r alpha^2/n^2;  x0: r alpha^2/sigma^2;  eps: r;  score:
        r sigma^2.
        """
        if objective not in _OBJECTIVES:
            raise DiffuseError(f"gaussian: no objective {objective!r}; expected one of {', '.join(_OBJECTIVES)}")
        t = torch.where(noised.t > 0, noised.t, 0.5)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        norm2 = alpha**2 + sigma**2
        x0, xt, eps = noised.x0, noised.xt, noised.aux["eps"]
        a, b, n = expand(alpha, xt), expand(sigma, xt), expand(norm2.sqrt(), xt)
        if objective.startswith("paper"):
            error = self.convert(output, xt, t, "eps") - eps
        elif self.prediction == "v":
            error = output - (a * eps - b * x0) / n
        else:
            error = output - (x0 if self.prediction == "x0" else eps if self.prediction == "eps" else -eps / b)
        square = torch.where(expand(noised.t > 0, xt), error**2, 0.0)
        if objective == "elbo":
            # r alpha^2, finite where alpha = 0
            rate = alpha**2 * self.path.sigma_dot(t) / sigma - alpha * self.path.alpha_dot(t)
            capped = rate / alpha.clamp_min(LEAST_ALPHA) ** 2
            weight = {"v": rate / norm2, "x0": rate / sigma**2, "eps": capped, "score": capped * sigma**2}[
                self.prediction
            ]
            square = expand(weight, xt) * square
        return rows(square).mean(1) if objective == "paper-text-image" else rows(square).sum(1)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        x0 = (weights.to(xt.dtype) @ rows(candidates).to(xt.dtype)).reshape(xt.shape)
        return self.convert(x0, xt, t, self.prediction, source="x0")

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return tuple(_STEPPERS)

    def velocity(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """alpha' x0_hat + sigma' eps_hat: the probability flow, finite at t = 1."""
        t = times(t, xt)
        x0, eps = self.convert(output, xt, t, "x0"), self.convert(output, xt, t, "eps")
        return expand(self.path.alpha_dot(t), xt) * x0 + expand(self.path.sigma_dot(t), xt) * eps

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
        """Each stepper's law is in its own file. Guidance mixes outputs linearly, as it does scores.

        - "dpm_solver" (default): DPM-Solver++(2M), second order in the log signal-to-noise ratio, one call.
        - "euler", "heun": the probability flow, first and second order; Heun calls the network twice.
        - "heun_paper": Heun's step as the poster prints it, first order.
        - "ancestral": a draw of q(x_s | x_t, x_0 = x0_hat), first order.
        - "churn": Heun's step beyond s and noise back up to it, second order, two calls.
        """
        method = method or "dpm_solver"
        if method not in _STEPPERS:
            raise DiffuseError(f"gaussian: no stepper {method!r}; expected one of {', '.join(_STEPPERS)}")
        t, s, output = times(t, xt), times(s, xt), self.blend(output, weak, weight)
        draw = as_generator(rng, xt.device)
        move = Move(self, method, output, xt, t, s, draw, weight=weight, again=again, carry=carry)
        moved, carry = _STEPPERS[method](move)
        return self.stay(moved, xt, t, s), carry

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """The mean of the data given x_t, x0_hat; where t = 0, x_t itself."""
        t = times(t, xt)
        x0 = self.convert(self.blend(output, weak, weight), xt, torch.where(t > 0, t, 0.5), "x0")
        return torch.where(expand(t > 0, xt), x0, xt)

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """0 where alpha(1) = 0; else KL(N(alpha x_0, sigma^2) || N(0, S^2)), S the prior's scale, at the end of the
        path."""
        one = torch.ones((), dtype=torch.float64)
        alpha, sigma, scale = float(self.path.alpha(one)), float(self.path.sigma(one)), self._scale()
        ratio = (sigma / scale) ** 2
        constant = 0.5 * math.prod(self.event_shape) * (ratio - 1 - math.log(ratio))
        return 0.5 * (alpha / scale) ** 2 * rows(x0**2).sum(1) + constant

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        """-log N(x_0; x0_hat, (sigma/alpha)^2 I): the decoder of the bound at t_min."""
        x0 = self.convert(output, noised.xt, noised.t, "x0")
        alpha, sigma = self._kernel(times(noised.t, noised.xt), noised.xt)
        spread = sigma / alpha
        z = (noised.x0 - x0) / spread
        return rows(0.5 * z**2 + spread.log() + 0.5 * math.log(2 * math.pi)).sum(1)


def _over(value: Tensor, x: Tensor) -> Tensor:
    """A coefficient that is a number, (B,) or (B, *element), shaped and typed to multiply x."""
    return (value if value.ndim == 0 else expand(value, x)).to(x)
