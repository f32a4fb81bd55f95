"""At which clocks a picture and its caption are trained: most rows at those where something is asked."""

from __future__ import annotations

from collections.abc import Mapping

from de_core.times import Bell, Stratified, Tied, TimePolicy

__all__ = ["Clocks", "asked_clocks"]

Clocks = tuple[tuple[float, TimePolicy, Mapping[str, float]], ...]
"""Parts of ``de_core.times.Mixed``: (share, policy, held)."""


def asked_clocks(*, picture: float, caption: float, apart: float, tied: float, alone: float) -> Clocks:
    """The clocks of modalities "image" and "caption", as parts of a ``Mixed``.

    The bell's median is 0.71: more of training is at much noise.

    Args:
        picture: share of the rows in which the picture is noised and the caption clean.
        caption: ... in which the caption is noised and the picture clean.
        apart: ... in which each has a time of its own.
        tied: ... in which both have one time; 0 leaves them out.
        alone: ... in which the picture is noised and nothing of the caption is known.
    """
    bell = Bell({"image": (0.9, 1.0)})
    parts: Clocks = (
        (picture, bell, {"caption": 0.0}),
        (caption, Stratified(), {"image": 0.0}),
        (apart, Stratified(), {}),
        (tied, Tied(), {}),
        (alone, bell, {"caption": 1.0}),
    )
    return tuple(part for part in parts if part[0] > 0)
