"""Angles under Brownian motion: the flat torus with its wrapped heat kernel."""

from math import log, pi

import torch

from de_core import DiffuseError, Diffusion, DiffusionGenerator, Noised
from de_core.modality import expand, rows, shape_of, times
from de_core.rng import as_generator

__all__ = ["Torus"]


class Torus(Diffusion):
    """Angles in [-pi, pi], radians, each under d theta = g dW: theta_t = theta_0 + sigma eps, wrapped.

    Clock: v(t) = sigma^2 = 1e-4 (e^(12 t) - 1), so that sigma runs geometrically from 0.01 (t_min = 0.05) to 4, and
    g^2 = dv/dt. Kernel, against length, with windings k: p(x | x_0) = sum_k exp(-(x - x_0 + 2 pi k)^2/2v)/sqrt(2 pi v).
    E cos(x_t - x_0) = exp(-v/2), 3e-4 as t -> 1; at t = 1 the state is a draw of the uniform prior.
    Generator: (g^2/2) d^2/d theta^2. A network predicts sigma times the score, minus the mean of eps: of order one.
    The loss weighs its squared error by g^2/2v, which is 6 to 13 over the clock.

    Args:
        event_shape: any; every entry is one angle and one element.

    Source: Jing et al. 2022 (2206.01729), section 3: wrapped kernel, score and geometric clock.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "implicit"})
    t_min = 0.05

    def __init__(self, event_shape=(1,)):
        self.event_shape = self.element_shape = self.output_shape = shape_of(event_shape)

    def config(self):
        return {"event_shape": list(self.event_shape)}

    def validate(self, x):
        self.check_shape(x)
        if not bool((x.abs() <= pi + 1e-6).all()):  # NaN too
            raise DiffuseError(f"expected angles in [-pi, pi] radians, got {float(x.abs().max()):.4g} in size")

    def variance(self, t, x):
        """v(t), shaped and typed to multiply x; a hair above 0 at t = 0, since scores divide by it."""
        return expand(1e-4 * torch.expm1(12 * times(t, x)), x).to(x.dtype).clamp_min(1e-24)

    def retract(self, x):
        """x - 2 pi round(x/2 pi): wrapped, bit for bit itself inside [-pi, pi]."""
        return x - 2 * pi * (x / (2 * pi)).round()

    def prior(self, batch, *, rng):
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return pi * (2 * torch.rand(batch, *self.event_shape, generator=rng, device=rng.device) - 1)

    def perturb(self, x, t, *, s=0.0, rng):
        """x + sqrt(v(t) - v(s)) eps, wrapped; at t = 1 the prior."""
        t, rng = times(t, x), as_generator(rng, x.device)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("torus: the kernel runs forward, expected t >= s")
        eps = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
        moved = self.retract(x + (self.variance(t, x) - self.variance(s, x)).clamp_min(0).sqrt() * eps)
        moved = torch.where(expand(t == 1, x), self.prior(len(x), rng=rng).to(x.dtype), moved)
        return Noised(x, self.stay(moved, x, t, s), s, t)

    def generator(self, t):
        g = 0.01 * (12 * torch.exp(12 * torch.as_tensor(t, dtype=torch.float64))).sqrt()
        return DiffusionGenerator(torch.zeros_like, lambda x, z: expand(g, x).to(x) * z, reference="volume")

    def windings(self, xt, x0, t):
        """x_t - x_0 + 2 pi k and -1/2 its square over v, (B, *event, 13): |k| <= 6 leaves out less than 1e-18."""
        gap = self.retract(xt - x0)[..., None] + 2 * pi * torch.arange(-6, 7).to(xt)
        return gap, -0.5 * gap**2 / self.variance(t, xt)[..., None]

    def log_transition(self, xt, x0, t):
        t, (gap, weight) = expand(times(t, xt), xt), self.windings(xt, x0, t)
        value = weight.logsumexp(-1) - 0.5 * (2 * pi * self.variance(t, xt)).log()
        value = torch.where(t > 0, value, torch.where(gap[..., 6] == 0, 0.0, -torch.inf))
        return rows(torch.where(t == 1, -log(2 * pi), value)).sum(1)

    def conditional_score(self, noised):
        """-E_k[x_t - x_0 + 2 pi k]/v under the softmax of the kernel's summands; 0 at t = 1."""
        gap, weight = self.windings(noised.xt, noised.x0, noised.t)
        score = -(weight.softmax(-1) * gap).sum(-1) / self.variance(noised.t, noised.xt)
        return torch.where(expand(noised.t == 1, score), 0.0, score)

    def posterior_output(self, xt, t, candidates, weights):
        """sigma sum_j w_j (conditional score given candidate j): the score of a mixture is the posterior's mean."""
        scores = [self.conditional_score(Noised(x0.expand_as(xt), xt, t, t)) for x0 in candidates]
        return self.variance(t, xt).sqrt() * sum(expand(w, xt) * u for w, u in zip(weights.T, scores, strict=True))

    def score(self, output, xt, t):
        return output / self.variance(t, xt).sqrt()

    def step(self, output, xt, t, s, *, rng, method=None, weak=None, weight=1.0, again=None, carry=None):
        """x + (v - w) score + sqrt((v - w) w/v) eps, wrapped, v = v(t), w = v(s): exact for data in one point."""
        v, w = self.variance(t, xt), self.variance(s, xt)
        eps = torch.randn(xt.shape, generator=as_generator(rng, xt.device), dtype=xt.dtype, device=xt.device)
        moved = xt + (v - w) * self.score(self.blend(output, weak, weight), xt, t) + ((v - w) * w / v).sqrt() * eps
        return self.stay(self.retract(moved), xt, t, s), None

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        """The step to s = 0: x + v score, the mean of the data given x_t where sigma is small."""
        return self.step(output, xt, t, torch.zeros_like(times(t, xt)), rng=rng, weak=weak, weight=weight)[0]
