"""The digits demo's joint process and network: picture, caption, label and ink shares, each on its own space and
clock."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from de_core import JointProcess, get_modality
from de_core.networks import ClockFeatures, GatedBlock
from de_plugins.text_image.digits.captions import LENGTH, VOCABULARY, Captions
from de_plugins.text_image.digits.data import TILES, DigitsPart

__all__ = ["DigitsNet", "DigitsSource", "digits_process"]

_NAMES = ("image", "caption", "label", "ink")
_WORDS = len(VOCABULARY)
_SPREAD = 0.02  # least standard deviation of a pixel: some are paper in every picture
_DROPOUT = 0.1  # of what a shared block adds: 1,437 pictures are seen many hundred times


def digits_process() -> JointProcess:
    """Image: gaussian. Caption: masked tokens. Label: uniform-rate chain. Ink shares of 16 tiles: Wright-Fisher."""
    return JointProcess(
        {
            "image": get_modality("gaussian")((1, 8, 8)),
            "caption": get_modality("masked")((LENGTH,), num_classes=_WORDS),
            "label": get_modality("uniform")((), num_classes=10),
            "ink": get_modality("simplex")((TILES,)),
        },
        block=256,
    )


class DigitsNet(nn.Module):
    """A gated residual MLP over all four noisy states and their clocks.

    Grammar has two blocks of its own, behind the trunk that all share: without them pictures and grammar compete, and
    both are learned more slowly. A word is scored against the embedding that it enters by, so what is learned of a word
    holds at every place. The picture enters as it is and through two small convolutions: neighbouring pixels belong
    together, and from 1,437 pictures a plain map has to learn that anew for every place.

    The velocity of a pixel of mean m and deviation s is what it would be for a normal law, exact where a pixel hardly
    varies, plus the deviation that is left times what the network says:
    v = sigma (alpha (1 - s^2) x - m)/d^2 + s/d F, d^2 = alpha^2 s^2 + sigma^2. Karras et al. 2022 (2206.00364) scale
    by one s for all.

    Args:
        pictures: (n, 1, 8, 8), whose pixels' means and deviations are kept; None takes 0 and 1.
        width, hidden, depth: of the shared blocks; the default has 1.5 million parameters in all.
        word: width of an embedded word.
        tower: width of the caption's blocks.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        pictures: Tensor | None = None,
        *,
        width: int = 192,
        hidden: int = 384,
        depth: int = 4,
        word: int = 32,
        tower: int = 128,
    ) -> None:
        super().__init__()
        blank = torch.zeros(1, 8, 8)
        self.register_buffer("mean", blank if pictures is None else pictures.mean(0))
        self.register_buffer("spread", blank + 1 if pictures is None else pictures.std(0).clamp_min(_SPREAD))
        self.settings = {"width": width, "hidden": hidden, "depth": depth, "word": word, "tower": tower}
        bands, condition = 6, 128
        self.clock = ClockFeatures(bands)
        self.condition = nn.Sequential(nn.Linear(len(_NAMES) * 2 * bands, condition), nn.SiLU())
        self.words = nn.Embedding(_WORDS + 1, word)
        self.digit = nn.Embedding(10, word)
        self.strokes = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.enter = nn.Linear(64 + 32 * 16 + LENGTH * word + word + 2 * TILES, width)
        self.blocks = nn.ModuleList(GatedBlock(width, hidden, condition) for _ in range(depth))
        self.image = nn.Linear(width, 64)
        self.speak = nn.Linear(LENGTH * word + width, tower)
        self.speech = nn.ModuleList(GatedBlock(tower, 2 * tower) for _ in range(2))
        self.caption = nn.Linear(tower, LENGTH * word)
        self.word_bias = nn.Parameter(torch.zeros(LENGTH, _WORDS))
        self.label = nn.Linear(width, 10)
        self.ink = nn.Linear(width, TILES)
        for head in (self.image, self.label, self.ink):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        clocks = torch.stack([t[name].to(torch.float32) for name in _NAMES], 1)
        condition = self.condition(self.clock(clocks).flatten(1))
        ink, words = x["ink"], self.words(x["caption"]).flatten(1)
        states = [
            x["image"].flatten(1),
            self.strokes(x["image"]),
            words,
            self.digit(x["label"]),
            TILES * ink - 1,
            (TILES * ink).clamp_min(0).sqrt() - 1,
        ]
        h = self.enter(torch.cat(states, 1))
        for block in self.blocks:
            h = h + nn.functional.dropout(block(h, condition) - h, _DROPOUT, self.training)
        h = nn.functional.layer_norm(h, (h.shape[1],))
        speech = self.speak(torch.cat([words, h], 1))
        for block in self.speech:
            speech = block(speech)
        speech = nn.functional.layer_norm(speech, (speech.shape[1],))
        return {
            "image": self.velocity(x["image"], t["image"], self.image(h).reshape(-1, 1, 8, 8)),
            "caption": self.caption(speech).reshape(len(h), LENGTH, -1) @ self.words.weight[:_WORDS].T + self.word_bias,
            "label": self.label(h),
            "ink": self.ink(h),
        }

    def velocity(self, x: Tensor, t: Tensor, residual: Tensor) -> Tensor:
        """The normal law's velocity and what is left of it."""
        angle = (math.pi / 2 * t.to(torch.float32)).reshape(-1, 1, 1, 1)
        alpha, sigma, variance = angle.cos(), angle.sin(), self.spread**2
        d2 = alpha**2 * variance + sigma**2
        return sigma * (alpha * (1 - variance) * x - self.mean) / d2 + self.spread * d2.rsqrt() * residual


class DigitsSource:
    """The training digits, with a caption written anew each time a row is seen."""

    def __init__(self, part: DigitsPart, captions: Captions) -> None:
        self.part, self.captions = part, captions

    def __len__(self) -> int:
        return len(self.part)

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        image, label = self.part.image[index], self.part.label[index]
        caption = self.captions.draw(label, image, rng=rng)
        return {"image": image, "caption": caption, "label": label, "ink": self.part.ink[index]}
