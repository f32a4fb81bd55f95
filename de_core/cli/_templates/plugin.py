"""Plugin "newthing": SUMMARY.

Light: the class is imported on first use.
"""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="newthing",
            target="de_newthing.modality:NewthingModality",
            api_version=(1, 0),
            summary="SUMMARY",
            capabilities=frozenset({"generator", "density", "elementwise", "implicit"}),
        )
    ]
