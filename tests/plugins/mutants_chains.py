"""Broken chains: the mistakes that people make with classes, masked or uniform."""

from __future__ import annotations

import attrs
import torch
from mutant import Mutant

from de_core.families.jump import inverse_cdf
from de_core.generator import rows, score_entropy
from de_core.modality import expand, times
from de_core.rng import as_generator
from de_plugins.masked.generator import AbsorbingGenerator
from de_plugins.masked.layout import Regular
from de_plugins.masked.modality import Masked
from de_plugins.uniform.generator import UniformGenerator
from de_plugins.uniform.modality import Uniform

__all__ = ["MUTANTS"]

K = 3


# --- masked -----------------------------------------------------------------------------------------------------------


class MaskSurvives(Masked):
    def finish(self, output, xt, t, *, rng, **rest):
        keep = torch.rand(xt.shape, generator=as_generator(rng)) < 0.1
        return torch.where(keep, xt, super().finish(output, xt, t, rng=rng, **rest))


class _WithMask(Regular):
    """Scores of K classes and of the mask."""

    def __init__(self, event_shape, num_classes):
        super().__init__(event_shape, num_classes)
        self.output_shape = (*event_shape, num_classes + 1)

    def padded(self, log_probs):
        return log_probs[..., :-1]

    def unpadded(self, padded):
        return torch.cat([padded, torch.full_like(padded[..., :1], -30.0)], -1)


class PredictsTheMask(Masked):
    def __init__(self, event_shape, num_classes):
        super().__init__(event_shape, num_classes)
        self.layout = _WithMask(self.event_shape, num_classes)
        self.output_shape = self.layout.output_shape

    def config(self):
        return {"event_shape": list(self.event_shape), "num_classes": self.num_classes}


class MaskIsTheLastClass(Masked):
    def mask(self, device):
        return self.layout.sizes(device) - 1


class MaskedForgetsS(Masked):
    def perturb(self, x, t, *, s=0.0, rng):
        z = super().perturb(x, t, rng=rng)
        s = expand(times(s, x), z.t).expand_as(z.t)
        if bool((z.t < s).any()):
            raise ValueError("backwards")
        return attrs.evolve(z, s=s, xt=torch.where(expand(z.t > s, x), z.xt, x))


class SurvivalSquared(Masked):
    def perturb(self, x, t, *, s=0.0, rng):
        t, s = times(t, x), times(s, x)
        z = super().perturb(x, 1 - (1 - t) ** 2, s=1 - (1 - s) ** 2, rng=rng)
        return attrs.evolve(z, t=t, s=expand(s, t).expand_as(t))


class _Absorbing(AbsorbingGenerator):
    def __init__(self, modality, hazard, out=1.0, into=1.0):
        super().__init__(modality, hazard)
        self.factors = out, into

    def neighbours(self, x):
        y, out, into = super().neighbours(x)
        return y, self.factors[0] * out, self.factors[1] * into


class HazardDoubled(Masked):
    def generator(self, t):
        return _Absorbing(self, super().generator(t).hazard, 2.0, 2.0)


class HazardOfTheReverse(Masked):
    def generator(self, t):
        return AbsorbingGenerator(self, self.clock.reverse_hazard(torch.as_tensor(t, dtype=torch.float64)))


class NoRatesIntoX(Masked):
    def generator(self, t):
        return _Absorbing(self, super().generator(t).hazard, 1.0, 0.0)


class _Swapped(AbsorbingGenerator):
    def bregman(self, target_score, score, x):
        return super().bregman(score, target_score.clamp_min(-1e3), x)


class DivergenceSwapped(Masked):
    def generator(self, t):
        return _Swapped(self, super().generator(t).hazard)


class _NegativePhi(AbsorbingGenerator):
    def phi(self, f, x):
        y, out, _ = self.neighbours(x)
        rho = self._at(f, y) / f(x)[:, None]
        return torch.where(out > 0, out * (rho - rho.log()), 0.0).sum(1)


class PhiWithoutItsOne(Masked):
    def generator(self, t):
        return _NegativePhi(self, super().generator(t).hazard)


class LossOfAllElements(Masked):
    def loss(self, output, noised, *, objective="elbo"):
        weight = self.clock.reverse_hazard(noised.t)
        value = expand(weight, noised.x0) * self.layout.cross_entropy(output, noised.x0)
        if objective != "elbo":
            raise ValueError(objective)
        return rows(torch.where(expand(noised.t > 0, value), value, 0.0)).sum(1)


