"""Law: the last move. It ends at clean data, near the datum that a perfect network sees, and draws as told."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.checks.forward import states_of
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("finish_is_data", "law", spec="3. Modality, finish")
def finish_is_data(case: Case) -> str:
    """Whatever the network says, finish ends in the space of clean data: no mask is left, nothing is off the space."""
    m, n = case.m, 400
    for k, t in enumerate((m.t_min, case.times[1], 1.0)):
        for scale in (0.5, 5.0):
            z = case.noised(n, t, "finish", k)
            x = m.finish(case.output(n, "finish", k, scale=scale), z.xt, z.t, rng=case.rng("finish", k))
            try:
                m.validate(x)
            except DiffuseError as error:
                require(False, f"finish from {t:g}: not clean data: {error}")
            off = 0.0 if case.fixed is None else case.fixed(x)
            require(off < 1e-3, f"finish from {t:g}: off the space, what is constant over it moves by {off:.2g}")
    return "from t_min, from the middle and from 1"


@check("finish_draws_tails", "numerics", needs=("density",), spec="3. Modality, finish")
def finish_draws_tails(case: Case) -> str:
    """The last move draws each class as often as the network says, rare ones too: a race of low precision, a cut at
    the likeliest or another temperature lose them."""
    m = case.m
    n = min(400_000, 4_000_000 // math.prod(m.output_shape))
    if states_of(case) is None:
        raise Skipped("not a small finite space")
    values = case.data.reshape(len(case.data), -1)[:, 0]
    _, first = _first_rows(values)
    first = first[:20]
    if len(first) < 2:
        raise Skipped("one class in the data")
    candidates = case.data[first]
    law = torch.full((len(first),), 2e-4, dtype=torch.float64)
    law[0] = 1 - law[1:].sum()
    x = m.prior(n, rng=case.rng("tails", "prior"))
    t = torch.ones(n, dtype=torch.float64)
    output = m.posterior_output(x, t, candidates, law.expand(n, -1))
    got = m.finish(output, x, t, rng=case.rng("tails")).reshape(n, -1)[:, 0]
    share = torch.stack([(got == values[k]).double().mean() for k in first])
    if float(share.sum()) < 0.9:
        raise Skipped("finish does not draw classes of the data")
    gap = zscore(share - law, (law * (1 - law) / n).sqrt())
    require(gap < SIGMAS, f"classes are drawn {share.tolist()}, not {law.tolist()}: {gap:.1f} standard errors")
    return f"{len(law)} classes down to {float(law.min()):.1g}: {gap:.1f} standard errors (bound {SIGMAS:g})"


def _first_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    distinct, place = values.unique(return_inverse=True)
    first = torch.stack([(place == k).long().argmax() for k in range(len(distinct))])
    return distinct, first


@check("finish_denoises", "law", needs=("density",), spec="3. Modality, finish")
def finish_denoises(case: Case) -> str:
    """From t_min, where the datum is seen, finish with a perfect network goes to it: no noise is left. On a finite
    chain finish goes from any state to the datum that the network is sure of: no mask, no class without a chance."""
    m, n = case.m, 400
    if not case.floating:
        return _sure(case)
    z = case.noised(n, m.t_min, "denoises")
    sure = case.log_joint(z.xt, z.t).log_softmax(1).amax(1) > -1e-3
    if int(sure.sum()) < 100:
        raise Skipped("the datum is not seen at t_min")
    x = m.finish(case.oracle(z.xt, z.t), z.xt, z.t, rng=case.rng("denoises", "finish"))
    # the median: where coordinates have a cut, some rows lie beyond it
    before, after = (float(rows(y - z.x0)[sure].square().sum(1).sqrt().median()) for y in (z.xt, x))
    require(
        after < 0.5 * before + 1e-9,
        f"at t_min states lie {before:.3g} from their data, and {after:.3g} after finish (bound: half of it)",
    )
    return f"the distance to the data falls from {before:.2g} to {after:.2g} (bound: half)"


def _sure(case: Case) -> str:
    """The last move of a chain under a network that is sure, (the posterior's outputs may leave e^-700 to the rest)."""
    if states_of(case) is None:
        raise Skipped("not a small finite space")
    m, n, k = case.m, 2000, len(case.atoms)
    for j, t in enumerate((m.t_min, *case.times, 1.0)):
        z = case.noised(n, t, "sure", j)
        which = (z.x0.reshape(n, 1, -1) == case.atoms.reshape(1, k, -1)).all(2).long().argmax(1)
        weights = torch.nn.functional.one_hot(which, k).double()
        output = m.posterior_output(z.xt, z.t, case.atoms, weights)
        x = m.finish(output, z.xt, z.t, rng=case.rng("sure", j, "finish"))
        wrong = float((x != z.x0).reshape(n, -1).any(1).double().mean())
        require(wrong == 0, f"finish from {t:g}: {wrong:.1%} of the rows are not the datum that the network is sure of")
    return "from t_min to 1, the datum that the network is sure of"


CHECKS = (finish_is_data, finish_denoises, finish_draws_tails)
