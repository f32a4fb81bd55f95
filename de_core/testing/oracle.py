"""An exact network: the posterior of a data law with finite support, in every modality's own output.

    p(j | x, t) is proportional to w_j prod_i p^i_{t_i|0}(x_i | x_0,i = data_i[j]),

the noises being independent given x_0, and each modality turns these weights into the output a perfect
network gives. With it a sampler, a guidance rule or a bound is checked with nothing trained. Source: Bayes' rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.joint import JointProcess
from de_core.modality import Output

__all__ = ["OracleDenoiser"]

_PAIRS = 200_000  # (row, candidate) pairs worked at once: some tens of MB for small events


class OracleDenoiser:
    """``oracle(x, t) -> {name: output}``: the best network there is for a data law with n atoms.

    Args:
        joint: the process; every modality needs the capability "density".
        data: name -> (n, *event), clean: the atoms.
        weights: (n,), non-negative, not all zero; need not sum to one. Equal by default.

    Raises:
        DiffuseError: data outside the space; weights of wrong shape or sign; a modality without "density".
    """

    def __init__(self, joint: JointProcess, data: Mapping[str, Tensor], weights: Tensor | None = None) -> None:
        n = joint.validate(data)
        for name, m in joint.modalities.items():
            if "density" not in m.capabilities:
                raise DiffuseError(f"modality '{name}' lacks the capability 'density'")
        w = torch.ones(n) if weights is None else torch.as_tensor(weights)
        if tuple(w.shape) != (n,) or not bool(w.isfinite().all()) or bool((w < 0).any()) or not bool((w > 0).any()):
            raise DiffuseError(f"weights: expected ({n},) non-negative numbers, not all zero, got {tuple(w.shape)}")
        self.joint = joint
        self.data = {name: _precise(x) for name, x in data.items()}
        self.log_weights = (w.double() / w.double().sum()).log()

    def __call__(self, x: Mapping[str, Tensor], t: Mapping[str, Tensor]) -> dict[str, Output]:
        """The outputs at (x, t), in the precision of ``x`` where it is floating, else of ``t``."""
        weights = self.log_posterior(x, t).exp()
        outputs = {}
        for name, m in self.joint.modalities.items():
            found = m.posterior_output(_precise(x[name]), t[name].double(), self.data[name], weights)
            outputs[name] = found.to(x[name].dtype if x[name].is_floating_point() else t[name].dtype)
        return outputs

    def log_posterior(self, x: Mapping[str, Tensor], t: Mapping[str, Tensor]) -> Tensor:
        """log p(j | x, t), (B, n) float64.

        Where every atom is impossible (a condition outside the support), impossible modalities are left
        out: the
        posterior is over the atoms that explain most modalities, by the sum over those that they do explain.
        """
        total = self.log_weights.repeat(len(next(iter(x.values()))), 1)
        broken = torch.zeros_like(total)
        for name in self.joint.modalities:
            part = self.log_likelihood(name, x[name], t[name])
            impossible = part == -torch.inf
            broken = broken + impossible
            total = total + torch.where(impossible, 0.0, part)
        broken = torch.where(self.log_weights == -torch.inf, torch.inf, broken)
        total = torch.where(broken == broken.amin(1, keepdim=True), total, -torch.inf)
        return total.log_softmax(1)

    def log_likelihood(self, name: str, x: Tensor, t: Tensor) -> Tensor:
        """log p_{t|0}(x | data[j]) of one modality, (B, n) float64."""
        m = self.joint.modalities[name]
        distinct, place = self.data[name].to(x.dtype).unique(dim=0, return_inverse=True)  # rounded as x is
        atoms, n = _precise(distinct), len(distinct)
        x, t = _precise(x), t.double()
        parts = [torch.zeros(0, n, dtype=torch.float64)]
        for rows in torch.arange(len(x)).split(max(1, _PAIRS // n)):
            pairs = m.log_transition(
                x[rows].repeat_interleave(n, 0),
                atoms.repeat(len(rows), *[1] * (atoms.ndim - 1)),
                t[rows].repeat_interleave(n, 0),
            )
            parts.append(pairs.double().reshape(len(rows), n))
        return torch.cat(parts)[:, place]


def _precise(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
