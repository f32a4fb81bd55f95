"""What a mutant is: a right modality with one mistake in it, and the check that is meant to reject it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from de_core.modality import Modality

__all__ = ["Mutant"]


@attrs.frozen
class Mutant:
    """One broken modality.

    Attributes:
        name: its own.
        mistake: one sentence.
        modality: makes it.
        right: the name in ``RIGHT`` of the modality it was made from: its data, and what passes the same check.
        check: the id of the check that is meant to reject it.
    """

    name: str
    mistake: str
    modality: Callable[[], Modality]
    right: str
    check: str
