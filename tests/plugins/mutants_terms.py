"""Broken modalities: objectives, implicit form, ends of the bound, guidance, signal, and what is refused."""

from __future__ import annotations

import attrs
import torch
from mutant import Mutant

from de_core.errors import DiffuseError
from de_core.modality import expand, rows, times
from de_core.plugins import get_modality, list_modalities
from de_core.rng import as_generator
from de_plugins.gaussian.modality import Gaussian
from de_plugins.masked.modality import Masked
from de_plugins.simplex.modality import Simplex
from de_plugins.uniform.modality import Uniform

__all__ = ["MUTANTS"]


# --- objectives -------------------------------------------------------------------------------------------------------


class SimpleAtZero(Gaussian):
    def loss(self, output, noised, *, objective="elbo"):
        if objective == "simple":
            noised = attrs.evolve(noised, t=noised.t.clamp_min(1e-3))
        return super().loss(output, noised, objective=objective)


class SimpleOverItsMean(Uniform):
    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        return value / value.mean().detach().clamp_min(1e-9) if objective == "simple" and len(value) else value


class SimpleForAnotherHead(Gaussian):
    """The v output is trained towards the noise."""

    def loss(self, output, noised, *, objective="elbo"):
        if objective != "simple":
            return super().loss(output, noised, objective=objective)
        error = torch.where(expand(noised.t > 0, output), output - noised.aux["eps"], 0.0)
        return rows(error**2).sum(1)


class SimpleDetached(Simplex):
    def loss(self, output, noised, *, objective="elbo"):
        return super().loss(output.detach() if objective == "simple" else output, noised, objective=objective)


class NothingBelowTheStart(Gaussian):
    """The loss divides by a time that was cut off at t_min."""

    def loss(self, output, noised, *, objective="elbo"):
        value = super().loss(output, noised, objective=objective)
        t = rows(noised.t).amax(1)
        late = (t - 0.5 * self.t_min).clamp_min(0)
        return value * torch.where(t > 0, late / late, 1.0)


# --- the implicit form ------------------------------------------------------------------------------------------------


class ImplicitDetached(Masked):
    def implicit(self, head, xt, t, *, rng, probes=1):
        return super().implicit(lambda x: head(x).detach(), xt, t, rng=rng, probes=probes)


class ImplicitAtZero(Gaussian):
    def implicit(self, head, xt, t, *, rng, probes=1):
        return super().implicit(head, xt, times(t, xt).clamp_min(1e-3), rng=rng, probes=probes)


# --- the ends of the bound --------------------------------------------------------------------------------------------


class ReconstructsTheMean(Uniform):
    """Averaged over elements."""

    def reconstruction(self, output, noised):
        return super().reconstruction(output, noised) / 2


class SquaredError(Gaussian):
    """The squared error for the log-density: the decoder's constant is left out."""

    def reconstruction(self, output, noised):
        x0 = self.convert(output, noised.xt, noised.t, "x0")
        alpha, sigma = self._kernel(times(noised.t, noised.xt), noised.xt)
        return rows(0.5 * ((noised.x0 - x0) * alpha / sigma) ** 2).sum(1)


class PriorKlOfTheBatch(Gaussian):
    def prior_kl(self, x0):
        return super().prior_kl(x0).mean().expand(len(x0))


# --- guidance ---------------------------------------------------------------------------------------------------------


class WeightCutAtOne(Gaussian):
    def step(self, output, xt, t, s, *, weight=1.0, **rest):
        return super().step(output, xt, t, s, weight=min(weight, 1.0), **rest)


class LastWeightCutAtOne(Uniform):
    def finish(self, output, xt, t, *, weight=1.0, **rest):
        return super().finish(output, xt, t, weight=min(weight, 1.0), **rest)


# --- flow and signal --------------------------------------------------------------------------------------------------


class FlowByTheScore(Gaussian):
    """f x - g^2 s/2 as written: infinite where alpha = 0."""

    def methods(self):
        return ("dpm_solver", "ancestral")

    def velocity(self, output, xt, t):
        t = times(t, xt)
        alpha, sigma = torch.where(t == 1, 0.0, self.path.alpha(t)), self.path.sigma(t)
        f = self.path.alpha_dot(t) / alpha
        g2 = 2 * sigma * self.path.sigma_dot(t) - 2 * f * sigma**2
        return expand(f, xt) * xt - 0.5 * expand(g2, xt) * self.score(output, xt, t)


class SignalOfTheMean(Gaussian):
    """alpha for alpha^2."""

    def signal(self, t):
        return super().signal(t).sqrt()


class SignalOfOneClass(Uniform):
    """a for a^2."""

    def signal(self, t):
        return self.clock.survival(t)


# --- what is refused --------------------------------------------------------------------------------------------------


class TakesOneMore(Uniform):
    """> for >=."""

    def validate(self, x):
        self.check_shape(x, floating=False)
        if x.numel() and (int(x.min()) < 0 or int(x.max()) > self.num_classes):
            raise DiffuseError("expected a class")


