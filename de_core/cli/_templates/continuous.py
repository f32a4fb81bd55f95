"""Real numbers under an Ornstein-Uhlenbeck process: a modality that works, to make your own of."""

from math import log, pi

import torch

from de_core import DiffuseError, Diffusion, DiffusionGenerator, Noised
from de_core.modality import expand, rows, shape_of, times
from de_core.rng import as_generator

__all__ = ["NewthingModality"]


class NewthingModality(Diffusion):
    """Real numbers, each under dX = -r X dt + sqrt(2 r) dW, r(t) = 16 t: x_t = a x_0 + sigma eps.

    Kernel: a(t) = exp(-8 t^2), sigma^2 = 1 - a^2. As t -> 1 a is 3e-4; at t = 1 it is 0: the prior, N(0, 1).
    Generator: L f = -r x f' + r f'', so that da/dt = -r a and d sigma^2/dt = 2 r (1 - sigma^2).
    A network predicts v = a eps - sigma x_0, which is of order one at every time; x_0 = a x_t - sigma v and
    score = -x_t - (a/sigma) v, the prior's own score and what the data add to it.

    Args:
        event_shape: any; every entry is one number and one element. The data should have a spread of about 1.

    Source: Song et al. 2021 (2011.13456), the variance-preserving process; Salimans and Ho 2022 (2202.00512), v.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "implicit"})

    @classmethod
    def examples(cls):
        """What `diffuse plugins check` looks at: modalities, each with clean data whose law is not the prior."""
        side = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
        return [(cls((2,)), 0.3 * side + torch.where(side > 0, 1.5, -0.5))]

    def __init__(self, event_shape=(1,)):
        self.event_shape = self.element_shape = self.output_shape = shape_of(event_shape)

    def config(self):
        """The constructor's arguments, as JSON."""
        return {"event_shape": list(self.event_shape)}

    def validate(self, x):
        """Refuse what is no clean state: one sentence, what was expected and what came."""
        self.check_shape(x)
        if not bool(x.isfinite().all()):
            raise DiffuseError("expected finite numbers, got NaN or infinity")

    # --- the forward process: these three say the same, and the conformance kit holds them to each other ---

    def kernel(self, s, t, x):
        """a and sigma of p_{t|s}, shaped and typed to multiply x; a(1) = 0; sigma is a hair above 0, to divide by."""
        s, t = expand(times(s, x), x), expand(times(t, x), x)
        gone = 8 * (t - s) * (t + s)  # the integral of r from s to t
        a = torch.where(t == 1, 0.0, torch.exp(-gone))
        variance = torch.where(t == 1, 1.0, -torch.expm1(-2 * gone))
        return a.to(x.dtype), variance.clamp_min(1e-24).sqrt().to(x.dtype)

    def generator(self, t):
        """The drift, and the noise z along its field."""
        r = 16 * torch.as_tensor(t, dtype=torch.float64)
        return DiffusionGenerator(lambda x: -expand(r, x).to(x) * x, lambda x, z: expand(2 * r, x).to(x).sqrt() * z)

    def log_transition(self, xt, x0, t):
        """log N(x_t; a x_0, sigma^2), summed over the elements; at t = 0 all the mass is on x_0."""
        a, sigma = self.kernel(0.0, t, xt)
        value = -0.5 * ((xt - a * x0) / sigma) ** 2 - sigma.log() - 0.5 * log(2 * pi)
        there = torch.where(xt == x0, 0.0, -torch.inf)
        return rows(torch.where(expand(times(t, xt), xt) > 0, value, there)).sum(1)

    def prior(self, batch, *, rng):
        """A draw at t = 1."""
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        return torch.randn(batch, *self.event_shape, generator=rng, device=rng.device)

    def perturb(self, x, t, *, s=0.0, rng):
        """x_t given x_s = x. Where t = s it is x, bit for bit (`stay`)."""
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("newthing: the kernel runs forward, expected t >= s")
        a, sigma = self.kernel(s, t, x)
        eps = torch.randn(x.shape, generator=as_generator(rng, x.device), dtype=x.dtype, device=x.device)
        return Noised(x, self.stay(a * x + sigma * eps, x, t, s), s, t)

    # --- what a network says: the loss and the implicit form follow from these, by the family's base ---

    def conditional_score(self, noised):
        """The gradient of log p(x_t | x_0) in x_t."""
        a, sigma = self.kernel(0.0, noised.t, noised.xt)
        return (a * noised.x0 - noised.xt) / sigma**2

    def score(self, output, xt, t):
        """The gradient of log beta in x_t, where the network says v."""
        a, sigma = self.kernel(0.0, t, xt)
        return -xt - (a / sigma) * output

    def posterior_output(self, xt, t, candidates, weights):
        """v where x_0 is candidates[j] with probability weights[:, j]: v is affine in x_0, so its mean decides."""
        x0 = (weights.to(xt.dtype) @ rows(candidates).to(xt.dtype)).reshape(xt.shape)
        a, sigma = self.kernel(0.0, t, xt)
        return (a * xt - x0) / sigma

    # --- the reverse process ---

    def step(self, output, xt, t, s, *, rng, method=None, weak=None, weight=1.0, again=None, carry=None):
        """A draw of p(x_s | x_t, x_0) at the x_0 that the network says; by Bayes' rule normal, with b, tau of p_{t|s}:
        mean (sigma_s/sigma_t)^2 b x_t + (tau/sigma_t)^2 a_s x_0, standard deviation sigma_s tau/sigma_t."""
        x0 = self.finish(output, xt, t, rng=rng, weak=weak, weight=weight)
        a_s, sigma_s = self.kernel(0.0, s, xt)
        b, tau = self.kernel(s, t, xt)
        sigma_t = self.kernel(0.0, t, xt)[1]
        eps = torch.randn(xt.shape, generator=as_generator(rng, xt.device), dtype=xt.dtype, device=xt.device)
        mean = (sigma_s / sigma_t) ** 2 * b * xt + (tau / sigma_t) ** 2 * a_s * x0
        return self.stay(mean + sigma_s * tau / sigma_t * eps, xt, t, s), None

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        """The mean of the data given x_t; where t = 0, x_t itself."""
        a, sigma = self.kernel(0.0, t, xt)
        return self.stay(a * xt - sigma * self.blend(output, weak, weight), xt, t, torch.zeros_like(times(t, xt)))
