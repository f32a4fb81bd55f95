"""Broken gaussians: the mistakes that people make with a diffusion on numbers."""

from __future__ import annotations

import attrs
import torch
from mutant import Mutant

from de_core.families import Diffusion
from de_core.generator import DiffusionGenerator
from de_core.modality import Noised, expand, rows, times
from de_core.rng import as_generator
from de_core.sampling.steppers import heun
from de_core.schedule import Cosine
from de_plugins.gaussian.modality import Gaussian

__all__ = ["MUTANTS"]


def _draw(m, x, t, s, rng, spread):
    """The kernel s -> t with ``spread(standard deviation)`` for the size of its noise."""
    t = times(t, x)
    s = expand(times(s, x), t).expand_as(t)
    if bool((t < s).any()):
        raise ValueError("backwards")
    eps = torch.randn(x.shape, generator=as_generator(rng, x.device), dtype=x.dtype)
    ratio, variance = m.path.between(s, t)
    ratio, size = torch.where(t == 1, 0.0, ratio), torch.where(t == 1, 1.0, spread(variance.sqrt()))
    xt = expand(ratio, x).to(x.dtype) * x + expand(size, x).to(x.dtype) * eps
    return Noised(x, m.stay(xt, x, t, s), s, t, {"eps": eps})


class VarianceForDeviation(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        return _draw(self, x, t, s, rng, lambda sigma: sigma**2)


class KernelKeepsABitOfNoise(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        return attrs.evolve(z, xt=z.xt + 1e-6 * z.aux["eps"])


class TimeReversed(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, 1 - times(t, x), rng=rng)
        return attrs.evolve(z, t=1 - z.t)


class ForgetsS(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        fresh = super().perturb(x, t, rng=rng)
        return attrs.evolve(z, xt=self.stay(fresh.xt, x, z.t, z.s), aux=fresh.aux)


class PriorTwiceAsWide(Gaussian):
    def prior(self, batch, *, rng):
        return 2 * super().prior(batch, rng=rng)


class _Short(Cosine):
    """Nine tenths of the cosine path."""

    def alpha(self, t):
        return torch.cos(0.45 * torch.pi * t)

    def sigma(self, t):
        return torch.sin(0.45 * torch.pi * t)

    def alpha_dot(self, t):
        return -0.45 * torch.pi * self.sigma(t)

    def sigma_dot(self, t):
        return 0.45 * torch.pi * self.alpha(t)


class StopsShortOfThePrior(Gaussian):
    def __init__(self, event_shape):
        super().__init__(event_shape)
        self.path = _Short()

    def config(self):
        return {"event_shape": list(self.event_shape)}

    def perturb(self, x, t, *, s=0.0, rng):
        return super().perturb(x, times(t, x).clamp_max(1 - 1e-12), s=s, rng=rng)


class _Generator(Gaussian):
    """A generator with other coefficients."""

    drift, diffusion = 1.0, 1.0

    def generator(self, t):
        right = super().generator(t)
        return DiffusionGenerator(
            lambda x: self.drift * right.drift(x), lambda x, z: self.diffusion**0.5 * right.fields(x, z)
        )


class DriftSign(_Generator):
    drift = -1.0


class DriftHalved(_Generator):
    drift = 0.5


class DiffusionDoubled(_Generator):
    diffusion = 2.0


class DiffusionTooLargeByAFifth(_Generator):
    diffusion = 1.2
    capabilities = Gaussian.capabilities - {"density", "ode"}


class DensityWithoutLogDeterminant(Gaussian):
    def log_transition(self, xt, x0, t):
        sigma = torch.where(times(t, xt) == 1, 1.0, self.path.sigma(times(t, xt)))
        return super().log_transition(xt, x0, t) + rows(expand(sigma.log(), xt).expand_as(xt)).sum(1)


class DensityWithoutConstant(Gaussian):
    def log_transition(self, xt, x0, t):
        return super().log_transition(xt, x0, t) + 0.5 * xt.shape[1] * torch.tensor(2 * torch.pi).log()


class DensityMeanOverElements(Gaussian):
    def log_transition(self, xt, x0, t):
        return super().log_transition(xt, x0, t) / xt.shape[1]


class ScoreSign(Gaussian):
    def score(self, output, xt, t):
        return -super().score(output, xt, t)


class ScoreClamped(Gaussian):
    def score(self, output, xt, t):
        return super().score(output, xt, t).clamp(-5, 5)


class LossMeanOverElements(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output, noised, objective=objective) / self.elements


class LossMeanOverBatch(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output, noised, objective=objective).mean()


class LossOverItsBatchMean(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        return value / value.detach().mean() if len(value) else value


class LossDetached(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output.detach(), noised, objective=objective) + 0 * rows(output).sum(1)


class LossHalfDetached(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        live = super().loss(output, noised, objective=objective)
        return 0.5 * (live + live.detach())


class LossDoubled(Gaussian):
    capabilities = frozenset({"density", "elementwise", "likelihood"})

    def loss(self, output, noised, *, objective="elbo"):
        return 2 * super().loss(output, noised, objective=objective)


class LossOfTheImplicitForm(Gaussian):
    """|s|^2/2 - s . u in place of |s - u|^2/2: right up to a constant, but no divergence."""

    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        return value - super().loss(torch.zeros_like(output), noised, objective=objective)


class PosteriorMode(Gaussian):
    def posterior_output(self, xt, t, candidates, weights):
        best = torch.nn.functional.one_hot(weights.argmax(1), weights.shape[1]).to(weights)
        return super().posterior_output(xt, t, candidates, best)


class GlobalSeed(Gaussian):
    def prior(self, batch, *, rng):
        return torch.randn(batch, *self.event_shape)


class GlobalSeedInAStepper(Gaussian):
    def step(self, output, xt, t, s, *, method=None, **rest):
        if method == "ancestral":
            rest["rng"] = int(torch.randint(2**31, ()))
        return super().step(output, xt, t, s, method=method, **rest)


class SeededWithAConstant(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        return super().perturb(x, t, s=s, rng=torch.Generator().manual_seed(0))


class StepSeededWithAConstant(Gaussian):
    def step(self, output, xt, t, s, *, rng, **rest):
        return super().step(output, xt, t, s, rng=0, **rest)


class InPlace(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        return attrs.evolve(z, x0=x, xt=x.copy_(z.xt).clone())


class FinishInPlace(Gaussian):
    def finish(self, output, xt, t, **rest):
        return xt.copy_(super().finish(output, xt, t, **rest)).clone()


class SingleTime(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output, attrs.evolve(noised, t=noised.t.float()), objective=objective).to(output.dtype)


class StepIgnoresS(Gaussian):
    def step(self, output, xt, t, s, **rest):
        return super().step(output, xt, t, 0.9 * t, **rest)


class StepToZero(Gaussian):
    def step(self, output, xt, t, s, **rest):
        moved, carry = super().step(output, xt, t, torch.zeros_like(s), **rest)
        return self.stay(moved, xt, t, s), carry


class VelocityWithTheFullScore(Gaussian):
    def velocity(self, output, xt, t):
        """f x - g^2 score: the drift of the reverse diffusion, not of the flow."""
        t = times(t, xt)
        drift, rate = self.path.drift(t), self.path.diffusion(t)
        return expand(drift, xt) * xt - expand(rate, xt) * self.score(output, xt, t)


class HeunAtTheWrongTime(Gaussian):
    def step(self, output, xt, t, s, *, method=None, again=None, weight=1.0, **rest):
        if method != "heun":
            return super().step(output, xt, t, s, method=method, again=again, weight=weight, **rest)

        def stale(x, when):
            return again(x, t)

        return self.stay(heun(self, output, xt, t, s, again=stale, weight=weight), xt, t, s), None


class AncestralWithVariance(Gaussian):
    def methods(self):
        return ("ancestral",)

    def step(self, output, xt, t, s, *, rng, method=None, **rest):
        if method not in (None, "ancestral"):
            raise ValueError(method)
        still = super().step(output, xt, t, s, rng=rng, method="ancestral", **rest)[0]
        _, variance = self.path.between(s, t)
        spread = (variance * self.path.sigma(s) ** 2 / self.path.sigma(t) ** 2).sqrt()
        eps = torch.randn(xt.shape, generator=as_generator(rng), dtype=xt.dtype)
        return self.stay(still + expand(spread**2 - spread, xt) * eps, xt, t, s), None


class NoisePredictionWithoutFloor(Gaussian):
    def __init__(self, event_shape):
        super().__init__(event_shape, prediction="eps")

    def config(self):
        return {"event_shape": list(self.event_shape)}

    def convert(self, output, xt, t, to, source=None):
        if to != "x0" or (source or self.prediction) != "eps":
            return super().convert(output, xt, t, to, source)
        alpha, sigma = (expand(f(times(t, xt)), xt) for f in (self.path.alpha, self.path.sigma))
        return (xt - sigma * output) / alpha


class ConfigDropsTheSchedule(Gaussian):
    def config(self):
        return {"event_shape": list(self.event_shape), "prediction": self.prediction}


class FlowWithoutDensity(Gaussian):
    capabilities = frozenset({"ode"})


class DeclaresWhatItLacks(Gaussian):
    def reconstruction(self, output, noised):
        return Diffusion.reconstruction(self, output, noised)


class ClockOfTheMeanElement(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        t = times(t, x)
        when = t if t.ndim == 1 else rows(t).mean(1, keepdim=True).expand_as(t)
        return attrs.evolve(super().perturb(x, when, s=s, rng=rng), t=t)


class GridAscends(Gaussian):
    def grid(self, steps):
        return super().grid(steps).flip(0)


class StepperThatIsNot(Gaussian):
    def methods(self):
        return (*super().methods(), "rk45")


class DefaultIsAnother(Gaussian):
    def methods(self):
        return tuple(reversed(super().methods()))


class ValidatesAnything(Gaussian):
    def validate(self, x):
        pass


class FinishLeavesNoise(Gaussian):
    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        return xt


class PriorTermOfTheData(Gaussian):
    def prior_kl(self, x0):
        """KL(N(x_0, 1) || N(0, 1)), as if nothing had been forgotten."""
        return 0.5 * rows(x0**2).sum(1)


class PosterSign(Gaussian):
    """L* beta/beta - L log beta: |s|^2 taken with the drift's sign, as the poster prints the last term."""

    def implicit(self, head, xt, t, *, rng, probes=1):
        right = super().implicit(head, xt, t, rng=rng, probes=probes)
        x = xt.detach().requires_grad_()
        score = self.score(head(x), x, t)
        generator = self.generator(t)
        trace = sum(rows(torch.autograd.grad(rows(score)[:, k].sum(), x, retain_graph=True)[0])[:, k] for k in range(2))
        rate = self.path.diffusion(t)
        along = rows(generator.drift(x) * score).sum(1)
        return (right - 2 * (along + 0.5 * rate * trace)).detach()


class NoiseKeptOnSelf(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, s=s, rng=rng)
        self.eps = z.aux["eps"]
        return attrs.evolve(z, aux={})

    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output, attrs.evolve(noised, aux={"eps": self.eps[: len(output)]}), objective=objective)


class ShapeIsAList(Gaussian):
    def __init__(self, event_shape):
        super().__init__(event_shape)
        self.event_shape = list(self.event_shape)

    def config(self):
        return {"event_shape": self.event_shape}


class NoEmptyBatch(Gaussian):
    def perturb(self, x, t, *, s=0.0, rng):
        assert float(x.abs().max()) < 1e6
        return super().perturb(x, t, s=s, rng=rng)


class WeightCountsFromZero(Gaussian):
    """strong + w (strong - weak): w = 0 is no guidance, as half of the papers write it."""

    def blend(self, output, weak, weight):
        return super().blend(output, weak, 1 + weight)


class ThresholdOfTheBatch(Gaussian):
    """x0_hat is scaled by the largest of the batch."""

    def step(self, output, xt, t, s, **rest):
        x0 = self.convert(output, xt, t, "x0")
        x0 = x0 / (x0.abs().max() / 2).clamp_min(1) if len(x0) else x0
        return super().step(self.convert(x0, xt, t, "v", source="x0"), xt, t, s, **rest)


def _of(cls, mistake, check, right="gaussian", **arguments):
    """A mutant named after its class, of the shape that its right modality has."""
    return Mutant(f"gaussian: {cls.__name__}", mistake, lambda: cls((2,), **arguments), right, check)


MUTANTS = (
    _of(VarianceForDeviation, "The kernel's noise has the variance for its standard deviation.", "density_is_kernel"),
    _of(KernelKeepsABitOfNoise, "A little noise is added whatever the times.", "equal_times_hold"),
    _of(TimeReversed, "t = 1 is the data.", "time_zero_is_data"),
    _of(ForgetsS, "The kernel from s runs as if from 0.", "semigroup"),
    _of(PriorTwiceAsWide, "The prior is twice as wide as the kernel's end.", "time_one_is_prior"),
    _of(StopsShortOfThePrior, "At t = 1 a sixth of the data is left.", "time_one_is_prior"),
    _of(DriftSign, "The generator's drift has the wrong sign.", "kolmogorov"),
    _of(DiffusionTooLargeByAFifth, "The generator's diffusion is too large by a fifth.", "kolmogorov"),
    _of(DiffusionDoubled, "The generator has g^2 for g^2/2.", "kolmogorov_exact"),
    _of(DriftHalved, "The generator's drift is halved, so that the prior spreads.", "prior_is_stationary"),
    _of(DensityWithoutLogDeterminant, "log_transition lacks -log sigma.", "density_is_normalised"),
    _of(DensityWithoutConstant, "log_transition lacks -log(2 pi)/2.", "density_is_normalised"),
    _of(DensityMeanOverElements, "log_transition is a mean over elements.", "density_is_kernel"),
    _of(ScoreSign, "The score has the wrong sign.", "score_is_posterior"),
    _of(ScoreClamped, "The score is clamped.", "score_is_posterior"),
    _of(LossMeanOverElements, "The loss is a mean over elements.", "loss_is_divergence"),
    _of(LossMeanOverBatch, "The loss is a mean over the batch.", "shapes_dtypes"),
    _of(LossOverItsBatchMean, "The loss is divided by its mean over the batch.", "batch_independence"),
    _of(ThresholdOfTheBatch, "A step scales by the largest prediction of the batch.", "batch_independence"),
    _of(LossDetached, "The loss is computed from a detached output.", "gradients"),
    _of(LossHalfDetached, "Half of the loss is detached.", "gradients"),
    _of(LossDoubled, "The loss has twice the weight, and no generator tells.", "loss_is_information"),
    _of(LossOfTheImplicitForm, "The loss leaves out the target's own square.", "loss_is_not_negative"),
    _of(PosteriorMode, "The perfect output is taken from the likeliest datum.", "loss_least_at_posterior"),
    _of(GlobalSeed, "The prior draws from the global seed.", "rng_decides"),
    _of(GlobalSeedInAStepper, "One stepper draws from the global seed.", "rng_decides"),
    _of(SeededWithAConstant, "perturb seeds a generator of its own with a constant.", "rng_decides"),
    _of(StepSeededWithAConstant, "A step seeds a generator of its own with a constant.", "rng_decides"),
    _of(InPlace, "perturb overwrites the data.", "inputs_untouched"),
    _of(FinishInPlace, "finish overwrites the state.", "inputs_untouched"),
    _of(SingleTime, "Times are rounded to float32.", "precision"),
    _of(StepIgnoresS, "A step goes to .9 t whatever s is.", "equal_times_hold"),
    _of(StepToZero, "A step goes to 0 whatever s is.", "reversal"),
    _of(VelocityWithTheFullScore, "The flow has the full score where it has half.", "velocity_transports"),
    _of(HeunAtTheWrongTime, "Heun's second call is made at the first time.", "stepper_order"),
    _of(AncestralWithVariance, "The ancestral noise has the variance for its standard deviation.", "step_is_small"),
    Mutant(
        "gaussian: NoisePrediction",
        "Noise is predicted where the path ends at alpha = 0.",
        lambda: Gaussian((2,), prediction="eps"),
        "gaussian",
        "error_gain",
    ),
    _of(NoisePredictionWithoutFloor, "x_0 is (x - sigma eps)/alpha, and alpha(1) = 0.", "finite_at_ends"),
    Mutant(
        "gaussian: ConfigDropsTheSchedule",
        "config leaves out an argument.",
        lambda: ConfigDropsTheSchedule((2,), "linear"),
        "gaussian",
        "config_round_trip",
    ),
    _of(FlowWithoutDensity, "It declares a flow, and nothing that the flow could be held to.", "capabilities_checked"),
    _of(DeclaresWhatItLacks, "It declares a likelihood and has no reconstruction.", "capabilities"),
    _of(ClockOfTheMeanElement, "An elementwise clock is averaged over the elements.", "elementwise_times"),
    _of(GridAscends, "The grid ascends.", "steppers_answer"),
    _of(StepperThatIsNot, "methods() names a stepper that does not exist.", "steppers_answer"),
    _of(DefaultIsAnother, "The default is not the first of methods().", "steppers_answer"),
    _of(ValidatesAnything, "validate accepts anything.", "refusals"),
    _of(FinishLeavesNoise, "finish returns the state as it is.", "finish_denoises"),
    _of(PriorTermOfTheData, "prior_kl takes the data for the kernel's end.", "likelihood_terms"),
    _of(PosterSign, "The implicit form has the poster's sign.", "implicit_is_denoising"),
    _of(NoiseKeptOnSelf, "The noise is kept on the modality, not in the draw.", "no_hidden_state"),
    _of(ShapeIsAList, "event_shape is a list.", "declaration"),
    _of(NoEmptyBatch, "perturb takes the largest entry of an empty batch.", "empty_batch"),
    _of(WeightCountsFromZero, "Guidance counts its weight from 0.", "guidance_identities"),
)