class LossWithoutWeight(Masked):
    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        return value / rows(self.clock.reverse_hazard(noised.t).clamp_max(1e6)).mean(1)


class WeightOfTheOtherEnd(Masked):
    """-a'/a in place of -a'/(1 - a)."""

    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        t = rows(noised.t).amax(1)
        return value * torch.where(t > 0, t / (1 - t).clamp_min(1e-6), 0.0)


class ScoreWithoutOdds(Masked):
    def score(self, output, xt, t):
        masked = (xt == self.mask(xt.device))[..., None]
        return rows(torch.where(masked, self.log_probs(output), 0.0))


class UnmasksTooSlowly(Masked):
    """a_s - a_t in place of (a_s - a_t)/(1 - a_t)."""

    def methods(self):
        return ("analytic",)

    def step(self, output, xt, t, s, *, rng, method=None, weak=None, weight=1.0, **rest):
        if method not in (None, "analytic"):
            raise ValueError(method)
        draw = as_generator(rng)
        chance = expand(self.clock.survival(times(s, xt)) - self.clock.survival(times(t, xt)), xt)
        coin = torch.rand(xt.shape, generator=draw, dtype=torch.float64) < chance
        return self.layout.draw(output, coin & (xt == self.mask(xt.device)), xt, draw, weak, weight), None


class FinishTakesTheLikeliest(Masked):
    def finish(self, output, xt, t, **rest):
        return torch.where(xt == self.mask(xt.device), self.log_probs(output).argmax(-1), xt)


class HalfPrecisionRace(Masked):
    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        if weak is not None:
            return super().finish(output, xt, t, rng=rng, weak=weak, weight=weight)
        u = torch.rand(output.shape, generator=as_generator(rng), dtype=torch.float64).half()
        race = self.log_probs(output).half() - (-u.clamp(2**-11, 1 - 2**-11).log()).log()
        return torch.where(xt == self.mask(xt.device), race.argmax(-1), xt)


def _mixed_probabilities(strong, weak, weight):
    mixed = weight * strong.exp() + (1 - weight) * weak.exp()
    return mixed.clamp_min(1e-30).log()


class GuidesProbabilities(Masked):
    def step(self, output, xt, t, s, *, weak=None, weight=1.0, again=None, **rest):
        if weak is not None:
            output = _mixed_probabilities(self.log_probs(output), self.log_probs(weak), weight)
            again = None if again is None else (lambda x, when: output)
        return super().step(output, xt, t, s, again=again, **rest)


class GuidesTheLastProbabilities(Masked):
    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        if weak is not None:
            output = _mixed_probabilities(self.log_probs(output), self.log_probs(weak), weight)
        return super().finish(output, xt, t, rng=rng)


class GuidedLawUnnormalised(Masked):
    """p_strong^w p_weak^(1 - w) taken for probabilities: the last class gets what is missing to one."""

    def methods(self):
        return ("analytic",)

    def step(self, output, xt, t, s, *, rng, method=None, weak=None, weight=1.0, **rest):
        if weak is None:
            return super().step(output, xt, t, s, rng=rng, method=method, **rest)
        draw = as_generator(rng)
        chance = expand(self.clock.revealed(times(t, xt), times(s, xt)), xt)
        coin = torch.rand(xt.shape, generator=draw, dtype=torch.float64) < chance
        law = (weight * self.log_probs(output) + (1 - weight) * self.log_probs(weak)).exp()
        u = torch.rand(xt.shape, generator=draw, dtype=torch.float64)
        drawn = (law.cumsum(-1) < u[..., None]).sum(-1).clamp_max(self.num_classes - 1)
        return torch.where(coin & (xt == self.mask(xt.device)), drawn, xt), None


class ReconstructsTheOther(Masked):
    def reconstruction(self, output, noised):
        wrong = self.layout.cross_entropy(output, (noised.x0 + 1) % K)
        return rows(wrong).sum(1)


class ReconstructsEverything(Masked):
    """Infinite where the network is sure, since every element is asked for its likeliest class's complement."""

    def prior_kl(self, x0):
        return torch.full((len(x0),), torch.log(torch.tensor(float(K))))


# --- uniform ----------------------------------------------------------------------------------------------------------


