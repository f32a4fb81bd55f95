"""Plugin "torus": angles under Brownian motion. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="torus",
            target="de_torus.modality:Torus",
            api_version=(1, 0),
            summary="angles under Brownian motion on a flat torus (wrapped heat kernel)",
            capabilities=frozenset({"generator", "density", "elementwise", "implicit"}),
        )
    ]
