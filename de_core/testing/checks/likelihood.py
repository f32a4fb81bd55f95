"""Law: the two ends of the bound. The prior's divergence and the reconstruction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from de_core.modality import Noised
from de_core.testing.case import SIGMAS, Case
from de_core.testing.checks.forward import states_of
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("likelihood_terms", "law", needs=("likelihood",), spec="6. Bound")
def likelihood_terms(case: Case) -> str:
    """The prior's divergence is not below 0, and small where the kernel ends at the prior; the reconstruction prefers
    the truth."""
    m, n = case.m, 200
    x0 = case.clean(n, "likelihood")
    kl = m.prior_kl(x0)
    require(float(kl.min()) > -1e-9, f"prior_kl: {float(kl.min()):.3g} is below 0")
    if case.has("density"):
        z = m.perturb(x0, torch.full((n,), 1 - 1e-6, dtype=torch.float64), rng=case.rng("likelihood", "end"))
        end = m.log_transition(z.xt, z.x0, z.t) - m.log_transition(z.xt, z.x0, torch.ones(n, dtype=torch.float64))
        end = end[end.isfinite()]
        if len(end) > n // 2:  # KL of the kernel's end to the prior, by its own draws
            found, error = float(end.mean()), float(end.std()) / len(end) ** 0.5
            off = abs(found - float(kl.mean()))
            require(
                off < SIGMAS * error + 0.02 * case.entropy + 0.01,
                f"prior_kl: {float(kl.mean()):.4f}, by draws {found:.4f} (standard error {error:.2g})",
            )
        low = torch.full((n,), m.t_min, dtype=torch.float64)
        z = m.perturb(x0, low, rng=case.rng("likelihood", "start"))
        sure = [torch.zeros(n, len(case.atoms), dtype=torch.float64) for _ in range(2)]
        same = (case.atoms.reshape(1, len(case.atoms), -1) == x0.reshape(n, 1, -1)).all(2).long().argmax(1)
        sure[0][torch.arange(n), same] = 1.0
        sure[1][torch.arange(n), (same + 1) % len(case.atoms)] = 1.0
        right, wrong = (m.reconstruction(m.posterior_output(z.xt, z.t, case.atoms, w), z) for w in sure)
        require(
            float(right.mean()) < float(wrong.mean()) + 1e-9,
            f"reconstruction: {float(right.mean()):.3g} nats of the truth, {float(wrong.mean()):.3g} of another atom",
        )
        if not case.floating:
            require(float(right.min()) > -1e-9, f"reconstruction: a probability above 1, {float(right.min()):.3g} nats")
    return f"prior_kl {float(kl.mean()):.2g} nats"


@check("reconstruction_is_law", "law", needs=("likelihood",), spec="6. Bound")
def reconstruction_is_law(case: Case) -> str:
    """exp(-reconstruction) is a probability law of the datum given x_t and the output: over all data its mass is 1."""
    return _density(case) if case.floating else _masses(case)


def _at_start(case: Case, n: int, k: int, xt: Tensor, x0: Tensor) -> Noised:
    """The same x_t at t_min beside each candidate for its datum."""
    t = torch.full((n,), case.m.t_min, dtype=torch.float64)
    aux = case.noised(1, case.m.t_min, "law", "aux", k).aux
    wide = {key: value.expand(n, *value.shape[1:]) for key, value in aux.items()}
    return Noised(x0, xt.expand(n, *case.m.event_shape), torch.zeros_like(t), t, wide)


def _masses(case: Case, ends: Tensor | None = None) -> str:
    """Over the clean states of a chain; where there are too many, over those that finish draws, at most 1; or over
    ``ends``, the same."""
    m, states, found = case.m, states_of(case), []
    for k in range(3):
        output, xt = case.output(1, "law", k), m.prior(1, rng=case.rng("law", k))
        xt = xt.double() if case.floating else xt
        if ends is not None:
            x0 = ends
        elif states is None:
            n = 4000
            t, wide = torch.full((n,), m.t_min, dtype=torch.float64), output.expand(n, *m.output_shape)
            x0 = m.finish(wide, xt.expand(n, *m.event_shape), t, rng=case.rng("law", k, "finish")).unique(dim=0)
        else:
            x0 = states[[_is_clean(case, row) for row in states]]
        z = _at_start(case, len(x0), k, xt, x0)
        mass = float((-m.reconstruction(output.expand(len(x0), *m.output_shape), z)).double().exp().sum())
        # outputs may be worked in single precision. A stranger's decoder puts most of its mass where finish draws
        low = 0.5 if states is None else 1 - 1e-5
        require(low < mass < 1 + 1e-5, f"exp(-reconstruction) has mass {mass:.6g} over {len(x0)} data, not 1")
        found.append(mass)
    return f"mass {', '.join(f'{v:.6f}' for v in found)}"


def _is_clean(case: Case, row: Tensor) -> bool:
    try:
        case.m.validate(row[None])
    except Exception:  # a refusal
        return False
    return True


def _density(case: Case) -> str:
    """By draws of the kernel at t_min and at 4 t_min from what finish makes of x_t, weighed by their density."""
    m, n, found = case.m, 300 if case.dear else 2000, []
    if not case.has("density") or case.curved:
        raise Skipped("no density against a measure of the whole space")
    z = case.noised(400, m.t_min, "law", "few")
    ends = m.finish(case.output(400, "law", "few"), z.xt, z.t, rng=case.rng("law", "few", "finish")).unique(dim=0)
    if len(ends) <= 40:  # classes, written as numbers: corners of a simplex
        return _masses(case, ends)
    for k in range(2):
        xt, output = case.noised(1, m.t_min, "law", k).xt, case.output(1, "law", k)
        centre = m.finish(output, xt, torch.full((1,), m.t_min, dtype=torch.float64), rng=case.rng("law", k, "finish"))
        wide = centre.expand(n, *m.event_shape)
        times = [torch.full((n,), min(0.9, scale * m.t_min), dtype=torch.float64) for scale in (1.0, 4.0)]
        draws = [m.perturb(wide, t, rng=case.rng("law", k, j)).xt for j, t in enumerate(times)]
        half = torch.arange(n) % 2 == 0
        y = torch.where(half.reshape(-1, *[1] * (draws[0].ndim - 1)), draws[0], draws[1])
        log_q = torch.stack([m.log_transition(y, wide, t) for t in times]).logsumexp(0) - math.log(2.0)
        ratio = (-m.reconstruction(output.expand(n, *m.output_shape), _at_start(case, n, k, xt, y)) - log_q).exp()
        if not float(ratio.sum() ** 2 / (ratio**2).sum()) > 0.05 * n:  # the mean of a heavy tail is no test
            continue
        mass, error = float(ratio.mean()), float(ratio.std()) / n**0.5
        require(
            abs(mass - 1) < SIGMAS * error + 0.02,
            f"exp(-reconstruction) has mass {mass:.4g} over the data, not 1 (standard error {error:.2g})",
        )
        found.append(mass)
    if not found:
        raise Skipped("draws about the end do not cover the reconstruction's law")
    return f"mass {', '.join(f'{v:.3f}' for v in found)}"


CHECKS = (likelihood_terms, reconstruction_is_law)
