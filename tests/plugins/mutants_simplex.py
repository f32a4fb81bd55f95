"""Broken Wright-Fisher diffusions, and broken modalities of ``contrib`` where it is installed."""

from __future__ import annotations

import math

import attrs
import torch
from mutant import Mutant

from de_core.modality import expand, rows, times
from de_core.plugins import get_modality, list_modalities
from de_core.rng import as_generator
from de_plugins.gaussian.modality import Gaussian
from de_plugins.simplex._wright_fisher import dirichlet
from de_plugins.simplex.modality import Simplex

__all__ = ["MUTANTS"]


class DirichletPath(Simplex):
    """x_t ~ Dir(1 + m x_0) with the mean of the counts: a path of Dirichlet laws, which no Markov process has."""

    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        tau = (self.tau(z.t.double()) - self.tau(z.s.double())).clamp_min(1e-6)
        spread = 2 * torch.exp(-0.5 * self.psi * tau) / (-torch.expm1(-0.5 * self.psi * tau))
        xt = dirichlet((1 + expand(spread, x) * x).float(), as_generator(rng), x.dtype)
        return attrs.evolve(z, xt=self.stay(torch.where(expand(z.t == 1, x), z.xt, xt), x, z.t, z.s))


class SimplexForgetsS(Simplex):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        fresh = super().perturb(x, t, rng=rng)
        return attrs.evolve(z, xt=self.stay(fresh.xt, x, z.t, z.s), aux=fresh.aux)


class SparsePrior(Simplex):
    """Dir(1/2, ..., 1/2), which another Wright-Fisher diffusion has."""

    def prior(self, batch, *, rng):
        return dirichlet(torch.full((batch, *self.event_shape), 0.5), as_generator(rng), torch.get_default_dtype())


class LeavesTheSimplex(Simplex):
    """A step adds the noise of R^n."""

    def step(self, output, xt, t, s, *, rng, **rest):
        draw = as_generator(rng)
        moved, carry = super().step(output, xt, t, s, rng=draw, **rest)
        noise = 0.05 * torch.randn(xt.shape, generator=draw, dtype=xt.dtype)
        return self.stay(moved + noise, xt, times(t, xt), times(s, xt)), carry


class RateHalved(Simplex):
    """b is that of e^{-psi tau}, for a clock laid out for e^{-psi tau/2}."""

    def rate(self, t):
        return 0.5 * super().rate(t)


class ScoreOfTheDensity(Simplex):
    """The score is taken against the volume, where the loss has it against the Dirichlet law of another weight."""

    def score(self, output, xt, t):
        return super().score(output, xt, t) - 1 / xt.clamp_min(1e-3)


class DiagonalMetric(Simplex):
    """The loss measures errors by diag(x), and forgets the -x x^T of the covariance."""

    def loss(self, output, noised, *, objective="elbo"):
        t = torch.where(noised.t > 0, noised.t, 0.5)
        off = self.conditional_score(noised) - self.score(output, noised.xt, t)
        value = 0.5 * expand(self.rate(t), noised.xt) * noised.xt * off**2
        return rows(torch.where(expand(noised.t > 0, value), value, 0.0)).sum(1)


class SignalIsNoise(Gaussian):
    """signal() is the share of noise."""

    def signal(self, t):
        return 1 - super().signal(t)


class LossWarmsUp(Gaussian):
    """The loss is weighted by how often it was asked for: a warm-up that the modality keeps for itself."""

    calls = 0

    def loss(self, output, noised, *, objective="elbo"):
        self.calls += 1
        return (1 - 0.5**self.calls) * super().loss(output, noised, objective=objective)


class StreamOfItsOwn(Gaussian):
    """An ancestral step draws from a stream that the modality made for itself, and goes on with it."""

    def __init__(self, event_shape):
        super().__init__(event_shape)
        self.own = torch.Generator().manual_seed(0)

    def step(self, output, xt, t, s, *, rng, method=None, **rest):
        return super().step(output, xt, t, s, rng=self.own, method=method or "ancestral", **rest)

    def methods(self):
        return ("ancestral",)


