"""The process, the network and the rows of scenes."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from de_core import JointProcess, get_modality
from de_plugins.text_image.digits.data import DigitsPart
from de_plugins.text_image.mmdit import MMDiT, Size
from de_plugins.text_image.scenes.grammar import LENGTH, VOCABULARY, encode, write
from de_plugins.text_image.scenes.world import SIDE, draw_scenes, paint

__all__ = ["WEIGHTS", "SceneSource", "scene_model", "scenes_process"]

WEIGHTS = {"image": 1.0, "caption": 8.0}  # a picture's loss is a sum over 1,728 numbers, a caption's over 16 words
PATCH = 8  # a patch is a place of the canvas: half the tokens of quarter places, and nothing to piece together


def scenes_process() -> JointProcess:
    """Image: gaussian. Caption: masked tokens."""
    return JointProcess(
        {
            "image": get_modality("gaussian")((3, SIDE, SIDE)),
            "caption": get_modality("masked")((LENGTH,), num_classes=len(VOCABULARY)),
        }
    )


def scene_model(joint: JointProcess, part: DigitsPart, *, size: str | Size = "small", seed: int = 0) -> MMDiT:
    """A fresh network, with the pixels' moments of 4,096 training scenes."""
    torch.manual_seed(seed)  # the network's first weights: torch's initialisers know no other source
    pictures = paint(draw_scenes(4096, rng=seed), part, rng=seed + 1)
    return MMDiT(joint, size, patch=PATCH, pictures={"image": pictures})


@attrs.frozen
class SceneSource:
    """Training scenes, each drawn anew: what is told, where, in which hand and in which words.

    Args:
        part: the digits.
        rows: of an epoch, a number of convenience.
    """

    part: DigitsPart
    rows: int = 1 << 16

    def __len__(self) -> int:
        return self.rows

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        scenes = draw_scenes(len(index), rng=rng)
        return {"image": paint(scenes, self.part, rng=rng), "caption": encode(write(scenes, rng=rng))}
