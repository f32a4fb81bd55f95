"""Directions under Brownian motion: the unit sphere with its heat kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from de_core import DiffuseError, Diffusion, DiffusionGenerator, Noised
from de_core.modality import Again, Output, expand, rows, shape_of, times
from de_core.rng import Rng, as_generator, fork
from de_core.sampling.steppers import euler, heun
from de_sphere._kernel import draw, exponential, log_kernel, slope, tangent

__all__ = ["Sphere"]

_RATE = 2 * math.log(300)


class Sphere(Diffusion):
    """Unit vectors in R^3, each under a Brownian motion on the sphere.

    Clock: v(t) = 1e-4 (300^(2t) - 1), so that sigma = sqrt(v) runs geometrically from 0.01 rad (t_min = 0.05) to 3.
    Generator: (g^2/2) Laplacian, g^2 = dv/dt, written as half the sum of the squares of the three rotation fields
    g e_k x X. Kernel: ``de_sphere._kernel.log_kernel``, against area; E x_t = exp(-v) x_0, 1.2e-4 as t -> 1; at t = 1
    the state is a draw of the uniform prior. A network returns a vector of R^3 whose tangent part is sigma times the
    score: of order one at every time. The loss weighs its squared error by g^2/2v, which is 6 to 13 over the clock.

    Args:
        event_shape: ends in 3; every vector is one element.

    Raises:
        DiffuseError: an event shape that does not end in 3.

    Source: De Bortoli et al. 2022 (2202.02763), diffusion and reverse walk on manifolds.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"})
    t_min = 0.05

    def __init__(self, event_shape: Sequence[int] = (3,)) -> None:
        self.event_shape = self.output_shape = shape_of(event_shape)
        if self.event_shape[-1:] != (3,):
            raise DiffuseError(f"sphere: expected an event shape that ends in 3, got {self.event_shape}")
        self.element_shape = self.event_shape[:-1]

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape)}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x)
        error = (torch.linalg.vector_norm(x, dim=-1) - 1).abs()
        if not bool((error <= 1e-4).all()):  # NaN too
            raise DiffuseError(f"expected vectors of length 1, got a length that is off by {float(error.max()):.4g}")

    def variance(self, t: Tensor | float, x: Tensor) -> Tensor:
        """v(t) in float64, (B, *element); a hair above 0 at t = 0, since scores divide by it."""
        v = 1e-4 * torch.expm1(_RATE * times(t, x).double()).clamp_min(1e-20)
        return expand(v, x[..., 0]).expand(x.shape[:-1])

    def retract(self, x: Tensor) -> Tensor:
        """x/|x|."""
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return self.retract(torch.randn(batch, *self.event_shape, generator=rng, device=rng.device))

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        """A draw of the heat kernel over v(t) - v(s), exact; at t = 1 of the prior."""
        t, rng = times(t, x), as_generator(rng, x.device)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("sphere: the kernel runs forward, expected t >= s")
        gap = (self.variance(t, x) - self.variance(s, x)).clamp_min(1e-24)
        moved = draw(self.retract(x.double()), gap, fork(rng)).to(x.dtype)
        moved = torch.where(expand(t == 1, x), self.prior(len(x), rng=rng).to(x.dtype), moved)
        return Noised(x, self.stay(moved, x, t, s), s, t)

    def generator(self, t: Tensor | float) -> DiffusionGenerator:
        g = self._rate(torch.as_tensor(t, dtype=torch.float64)).sqrt()
        return DiffusionGenerator(
            torch.zeros_like, lambda x, z: expand(g, x).to(x) * torch.linalg.cross(z, x), reference="volume"
        )

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        when = expand(times(t, xt), xt[..., 0])
        value = log_kernel((xt - x0).double().square().sum(-1) / 2, self.variance(t, xt))
        exact = torch.where((xt == x0).all(-1), 0.0, -torch.inf)
        value = torch.where(when > 0, torch.where(when == 1, -math.log(4 * math.pi), value), exact)
        return rows(value).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def conditional_score(self, noised: Noised) -> Tensor:
        """-(d log p/du) (x_0 - (x_0 . x_t) x_t), u = 1 - x_0 . x_t; 0 at t = 1."""
        x, x0 = noised.xt.double(), noised.x0.double()
        steep = slope((x - x0).square().sum(-1) / 2, self.variance(noised.t, x))
        score = -steep[..., None] * tangent(x, x0 - x)
        return torch.where(expand(noised.t == 1, score), 0.0, score).to(noised.xt.dtype)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        """sigma sum_j w_j (conditional score given candidate j): the score of a mixture is the posterior's mean."""
        total = torch.zeros_like(xt)
        for x0, w in zip(candidates, weights.T, strict=True):
            total = total + expand(w, xt).to(xt.dtype) * self.conditional_score(Noised(x0.expand_as(xt), xt, t, t))
        return self._sigma(t, xt) * total

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """The tangent part of the output, over sigma."""
        return tangent(xt, output) / self._sigma(t, xt)

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("walk", "euler", "heun")

    def velocity(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """-g^2 score/2: the probability flow."""
        rate = expand(self._rate(times(t, xt).double()), xt)
        return -0.5 * rate.to(xt.dtype) * self.score(output, xt, t)

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
        """The geodesic random walk, with v = v(t), w = v(s) and a normal eps of the tangent plane:

        x_s = exp_x((v - w) score + sqrt((v - w) w/v) eps).
        """
        t, s = times(t, xt), times(s, xt)
        output = self.blend(output, weak, weight)
        if method == "euler":
            return self.stay(euler(self, output, xt, t, s), xt, t, s), None
        if method == "heun":
            return self.stay(heun(self, output, xt, t, s, again=again, weight=weight), xt, t, s), None
        if method not in (None, "walk"):
            raise DiffuseError(f"sphere: no stepper {method!r}; expected one of {', '.join(self.methods())}")
        v, w = self.variance(t, xt), self.variance(s, xt)
        eps = torch.randn(xt.shape, generator=as_generator(rng, xt.device), dtype=xt.dtype, device=xt.device)
        spread = ((v - w).clamp_min(0) * w / v).sqrt()[..., None].to(xt.dtype)
        drift = (v - w)[..., None].to(xt.dtype) * self.score(output, xt, t)
        moved = self.retract(exponential(xt, drift + spread * tangent(xt, eps)))
        return self.stay(moved, xt, t, s), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """exp_x(v score): the mean of the data given x_t where sigma is small; where t = 0, x_t itself."""
        t = times(t, xt)
        drift = self._sigma(t, xt) * tangent(xt, self.blend(output, weak, weight))
        return self.stay(self.retract(exponential(xt, drift)), xt, t, torch.zeros_like(t))

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """KL(p_v || uniform) at v = v(1): half its chi-square, (1/2) sum_l (2l + 1) exp(-l (l + 1) v), of which l = 1
        is all but 1e-15; 2.3e-8 an element."""
        each = 1.5 * math.exp(-2 * 1e-4 * math.expm1(_RATE))
        return torch.full((len(x0),), self.elements * each, dtype=x0.dtype, device=x0.device)

    def reconstruction(self, output: Output, noised: Noised) -> Tensor:
        """-log p_v(x_0 | finish(x_t)): the decoder is the kernel itself around the predicted data."""
        return -self.log_transition(noised.x0, self.finish(output, noised.xt, noised.t, rng=0), noised.t)

    # --- insides ----------------------------------------------------------------------------------------------------

    def _sigma(self, t: Tensor | float, x: Tensor) -> Tensor:
        return self.variance(t, x).sqrt()[..., None].to(x.dtype)

    @staticmethod
    def _rate(t: Tensor) -> Tensor:
        """g^2 = dv/dt."""
        return 1e-4 * _RATE * torch.exp(_RATE * t)