MUTANTS = [
    Mutant("simplex: DirichletPath", "A Dirichlet path for the Wright-Fisher kernel.", lambda: DirichletPath((3,)),
           "simplex", "density_is_kernel"),
    Mutant("simplex: SimplexForgetsS", "The kernel from s noises as if from 0.", lambda: SimplexForgetsS((3,)),
           "simplex", "semigroup"),
    Mutant("simplex: SparsePrior", "The prior is Dir(1/2), not Dir(1).", lambda: SparsePrior((3,)),
           "simplex", "time_one_is_prior"),
    Mutant("simplex: LeavesTheSimplex", "A step's noise leaves the simplex.", lambda: LeavesTheSimplex((3,)),
           "simplex", "states_in_space"),
    Mutant("simplex: RateHalved", "The rate b lacks its factor 2.", lambda: RateHalved((3,)), "simplex", "kolmogorov"),
    Mutant("simplex: ScoreOfTheDensity", "The score is against another measure.", lambda: ScoreOfTheDensity((3,)),
           "simplex", "score_is_posterior"),
    Mutant("simplex: DiagonalMetric", "The loss lacks the off-diagonal part of A.", lambda: DiagonalMetric((3,)),
           "simplex", "implicit_is_denoising"),
    Mutant("gaussian: SignalIsNoise", "signal() is the share of noise.", lambda: SignalIsNoise((2,)),
           "gaussian", "signal_falls"),
    Mutant("gaussian: LossWarmsUp", "A warm-up of the loss is kept on the modality.", lambda: LossWarmsUp((2,)),
           "gaussian", "joint_is_sum"),
    Mutant("gaussian: StreamOfItsOwn", "A step goes on with a stream of its own.", lambda: StreamOfItsOwn((2,)),
           "gaussian", "given_is_held"),
]  # fmt: skip

_installed = {info.name for info in list_modalities()}

if "torus" in _installed:
    Torus = get_modality("torus")

    class AngleNotWrapped(Torus):
        def retract(self, x):
            return x

    class KernelOfTheLine(Torus):
        """The density of the nearest winding alone."""

        def log_transition(self, xt, x0, t):
            when = expand(times(t, xt), xt)
            gap, variance = super().retract(xt - x0), self.variance(t, xt)
            value = -0.5 * gap**2 / variance - 0.5 * (2 * math.pi * variance).log()
            value = torch.where(when > 0, value, torch.where(gap == 0, 0.0, -torch.inf))
            return rows(torch.where(when == 1, -math.log(2 * math.pi), value)).sum(1)

    MUTANTS += [
        Mutant("torus: AngleNotWrapped", "Angles are not wrapped.", lambda: AngleNotWrapped((2,)), "torus",
               "states_in_space"),
        Mutant("torus: KernelOfTheLine", "The kernel's density counts one winding.", lambda: KernelOfTheLine((2,)),
               "torus", "density_is_normalised"),
    ]  # fmt: skip

if "sphere" in _installed:
    Sphere = get_modality("sphere")

    class OffTheSphere(Sphere):
        """A step moves along the tangent and stays there."""

        def step(self, output, xt, t, s, **rest):
            moved, carry = super().step(output, xt, t, s, **rest)
            live = expand(times(t, xt) > times(s, xt), xt).expand_as(xt)
            return torch.where(live, 1.01 * moved, moved), carry

    MUTANTS.append(
        Mutant("sphere: OffTheSphere", "A step is not brought back to the sphere.", lambda: OffTheSphere((3,)),
               "sphere", "states_in_space")
    )  # fmt: skip

if "counts" in _installed:
    Counts = get_modality("counts")

    class OneTooMany(Counts):
        """Immigration starts a step late: each noised count has one too many."""

        def perturb(self, x, t, *, s=0.0, rng):
            z = super().perturb(x, t, s=s, rng=rng)
            live = expand(z.t > z.s, x).expand_as(x)
            return attrs.evolve(z, xt=torch.where(live, z.xt + 1, z.xt))

    MUTANTS.append(
        Mutant("counts: OneTooMany", "Noised counts are off by one.", lambda: OneTooMany((2,), 2.0), "counts",
               "density_is_kernel")
    )  # fmt: skip
