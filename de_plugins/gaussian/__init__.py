"""Plugin "gaussian": R^n under a linear diffusion. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="gaussian",
            target="de_plugins.gaussian.modality:Gaussian",
            api_version=(1, 0),
            summary="real numbers under a variance-preserving or variance-exploding diffusion",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit", "ode"}),
        )
    ]
