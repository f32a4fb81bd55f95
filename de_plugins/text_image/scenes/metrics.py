"""What is asked of a model of scenes, and how often it is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs
import numpy as np
import torch
from torch import Tensor

from de_core import Given, JointProcess
from de_core.sampling import Trajectory
from de_plugins.text_image.gallery import Grid
from de_plugins.text_image.scenes.grammar import PAD, VOCABULARY, agrees, decode, encode, read, write
from de_plugins.text_image.scenes.judge import SceneJudge
from de_plugins.text_image.scenes.world import Hands, Scenes, draw_scenes, paint

__all__ = ["Asker", "Parts", "frechet"]

METHODS = {"image": "ancestral", "caption": "systematic"}


class Parts(Protocol):
    """Digits to learn from and others."""

    @property
    def train(self) -> Hands: ...

    @property
    def held_out(self) -> Hands: ...


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
    data: Parts
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
        """Nothing given: whether the caption says what the picture shows.

        Along the process's synchronous path both come from noise together; ``path=Sequential(("caption", "image"))`` is
        the chain rule, p(caption) p(picture | caption), of the same joint law.
        """
        sample = self.sample(rows, key=20, **options)
        texts = decode(sample["caption"])
        return texts, sample["image"], self.right_pictures(texts, sample["image"])

    def inpainted(self, rows: int) -> tuple[list[str], Tensor, Tensor]:
        """The left third of held-out pictures and their captions given, the rest drawn: captions, what was known (the
        rest grey), pictures."""
        scenes, images = self.shown(rows, 2)
        texts = write(scenes, rng=self.seed)
        known = torch.zeros(images.shape[1:], dtype=torch.bool)
        known[..., : images.shape[-1] // 3] = True
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

    def trajectory(self, rows: int = 3, columns: int = 8) -> Grid:
        """A few joint samples on their way: picture and caption, from prior to data, some rounds of each a row."""
        kept = Trajectory()
        self.sample(rows, key=32, callback=kept)
        at = torch.linspace(0, len(kept.steps) - 1, columns).round().long()
        images, words, clock = kept.x["image"][at], kept.x["caption"][at], kept.t["image"][at, 0].tolist()
        texts = [shorten(words[k, row]) + f" (t = {t:.2f})" for row in range(rows) for k, t in enumerate(clock)]
        text = "Both at once, from noise to the end; a hidden word is a dot."
        return Grid("On the way", text, images.transpose(0, 1).flatten(0, 1), texts, (), columns)

    def caption_bound(self, rows: int = 128) -> float:
        """Upper bound on -log p(caption | picture) of held-out scenes, in nats a word (padding included)."""
        scenes = draw_scenes(rows, rng=self.seed + 90, held_out=True)
        x0 = {"image": paint(scenes, self.data.held_out, rng=91), "caption": encode(write(scenes, rng=92))}
        bound = self.joint.bound(self.model, x0, rng=93, draws=16, given=["image"])
        return float(bound.total.mean()) / x0["caption"].shape[1]

    def distance(self, images: Tensor, rows: int = 1000) -> dict[str, float]:
        """Fréchet distance in the judge's features to real scenes, and that of real ones to others (the floor)."""
        real = [paint(draw_scenes(rows, rng=95 + k), self.data.train, rng=97 + k) for k in (0, 1)]
        a, b = (self.judge.features(x).numpy() for x in real)
        return {"frechet": frechet(self.judge.features(images).numpy(), a), "floor": frechet(b[: len(images)], a)}


def shorten(words: Tensor) -> str:
    """A caption under way, (16,): hidden words as dots, padding left out."""
    said = ["·" if word == len(VOCABULARY) else VOCABULARY[word] for word in words.tolist()]
    return " ".join(word for word in said if word != PAD)


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
