"""Plugin "uniform": classes under a chain that jumps to any class at one rate. Light: the class is imported on first
use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="uniform",
            target="de_plugins.uniform.modality:Uniform",
            api_version=(1, 0),
            summary="classes that jump to a random class; posterior or leave-one-out head",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit"}),
        )
    ]
