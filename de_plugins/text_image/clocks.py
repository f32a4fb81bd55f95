"""At which clocks a picture and its caption are trained: most rows at those where something is asked."""

from __future__ import annotations

from de_core.times import Bell, Mixed, Stratified, Tied

__all__ = ["asked_clocks"]


def asked_clocks(*, picture: float, caption: float, apart: float, alone: float, tied: float = 0.0) -> Mixed:
    """The clocks of modalities "image" and "caption".

    The bell's median is 0.71: more of training is at much noise.

    Args:
        picture: share of the rows in which the picture is noised and the caption clean.
        caption: ... in which the caption is noised and the picture clean.
        apart: ... in which each has a time of its own.
        alone: ... in which the picture is noised and nothing of the caption is known.
        tied: ... in which both have one time.
    """
    bell = Bell({"image": (0.9, 1.0)})
    parts = [
        (picture, bell, {"caption": 0.0}),
        (caption, Stratified(), {"image": 0.0}),
        (apart, Stratified(), {}),
        (tied, Tied(), {}),
        (alone, bell, {"caption": 1.0}),
    ]
    return Mixed([part for part in parts if part[0] > 0])
