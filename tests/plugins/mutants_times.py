"""Broken modalities: clocks of rows and of elements, draws, and steppers that are not the default."""

from __future__ import annotations

import attrs
import torch
from mutant import Mutant

from de_core.errors import DiffuseError
from de_core.modality import expand, rows, times
from de_plugins.gaussian.modality import Gaussian
from de_plugins.masked.modality import Masked
from de_plugins.uniform.modality import Uniform

__all__ = ["MUTANTS"]


# --- a clock for each row ---------------------------------------------------------------------------------------------


class LatestClock(Gaussian):
    """Rows that move are noised to the latest time of the batch."""

    def perturb(self, x, t, *, s=0.0, rng):
        t = times(t, x)
        start = expand(times(s, x), t).expand_as(t)
        if bool((t < start).any()):
            raise DiffuseError("backwards")
        if t.ndim > 1 or not len(t):
            return super().perturb(x, t, s=s, rng=rng)
        z = super().perturb(x, torch.where(t > start, t.max(), t), s=start, rng=rng)
        return attrs.evolve(z, t=t)


class FirstClockSteps(Uniform):
    """A step reads its two times from the first row that moves."""

    def step(self, output, xt, t, s, **rest):
        t, s = times(t, xt), times(s, xt)
        if t.ndim > 1 or not len(t):
            return super().step(output, xt, t, s, **rest)
        first = int((t > s).long().argmax())
        moved, carry = super().step(output, xt, t[first].expand_as(t), s[first].expand_as(s), **rest)
        return torch.where(expand(t > s, xt), moved, xt), carry


class FinishAllOrNone(Gaussian):
    """Rows at t = 0 are left alone only where all are."""

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        t = times(t, xt)
        if bool((t == 0).all()):
            return xt
        return self.convert(self.blend(output, weak, weight), xt, torch.where(t > 0, t, 0.5), "x0")


class GeneratorOfTheFirstRow(Uniform):
    def generator(self, t):
        t = torch.as_tensor(t)
        return super().generator(t.reshape(-1)[0] if t.numel() else t)


# --- a clock for each element -----------------------------------------------------------------------------------------


class FinishWholeRows(Gaussian):
    """An element at t = 0 is left alone only where its whole row is."""

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        t = times(t, xt)
        x0 = self.convert(self.blend(output, weak, weight), xt, torch.where(t > 0, t, 0.5), "x0")
        return torch.where(expand(rows(t).amax(1) == 0, xt), xt, x0)


class LatestElement(Uniform):
    """Elements that move are noised to the latest time of their row."""

    def perturb(self, x, t, *, s=0.0, rng):
        t = times(t, x)
        if t.ndim == 1:
            return super().perturb(x, t, s=s, rng=rng)
        start = expand(times(s, x), t).expand_as(t)
        late = rows(t).amax(1).reshape(-1, *[1] * (t.ndim - 1))
        z = super().perturb(x, torch.where(t > start, late, t), s=start, rng=rng)
        return attrs.evolve(z, t=t)


class MeanClockDensity(Gaussian):
    def log_transition(self, xt, x0, t):
        t = times(t, xt)
        return super().log_transition(xt, x0, rows(t).mean(1) if t.ndim > 1 else t)


class HeunMovesWhatIsHeld(Gaussian):
    """Another stepper than the default moves elements whose two times are equal."""

    def step(self, output, xt, t, s, *, method=None, **rest):
        t, s = times(t, xt), times(s, xt)
        if method == "heun" and t.ndim > 1:
            s = torch.where(t == s, 0.99 * s, s)
        return super().step(output, xt, t, s, method=method, **rest)


# --- steppers that are not the default --------------------------------------------------------------------------------


class AncestralInDouble(Gaussian):
    def step(self, output, xt, t, s, *, method=None, **rest):
        moved, carry = super().step(output, xt, t, s, method=method, **rest)
        return (moved.double() if method == "ancestral" else moved), carry


class ConfidenceInPlace(Masked):
    def step(self, output, xt, t, s, *, method=None, **rest):
        moved, carry = super().step(output, xt, t, s, method=method, **rest)
        if method == "confidence":
            xt.copy_(moved)
        return moved, carry


class CarriesTheUnguided(Gaussian):
    """What the multistep solver remembers is the prediction before guidance."""

    def step(self, output, xt, t, s, *, weak=None, weight=1.0, **rest):
        moved, carry = super().step(output, xt, t, s, weak=weak, weight=weight, **rest)
        return moved, carry if weak is None else super().step(output, xt, t, s, **rest)[1]


class StepsTooFar(Gaussian):
    """A step over most of the clock overflows."""

    def step(self, output, xt, t, s, **rest):
        moved, carry = super().step(output, xt, t, s, **rest)
        return torch.where(expand(times(t, xt) - times(s, xt) > 0.9, xt), torch.inf, moved), carry


# --- draws of the implicit form ---------------------------------------------------------------------------------------


class ProbesOfTheGlobalSeed(Gaussian):
    def implicit(self, head, xt, t, *, rng, probes=1):
        return super().implicit(head, xt, t, rng=int(torch.randint(1 << 30, ())), probes=probes)


class ProbesOfOneSeed(Gaussian):
    def implicit(self, head, xt, t, *, rng, probes=1):
        return super().implicit(head, xt, t, rng=5, probes=probes)


def _gaussian(cls: type[Gaussian], mistake: str, check: str) -> Mutant:
    return Mutant(f"gaussian: {cls.__name__}", mistake, lambda: cls((2,)), "gaussian", check)


def _uniform(cls: type[Uniform], mistake: str, check: str) -> Mutant:
    return Mutant(f"uniform: {cls.__name__}", mistake, lambda: cls((2,), 3), "uniform", check)


MUTANTS = (
    _gaussian(LatestClock, "Rows are noised to the latest time of the batch.", "rows_have_own_times"),
    _uniform(FirstClockSteps, "A step reads its times from the first row.", "rows_have_own_times"),
    _gaussian(FinishAllOrNone, "finish changes rows at t = 0 beside others.", "rows_have_own_times"),
    _uniform(GeneratorOfTheFirstRow, "The generator is that of the first row's time.", "batch_independence"),
    _gaussian(FinishWholeRows, "finish changes elements at t = 0 beside others.", "elements_have_own_times"),
    _uniform(LatestElement, "Elements are noised to the latest time of their row.", "elements_have_own_times"),
    _gaussian(MeanClockDensity, "The density is that of the mean of the elements' clocks.", "elements_have_own_times"),
    _gaussian(HeunMovesWhatIsHeld, "heun moves elements with s = t.", "elements_have_own_times"),
    _gaussian(AncestralInDouble, "ancestral answers in float64, whatever it was given.", "shapes_dtypes"),
    Mutant(
        "masked: ConfidenceInPlace", "confidence writes into the state it was given.",
        lambda: ConfidenceInPlace((2,), 3), "masked", "inputs_untouched",
    ),
    _gaussian(CarriesTheUnguided, "The solver's memory is not guided.", "guidance_identities"),
    _gaussian(StepsTooFar, "A long step overflows.", "finite_at_ends"),
    _gaussian(ProbesOfTheGlobalSeed, "The implicit form's probes are of the global seed.", "rng_decides"),
    _gaussian(ProbesOfOneSeed, "The implicit form's probes are always the same.", "rng_decides"),
)  # fmt: skip
