"""What is asked of a model of scenes, and how often it is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_plugins.text_image.digits.data import DigitsData
from de_plugins.text_image.scenes.grammar import agrees, decode, encode, read, write
from de_plugins.text_image.scenes.judge import SceneJudge, cells_of
from de_plugins.text_image.scenes.world import CELLS, Scenes, draw_scenes, paint

__all__ = ["Asker", "frechet"]

METHODS = {"image": "ancestral", "caption": "systematic"}


@attrs.frozen(eq=False)
class Asker:
    """A trained model and what judges it.

    Args:
        joint, model: the process and its network.
        data: the digits. judge: reads pictures.
        steps: of the picture; a caption takes 16, one a word.
        seed: of all draws.
    """

    joint: JointProcess
    model: torch.nn.Module
    data: DigitsData
    judge: SceneJudge
    steps: int = 50
    seed: int = 0

    def sample(self, n: int, *, key: int, given: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Tensor]:
        """Draws of what is not given."""
        steps = {"image": self.steps, "caption": 32}
        rng = 1000 * self.seed + key
        return self.joint.sample(self.model, n, rng=rng, given=given, steps=steps, methods=METHODS, **options)

    def asked(self, rows: int, count: int) -> tuple[list[str], Tensor]:
        """Captions of scenes that training never showed, and their tokens."""
        texts = write(draw_scenes(rows, rng=self.seed + 40 + count, held_out=True, count=count), rng=self.seed + count)
        return texts, encode(texts)

    def shown(self, rows: int, count: int) -> tuple[Scenes, Tensor]:
        """Pictures of such scenes, of digits that training never showed."""
        scenes = draw_scenes(rows, rng=self.seed + 60 + count, held_out=True, count=count)
        return scenes, paint(scenes, self.data.held_out, rng=self.seed + 80 + count)

    def right_pictures(self, texts: list[str], images: Tensor) -> list[bool]:
        """Whether each picture shows what its caption says, by the judge."""
        seen = self.judge.read(images)
        return [agrees(read(text), objects) for text, objects in zip(texts, seen, strict=True)]

    def pictures(self, rows: int, count: int, **options: Any) -> tuple[list[str], Tensor, list[bool]]:
        """Text to image: captions, pictures, verdicts."""
        texts, tokens = self.asked(rows, count)
        images = self.sample(rows, key=count, given={"caption": tokens}, **options)["image"]
        return texts, images, self.right_pictures(texts, images)

    def captions(self, rows: int, count: int, **options: Any) -> tuple[list[str], Tensor, list[bool]]:
        """Image to text: captions, pictures, verdicts against the truth."""
        scenes, images = self.shown(rows, count)
        texts = decode(self.sample(rows, key=10 + count, given={"image": images}, **options)["caption"])
        return texts, images, [agrees(read(text), scenes.objects(k)) for k, text in enumerate(texts)]

    def both(self, rows: int, **options: Any) -> tuple[list[str], Tensor, list[bool]]:
        """Nothing given: whether the caption says what the picture shows."""
        sample = self.sample(rows, key=20, **options)
        texts = decode(sample["caption"])
        return texts, sample["image"], self.right_pictures(texts, sample["image"])

    def inpainted(self, rows: int) -> tuple[list[str], Tensor, Tensor]:
        """The left third of held-out pictures and their captions given, the rest drawn: captions, what was known (the
        rest grey), pictures."""
        scenes, images = self.shown(rows, 2)
        texts = write(scenes, rng=self.seed)
        known = torch.zeros(images.shape[1:], dtype=torch.bool)
        known[..., :8] = True
        given = {"caption": encode(texts), "image": Given(images, known=known)}
        drawn = self.sample(rows, key=30, given=given)["image"]
        return texts, torch.where(known, images, 0.0), drawn

    def completed(self, rows: int) -> tuple[list[str], list[str], list[bool]]:
        """The first five words given with the picture: beginnings, whole captions, whether they are true of it."""
        scenes, images = self.shown(rows, 1)
        tokens = encode(write(scenes, rng=self.seed + 3))
        known = torch.zeros(tokens.shape[1], dtype=torch.bool)
        known[:5] = True
        given = {"image": images, "caption": Given(tokens, known=known)}
        texts = decode(self.sample(rows, key=31, given=given)["caption"])
        starts = [" ".join(text.split()[:5]) for text in decode(tokens)]
        return starts, texts, [agrees(read(text), scenes.objects(k)) for k, text in enumerate(texts)]

    def caption_bound(self, rows: int = 128) -> float:
        """Upper bound on -log p(caption | picture) of held-out scenes, in nats a word (padding included)."""
        scenes = draw_scenes(rows, rng=self.seed + 90, held_out=True)
        x0 = {"image": paint(scenes, self.data.held_out, rng=91), "caption": encode(write(scenes, rng=92))}
        bound = self.joint.bound(self.model, x0, rng=93, draws=16, given=["image"])
        return float(bound.total.mean()) / x0["caption"].shape[1]

    def distance(self, images: Tensor, rows: int = 2000) -> dict[str, float]:
        """Fréchet distance in the judge's features to real scenes, and that of real ones to others (the floor)."""
        real = [paint(draw_scenes(rows, rng=95 + k), self.data.train, rng=97 + k) for k in (0, 1)]
        a, b = (features(x) for x in real)
        return {"frechet": frechet(features(images), a), "floor": frechet(b[: len(images)], a)}

    def variety(self, images: Tensor, texts: list[str]) -> float:
        """How different pictures of one caption are: mean distance of pixels between pairs that follow each other."""
        return float((images[::2] - images[1::2]).flatten(1).norm(dim=1).mean())


def features(images: Tensor) -> np.ndarray:
    """(n, 45): ink, spread of ink and mean colour of each cell, as the judge sees them."""
    cells = cells_of(images)
    ink = cells.amax(2).flatten(2)
    parts = [ink.mean(2, keepdim=True), ink.std(2, keepdim=True), cells.mean((3, 4))]
    return torch.cat(parts, 2).reshape(-1, 5 * CELLS).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two samples' means and covariances.

    Source: Heusel et al. 2017 (1706.08500).
    """
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    ca, cb = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(ca)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cb @ root).clip(0)).sum()
    return float(mean + np.trace(ca) + np.trace(cb) - 2 * cross)
