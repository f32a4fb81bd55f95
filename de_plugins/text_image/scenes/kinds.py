"""The two sizes of scenes: of scikit-learn's 8×8 digits, 24×24 pixels; of MNIST's 28×28 digits, 84×84."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch

from de_core import JointProcess, get_modality
from de_core.errors import DiffuseError
from de_plugins.text_image.digits.data import load_digits_joint
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.mmdit import MMDiT, Size
from de_plugins.text_image.scenes.grammar import LENGTH, VOCABULARY
from de_plugins.text_image.scenes.judge import INK, SceneJudge
from de_plugins.text_image.scenes.metrics import Parts
from de_plugins.text_image.scenes.mnist import MnistJudge, load_mnist
from de_plugins.text_image.scenes.model import scene_model, scenes_process
from de_plugins.text_image.scenes.world import SIDE, Hands, draw_scenes, paint

__all__ = ["KINDS", "Kind", "kind_of"]

_MNIST_SIDE, _MNIST_PATCH = 84, 28  # nine patches, as small scenes have
_MNIST_INK = 10.0  # pixels; the thinnest of the 5,000 digits has 23


@attrs.frozen
class Kind:
    """Scenes of one sort of digits.

    Attributes:
        name: of the digits.
        side: of a picture, in pixels.
        data: loads the digits.
        judge: of a picture, fitted on them and measured.
        process: picture and caption.
        network: a fresh one, of the digits to learn from, a size and a seed.
    """

    name: str
    side: int
    data: Callable[[], Parts]
    judge: Callable[[Parts], SceneJudge]
    process: Callable[[], JointProcess]
    network: Callable[[Hands, str, int], MMDiT]

    def blank(self, size: Size, patch: int) -> MMDiT:
        """A network of this size, to be given weights."""
        pictures = torch.zeros(2, 3, self.side, self.side)
        return MMDiT(self.process(), size, patch=patch, pictures={"image": pictures})


def _mnist_process() -> JointProcess:
    return JointProcess(
        {
            "image": get_modality("gaussian")((3, _MNIST_SIDE, _MNIST_SIDE)),
            "caption": get_modality("masked")((LENGTH,), num_classes=len(VOCABULARY)),
        }
    )


def _mnist_network(part: Hands, size: str, seed: int) -> MMDiT:
    torch.manual_seed(seed)  # the network's first weights: torch's initialisers know no other source
    pictures = paint(draw_scenes(2048, rng=seed), part, rng=seed + 1)
    return MMDiT(_mnist_process(), size, patch=_MNIST_PATCH, pictures={"image": pictures})


KINDS = {
    "sklearn": Kind(
        "sklearn",
        SIDE,
        load_digits_joint,
        lambda data: SceneJudge(Judge.fit(data), ink=INK).measured(data.held_out),  # type: ignore[arg-type] # its own
        scenes_process,
        lambda part, size, seed: scene_model(scenes_process(), part, size=size, seed=seed),  # type: ignore[arg-type]
    ),
    "mnist": Kind(
        "mnist",
        _MNIST_SIDE,
        load_mnist,
        lambda data: SceneJudge(MnistJudge.fit(data), ink=_MNIST_INK).measured(data.held_out, 500),  # type: ignore[arg-type]
        _mnist_process,
        _mnist_network,
    ),
}


def kind_of(name: str) -> Kind:
    """A kind of scenes by the name of its digits.

    Raises:
        DiffuseError: there is none.
    """
    if name not in KINDS:
        raise DiffuseError(f"digits: expected one of {', '.join(KINDS)}, got {name!r}")
    return KINDS[name]