class _Rates(UniformGenerator):
    def __init__(self, modality, hazard, out=1.0, into=1.0):
        super().__init__(modality, hazard)
        self.factors = out, into

    def neighbours(self, x):
        y, out, into = super().neighbours(x)
        return y, self.factors[0] * out, self.factors[1] * into


class RateOfEachClass(Uniform):
    """h to each class in place of h/K."""

    def generator(self, t):
        right = super().generator(t)
        return _Rates(self, right.hazard, float(self.num_classes), float(self.num_classes))


class RatesByTheOtherCount(Uniform):
    """h/(K - 1) in place of h/K: as if the kernel never drew the class it comes from."""

    def generator(self, t):
        right, ratio = super().generator(t), self.num_classes / (self.num_classes - 1)
        return _Rates(self, right.hazard, ratio, ratio)


class NeverItself(Uniform):
    """What is not kept takes one of the other classes."""

    def perturb(self, x, t, *, s=0.0, rng):
        draw = as_generator(rng)
        z = super().perturb(x, t, s=s, rng=draw)
        shift = 1 + torch.randint(self.num_classes - 1, x.shape, generator=draw)
        u = torch.rand(x.shape, generator=draw, dtype=torch.float64)
        kept = expand(torch.where(z.t > z.s, self.clock.kept(z.s, z.t), 1.0), x)
        return attrs.evolve(z, xt=torch.where(u < kept, x, (x + shift) % self.num_classes))


class NoLastClass(Uniform):
    def prior(self, batch, *, rng):
        return torch.randint(self.num_classes - 1, (batch, *self.event_shape), generator=as_generator(rng))


class NeighboursShifted(Uniform):
    """Scores in the order of the classes, neighbours in another."""

    def score(self, output, xt, t):
        return super().score(output, xt, t).roll(1, -1)


class LeaveOneOutForPosterior(Uniform):
    """The formula for the leave-one-out law, the output of a posterior head."""

    def posterior(self, output, xt, t):
        log_mu = output.log_softmax(-1)
        here = torch.nn.functional.one_hot(xt, self.num_classes).to(log_mu.dtype)
        return (log_mu + here * self.log_odds(times(t, xt), xt, log_mu.dtype)).log_softmax(-1)


class PosteriorForLeaveOneOut(Uniform):
    def __init__(self, event_shape, num_classes):
        super().__init__(event_shape, num_classes, "leave_one_out")

    def config(self):
        return {"event_shape": list(self.event_shape), "num_classes": self.num_classes}

    def posterior_output(self, xt, t, candidates, weights):
        hot = torch.nn.functional.one_hot(candidates, self.num_classes).to(weights.dtype)
        return (weights @ rows(hot)).reshape(*xt.shape, self.num_classes).clamp_min(1e-300).log()


class RatiosUpsideDown(Uniform):
    def log_ratios(self, output, xt, t):
        return -super().log_ratios(output, xt, t)


class EntropyWithoutConstant(Uniform):
    """s - r log s: the score entropy without what the output does not enter."""

    def loss(self, output, noised, *, objective="elbo"):
        if objective != "elbo":
            return super().loss(output, noised, objective=objective)
        value = super().loss(output, noised)
        log_r = self.true_ratios(noised.x0, noised.xt, noised.t.clamp_min(1e-3), torch.float64)
        left = score_entropy(torch.zeros_like(log_r), log_r) - 1
        rate = self.clock.hazard(noised.t) / self.num_classes
        constant = rows(expand(rate, noised.xt) * left.sum(-1)).sum(1)
        return torch.where(rows(noised.t).amax(1) > 0, value - constant.to(value.dtype), value)


class CrossEntropyAlone(Uniform):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output, noised, objective="simple" if objective == "elbo" else objective)


class StepForgetsTheState(Uniform):
    """x_s is drawn as if from x_0 = a draw of mu, whatever x_t is."""

    def methods(self):
        return ("analytic",)

    def transition(self, output, xt, t, s, *, method=None, weak=None, weight=1.0):
        if method not in (None, "analytic"):
            raise ValueError(method)
        log_mu = self.posterior(output, xt, t)
        a = expand(self.clock.survival(times(s, xt)), xt)[..., None]
        return (a * log_mu.exp() + (1 - a) / self.num_classes).log()


class HoldsKnown(Uniform):
    """A kept class is no proof of the datum here."""

    holds_known = True


