"""Plugin "sphere": directions under Brownian motion. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="sphere",
            target="de_sphere.modality:Sphere",
            api_version=(1, 0),
            summary="directions in space under Brownian motion on the unit sphere (heat kernel of S^2)",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"}),
        )
    ]
