"""Plugin "so3": rotations under Brownian motion. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="so3",
            target="de_so3.modality:SO3",
            api_version=(1, 0),
            summary="rotations under Brownian motion on SO(3) (heat kernel IGSO(3))",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"}),
        )
    ]
