"""How class scores lie in a network's output: one vocabulary for all elements, or one size per element, side by
side."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from de_core.families.jump import guided_log_probs, inverse_cdf
from de_core.rng import fork

__all__ = ["Layout", "Ragged", "Regular"]

_PIECE = 2**19  # class scores worked at once by a draw: 4 MB in float64
_FEW = 32  # elements up to which a product sums their classes


class Layout(abc.ABC):
    """Class scores of a batch of events.

    Attributes:
        output_shape: of a network's output, without batch.
        largest: the largest number of classes of an element.
    """

    output_shape: tuple[int, ...]
    largest: int

    @abc.abstractmethod
    def sizes(self, device: torch.device) -> Tensor:
        """The number of classes of each element, broadcastable to the event; also the index of its mask."""

    @abc.abstractmethod
    def log_softmax(self, output: Tensor) -> Tensor:
        """Log-probabilities in the output's own layout."""

    @abc.abstractmethod
    def pick(self, log_probs: Tensor, index: Tensor) -> Tensor:
        """The entry of class ``index`` of each element, (B, *event)."""

    @abc.abstractmethod
    def padded(self, log_probs: Tensor) -> Tensor:
        """(B, *event, largest), -inf where an element has no such class."""

    @abc.abstractmethod
    def unpadded(self, padded: Tensor) -> Tensor:
        """The inverse of ``padded``."""

    @abc.abstractmethod
    def rows(self, output: Tensor, where: Tensor) -> Tensor:
        """Log-probabilities of the elements ``where``, (B, *event) bool, alone: (n, largest), -inf where an element
        has no such class."""

    @abc.abstractmethod
    def draw(
        self, output: Tensor, where: Tensor, xt: Tensor, generator: torch.Generator, weak: Tensor | None, weight: float
    ) -> Tensor:
        """``xt`` with a class drawn from the guided output at the elements ``where``, (B, *event) bool."""

    def cross_entropy(self, output: Tensor, index: Tensor) -> Tensor:
        """-log p(index), (B, *event)."""
        return -self.pick(self.log_softmax(output), index)