class DrawsByFloatSum(Uniform):
    """The classes' cumulative sum is compared in the wrong order: the first class is drawn for the last."""

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        log_mu = self.posterior(output, xt, times(t, xt)).flip(-1)
        u = torch.rand(xt.numel(), generator=as_generator(rng), dtype=torch.float64)
        drawn = inverse_cdf(log_mu.reshape(-1, self.num_classes), u).reshape(xt.shape)
        return torch.where(expand(times(t, xt) > 0, xt), drawn, xt)


def _of(cls, mistake, check):
    """A mutant named after its class, of the shape that its right modality has."""
    family = "masked" if issubclass(cls, Masked) else "uniform"
    return Mutant(f"{family}: {cls.__name__}", mistake, lambda: cls((2,), K), family, check)


MUTANTS = (
    _of(MaskSurvives, "A mask in ten survives the last move.", "finish_is_data"),
    _of(PredictsTheMask, "The mask is one of the classes that are predicted.", "finish_is_data"),
    _of(MaskIsTheLastClass, "The mask has the index of the last class.", "time_zero_is_data"),
    _of(MaskedForgetsS, "The kernel from s masks as if from 0.", "semigroup"),
    _of(SurvivalSquared, "perturb masks by another schedule than the rest.", "density_is_kernel"),
    _of(HazardDoubled, "The generator's rate is doubled.", "kolmogorov"),
    _of(HazardOfTheReverse, "The generator has the rate of the reversed chain.", "kolmogorov_exact"),
    _of(NoRatesIntoX, "The generator lacks the rates into a state.", "adjoint"),
    _of(DivergenceSwapped, "The divergence's two scores are exchanged.", "theorem_on_finite_space"),
    _of(PhiWithoutItsOne, "Phi is sum of rates times rho - log rho.", "phi"),
    _of(LossOfAllElements, "The cross entropy of kept elements is in the loss.", "loss_is_divergence"),
    _of(LossWithoutWeight, "The loss lacks the weight 1/t.", "loss_is_divergence"),
    _of(WeightOfTheOtherEnd, "The loss has -a'/a for -a'/(1 - a).", "loss_is_divergence"),
    _of(ScoreWithoutOdds, "The score lacks a/(1 - a).", "score_is_posterior"),
    _of(UnmasksTooSlowly, "A step unmasks with a_s - a_t.", "step_is_small"),
    _of(FinishTakesTheLikeliest, "The last move takes the likeliest class.", "finish_draws_tails"),
    _of(HalfPrecisionRace, "The last move is a Gumbel race in half precision.", "finish_draws_tails"),
    _of(GuidesProbabilities, "A step mixes probabilities, not logarithms.", "guidance_mixes_scores"),
    _of(GuidesTheLastProbabilities, "The last move mixes probabilities, not logarithms.", "guidance_mixes_scores"),
    _of(GuidedLawUnnormalised, "The guided law is drawn from unnormalised.", "guidance_mixes_scores"),
    _of(ReconstructsTheOther, "The reconstruction is that of the next class.", "likelihood_terms"),
    _of(ReconstructsEverything, "prior_kl is log K, as if the prior were uniform.", "likelihood_terms"),
    _of(RateOfEachClass, "The generator's rate is K times too large.", "kolmogorov"),
    _of(RatesByTheOtherCount, "The generator's rate is h/(K - 1).", "kolmogorov_exact"),
    _of(NeverItself, "What is not kept never takes its own class.", "density_is_kernel"),
    _of(NoLastClass, "The prior never draws the last class.", "time_one_is_prior"),
    _of(NeighboursShifted, "Scores and neighbours are in different orders.", "score_is_posterior"),
    _of(LeaveOneOutForPosterior, "A posterior is taken for a leave-one-out law.", "score_is_posterior"),
    _of(PosteriorForLeaveOneOut, "A leave-one-out law is taken for a posterior.", "loss_least_at_posterior"),
    _of(RatiosUpsideDown, "Ratios are beta(x)/beta(y).", "score_is_posterior"),
    _of(EntropyWithoutConstant, "The score entropy lacks what makes it a divergence.", "loss_is_not_negative"),
    _of(CrossEntropyAlone, "The bound is the cross entropy.", "loss_is_divergence"),
    _of(StepForgetsTheState, "A step forgets the state it starts from.", "step_is_small"),
    _of(HoldsKnown, "It claims that a kept class is exact inpainting.", "known_is_held"),
    _of(DrawsByFloatSum, "The last move draws the classes in reverse.", "finish_draws_tails"),
)