class MaskIsClean(Masked):
    """A mask is taken for a datum, and finish leaves some."""

    def validate(self, x):
        self.validate_noised(x)

    def finish(self, output, xt, t, *, rng, **rest):
        draw = as_generator(rng)
        keep = torch.rand(xt.shape, generator=draw) < 0.04
        return torch.where(keep, xt, super().finish(output, xt, t, rng=draw, **rest))


class SharesOfAnySum(Simplex):
    """Shares are not asked to sum to one, and finish makes them 3 % too large."""

    def validate(self, x):
        self.check_shape(x)

    validate_noised = validate

    def finish(self, output, xt, t, **rest):
        return torch.where(expand(times(t, xt) > 0, xt), 1.03 * super().finish(output, xt, t, **rest), xt)


def _gaussian(cls: type[Gaussian], mistake: str, check: str, schedule: str = "cosine") -> Mutant:
    right = "gaussian" if schedule == "cosine" else "gaussian, linear, x0"
    return Mutant(f"gaussian: {cls.__name__}", mistake, lambda: cls((2,), schedule), right, check)


def _chain(cls: type[Masked] | type[Uniform], mistake: str, check: str) -> Mutant:
    right = "masked" if issubclass(cls, Masked) else "uniform"
    return Mutant(f"{right}: {cls.__name__}", mistake, lambda: cls((2,), 3), right, check)


def _simplex(cls: type[Simplex], mistake: str, check: str) -> Mutant:
    return Mutant(f"simplex: {cls.__name__}", mistake, lambda: cls((3,)), "simplex", check)


MUTANTS = [
    _gaussian(SimpleAtZero, "The objective 'simple' trains at t = 0.", "objectives_answer"),
    _chain(SimpleOverItsMean, "The objective 'simple' is divided by its batch mean.", "batch_independence"),
    _gaussian(SimpleForAnotherHead, "The objective 'simple' trains v towards eps.", "loss_least_at_posterior"),
    _simplex(SimpleDetached, "The objective 'simple' carries no gradient.", "objectives_answer"),
    _gaussian(NothingBelowTheStart, "The loss is NaN between 0 and t_min.", "finite_at_ends"),
    _chain(ImplicitDetached, "The implicit form carries no gradient.", "implicit_trains"),
    _gaussian(ImplicitAtZero, "The implicit form trains at t = 0.", "implicit_trains"),
    _chain(ReconstructsTheMean, "The reconstruction is averaged over elements.", "reconstruction_is_law"),
    _gaussian(SquaredError, "The reconstruction is a squared error.", "reconstruction_is_law"),
    _gaussian(PriorKlOfTheBatch, "The prior's divergence is the batch mean.", "batch_independence", "linear"),
    _gaussian(WeightCutAtOne, "Weights above 1 are cut.", "guidance_mixes_scores"),
    _chain(LastWeightCutAtOne, "finish cuts weights above 1.", "guidance_mixes_scores"),
    _gaussian(FlowByTheScore, "The flow is NaN at t = 1.", "finite_at_ends"),
    _gaussian(SignalOfTheMean, "signal() is alpha.", "signal_is_share"),
    _chain(SignalOfOneClass, "signal() is a.", "signal_is_share"),
    _chain(TakesOneMore, "validate takes class K.", "refusals"),
    _chain(MaskIsClean, "validate takes masks, and finish leaves some.", "finish_denoises"),
    _simplex(SharesOfAnySum, "finish and validate take shares of any sum.", "finish_is_data"),
]

_installed = {info.name for info in list_modalities()}
if "sphere" in _installed:
    Sphere = get_modality("sphere")

    class AnyLength(Sphere):
        """Vectors of any length are taken, and steps make them."""

        def validate(self, x):
            self.check_shape(x)

        validate_noised = validate

        def step(self, output, xt, t, s, **rest):
            moved, carry = super().step(output, xt, t, s, **rest)
            live = expand(times(t, xt) > times(s, xt), xt).expand_as(xt)
            return torch.where(live, 1.01 * moved, moved), carry

    MUTANTS.append(
        Mutant("sphere: AnyLength", "Steps and validate take vectors of any length.", lambda: AnyLength((3,)), "sphere",
               "states_in_space")
    )  # fmt: skip

if "torus" in _installed:
    Torus = get_modality("torus")

    class LastMoveOfTheLatest(Torus):
        """finish reads one time for all rows."""

        def finish(self, output, xt, t, **rest):
            t = times(t, xt)
            if t.ndim > 1 or not len(t):
                return super().finish(output, xt, t, **rest)
            return torch.where(expand(t > 0, xt), super().finish(output, xt, t.amax().expand_as(t), **rest), xt)

    MUTANTS.append(
        Mutant("torus: LastMoveOfTheLatest", "finish reads one time for all rows.", lambda: LastMoveOfTheLatest((2,)),
               "torus", "rows_have_own_times")
    )  # fmt: skip
