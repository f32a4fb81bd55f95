"""The clock in which modalities are matched: signal(t), which the path ``Matched`` reads."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("signal_falls", "contract", spec="3. Modality, signal")
def signal_falls(case: Case) -> str:
    """The share of the data's variance that x_t explains is 1 at t = 0, falls, and is about 0 at t = 1."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    try:
        signal = case.m.signal(t)
    except DiffuseError as error:
        raise Skipped("it says none") from error
    require(tuple(signal.shape) == (101,), f"signal: expected one number a time, (101,), got {tuple(signal.shape)}")
    inside = bool(((signal >= -1e-9) & (signal <= 1 + 1e-9)).all())
    require(inside, f"signal: expected numbers in [0, 1], got {float(signal.min()):.3g} to {float(signal.max()):.3g}")
    require(abs(float(signal[0]) - 1) < 1e-6, f"signal: expected 1 at t = 0, got {float(signal[0]):.6g}")
    require(bool((signal.diff() <= 1e-9).all()), "signal: it rises")
    require(float(signal[-1]) < 0.05, f"signal: expected about 0 at t = 1, got {float(signal[-1]):.3g} (bound .05)")
    return f"from 1 to {float(signal[-1]):.1g}"


@check("signal_is_share", "law", spec="3. Modality, signal")
def signal_is_share(case: Case) -> str:
    """Where the process is reversible under its prior, signal(t) is the share of the variance of data of the prior's
    law that x_t explains: two states noised from one have that correlation."""
    m, n = case.m, 500 if case.dear else case.count(8000)
    try:
        m.signal(torch.tensor([0.5], dtype=torch.float64))
    except DiffuseError as error:
        raise Skipped("it says none") from error
    x = m.prior(n, rng=case.rng("share"))
    x = x.double() if case.floating else x
    try:
        m.validate(x)
    except DiffuseError as error:
        raise Skipped("draws of the prior are no data") from error
    late = m.perturb(x, torch.full((n,), 0.97, dtype=torch.float64), rng=case.rng("share", "late")).xt
    fresh = m.prior(n, rng=case.rng("share", "fresh"))
    if case.gap(late, fresh.to(late.dtype), "share") > SIGMAS:
        raise Skipped("the kernel moves the prior: it is not the law that the signal is about")
    worst = 0.0
    for k, t in enumerate(case.times):
        when = torch.full((n,), t, dtype=torch.float64)
        one, two = (rows(m.perturb(x, when, rng=case.rng("share", k, j)).xt).double() for j in (0, 1))
        start = rows(x).double()
        a, b, c = (v - v.mean(0) for v in (one, two, start))
        turn = (a**2 * c - c**2 * a).sum(1)  # of mean 0 where the pair (x_0, x_t) is that of (x_t, x_0)
        if float(turn.mean().abs()) > SIGMAS * float(turn.std()) / n**0.5 + 1e-9:
            raise Skipped("the process is not reversible")
        found, error = _ratio((a * b).sum(1), 0.5 * (a**2 + b**2).sum(1))
        said = float(m.signal(when[:1])[0])
        off = max(0.0, abs(found - said) - 0.01) / max(error, 1e-9)  # .01: the prior is a limit of the kernel
        require(
            off < SIGMAS,
            f"signal({t:g}): {said:.4f}, while x_t explains {found:.4f} of the variance (standard error {error:.2g})",
        )
        worst = max(worst, off)
    return f"within .01 and {worst:.1f} standard errors (bound {SIGMAS:g})"


def _ratio(above: Tensor, below: Tensor) -> tuple[float, float]:
    """The ratio of two means over the same rows and its standard error, by the delta method."""
    ratio = float(above.mean() / below.mean())
    return ratio, float((above - ratio * below).std() / below.mean()) / len(above) ** 0.5


CHECKS = (signal_falls, signal_is_share)
