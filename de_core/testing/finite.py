"""Exact expectations on a product of finite state spaces, through the public generator objects.

Everything that the theorem says about a joint process is an identity between finite sums here, so it is
checked
to rounding: no sampling, no quadrature. A plugin's own generator is put through it like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from de_core.generator import JumpGenerator, SumGenerator

__all__ = ["FiniteProduct", "RateGenerator"]

State = dict[str, Tensor]


class RateGenerator(JumpGenerator):
    """The chain of any rate matrix on {0, ..., n-1}, event shape ().

    Args:
        rates: (n, n), Q(x, y) >= 0 off the diagonal, which is not read.
    """

    def __init__(self, rates: Tensor) -> None:
        self.rates = rates - torch.diag(rates.diagonal())

    def neighbours(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = torch.arange(len(self.rates)).expand(len(x), -1)
        return y, self.rates[x], self.rates.T[x]

    def states(self) -> Tensor:
        return torch.arange(len(self.rates))


class FiniteProduct:
    """A joint law on a product of finite spaces, each coordinate noised by its own chain.

    Args:
        generators: name -> the chain's generator at the present time, with a list of states, in float64.
        kernels: name -> (n_i, n_i) transition matrix from time 0 to the present time, rows x_0.
        law: (n_1, ..., n_k), the law of x_0, non-negative; need not be normalised.
    """

    def __init__(self, generators: Mapping[str, JumpGenerator], kernels: Mapping[str, Tensor], law: Tensor) -> None:
        self.generators, self.kernels, self.law = dict(generators), dict(kernels), law / law.sum()
        self.generator = SumGenerator(dict(generators))
        lists = {name: g.states() for name, g in generators.items()}
        self.sizes = tuple(len(s) for s in lists.values())
        grids = torch.meshgrid(*[torch.arange(n) for n in self.sizes], indexing="ij")
        self.states: State = {name: s[grid.reshape(-1)] for (name, s), grid in zip(lists.items(), grids, strict=True)}
        self._base = max(int(x.max()) for x in lists.values()) + 1
        self._codes = {name: self._code(x).sort() for name, x in lists.items()}

    def _code(self, x: Tensor) -> Tensor:
        """One whole number for each state of one coordinate: its values as digits."""
        flat = x.reshape(len(x), -1)
        return (flat * self._base ** torch.arange(flat.shape[1])).sum(1)

    def index(self, x: State) -> Tensor:
        """The flat index of each state, (B,)."""
        flat = torch.zeros(len(next(iter(x.values()))), dtype=torch.int64)
        for (name, (codes, order)), size in zip(self._codes.items(), self.sizes, strict=True):
            flat = flat * size + order[torch.searchsorted(codes, self._code(x[name]))]
        return flat

    def marginal(self, law: Tensor | None = None) -> Tensor:
        """The law of x_t, flat: every coordinate of ``law`` (x_0's by default) moved by its own kernel."""
        out = self.law if law is None else law
        for axis, kernel in enumerate(self.kernels.values()):
            out = (out.movedim(axis, -1) @ kernel).movedim(-1, axis)
        return out.reshape(-1)

    def matrix(self) -> Tensor:
        """The rate matrix of the sum of the generators, through ``apply`` on indicators, (n, n)."""
        n = self.law.numel()
        eye = torch.eye(n, dtype=torch.float64)
        return torch.stack([self.generator.apply(self.function(eye[k]), self.states) for k in range(n)], 1)

    def function(self, table: Tensor) -> Callable[[State], Tensor]:
        """A function of the state that reads a flat table."""
        return lambda x: table[self.index(x)]

    # --- the three forms, per coordinate or for the sum --------------------------------------------

    def explicit(self, beta: Tensor, name: str | None = None) -> Tensor:
        """E_p Phi_L(p/beta), as sum_x beta (L f)(x) - E_p L log f with f = p/beta.

        Where p vanishes, p Phi has the limit beta L f there, which a sum over the support alone would lose.
        """
        return self._gap(self.marginal(), beta, self._pick(name))

    def implicit(self, beta: Tensor, name: str | None = None) -> Tensor:
        """E_p [L* beta/beta + L log beta]."""
        generator = self._pick(name)
        back = generator.adjoint(self.function(beta), self.states) / beta
        return (self.marginal() * (back + generator.apply(self.function(beta.log()), self.states))).sum()

    def forward_denoising(self, beta: Tensor, name: str | None = None) -> Tensor:
        """E_{x_0} of the same with p(. | x_0) in place of p: the denoising form over rates out of x."""
        generator = self._pick(name)
        return torch.stack([weight * self._gap(q, beta, generator) for weight, q in self._conditionals()]).sum()

    def _gap(self, p: Tensor, beta: Tensor, generator: SumGenerator) -> Tensor:
        # where p = 0 its log is never reached by a positive rate from the support of p
        log_f = torch.where(p > 0, p.clamp_min(1e-300).log() - beta.log(), 0.0)
        lifted = (beta * generator.apply(self.function(p / beta), self.states)).sum()
        return lifted - (p * generator.apply(self.function(log_f), self.states)).sum()

    def denoising(self, beta: Tensor, name: str | None = None) -> Tensor:
        """E_{x_0, x_t} of the Bregman integrand with the ratios of p(. | x_0) as target: what training
        takes."""
        names = list(self.generators) if name is None else [name]
        total = torch.zeros((), dtype=torch.float64)
        scores = {k: self.log_ratios(beta.log(), k) for k in names}
        for weight, q in self._conditionals():
            at = q > 0
            targets = {k: self.log_ratios(q.log(), k)[at] for k in names}
            x = {k: v[at] for k, v in self.states.items()}
            generator = SumGenerator({k: self.generators[k] for k in names})
            value = generator.bregman(targets, {k: scores[k][at] for k in names}, {k: x[k] for k in names})
            total = total + weight * (q[at] * value).sum()
        return total

    def log_ratios(self, log_f: Tensor, name: str) -> Tensor:
        """log f(y)/f(x) over the neighbours y of x in one coordinate, at every state, (n, N); 0 on pads."""
        y, out, into = self.generators[name].neighbours(self.states[name])
        count = y.shape[1]
        others = {k: v.repeat_interleave(count, 0) for k, v in self.states.items() if k != name}
        there = log_f[self.index({k: others[k] if k != name else y.flatten(0, 1) for k in self.generators})]
        ratio = there.reshape(-1, count) - log_f[:, None]
        return torch.where((out > 0) | (into > 0), ratio, 0.0)

    def _pick(self, name: str | None) -> SumGenerator:
        return self.generator if name is None else SumGenerator({name: self.generators[name]})

    def _conditionals(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(weight, p(. | x_0)) for every x_0 of the support."""
        for flat in torch.nonzero(self.law.reshape(-1) > 0)[:, 0]:
            point = torch.zeros(self.law.numel(), dtype=torch.float64)
            point[flat] = 1
            yield self.law.reshape(-1)[flat], self.marginal(point.reshape(self.sizes))
