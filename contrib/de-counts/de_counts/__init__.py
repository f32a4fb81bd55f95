"""Plugin "counts": whole numbers under immigration and death. Light: the class is imported on first use."""

from de_core.hookspecs import ModalityInfo, hookimpl

__all__ = ["de_modalities"]


@hookimpl
def de_modalities() -> list[ModalityInfo]:
    return [
        ModalityInfo(
            name="counts",
            target="de_counts.modality:Counts",
            api_version=(1, 0),
            summary="counts under immigration and death (binomial thinning + Poisson, prior Poisson)",
            capabilities=frozenset({"generator", "density", "elementwise", "likelihood", "implicit"}),
        )
    ]
