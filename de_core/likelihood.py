"""The exact log-likelihood of numbers by the probability flow, and bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from de_core.bound import check_levels, clock
from de_core.errors import DiffuseError
from de_core.families import Diffusion
from de_core.modality import Modality, rows
from de_core.rng import Rng, seed_of, stream

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["bits_per_dim", "compute_log_likelihood"]


def compute_log_likelihood(
    joint: JointProcess,
    model: Model,
    x0: Mapping[str, Tensor],
    *,
    given: Sequence[str] | Mapping[str, float],
    steps: int,
    probes: int,
    rng: Rng | None,
) -> Tensor:
    """``JointProcess.log_likelihood``, in blocks of rows, each from its own stream."""
    n, levels = joint.validate(x0), check_levels(joint, given)
    for name, modality in joint.modalities.items():
        if name not in levels:
            _check_flow(name, modality)
    for what, number, least in (("steps", steps, 1), ("probes", probes, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise DiffuseError(f"{what}: expected a whole number of at least {least}, got {number!r}")
    draws = probes > 0 or any(level > 0 for level in levels.values())
    if draws and rng is None:
        raise DiffuseError("rng: expected a torch.Generator or an int seed, as probes and levels above 0 draw")
    seed, device = seed_of(0 if rng is None else rng), next(iter(x0.values())).device
    parts = [torch.zeros(0, dtype=torch.float64, device=device)]
    for k, index in enumerate(joint.blocks(n)):
        block = {name: x0[name][index] for name in joint.modalities}
        flow = _Flow(joint, model, block, levels, probes, stream(seed, "likelihood", k, device=device))
        parts.append(flow.run(steps))
    return torch.cat(parts)[:n]


def bits_per_dim(modality: Modality, nats: Tensor, *, log_jacobian: Tensor | float | None = None) -> Tensor:
    """Nats of one modality as bits per dimension of the data before it was coded: (nats - log|dz/dx|)/(D log 2).

    A density depends on the units. The modality sees z = codec(x), and p(x) = p(z) |dz/dx|, so that a density in bits
    says nothing until the codec's Jacobian is told; a probability of classes needs none.

    Args:
        modality: says what kind of number ``nats`` is, and D: its numbers, or its elements where it is discrete.
        nats: (n,), -log p(z): a term of a ``Bound``, or minus a log-likelihood.
        log_jacobian: log|det dz/dx| summed over the D numbers, (n,) or one number for all rows; 0.0 where the
            modality sees the data as they are. Of 8-bit pixels scaled by z = x/127.5 - 1, with noise of one step
            added: -D log(127.5). For discrete modalities it stays None.

    Returns:
        (n,), in the precision of ``nats``.

    Raises:
        DiffuseError: numbers without a Jacobian, classes with one, or a density that is not against lengths (shares).
    """
    kind = modality.generator(0.5).reference if "generator" in modality.capabilities else "an unknown measure"
    if kind == "counting":
        if log_jacobian is not None:
            raise DiffuseError(f"bits per dimension: {type(modality).__name__} is discrete, expected no log_jacobian")
        return nats / (modality.elements * math.log(2))
    if kind != "lebesgue":
        raise DiffuseError(
            f"bits per dimension: expected classes or real numbers, got {type(modality).__name__}, "
            f"whose density is against {kind!r}"
        )
    if log_jacobian is None:
        raise DiffuseError(
            f"bits per dimension: {type(modality).__name__} has a density, expected log_jacobian= of the codec "
            "(0.0 where the modality sees the data as they are)"
        )
    return (nats - log_jacobian) / (math.prod(modality.event_shape) * math.log(2))


def _check_flow(name: str, modality: Modality) -> None:
    for capability in ("ode", "generator", "density"):
        if capability not in modality.capabilities:
            raise DiffuseError(
                f"log_likelihood: modality '{name}' lacks the capability '{capability}'; give it, or use bound"
            )
    reference = modality.generator(0.5).reference
    if reference != "lebesgue":
        raise DiffuseError(
            f"log_likelihood: expected a flow on R^n, but modality '{name}' has densities against {reference!r}; "
            "give it, or use bound"
        )


def _check_slope(name: str, output: Tensor, states: list[Tensor]) -> None:
    """Refuse an output without a gradient in the states: its divergence would be wrong in silence."""
    found = [None]
    if output.requires_grad:
        found = torch.autograd.grad(output.sum(), states, retain_graph=True, allow_unused=True)
    if all(g is None for g in found):
        raise DiffuseError(
            f"log_likelihood: the model's output for '{name}' has no gradient in the state, expected a model that "
            "can be differentiated (not under no_grad, not detached)"
        )


class _Flow:
    """The probability flow of one block from t_min to 1, with the integral of its divergence."""

    def __init__(
        self,
        joint: JointProcess,
        model: Model,
        x0: dict[str, Tensor],
        levels: dict[str, float],
        probes: int,
        rng: torch.Generator,
    ) -> None:
        self.joint, self.model = joint, model
        self.moving = {name: m for name, m in joint.modalities.items() if name not in levels}
        self.x0, self.batch = x0, len(next(iter(x0.values())))
        zero = torch.zeros(self.batch, dtype=torch.float64, device=rng.device)
        self.zero, self.held, self.held_t = zero, {}, {}
        for name, level in levels.items():
            self.held_t[name] = clock(joint, name, x0[name], zero + level)
            self.held[name] = joint.modalities[name].perturb(x0[name], self.held_t[name], rng=rng).xt
        size = sum(math.prod(m.event_shape) for m in self.moving.values())
        shape = (probes, self.batch, size)
        coins = torch.randint(2, shape, generator=rng, device=rng.device)  # one draw for the whole way: the integrand
        self.probes = 2.0 * coins.double() - 1  # is smooth in time, and the integrator keeps its order

    def run(self, steps: int) -> Tensor:
        """log p, (B,) float64, by the classical Runge-Kutta method of order 4."""
        x = {name: self.x0[name].double() for name in self.moving}
        total, h = self.zero, 1 / steps
        for k in range(steps):
            slopes: list[tuple[dict[str, Tensor], Tensor]] = []
            for ahead in (0.0, 0.5, 0.5, 1.0):
                at = {n: x[n] + ahead * h * slopes[-1][0][n] for n in x} if slopes else x
                slopes.append(self._slope(at, (k + ahead) / steps, check=k == 0 and not slopes))
            weights = (h / 6, h / 3, h / 3, h / 6)
            x = {n: x[n] + sum(w * s[0][n] for w, s in zip(weights, slopes, strict=True)) for n in x}
            total = total + sum(w * s[1] for w, s in zip(weights, slopes, strict=True))
        one = self.zero + 1
        return total + sum(m.log_transition(x[name], x[name], one).double() for name, m in self.moving.items())

    def _slope(self, x: dict[str, Tensor], u: float, *, check: bool) -> tuple[dict[str, Tensor], Tensor]:
        """dx/du and its divergence, with sqrt(t) even in u from sqrt(t_min) to 1, for each modality."""
        t, speed = dict(self.held_t), {}
        for name, m in self.moving.items():
            r = math.sqrt(m.t_min)
            root = 1 - (1 - u) * (1 - r)
            t[name] = clock(self.joint, name, self.x0[name], self.zero + root**2)
            speed[name] = 2 * (1 - r) * root
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in x.items()}
            states = self.held | {name: value.to(self.x0[name].dtype) for name, value in leaves.items()}
            outputs = self.joint.call(
                self.model, {name: states[name] for name in self.joint.modalities}, t, check=check
            )
            if check:
                for name in leaves:
                    _check_slope(name, outputs[name], list(leaves.values()))
            velocity = {
                name: speed[name] * cast(Diffusion, m).velocity(outputs[name], states[name], t[name]).double()
                for name, m in self.moving.items()
            }
            flat = torch.cat([rows(v) for v in velocity.values()], 1)

            def pulled(covector: Tensor) -> Tensor:
                """The gradient of covector . velocity, (B, D)."""
                grads = torch.autograd.grad(flat, list(leaves.values()), covector, retain_graph=True, allow_unused=True)
                filled = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, leaves.values(), strict=True)]
                return torch.cat([rows(g) for g in filled], 1)

            if len(self.probes):
                divergence = torch.stack([(pulled(e) * e).sum(1) for e in self.probes]).mean(0)
            else:
                eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
                divergence = torch.stack([pulled(e.expand_as(flat))[:, k] for k, e in enumerate(eye)]).sum(0)
        return {name: v.detach() for name, v in velocity.items()}, divergence.detach()
