"""Law: the density of the forward kernel. It is that of the draws, its mass is 1, and it has its ends."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.checks.forward import states_of
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("density_is_kernel", "law", needs=("density",), spec="3. Modality, log_transition")
def density_is_kernel(case: Case) -> str:
    """log_transition is the log-density of what perturb draws."""
    m, n = case.m, case.count(20_000)
    _ends(case)
    states, worst = states_of(case), 0.0
    for k, t in enumerate(case.times if states is None else (0.0, *case.times, 1.0)):
        if states is not None:
            when = torch.full((len(states),), t, dtype=torch.float64)
            for j, atom in enumerate(case.atoms):
                law = m.log_transition(states, atom.expand(len(states), *m.event_shape), when).exp()
                off = abs(float(law.sum()) - 1)
                require(off < 1e-8, f"log_transition at {t:g} sums to 1 {off:+.2g} over all states (bound 1e-8)")
                x = m.perturb(
                    atom.expand(n, *m.event_shape),
                    torch.full((n,), t, dtype=torch.float64),
                    rng=case.rng("density", k, j),
                ).xt
                wave = case.waves(16, "density", k, j)
                mean = law @ wave(states)
                error = ((law @ wave(states) ** 2 - mean**2).clamp_min(0) / n).sqrt()
                gap = zscore(wave(x).mean(0) - mean, error)
                require(gap < SIGMAS, f"draws at {t:g} are not of log_transition's law: {gap:.1f} standard errors")
                worst = max(worst, gap)
            continue
        draws = [
            m.perturb(
                atom.expand(n, *m.event_shape), torch.full((n,), t, dtype=torch.float64), rng=case.rng("density", k, j)
            ).xt
            for j, atom in enumerate(case.atoms)
        ]
        when = torch.full((n,), t, dtype=torch.float64)
        wave = case.waves(15, "density", k)

        def overlap(
            x: Tensor, own: Tensor, other: Tensor, when: Tensor = when, wave: Callable[[Tensor], Tensor] = wave
        ) -> Tensor:
            """min(1, p_other/p_own) times test functions: its mean under own is that of the reverse under other."""
            ratio = (_log(case, x, other, when) - _log(case, x, own, when)).clamp_max(0).exp()
            return ratio[:, None] * torch.cat([torch.ones(len(x), 1, dtype=torch.float64), wave(x)], 1)

        for j in range(1, len(case.atoms)):
            a, b = overlap(draws[0], case.atoms[0], case.atoms[j]), overlap(draws[j], case.atoms[j], case.atoms[0])
            gap = zscore(a.mean(0) - b.mean(0), (a.var(0) / n + b.var(0) / n).sqrt())
            require(gap < SIGMAS, f"log_transition at {t:g} does not weigh perturb's draws: {gap:.1f} standard errors")
            worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


def _ends(case: Case) -> None:
    """The density's ends: at t = 0 it is 0 where the states are equal and -inf elsewhere, at t = 1 it is the prior's,
    whatever the data."""
    k = len(case.atoms)
    zero = torch.zeros(k, dtype=torch.float64)
    same, other = (case.m.log_transition(x, case.atoms, zero) for x in (case.atoms, case.atoms.roll(1, 0)))
    require((same == 0).all(), f"log_transition at 0 of a state from itself: expected 0, got {same.tolist()}")
    require((other == -torch.inf).all(), f"log_transition at 0 of another state: expected -inf, got {other.tolist()}")
    x = case.m.prior(50, rng=case.rng("ends", "prior"))
    x = x.double() if case.floating else x
    first, last = (_log(case, x, case.atoms[j], torch.ones(50, dtype=torch.float64)) for j in (0, k - 1))
    require(torch.allclose(first, last, rtol=1e-9), "log_transition at 1 depends on the data")


def _log(case: Case, x: Tensor, atom: Tensor, t: Tensor) -> Tensor:
    return case.m.log_transition(x, atom.expand(len(x), *case.m.event_shape), t).double()


@check("density_is_normalised", "law", needs=("density",), spec="3. Modality, log_transition")
def density_is_normalised(case: Case) -> str:
    """Under the prior, the mean of p_t/p_1 is 1 where the prior covers the kernel: the constant is right for all t; and
    where the reference is Lebesgue's measure, the density has mass 1."""
    m, n = case.m, case.count(20_000)
    if not case.floating:
        raise Skipped("sums over states are in density_is_kernel")
    x = m.prior(n, rng=case.rng("normal")).double()
    end = _log(case, x, case.atoms[0], torch.ones(n, dtype=torch.float64))
    worst, used = 0.0, []
    for t in (1 - 1e-6, 0.98, 0.95, 0.9, 0.85, 0.8):
        ratio = (_log(case, x, case.atoms[0], torch.full((n,), t, dtype=torch.float64)) - end).exp()
        effective = float(ratio.sum() ** 2 / (ratio**2).sum())
        if effective < 0.2 * n:  # the mean of a heavy tail is no test
            break
        worst = max(worst, _mass(ratio, t, "under the prior"))
        used.append(f"{t:.3g}")
    if case.reference == "lebesgue":
        t = case.times[1]
        x = case.noised(n, t, "mass").xt
        y, log_q = _student(x, case.rng("mass", "proposal"))
        when = torch.full((n,), t, dtype=torch.float64)
        ratio = (case.log_joint(y.reshape(x.shape), when).logsumexp(1) - log_q).exp()
        if float(ratio.sum() ** 2 / (ratio**2).sum()) > 0.2 * n:
            worst = max(worst, _mass(ratio, t, "against Lebesgue's measure"))
            used.append(f"{t:.3g} (Lebesgue)")
    if not used:
        raise Skipped("the prior does not cover the kernel")
    return f"mass 1 within .02 and {worst:.1f} standard errors at {', '.join(used)}"


def _mass(ratio: Tensor, t: float, where: str) -> float:
    """How far the mean of density ratios is from 1 beyond .02, in standard errors."""
    error = float(ratio.std()) / len(ratio) ** 0.5
    over = max(0.0, abs(float(ratio.mean()) - 1) - 0.02) / max(error, 1e-12)
    require(
        over < SIGMAS, f"the density at {t:g} has mass {float(ratio.mean()):.4f} {where} (standard error {error:.2g})"
    )
    return over


def _student(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """As many draws as there are rows of x from Student's law with 5 degrees of freedom and their mean and covariance,
    which covers any law with tails no heavier; and the log of its density."""
    flat = rows(x)
    n, d = flat.shape
    root = torch.linalg.cholesky(torch.cov(flat.T).reshape(d, d) + 1e-12 * torch.eye(d, dtype=torch.float64))
    normal = torch.randn(n, d, generator=rng, dtype=torch.float64)
    chi2 = torch.randn(n, 5, generator=rng, dtype=torch.float64).square().sum(1, keepdim=True)
    unit = normal / (chi2 / 5).sqrt()
    constant = math.lgamma((5 + d) / 2) - math.lgamma(2.5) - 0.5 * d * math.log(5 * math.pi)
    log_q = constant - 0.5 * (5 + d) * torch.log1p(unit.square().sum(1) / 5) - root.diagonal().log().sum()
    return flat.mean(0) + unit @ root.T, log_q


CHECKS = (density_is_kernel, density_is_normalised)
