"""Law: what a network learns. Score, loss, implicit form, probability flow, likelihood."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from de_core.generator import JumpGenerator
from de_core.modality import Noised, rows
from de_core.testing.case import SIGMAS, Case, repeated, zscore
from de_core.testing.report import Skipped, check, require

__all__ = ["CHECKS"]


def _log_slope(log_p: Callable[[Tensor], Tensor], case: Case, xt: Tensor, t: Tensor) -> Tensor:
    """The exact score of a density, as ``modality.score`` gives it: its gradient in the state, or its log-ratios over
    the neighbours."""
    if case.floating:
        x = xt.detach().clone().requires_grad_()
        value = log_p(x)
        if not value.requires_grad:
            raise Skipped("log_transition cannot be differentiated in the state")
        return torch.autograd.grad(value.sum(), x)[0]
    generator = case.m.generator(t)
    assert isinstance(generator, JumpGenerator)  # a discrete modality is a chain
    y = generator.neighbours(xt)[0]
    return log_p(y.flatten(0, 1)).reshape(y.shape[:2]) - log_p(xt)[:, None]


def _kernel_score(case: Case, z: Noised) -> Tensor:
    def log_p(y: Tensor) -> Tensor:
        return case.m.log_transition(y, repeated(z.x0, y), repeated(z.t, y)).double()

    return _log_slope(log_p, case, z.xt, z.t)


def _marginal_score(case: Case, xt: Tensor, t: Tensor) -> Tensor:
    return _log_slope(lambda y: case.log_joint(y, repeated(t, y)).logsumexp(1), case, xt, t)


@check("score_is_posterior", "law", needs=("generator", "density"), spec="3. Modality, score and posterior_output")
def score_is_posterior(case: Case) -> str:
    """The score of the perfect network is the score of the noised data law: the gradient of log p_t, or log
    p_t(y)/p_t(x) over the neighbours y that can jump to x."""
    m, n, worst = case.m, 64, 0.0
    for k, t in enumerate((0.5 * case.times[0], *case.times)):
        z = case.noised(n, max(t, m.t_min), "score", k)
        score, exact = m.score(case.oracle(z.xt, z.t), z.xt, z.t), _marginal_score(case, z.xt, z.t)
        generator = m.generator(z.t)
        if case.floating:
            size = generator.bregman(exact, torch.zeros_like(exact), z.xt).mean().sqrt()
            off = float((generator.bregman(exact, score, z.xt).mean().sqrt() / (size + 1e-9)).detach())
        else:
            into = generator.neighbours(z.xt)[2]  # type: ignore[attr-defined] # a chain's generator
            used = (into > 0) & (exact > -25)
            gap = torch.where(used, (score - exact).abs() / (1 + exact.abs()), 0.0)
            off = float(gap.max()) if gap.numel() else 0.0
        require(off < 1e-3, f"at {z.t[0]:g}: score(posterior_output) is off the score of p_t by {off:.2g} (bound 1e-3)")
        worst = max(worst, off)
    return f"off by at most {worst:.1g} (bound 1e-3)"


@check("loss_is_not_negative", "law", spec="3. Modality, loss")
def loss_is_not_negative(case: Case) -> str:
    """The elbo integrand is a divergence: never below 0, whatever the output."""
    m, n, least = case.m, 256, 0.0
    for k, t in enumerate((max(0.05, m.t_min), *case.times, 0.999)):
        z = case.noised(n, t, "sign", k)
        for scale in (0.3, 3.0):
            loss = m.loss(case.output(n, "sign", k, scale=scale), z)
            low = float(loss.min() / (1 + loss.abs().mean()))
            require(low > -1e-6, f"loss: {float(loss.min()):.3g} at t = {t:g} (bound -1e-6 of its size)")
            least = min(least, low)
    return f"least value {least:.1g} of its size (bound -1e-6)"


@check("loss_is_divergence", "law", needs=("generator", "density"), spec="2. Theory; 3. Modality, loss")
def loss_is_divergence(case: Case) -> str:
    """The elbo loss is the generator's own divergence from the kernel's score, up to what the output does not enter:
    the weight, the rate and the sum over elements are right."""
    m, n, worst = case.m, case.count(2000), 0.0
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "divergence", k)
        generator, target = m.generator(z.t), _kernel_score(case, z)
        one, two = (case.output(n, "divergence", k, j) for j in (0, 1))
        loss = m.loss(one, z) - m.loss(two, z)
        scores = (m.score(one, z.xt, z.t), m.score(two, z.xt, z.t))
        own = (generator.bregman(target, scores[0], z.xt) - generator.bregman(target, scores[1], z.xt)).detach()
        off = loss - own
        scale = float(own.abs().mean()) + 1e-9
        if float(off.abs().max()) < 1e-4 * scale:
            continue
        share = float((loss * own).sum() / (own * own).sum().clamp_min(1e-30))
        if (
            not z.aux
        ):  # a function of (x_0, x_t, output) that agrees in mean for all data and networks agrees everywhere
            far = float((off.abs() / (scale + own.abs())).max())
            require(
                far < 1e-3,
                f"at {t:g}: the loss moves {share:.3g} times as much as the generator's divergence, and is off it by "
                f"{far:.2g} of its size (bound 1e-3)",
            )
        # a target drawn by the kernel agrees in mean given (x_0, x_t): also weighted by a function of these, which is
        # where a wrong factor shows
        for weight in (torch.ones_like(own), (own / scale).clamp(-3, 3)):
            gap = zscore((weight * off).mean(), (weight * off).std() / n**0.5, 1e-4 * scale)
            require(
                gap < SIGMAS,
                f"at {t:g}: the loss moves {share:.3g} times as much as the generator's divergence; {gap:.1f} standard "
                f"errors (bound {SIGMAS:g})",
            )
            worst = max(worst, gap)
    return f"equal, or within {worst:.1f} standard errors (bound {SIGMAS:g})"


@check("loss_is_information", "law", needs=("density",), spec="6. Bound")
def loss_is_information(case: Case) -> str:
    """Over the clock, the loss of the perfect network integrates to the information that the noise destroys:
    I(X_0; X_tmin) - I(X_0; X_1). Rates, weights and times are right together."""
    m, strata = case.m, 16

    def draws(k: int, n: int, role: str) -> Tensor:
        u = (k + torch.rand(n, generator=case.rng("information", k, role, "t"), dtype=torch.float64)) / strata
        z = case.noised(n, m.t_min + (1 - m.t_min) * u, "information", k, role)
        return (1 - m.t_min) * m.loss(case.oracle(z.xt, z.t), z)

    # as many draws in each stretch of the clock as it scatters, by a first look at it and its neighbours (Neyman)
    scatter = torch.stack([draws(k, 30, "look").std() for k in range(strata)])
    share = torch.nn.functional.max_pool1d(scatter[None], 3, 1, 1)[0] + 0.1 * scatter.mean() + 1e-12
    total = (2000 if case.dear else 4000) if case.floating else 20_000
    parts = [draws(k, max(20, round(total * float(p / share.sum()))), "own") for k, p in enumerate(share)]
    integral = float(torch.stack([value.mean() for value in parts]).mean())
    error = float(torch.stack([value.var() / len(value) for value in parts]).sum().sqrt() / strata)

    def information(t: float) -> tuple[float, float]:
        z = case.noised(1000, t, "information", f"{t:.4f}")
        post = case.log_joint(z.xt, z.t).log_softmax(1)
        left = -(post.exp() * post.clamp_min(-1e4)).sum(1)  # what is not known of the datum, nats
        return case.entropy - float(left.mean()), float(left.std()) / 1000**0.5

    (start, e1), (end, e2) = information(m.t_min), information(1 - 1e-4)
    both = (error**2 + e1**2 + e2**2) ** 0.5
    off = abs(integral - (start - end))
    require(
        off < SIGMAS * both + 0.02 * case.entropy,
        f"the loss integrates to {integral:.4f} nats, the information lost is {start - end:.4f} "
        f"(standard error {both:.2g})",
    )
    return f"{integral:.4f} against {start - end:.4f} nats, standard error {both:.1g} (bound {SIGMAS:g} and 2 %)"


def _half_score(case: Case, z: Noised) -> None:
    n = 64
    x, t = z.xt[:n], z.t[:n]
    one, two = (case.output(n, "half", j) for j in (0, 1))
    gap = (case.m.score(one, x, t) - case.m.score(two, x, t)).detach().requires_grad_()
    # the divergence of two scores is u^T sigma sigma^T u/2, u their difference: its gradient is sigma sigma^T u
    (pull,) = torch.autograd.grad(case.m.generator(t).bregman(gap, torch.zeros_like(gap), x).sum(), gap)
    moved = case.m.velocity(one, x, t) - case.m.velocity(two, x, t)  # type: ignore[attr-defined] # capability "ode"
    share = float(-(moved * pull).sum() / (pull * pull).sum().clamp_min(1e-30))
    off = float((moved + 0.5 * pull).detach().square().mean().sqrt() / (pull.square().mean().sqrt() + 1e-30))
    require(
        off < 1e-4,
        f"at {float(t[0]):g}: the flow answers the score with {share:.3g} times the noise's covariance, not .5 "
        f"(off by {off:.2g}, bound 1e-4)",
    )


@check("velocity_transports", "law", needs=("ode", "generator", "density"), spec="3. Modality, by capability")
def velocity_transports(case: Case) -> str:
    """The probability flow answers the score with minus half the covariance of the noise, v_1 - v_2 = -sigma sigma^T
    (s_1 - s_2)/2, and that of the perfect network moves the noised data law as the process does: E grad f . v =
    E L f."""
    m, worst = case.m, 0.0
    n = (800 if case.dear else case.count(2000)) if case.size <= 8 else 400
    for k, t in enumerate(case.times):
        z = case.noised(n, t, "velocity", k)
        _half_score(case, z)
        v = m.velocity(case.oracle(z.xt, z.t), z.xt, z.t).detach()  # type: ignore[attr-defined] # capability "ode"
        wave = case.waves(4, "velocity", k)
        for j in range(4):

            def f(x: Tensor, j: int = j, wave: Callable[[Tensor], Tensor] = wave) -> Tensor:
                return wave(x)[:, j]

            x = z.xt.clone().requires_grad_()
            (grad,) = torch.autograd.grad(f(x).sum(), x)
            off = rows(grad * v).sum(1) - m.generator(z.t).apply(f, z.xt).detach()
            gap = zscore(off.mean(), off.std() / n**0.5)
            require(gap < SIGMAS, f"at {t:g}: the flow and the process move E f apart by {gap:.1f} standard errors")
            worst = max(worst, gap)
    return f"at most {worst:.1f} standard errors (bound {SIGMAS:g})"


CHECKS = (
    score_is_posterior,
    loss_is_not_negative,
    loss_is_divergence,
    loss_is_information,
    velocity_transports,
)
