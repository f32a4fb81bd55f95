"""The layers of ``TableMLP`` that read groups of shares and answer for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from de_core.networks import ClockFeatures

__all__ = ["GroupHead", "GroupsIn", "count_group_parameters"]

_BANDS = 4  # frequencies of a group's clock
_PER_PART = 4  # features of a share
_LEAST = 1e-6  # a share below this has no logarithm of its own


class GroupsIn(nn.Module):
    """A linear map of what groups of shares and their clocks show: K x - 1, its product with what is left of the data's
    mean, sqrt(K x) - 1 and log(K x + 1/K) for each share, and cosines and sines of the clock."""

    def __init__(self, groups: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.clock = ClockFeatures(_BANDS)
        self.linear = nn.Linear(_features(groups), width)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> Tensor:
        features = []
        for name, k in self.groups.items():
            share, when = k * x[name].clamp_min(0), t[name].to(torch.float32)
            features += [share - 1, (share - 1) * (1 - when[:, None]), share.sqrt() - 1, (share + 1 / k).log()]
            features.append(self.clock(when))
        return self.linear(torch.cat(features, 1))


class GroupHead(nn.Module):
    """The scores of groups, in the form that their kernel has.

    Given x_0 the Wright-Fisher kernel has s_i = E[l_i | x_t, x_0]/x_i, with l_i lineages of part i and c = E[m | tau]
    in all. Were the l_i Poisson, this would be a ratio of Bessel's functions: c sqrt(x_0i/x_i) where c^2 x_0i x_i is
    large, c^2 x_0i where it is small. So s_i/c is written as sqrt(mu_i/(x_i + e)), e = K/(1 + c)^2, with mu =
    softmax(a + (1 + b) log(w x + (1 - w)/K)), w = e^{-psi tau/2} = 1 - t, and a, b linear in the last layer: at
    the start mu is the data's mean under the flat law. The output is the inverse softplus of that, as ``Simplex`` reads
    it.
    """

    def __init__(self, groups: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.groups = dict(groups)
        self.linear = nn.Linear(width, 2 * sum(groups.values()))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        levels, slopes = self.linear(h).chunk(2, 1)
        out, first = {}, 0
        for name, k in self.groups.items():
            share, when = x[name].clamp_min(0), t[name].to(torch.float32)[:, None]
            level, slope = levels[:, first : first + k], slopes[:, first : first + k]
            mean = ((1 - when) * share + when / k).clamp_min(_LEAST)
            mu = (level + (1 + slope) * mean.log()).softmax(1)
            count = (k + 1) * (1 - when) / when.clamp_min(1e-3)  # about E[m | tau], at both ends of the clock
            y = (mu / (share + k / (1 + count) ** 2)).sqrt().clamp_min(1e-12)
            out[name] = y + torch.log(-torch.expm1(-y))
            first += k
        return out


def _features(groups: Mapping[str, int]) -> int:
    return sum(_PER_PART * k + 2 * _BANDS for k in groups.values())


def count_group_parameters(groups: Mapping[str, int], width: int) -> int:
    """Parameters of both layers, without making them."""
    if not groups:
        return 0
    return _features(groups) * width + width + 2 * sum(groups.values()) * (width + 1)
