"""Plugin "ordinal": ordered classes under a nearest-neighbour chain. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="ordinal",
            target="de_ordinal.modality:Ordinal",
            api_version=(1, 0),
            summary="ordered classes that jump to a neighbour, or any reversible rate matrix; posterior head",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit"}),
        )
    ]
