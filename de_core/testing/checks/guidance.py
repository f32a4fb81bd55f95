"""Law: guidance. Its identities, and that it mixes differences of log beta."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.generator import JumpGenerator
from de_core.modality import rows
from de_core.testing.case import SIGMAS, Case, zscore
from de_core.testing.checks.forward import states_of
from de_core.testing.checks.reverse import exact_methods
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


@check("guidance_identities", "law", spec="5. Joint process, guidance")
def guidance_identities(case: Case) -> str:
    """Weight 1 is no guidance, weight 0 is the weak model, and equal outputs guide nowhere at any weight; for every
    stepper and for finish."""
    m, n = case.m, 64
    z = case.noised(n, case.times[1], "identities")
    strong, weak = case.output(n, "identities", scale=0.5), case.output(n, "identities", "weak", scale=0.5)

    def move(method: str | None, a: Tensor, b: Tensor | None, weight: float) -> Tensor:
        if method == "finish":
            return m.finish(a, z.xt, z.t, rng=3, weak=b, weight=weight)
        again = (lambda x, t: (a, b)) if b is not None else (lambda x, t: a)
        return m.step(a, z.xt, z.t, 0.8 * z.t, rng=3, method=method, weak=b, weight=weight, again=again)[0]

    for method in (None, *m.methods(), "finish"):
        pairs = {
            "weight 1 is not the unguided": (move(method, strong, weak, 1.0), move(method, strong, None, 1.0)),
            "weight 0 is not the weak model": (move(method, strong, weak, 0.0), move(method, weak, None, 1.0)),
            "equal outputs guide at weight 2.5": (move(method, strong, strong, 2.5), move(method, strong, None, 1.0)),
        }
        for what, (a, b) in pairs.items():
            # rounding may carry a draw over the edge of a class: one in a thousand would be far more than it does
            same = torch.isclose(a.double(), b.double(), rtol=1e-6, atol=1e-7).double().mean()
            require(float(same) > 0.99, f"{method or 'default'}: {what}: {1 - float(same):.1%} of the state differs")
    for method in exact_methods(case):
        _memory(case, method, z.xt, strong, weak)
    return f"{1 + len(m.methods())} steppers and finish"


def _memory(case: Case, method: str | None, x: Tensor, strong: Tensor, weak: Tensor) -> None:
    """What a stepper carries on is guided too: three steps at weight 0 are three of the weak model."""
    readings = [case.times[1] * r for r in (1.0, 0.9, 0.75, 0.6)]

    def run(a: Tensor, b: Tensor | None, weight: float) -> Tensor:
        again = (lambda y, t: (a, b)) if b is not None else (lambda y, t: a)
        y, carry, rng = x, None, case.rng("identities", "memory")
        for now, ahead in itertools.pairwise(readings):
            t, s = (torch.full((len(x),), r, dtype=torch.float64) for r in (now, ahead))
            y, carry = case.m.step(a, y, t, s, rng=rng, method=method, weak=b, weight=weight, again=again, carry=carry)
        return y

    same = torch.isclose(run(strong, weak, 0.0).double(), run(weak, None, 1.0).double(), rtol=1e-6, atol=1e-7)
    off = 1 - float(same.double().mean())
    require(off < 0.01, f"{method or 'default'}: over three steps weight 0 is not the weak model: {off:.1%} differs")


@check("guidance_mixes_scores", "law", needs=("generator",), spec="5. Joint process, guidance")
def guidance_mixes_scores(case: Case) -> str:
    """Guidance at weight w has the score w s_strong + (1 - w) s_weak. Diffusions: half-way between two outputs the mean
    move is half-way; chains: an element's jumps go to y in proportion to R_strong^w R_weak^(1-w), a step may set how
    often it jumps. finish likewise: where it draws among few states, in proportion to p_strong^w p_weak^(1-w)."""
    pattern = case.output(1, "mixes").sign() * 1.5
    for method in exact_methods(case):
        if case.floating:
            _affine(case, pattern, method)
        else:
            _geometric(case, method)
    return f"{', '.join(k or 'default' for k in exact_methods(case))}; finish: {_last(case)}"


def _step(case: Case, x: Tensor, t: float, s: float, method: str | None) -> Callable[..., Tensor]:
    n = len(x)
    now, ahead = (torch.full((n,), r, dtype=torch.float64) for r in (t, s))

    def move(strong: Tensor, weak: Tensor | None = None, weight: float = 1.0, seed: int | str = 0) -> Tensor:
        a = strong.expand(n, *case.m.output_shape)
        b = None if weak is None else weak.expand(n, *case.m.output_shape)
        again = (lambda x, t: (a, b)) if b is not None else (lambda x, t: a)
        rng = case.rng("mixes", method or "default", seed)
        return case.m.step(a, x, now, ahead, rng=rng, method=method, weak=b, weight=weight, again=again)[0]

    return move


def _affine(case: Case, pattern: Tensor, method: str | None) -> None:
    n, t = case.count(20_000), case.times[1]
    grid = [float(r) for r in case.m.grid(64)]
    below = [r for r in grid if r < t]
    s = below[0] if below else 0.98 * t
    x = case.noised(n, t, "mixes").xt
    move = _step(case, x, t, s, method)
    strong, weak = move(pattern), move(-pattern)
    half = move(pattern, -pattern, 0.5)
    spread = float((strong - weak).abs().mean())
    off = rows(half - 0.5 * (strong + weak)).double()
    # a step is affine in the score up to its length, a few percent
    gap = zscore(off.mean(0), off.std(0) / n**0.5, 0.04 * spread)
    require(
        gap < SIGMAS,
        f"{method or 'default'}: at weight .5 the mean move is {float(off.mean(0).abs().max()):.3g} off the middle of "
        f"the two outputs' moves, which lie {spread:.3g} apart (bound 4 % of that and {SIGMAS:g} standard errors)",
    )
    # beyond the strong model: from outputs close together, so that a space with walls or curvature is flat to them
    near, far = move(0.2 * pattern), move(-0.05 * pattern)
    spread = float((near - far).abs().mean())
    off = rows(move(0.2 * pattern, -0.05 * pattern, 2.0) - (2 * near - far)).double()
    gap = zscore(off.mean(0), off.std(0) / n**0.5, 0.1 * spread)
    require(
        gap < SIGMAS,
        f"{method or 'default'}: at weight 2 the mean move is {float(off.mean(0).abs().max()):.3g} off twice the "
        f"strong less the weak, which lie {spread:.3g} apart (bound 10 % of that and {SIGMAS:g} standard errors)",
    )


def _geometric(case: Case, method: str | None) -> None:
    m, t = case.m, case.times[2]
    when = torch.full((1,), t, dtype=torch.float64)
    strong, weak = (case.output(1, "mixes", j, scale=1.5) for j in (0, 1))
    x = case.noised(64, t, "mixes").xt
    generator = m.generator(when)
    if not isinstance(generator, JumpGenerator):
        raise Skipped("neither a diffusion nor a chain")
    into = generator.neighbours(x)[2]
    k = int((into > 0).sum(1).argmax())  # the state with most ways to go
    x, into = x[k : k + 1], into[k : k + 1]
    y = generator.neighbours(x)[0]
    used = into[0] > 0
    if int(used.sum()) < 2:
        raise Skipped("the states have fewer than two ways to go")
    n = max(10_000, min(200_000, 10_000_000 // rows(y, 2)[0].numel()))
    element = (y[0] != x).reshape(len(y[0]), -1).unique(dim=0, return_inverse=True)[1]  # what each neighbour changes
    place = torch.nn.functional.one_hot(element).double().mT  # (elements, neighbours)
    logs = [m.score(o, x, when)[0].double() for o in (strong, weak)]
    for weight in (0.5, 2.0):
        mixed = into[0].log() + weight * logs[0] + (1 - weight) * logs[1]
        rates = torch.where(used, mixed.exp(), 0.0)
        plain = max(float(torch.where(used, into[0] * log.exp(), 0.0).sum()) for log in logs)
        h = 0.03 / max(float(rates.sum()), plain, 1e-9)
        moved = _step(case, x.expand(n, *m.event_shape), t, t - min(h, 0.1 * t), method)(strong, weak, weight, "w")
        hit = (moved.reshape(n, 1, -1) == y[0].reshape(1, len(rates), -1)).all(2).double().sum(0)
        hit = torch.where((y[0] == x).reshape(len(rates), -1).all(1), 0.0, hit)  # padding
        jumps = place.mT @ (place @ hit)  # of the same element as each neighbour's
        share, law = hit / jumps.clamp_min(1), rates / (place.mT @ (place @ rates))
        enough = used & (jumps >= 200)
        if not bool(enough.any()):
            continue
        # a jump in a step of total chance .03 is the only one but for one case in thirty; rates move over a tenth of t
        error = (law * (1 - law) / jumps.clamp_min(1)).sqrt()
        gap = zscore((share - law)[enough], error[enough], 0.01 + 0.04 * law[enough])
        require(
            gap < SIGMAS,
            f"{method or 'default'}: at weight {weight:g} jumps go to the neighbours with shares "
            f"{[round(v, 3) for v in share[used].tolist()][:6]}, expected "
            f"{[round(v, 3) for v in law[used].tolist()][:6]}",
        )


def _last(case: Case) -> str:
    """The last move under guidance, from one state where it draws, from many where it does not."""
    m, n, t = case.m, 100_000, case.times[2]
    strong, weak = (case.output(1, "last", j, scale=1.5) for j in (0, 1))
    one = case.noised(1, t, "last").xt

    def finish(x: Tensor, when: float, a: Tensor, b: Tensor | None, weight: float, seed: int) -> Tensor:
        wide = [None if o is None else o.expand(len(x), *m.output_shape) for o in (a, b)]
        t = torch.full((len(x),), when, dtype=torch.float64)
        return m.finish(wide[0], x, t, rng=case.rng("last", seed), weak=wide[1], weight=weight)  # type: ignore[arg-type]

    few = finish(one.expand(500, *m.event_shape), t, strong, None, 1.0, 0)
    if len(few.unique(dim=0)) == 1 or (case.floating and torch.allclose(few, few[:1], atol=1e-9)):
        t = float(m.grid(64)[-1])
        x = case.noised(400, t, "last", "many").xt
        near, far = 0.1 * strong, 0.1 * weak  # small moves: a space with walls or curvature is flat to them
        ends = [rows(finish(x, t, a, None, 1.0, 1)) for a in (near, far)]
        spread = float((ends[0] - ends[1]).abs().sum(1).median())
        for weight in (0.5, 2.0):
            mixed = rows(finish(x, t, near, far, weight, 1))
            off = float((mixed - weight * ends[0] - (1 - weight) * ends[1]).abs().sum(1).median())
            # affine in the score up to the move's length
            require(
                off < 0.1 * weight * spread + 1e-9,
                f"finish: at weight {weight:g} it is {off:.3g} off the mix of ends {spread:.3g} apart "
                f"(bound {10 * weight:g} %)",
            )
        return "affine"
    states = few.unique(dim=0)
    if len(states) > 40 or (states_of(case) is None and not case.floating):
        return "draws among many states, not held"
    x = one.expand(n, *m.event_shape)
    models = (finish(x, t, strong, None, 1.0, 0), finish(x, t, weak, None, 1.0, 1))
    held = [_shares(models, finish(x, t, strong, weak, w, 2), w) for w in (0.5, 2.0)]
    return f"geometric over {min(held)} states" if min(held) > 1 else "nothing both models draw"


def _shares(models: tuple[Tensor, Tensor], guided: Tensor, weight: float) -> int:
    """Among the states that both models draw, guided log shares are the weighted ones; how many such states there
    are."""
    ends = (*models, guided)
    states = torch.cat([e[:3000] for e in ends]).unique(dim=0)  # those that matter are seen 50 times in all
    counts = [(rows(e)[:, None] == rows(states)).all(2).double().sum(0) for e in ends]
    seen = (counts[0] >= 50) & (counts[1] >= 50)
    if int(seen.sum()) < 2:
        return 0
    # a logarithm of a count has the error 1/sqrt(count), and twice the variance covers its skew from 50 on; a state
    # that is expected less often, and comes less often, says nothing
    want = weight * (counts[0] + 1e-9).log() + (1 - weight) * (counts[1] + 1e-9).log()
    best = int(torch.where(seen, counts[2], 0.0).argmax())
    most = torch.maximum(counts[2], (want - want[best]).exp() * counts[2][best])
    held = seen & (most >= 50)
    if not bool(held[best]):
        return 0  # and the check says that it held nothing
    off = torch.where(held, (counts[2] + 0.5).log() - want, 0.0)
    error = (
        weight**2 / counts[0].clamp_min(1) + (1 - weight) ** 2 / counts[1].clamp_min(1) + 2 / most.clamp_min(1)
    ).sqrt()
    gap = zscore((off - off[best])[held], (error + error[best])[held], 0.02)
    shares = (counts[2] / counts[2].sum())[seen].tolist()
    true = (want.exp() / want.exp()[seen].sum())[seen].tolist()
    require(
        gap < SIGMAS,
        f"finish: at weight {weight:g} classes are drawn with shares {[round(v, 3) for v in shares][:6]}, expected "
        f"{[round(v, 3) for v in true][:6]}",
    )
    return int(seen.sum())


CHECKS = (guidance_identities, guidance_mixes_scores)
