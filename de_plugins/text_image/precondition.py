"""What a network is spared to learn about pictures: the velocity of a normal law with each pixel's own moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from de_core.schedule import Cosine

__all__ = ["NormalVelocity"]

_LEAST = 0.02  # standard deviation of a pixel: some are paper in every picture


class NormalVelocity(nn.Module):
    """The velocity of a pixel of mean m and deviation s under the cosine path, and what a network adds to it.

        v = sigma (alpha (1 - s^2) x - m)/d^2 + s/d F,  d^2 = alpha^2 s^2 + sigma^2

    The first term is exact for x_0 ~ N(m, s^2); F is of order one. Karras et al. 2022 (2206.00364) scale by one s for
    all pixels; here each has its own, so that what hardly varies is right from the first step.

    Args:
        shape: of a picture.
        pictures: (n, *shape), whose pixels' means and deviations are kept; None takes 0 and 1.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], pictures: Tensor | None = None) -> None:
        super().__init__()
        blank = torch.zeros(shape)
        self.register_buffer("mean", blank if pictures is None else pictures.mean(0))
        self.register_buffer("spread", blank + 1 if pictures is None else pictures.std(0).clamp_min(_LEAST))
        self.path = Cosine()

    def forward(self, x: Tensor, t: Tensor, residual: Tensor) -> Tensor:
        """The velocity (B, *shape) at states x and times t (B,), of what the network says, F (B, *shape)."""
        t = t.to(torch.float32).reshape(-1, *[1] * (x.ndim - 1))
        alpha, sigma, variance = self.path.alpha(t), self.path.sigma(t), self.spread**2
        d2 = alpha**2 * variance + sigma**2
        return sigma * (alpha * (1 - variance) * x - self.mean) / d2 + self.spread * d2.rsqrt() * residual
