"""The operator L of a forward process, and what the theorem needs of it: the adjoint, Phi and the divergence it
induces.

    d/dt E f(X_t) = E (L f)(X_t),      d/dt p_t = L* p_t   (densities against ``reference``),
    Phi_L(f) = L f / f - L log f >= 0,

Phi is linear in L, so the generator of independent processes, the sum of theirs, has the sum of their Phi: this is
why the joint loss is a sum. Source: Benton et al. 2022 (2211.03595), with the sign of the implicit form as in SPEC.md,
section "Theory".
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["DiffusionGenerator", "Generator", "JumpGenerator", "SumGenerator", "rows", "score_entropy"]

Function = Callable[[Tensor], Tensor]  # (B, *event) -> (B,)
_MAX_STATES = 20_000


class Generator(abc.ABC):
    """The generator L at one time (one for each row where the time has a batch).

    Attributes:
        reference: the measure that densities are taken against: "counting", "lebesgue", "volume" or "dirichlet".
    """

    reference: str

    @abc.abstractmethod
    def apply(self, f: Function, x: Tensor) -> Tensor:
        """(L f)(x), (B,), for f: (B, *event) -> (B,)."""

    @abc.abstractmethod
    def adjoint(self, p: Function, x: Tensor) -> Tensor:
        """(L* p)(x), (B,), for a density p against the reference measure."""

    @abc.abstractmethod
    def bregman(self, target_score: Tensor, score: Tensor, x: Tensor) -> Tensor:
        """The integrand whose expectation is E Phi(p/beta), (B,), from the scores of p and of beta at x.

        Diffusions: |sigma^T (u - s)|^2/2. Jumps: the score entropy, over rates *into* x.
        """

    def phi(self, f: Function, x: Tensor) -> Tensor:
        """Phi_L(f)(x) = L f/f - L log f, (B,), for f > 0."""
        return self.apply(f, x) / f(x) - self.apply(lambda y: f(y).log(), x)


def _gradient(f: Function, x: Tensor) -> Tensor:
    """The gradient of f at each row of x, differentiable again."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = f(x).sum()
        if not value.requires_grad:
            return torch.zeros_like(x)
        (grad,) = torch.autograd.grad(value, x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return rows(a * b).sum(1)


def rows(x: Tensor, lead: int = 1) -> Tensor:
    """``x`` with everything behind its first ``lead`` axes flattened into one axis, of length one where there is
    nothing."""
    return x.flatten(lead) if x.ndim > lead else x.unsqueeze(-1)


class DiffusionGenerator(Generator):
    """L f = b . grad f + 1/2 sum_k V_k(V_k f): drift plus half the sum of squared vector fields.

    Covers R^n, the torus, the sphere and SO(3) in ambient coordinates. The fields and the drift must have the
    divergence that automatic differentiation of their ambient extension gives (true for constant, rotation and
    left-invariant fields).

    Args:
        drift: x -> b(x), (B, *event).
        fields: (x, z) -> sum_k z_k V_k(x), (B, *event), linear in z (B, *noise).
        noise_shape: of z; the event's own shape by default.
        reference: "lebesgue" or "volume".
    """

    def __init__(
        self,
        drift: Callable[[Tensor], Tensor],
        fields: Callable[[Tensor, Tensor], Tensor],
        *,
        noise_shape: Sequence[int] | None = None,
        reference: str = "lebesgue",
    ) -> None:
        self.drift, self.fields, self.reference = drift, fields, reference
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape[1:]) if self.noise_shape is None else self.noise_shape

    def basis(self, x: Tensor) -> list[Tensor]:
        """The unit vectors of the noise space, each repeated over the batch."""
        shape = self._shape(x)
        eye = torch.eye(max(1, torch.Size(shape).numel()), dtype=x.dtype, device=x.device)
        return [row.reshape(shape).expand(x.shape[0], *shape) for row in eye]

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A standard normal z for ``fields``."""
        return torch.randn(x.shape[0], *self._shape(x), generator=generator, dtype=x.dtype, device=x.device)

    def along(self, f: Function, x: Tensor, z: Tensor) -> Tensor:
        """(V_z f)(x), (B,), differentiable in x."""
        return _dot(self.fields(x, z), _gradient(f, x))

    def apply(self, f: Function, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        total = _dot(self.drift(x), _gradient(f, x))
        for z in self.basis(x):
            total = total + 0.5 * self.along(lambda y, z=z: self.along(f, y, z), x, z)
        return total.detach()

    def divergence(self, field: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The ambient divergence of a vector field at x, (B,), exact: one gradient a coordinate."""
        x = x if x.requires_grad else x.detach().requires_grad_()
        with torch.enable_grad():
            value = rows(field(x))
            total = torch.zeros(x.shape[0], dtype=x.dtype, device=x.device)
            for k in range(value.shape[1]):
                if not value.requires_grad:
                    break
                (row,) = torch.autograd.grad(value[:, k].sum(), x, create_graph=True, allow_unused=True)
                if row is not None:
                    total = total + rows(row)[:, k]
        return total

    def adjoint(self, p: Function, x: Tensor) -> Tensor:
        """L* p = -div(b p) + 1/2 sum_k V_k*(V_k* p) with V* q = -div(q V)."""
        x = x.detach().requires_grad_()

        def weighted(q: Function, field: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda y: q(y).reshape(-1, *[1] * (y.ndim - 1)) * field(y)

        total = -self.divergence(weighted(p, self.drift), x)
        for z in self.basis(x):

            def field(y: Tensor, z: Tensor = z) -> Tensor:
                return self.fields(y, z)

            def once(y: Tensor, field: Callable[[Tensor], Tensor] = field) -> Tensor:
                return -self.divergence(weighted(p, field), y)

            total = total - 0.5 * self.divergence(weighted(once, field), x)
        return total.detach()

    def squared(self, v: Tensor, x: Tensor) -> Tensor:
        """|sigma(x)^T v|^2 for a covector v, (B,): sigma^T v is the gradient of v . (sigma z) in z."""
        z = torch.zeros(x.shape[0], *self._shape(x), dtype=x.dtype, device=x.device, requires_grad=True)
        with torch.enable_grad():
            (row,) = torch.autograd.grad((v * self.fields(x, z)).sum(), z, create_graph=v.requires_grad)
        return _dot(row, row)

    def bregman(self, target_score: Tensor, score: Tensor, x: Tensor) -> Tensor:
        return 0.5 * self.squared(target_score - score, x)

    def phi(self, f: Function, x: Tensor) -> Tensor:
        """|sigma^T grad log f|^2/2, the closed form."""
        return 0.5 * self.squared(_gradient(lambda y: f(y).log(), x).detach(), x)


def score_entropy(log_s: Tensor, log_r: Tensor) -> Tensor:
    """s - r log s + r log r - r = r (e^d - 1 - d), d = log s - log r, elementwise, stable as d -> 0; r = 0 gives s.

    Source: Lou, Meng and Ermon 2024 (2310.16834). Below |d| = 1e-2 the series d^2/2 + d^3/6 + d^4/24 errs by less than
    d^5/120 < 1e-12.
    """
    delta = log_s - log_r.clamp_min(-1e30)
    small = delta.abs() < 1e-2
    inner = torch.where(small, delta, 0.0)
    series = inner**2 / 2 + inner**3 / 6 + inner**4 / 24
    direct = log_s.exp() - log_r.exp() * (1 + torch.where(log_r > -1e30, delta, 0.0))
    return torch.where(small & (log_r > -1e30), log_r.exp() * series, direct)


class JumpGenerator(Generator):
    """L f(x) = sum_y Q(x, y) (f(y) - f(x)) for a chain with finitely many neighbours a state.

    Subclasses give ``neighbours`` and, where the space is finite, ``states``.
    """

    reference = "counting"

    @abc.abstractmethod
    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every y != x with Q(x, y) > 0 or Q(y, x) > 0.

        Returns:
            y (B, N, *event), rate_out Q(x, y) (B, N), rate_in Q(y, x) (B, N). Padding has y = x and both rates 0.
        """

    def states(self) -> Tensor:
        """All states, (n, *event), of a finite space."""
        raise DiffuseError(f"{type(self).__name__}: the space is not finite, so it has no list of states")

    def _at(self, f: Function, y: Tensor) -> Tensor:
        return f(y.flatten(0, 1)).reshape(y.shape[:2])

    def apply(self, f: Function, x: Tensor) -> Tensor:
        y, out, _ = self.neighbours(x)
        return (out * (self._at(f, y) - f(x)[:, None])).sum(1)

    def adjoint(self, p: Function, x: Tensor) -> Tensor:
        y, out, into = self.neighbours(x)
        return (into * self._at(p, y)).sum(1) - out.sum(1) * p(x)

    def bregman(self, target_score: Tensor, score: Tensor, x: Tensor) -> Tensor:
        """sum_y Q(y, x) [s - r log s + r log r - r], r = e^target, s = e^score: the score entropy (Lou et al. 2024)."""
        _, _, into = self.neighbours(x)
        used = into > 0
        value = score_entropy(torch.where(used, score, 0.0), torch.where(used, target_score, 0.0))
        return torch.where(used, into * value, 0.0).sum(1)

    def phi(self, f: Function, x: Tensor) -> Tensor:
        """sum_y Q(x, y) [rho - 1 - log rho], rho = f(y)/f(x), the closed form."""
        y, out, _ = self.neighbours(x)
        rho = self._at(f, y) / f(x)[:, None]
        return torch.where(out > 0, out * (rho - 1 - rho.log()), 0.0).sum(1)

    def matrix(self) -> Tensor:
        """The rate matrix Q over ``states()``, (n, n); rows sum to 0. Row order is that of ``states``.

        Raises:
            DiffuseError: not a finite space, or more than 20,000 states.
        """
        states = self.states()
        if len(states) > _MAX_STATES:
            raise DiffuseError(
                f"{type(self).__name__}: a matrix over {len(states)} states is too large (at most {_MAX_STATES})"
            )
        index = {tuple(row): k for k, row in enumerate(rows(states).tolist())}
        y, out, _ = self.neighbours(states)
        columns = torch.tensor([[index[tuple(r)] for r in block] for block in rows(y, 2).tolist()])
        q = torch.zeros(len(states), len(states), dtype=out.dtype)
        q.scatter_add_(1, columns, out)
        q.diagonal().zero_()
        return q - torch.diag(q.sum(1))


class SumGenerator(Generator):
    """sum_i w_i L_i on a product space, L_i on coordinate i alone: the generator of the joint process along a path.

    States are tuples of coordinates here, one tensor a modality: f takes a dict name -> (B, *event).

    Args:
        parts: name -> generator.
        speeds: name -> dt_i/du along the path; 1 where it is left out.
    """

    def __init__(self, parts: dict[str, Generator], speeds: dict[str, float] | None = None) -> None:
        self.parts, self.speeds = dict(parts), dict.fromkeys(parts, 1.0) | (speeds or {})
        self.reference = " x ".join(part.reference for part in parts.values())

    def _sum(self, method: str, f: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for name, part in self.parts.items():

            def alone(z: Tensor, name: str = name) -> Tensor:
                repeat = z.shape[0] // x[name].shape[0]
                others = {k: v.repeat_interleave(repeat, 0) for k, v in x.items() if k != name}
                return f(others | {name: z})

            total = total + self.speeds[name] * getattr(part, method)(alone, x[name])
        return total

    def apply(self, f: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor]) -> Tensor:  # type: ignore[override] # x is a dict here
        return self._sum("apply", f, x)

    def adjoint(self, p: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor]) -> Tensor:  # type: ignore[override] # x is a dict here
        return self._sum("adjoint", p, x)

    def phi(self, f: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor]) -> Tensor:  # type: ignore[override] # x is a dict here
        return self._sum("phi", f, x)

    def bregman(  # type: ignore[override] # scores and states are dicts here
        self, target_score: dict[str, Tensor], score: dict[str, Tensor], x: dict[str, Tensor]
    ) -> Tensor:
        parts = self.parts.items()
        return torch.stack([self.speeds[k] * g.bregman(target_score[k], score[k], x[k]) for k, g in parts]).sum(0)
