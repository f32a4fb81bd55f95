"""Plugin "masked": classes under an absorbing chain. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="masked",
            target="de_plugins.masked.modality:Masked",
            api_version=(1, 0),
            summary="classes that are masked one by one (absorbing chain); one vocabulary, or one size per element",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit"}),
        )
    ]
