"""Plugin "simplex": shares that sum to one, under a Wright-Fisher diffusion. Light: the class is imported on first
use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="simplex",
            target="de_plugins.simplex.modality:Simplex",
            api_version=(1, 0),
            summary="shares that sum to one, or one-hot vectors, under a Wright-Fisher diffusion",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"}),
        )
    ]