class Regular(Layout):
    """One vocabulary of K classes: output (*event, K)."""

    def __init__(self, event_shape: Sequence[int], num_classes: int) -> None:
        self.output_shape = (*event_shape, num_classes)
        self.largest = num_classes

    def sizes(self, device: torch.device) -> Tensor:
        return torch.tensor(self.largest, device=device)

    def log_softmax(self, output: Tensor) -> Tensor:
        return output.log_softmax(-1)

    def pick(self, log_probs: Tensor, index: Tensor) -> Tensor:
        return log_probs.gather(-1, index[..., None])[..., 0]

    def padded(self, log_probs: Tensor) -> Tensor:
        return log_probs

    def unpadded(self, padded: Tensor) -> Tensor:
        return padded

    def rows(self, output: Tensor, where: Tensor) -> Tensor:
        return output[where].log_softmax(-1)

    def draw(
        self, output: Tensor, where: Tensor, xt: Tensor, generator: torch.Generator, weak: Tensor | None, weight: float
    ) -> Tensor:
        """Only the elements that are drawn are ever read, a few at a time: with a vocabulary of 50,000 a pass over
        all scores would be most of the cost of a step, and a copy of them most of its memory."""
        place = where.nonzero(as_tuple=True)
        count = len(place[0])
        u = torch.rand(count, generator=fork(generator), dtype=torch.float64, device=output.device)
        moved = xt.clone()
        size = max(1, _PIECE // self.largest)
        for start in range(0, count, size):
            piece = tuple(index[start : start + size] for index in place)
            scores = output[piece]
            if weak is not None:
                scores = guided_log_probs(scores.log_softmax(-1), weak[piece].log_softmax(-1), weight)
            moved[piece] = inverse_cdf(scores, u[start : start + size])
        return moved


class _Entropy(torch.autograd.Function):
    """log sum_k exp(o_k) - o_x of each segment, (B, L), whose gradient, softmax(o) - 1{k = x}, is made of the
    exponentials that are there already, in one pass. It has no second derivative.

    Args:
        output: (B, N). place: of x in a row of the output, (B, L). segment: of each score, (N,).
        masses: of the layout.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, place: Tensor, segment: Tensor, masses: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> Tensor:
        top, above, mass = masses(output)
        ctx.save_for_backward(above, mass, place, segment)
        return top + mass.log() - output.gather(-1, place)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator has no types
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, None, None, None]:
        (above, mass, place, segment), (grad,) = ctx.saved_tensors, grad_outputs
        found = (grad / mass).index_select(-1, segment).mul_(above)
        return found.scatter_add_(-1, place, -grad), None, None, None


class Ragged(Layout):
    """Element l has sizes[l] classes; output (sum of sizes,), element after element. The event is (len(sizes),)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = torch.tensor(list(sizes))
        self.offsets = torch.tensor([0, *accumulate(sizes)][:-1])
        self.segment = torch.repeat_interleave(torch.arange(len(sizes)), self._sizes)
        self.output_shape = (int(self._sizes.sum()),)
        self.largest = max(sizes)
        self._device: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._device:
            self._device[device] = (self._sizes.to(device), self.offsets.to(device), self.segment.to(device))
        return self._device[device]

    def sizes(self, device: torch.device) -> Tensor:
        return self._on(device)[0]

    def masses(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The largest score of each segment, (B, L), the exponentials of what is above it, and their sums, (B, L).

        Of few segments by a product with zeros and ones, which would grow with their number; of more by scattered sums.
        """
        sizes, _, segment = self._on(output.device)
        scores = output.detach()
        if len(sizes) <= _FEW:
            top = torch.stack([part.amax(-1) for part in scores.split(self._sizes.tolist(), -1)], -1)
            member = torch.nn.functional.one_hot(segment, len(sizes)).to(output.dtype)
            above = (output - top.index_select(-1, segment)).exp()
            return top, above, above @ member
        index = segment.expand(output.shape)
        top = scores.new_full((*output.shape[:-1], len(sizes)), -torch.inf).scatter_reduce(-1, index, scores, "amax")
        above = (output - top.gather(-1, index)).exp()
        return top, above, torch.zeros_like(top).scatter_add(-1, index, above)

    def log_softmax(self, output: Tensor) -> Tensor:
        segment = self._on(output.device)[2]
        top, _, mass = self.masses(output)
        return output - (top + mass.log()).gather(-1, segment.expand(output.shape))

    def pick(self, log_probs: Tensor, index: Tensor) -> Tensor:
        return log_probs.gather(-1, self._on(log_probs.device)[1] + index)

    def cross_entropy(self, output: Tensor, index: Tensor) -> Tensor:
        _, offsets, segment = self._on(output.device)
        return _Entropy.apply(output, offsets + index, segment, self.masses)

    def _grid(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where class k of element l lies in the flat output, (L, largest), and whether there is one."""
        sizes, offsets, _ = self._on(device)
        k = torch.arange(self.largest, device=device)
        real = k < sizes[:, None]
        return torch.where(real, offsets[:, None] + k, 0), real

    def padded(self, log_probs: Tensor) -> Tensor:
        index, real = self._grid(log_probs.device)
        return torch.where(real, log_probs[..., index], -torch.inf)

    def unpadded(self, padded: Tensor) -> Tensor:
        return padded[..., self._grid(padded.device)[1]]

    def rows(self, output: Tensor, where: Tensor) -> Tensor:
        index, real = self._grid(output.device)
        row, element = where.nonzero(as_tuple=True)
        return torch.where(real[element], output[row[:, None], index[element]], -torch.inf).log_softmax(-1)

    def draw(
        self, output: Tensor, where: Tensor, xt: Tensor, generator: torch.Generator, weak: Tensor | None, weight: float
    ) -> Tensor:
        """Only the elements that are drawn are ever read: in a run of many steps each is drawn once, so that this
        costs little beside the network.

        Their scores lie end to end in one line. One cumulative sum in float64 runs over it, and each element's uniform
        falls into its own stretch, whose largest class has mass 1.
        """
        sizes, offsets, _ = self._on(output.device)
        row, element = where.nonzero(as_tuple=True)
        counts = sizes[element]
        stops = counts.cumsum(0)
        firsts = stops - counts
        line = torch.arange(int(counts.sum()), device=output.device)
        own = torch.repeat_interleave(torch.arange(len(counts), device=output.device), counts)
        place = line + (row * output.shape[-1] + offsets[element] - firsts)[own]

        def centred(scores: Tensor) -> Tensor:
            return scores - scores.new_full(counts.shape, -torch.inf).scatter_reduce(0, own, scores, "amax")[own]

        chosen = centred(output.reshape(-1)[place])
        if weak is not None:  # as guided_log_probs: logs are cut at -1e4 before they are mixed
            other = centred(weak.reshape(-1)[place])
            chosen = centred(weight * chosen.clamp_min(-1e4) + (1 - weight) * other.clamp_min(-1e4))
        cdf = chosen.double().exp().cumsum(0)
        ends = cdf[stops - 1]
        starts = torch.cat([ends.new_zeros(1), ends])[:-1]
        u = torch.rand(counts.shape, generator=fork(generator), dtype=torch.float64, device=output.device)
        # u < 1, but the product can round up to the end; below it, a class without mass at the end is never drawn
        mark = torch.minimum(starts + u * (ends - starts), torch.nextafter(ends, starts))
        moved = xt.clone()
        moved[row, element] = torch.searchsorted(cdf, mark, right=True) - firsts
        return moved
