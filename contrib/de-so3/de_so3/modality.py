"""Rotations under Brownian motion: SO(3) with its heat kernel."""

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
from de_so3._kernel import axial, draw, exponential, hat, log_kernel, slope, uniform

__all__ = ["SO3"]

_RATE = 2 * math.log(300)


class SO3(Diffusion):
    """Rotation matrices, each under a Brownian motion on SO(3): dR = R hat(g dW), W in R^3.

    Clock: v(t) = 1e-4 (300^(2t) - 1), the variance about each axis, so that sigma = sqrt(v) runs geometrically from
    0.01 rad (t_min = 0.05) to 3. Generator: (g^2/2) sum_k V_k^2, g^2 = dv/dt, with the left-invariant fields
    V_k(R) = R hat(e_k). Kernel: ``de_so3._kernel.log_kernel`` (IGSO(3)), against volume in the metric of these fields,
    8 pi^2 in all; E R_t = exp(-v) R_0, 1.2e-4 as t -> 1; at t = 1 the state is a draw of the uniform (Haar) prior.

    A network returns, for every rotation, a vector of R^3 in the body frame: sigma times (V_1, V_2, V_3) log p, of
    order one at every time. The score of the contract, the gradient in the space of matrices, is
    R hat(output)/(2 sigma), since <R hat(a), R hat(b)> = 2 a . b. The loss weighs the output's squared error by g^2/2v,
    which is 6 to 13 over the clock.

    Args:
        event_shape: ends in 3, 3; every matrix is one element.

    Raises:
        DiffuseError: an event shape that does not end in 3, 3.

    Sources: Leach et al. 2022, Yim et al. 2023 (2302.02277): IGSO(3) and the reverse walk.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"})
    t_min = 0.05

    def __init__(self, event_shape: Sequence[int] = (3, 3)) -> None:
        self.event_shape = shape_of(event_shape)
        if self.event_shape[-2:] != (3, 3):
            raise DiffuseError(f"so3: expected an event shape that ends in 3, 3, got {self.event_shape}")
        self.element_shape, self.output_shape = self.event_shape[:-2], self.event_shape[:-1]

    def config(self) -> dict[str, Any]:
        return {"event_shape": list(self.event_shape)}

    def validate(self, x: Tensor) -> None:
        self.check_shape(x)
        error = (x.mT @ x - torch.eye(3, dtype=x.dtype, device=x.device)).abs()
        if not bool((error <= 1e-4).all()):  # NaN too
            raise DiffuseError(f"expected rotations, R^T R = 1, got R^T R - 1 of up to {float(error.max()):.4g}")
        turned = int((torch.linalg.det(x) < 0).sum())
        if turned:
            raise DiffuseError(f"expected rotations, det R = 1, got {turned} reflections, det R = -1")

    def variance(self, t: Tensor | float, x: Tensor) -> Tensor:
        """v(t) in float64, (B, *element); a hair above 0 at t = 0, since scores divide by it."""
        v = 1e-4 * torch.expm1(_RATE * times(t, x).double()).clamp_min(1e-20)
        return expand(v, x[..., 0, 0]).expand(x.shape[:-2])

    def retract(self, x: Tensor) -> Tensor:
        """The nearest rotation: U diag(1, 1, det UV^T) V^T of x = U S V^T."""
        u, _, vt = torch.linalg.svd(x)
        sign = torch.linalg.det(u @ vt)[..., None]
        return torch.cat([u[..., :2], u[..., 2:] * sign[..., None]], -1) @ vt

    # --- the forward process ----------------------------------------------------------------------------------------

    def prior(self, batch: int, *, rng: Rng) -> Tensor:
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return uniform(torch.randn(batch, *self.element_shape, 4, generator=rng, device=rng.device))

    def perturb(self, x: Tensor, t: Tensor | float, *, s: Tensor | float = 0.0, rng: Rng) -> Noised:
        """A draw of the heat kernel over v(t) - v(s), exact; at t = 1 of the prior."""
        t, rng = times(t, x), as_generator(rng, x.device)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("so3: the kernel runs forward, expected t >= s")
        gap = (self.variance(t, x) - self.variance(s, x)).clamp_min(1e-24)
        moved = draw(self.retract(x.double()), gap, fork(rng)).to(x.dtype)
        moved = torch.where(expand(t == 1, x), self.prior(len(x), rng=rng).to(x.dtype), moved)
        return Noised(x, self.stay(moved, x, t, s), s, t)

    def generator(self, t: Tensor | float) -> DiffusionGenerator:
        g = self._rate(torch.as_tensor(t, dtype=torch.float64)).sqrt()
        return DiffusionGenerator(
            torch.zeros_like,
            lambda x, z: expand(g, x).to(x) * (x @ hat(z)),
            noise_shape=self.output_shape,
            reference="volume",
        )

    def log_transition(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        when = expand(times(t, xt), xt[..., 0, 0])
        value = log_kernel(_apart(xt, x0), self.variance(t, xt))
        exact = torch.where((xt == x0).all(-1).all(-1), 0.0, -torch.inf)
        value = torch.where(when > 0, torch.where(when == 1, -math.log(8 * math.pi**2), value), exact)
        return rows(value).sum(1)

    # --- what a network says ----------------------------------------------------------------------------------------

    def conditional_score(self, noised: Noised) -> Tensor:
        return _covector(noised.xt, self.body_score(noised.xt, noised.x0, noised.t))

    def body_score(self, xt: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """(V_1, V_2, V_3) log p_{t|0}(R | R_0) = (d log p/du) axial(R_0^T R), (B, *element, 3): d log p/d omega times
        the unit axis; 0 at t = 1."""
        x, x0 = xt.double(), x0.double()
        score = slope(_apart(x, x0), self.variance(t, x))[..., None] * axial(x0.mT @ x)
        return torch.where(expand(t == 1, score), 0.0, score).to(xt.dtype)

    def posterior_output(self, xt: Tensor, t: Tensor, candidates: Tensor, weights: Tensor) -> Output:
        """sigma sum_j w_j (conditional score given candidate j): the score of a mixture is the posterior's mean."""
        total = torch.zeros_like(xt[..., 0])
        for x0, w in zip(candidates, weights.T, strict=True):
            total = total + expand(w, total).to(xt.dtype) * self.body_score(xt, x0.expand_as(xt), t)
        return self._sigma(t, xt) * total

    def score(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """The gradient of log beta in the space of matrices, R hat(output)/(2 sigma), (B, *event)."""
        return _covector(xt, output / self._sigma(t, xt))

    # --- the reverse process ----------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        return ("walk", "euler", "heun")

    def velocity(self, output: Output, xt: Tensor, t: Tensor) -> Tensor:
        """-g^2/2 R hat(output/sigma): the probability flow."""
        rate = expand(self._rate(times(t, xt).double()), output).to(xt.dtype)
        return -0.5 * xt @ hat((rate * output / self._sigma(t, xt)).to(xt.dtype))

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
        """The geodesic random walk, with v = v(t), w = v(s) and a normal eps of R^3:

        R_s = R exp(hat((v - w) output/sigma + sqrt((v - w) w/v) eps)).
        """
        t, s = times(t, xt), times(s, xt)
        output = self.blend(output, weak, weight)
        if method == "euler":
            return self.stay(euler(self, output, xt, t, s), xt, t, s), None
        if method == "heun":
            return self.stay(heun(self, output, xt, t, s, again=again, weight=weight), xt, t, s), None
        if method not in (None, "walk"):
            raise DiffuseError(f"so3: no stepper {method!r}; expected one of {', '.join(self.methods())}")
        v, w = self.variance(t, xt), self.variance(s, xt)
        eps = torch.randn(output.shape, generator=as_generator(rng, xt.device), dtype=xt.dtype, device=xt.device)
        spread = ((v - w).clamp_min(0) * w / v).sqrt()[..., None].to(xt.dtype)
        drift = ((v - w) / v.sqrt())[..., None].to(xt.dtype) * output
        moved = self.retract(exponential(xt, drift + spread * eps))
        return self.stay(moved, xt, t, s), None

    def finish(
        self, output: Output, xt: Tensor, t: Tensor, *, rng: Rng, weak: Output | None = None, weight: float = 1.0
    ) -> Tensor:
        """R exp(hat(sigma output)): the mean of the data given x_t where sigma is small; where t = 0, x_t itself."""
        t = times(t, xt)
        drift = self._sigma(t, xt) * self.blend(output, weak, weight)
        return self.stay(self.retract(exponential(xt, drift)), xt, t, torch.zeros_like(t))

    # --- likelihood -------------------------------------------------------------------------------------------------

    def prior_kl(self, x0: Tensor) -> Tensor:
        """KL(p_v || uniform) at v = v(1): half its chi-square, (1/2) sum_l (2l + 1)^2 exp(-l (l + 1) v), of which l =
        1 is all but 1e-15; 6.9e-8 an element."""
        each = 4.5 * math.exp(-2 * 1e-4 * math.expm1(_RATE))
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


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos omega of the angle between two rotations, |x - y|^2/4."""
    return (x - y).double().square().sum((-2, -1)) / 4


def _covector(x: Tensor, body: Tensor) -> Tensor:
    """The matrix S with <S, x hat(e_k)> = body_k: x hat(body)/2."""
    return 0.5 * x @ hat(body.to(x.dtype))
