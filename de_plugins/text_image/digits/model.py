"""The digits demo's joint process and network: picture, caption, label and ink shares, each on its own space and
clock."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from de_core import JointProcess, get_modality
from de_core.networks import ClockFeatures, GatedBlock
from de_plugins.text_image.digits.captions import LENGTH, VOCABULARY, Captions
from de_plugins.text_image.digits.data import TILES, DigitsPart
from de_plugins.text_image.precondition import NormalVelocity

__all__ = ["DigitsNet", "DigitsSource", "digits_process"]

_NAMES = ("image", "caption", "label", "ink")
_WORDS = len(VOCABULARY)
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

    The picture's output is what the network adds to ``NormalVelocity``.

    Args:
        pictures: (n, 1, 8, 8), whose pixels' means and deviations are kept; None takes 0 and 1.
        width, hidden, depth: of the shared blocks; the default has 1.5 million parameters in all.
        word: width of an embedded word.
        tower: width of the caption's blocks.
    """

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
        self.velocity = NormalVelocity((1, 8, 8), pictures)
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
