"""Noisy against classifier-free guidance: judged accuracy against the variety of what is right, over a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from de_core import NoisyGuidance
from de_core.errors import DiffuseError
from de_plugins.text_image.claims.front import Cell, compare
from de_plugins.text_image.gallery import Grid
from de_plugins.text_image.scenes.grammar import encode, read, write
from de_plugins.text_image.scenes.metrics import Asker, frechet
from de_plugins.text_image.scenes.world import Scenes, draw_scenes, paint

__all__ = ["Question", "guidance_grid"]

_SHOWN = 8


@attrs.frozen(eq=False)
class Question:
    """Captions that tell every place, several pictures asked of each, and real pictures of the same scenes.

    Attributes:
        texts: the captions. tokens: the same, each ``draws`` times in a row.
        real, other: (captions * draws, 3, side, side), real pictures in hands that training never showed, twice drawn.
        draws: pictures of a caption.
    """

    texts: list[str]
    tokens: Tensor
    real: Tensor
    other: Tensor
    draws: int

    @classmethod
    def ask(cls, asker: Asker, captions: int, draws: int) -> Question:
        """Half of them of one object, half of two; one object of each combines what training never combined.

        Raises:
            DiffuseError: fewer than four captions or two draws.
        """
        if captions < 4 or draws < 2:
            raise DiffuseError(f"guidance: expected at least 4 captions and 2 draws, got {captions} and {draws}")
        found: list[tuple[Scenes, str]] = []
        for count, rows in ((1, captions // 2), (2, captions - captions // 2)):
            scenes = draw_scenes(8 * rows, rng=asker.seed + 200 + count, held_out=True, count=count)
            told = write(scenes, rng=asker.seed + 210 + count)
            whole = [k for k, text in enumerate(told) if (claim := read(text)) and claim.relation is None]
            found += [(scenes[k : k + 1], told[k]) for k in whole[:rows]]
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(asker.seed)).tolist()
        found = [found[k] for k in order]  # so that every other caption is a fair half
        parts = [s for s, _ in found for _ in range(draws)]
        scenes = Scenes(*(torch.cat([getattr(s, a.name) for s in parts]) for a in attrs.fields(Scenes)))
        real = [paint(scenes, asker.data.held_out, rng=asker.seed + 220 + k) for k in (0, 1)]
        texts = [text for _, text in found]
        return cls(texts, encode(texts).repeat_interleave(draws, 0), real[0], real[1], draws)

    def answer(self, asker: Asker, images: Tensor, guidance: NoisyGuidance | None) -> Cell:
        """The verdicts on pictures (captions * draws, ...), and how far right ones of a caption lie apart."""
        told = [text for text in self.texts for _ in range(self.draws)]
        right = torch.tensor(asker.right_pictures(told, images)).reshape(-1, self.draws)
        flat = images.float().clamp(-1, 1).flatten(1).reshape(len(self.texts), self.draws, -1)
        both = (right[:, :, None] & right[:, None, :]).triu(1)
        far = torch.cdist(flat, flat)
        kind = (1.0, None, (0.0, 1.0)) if guidance is None else (guidance.weight, guidance.sigma, guidance.interval)
        apart = torch.where(both, far, 0.0).sum((1, 2)).double()
        return Cell(*kind, right.numpy(), apart.numpy(), both.sum((1, 2)).numpy())  # type: ignore[arg-type] # numbers


def guidance_grid(
    asker: Asker,
    *,
    captions: int,
    draws: int,
    weights: Sequence[float],
    sigmas: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    say: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], list[Grid]]:
    """Ask the same captions, with the same noise, without guidance and under every setting.

    Args:
        asker: the model and its judge.
        captions, draws: asked, and pictures of each.
        weights: other than 1. sigmas: of noisy guidance, below 1; classifier-free guidance, 1, is always among them.
        intervals: of the picture's clock.
        say: told of every setting.

    Returns:
        "cells": for each setting accuracy, its standard error over captions, variety over that of real pictures, and
        the Fréchet distance in the judge's features to real pictures of the same scenes; "real": the variety of real
        pictures in grey levels, and the distance of real ones to other real ones; "noisy_over_classifier_free" as
        ``compare`` says, in units of the real variety. And a grid of pictures a setting.
    """
    question = Question.ask(asker, captions, draws)
    real = question.answer(asker, question.real, None)
    goal = asker.judge.features(question.real).numpy()
    settings: list[NoisyGuidance | None] = [None]
    settings += [NoisyGuidance(w, sigma=s, interval=i) for i in intervals for s in (*sigmas, 1.0) for w in weights]
    cells, lines, grids = [], [], []
    for guidance in settings:
        given = {"caption": question.tokens}
        images = asker.sample(len(question.tokens), key=200, given=given, guidance=guidance)["image"]
        cell = question.answer(asker, images, guidance)
        cell = attrs.evolve(cell, apart=cell.apart / real.variety())
        cells.append(cell)
        lines.append(_line(cell) | {"frechet": frechet(asker.judge.features(images).numpy(), goal)})
        grids.append(_grid(cell, question, images))
        say(f"{grids[-1].title}: accuracy {cell.accuracy():.3f}, variety {cell.variety():.3f}")
    floor = frechet(asker.judge.features(question.other).numpy(), goal)
    found = {
        "captions": captions,
        "draws": draws,
        "real": {"accuracy": real.accuracy(), "variety": real.variety(), "frechet": floor},
        "cells": lines,
        "noisy_over_classifier_free": compare(cells, asker.seed),
    }
    return found, grids


def _line(cell: Cell) -> dict[str, Any]:
    kind = {None: "none", 1: "classifier-free"}.get(cell.sigma, "noisy")  # type: ignore[arg-type] # None is a key
    spread = float(np.std(cell.right.mean(1), ddof=1) / len(cell.right) ** 0.5)
    return {
        "guidance": kind,
        "weight": cell.weight,
        "sigma": cell.sigma,
        "interval": list(cell.interval),
        "accuracy": cell.accuracy(),
        "accuracy_stderr": spread,
        "variety": cell.variety(),
    }


def _grid(cell: Cell, question: Question, images: Tensor) -> Grid:
    line = _line(cell)
    where = f", w = {cell.weight:g}, sigma = {cell.sigma:g}, t in {cell.interval}" if cell.sigma is not None else ""
    text = f"{line['accuracy']:.1%} right, variety {line['variety']:.2f} of the real one."
    rows = torch.arange(min(_SHOWN, len(question.texts))) * question.draws
    right = [bool(cell.right[k, 0]) for k in range(len(rows))]
    return Grid(line["guidance"] + where, text, images[rows], question.texts[: len(rows)], right, _SHOWN)
