"""The process by which a network in training is scored on rows held out: a group's term is cheap."""

from __future__ import annotations

import torch
from torch import Tensor

from de_core import JointProcess, Modality, get_modality

__all__ = ["scoring_process"]


def scoring_process(joint: JointProcess) -> JointProcess:
    """The same process, in which a simplex has its "simple" loss for an integrand and no reconstruction.

    The integrand of the bound is a series over lineages; the count target has the same minimum and no series. A process
    without groups is returned as it is.
    """
    simplex = get_modality("simplex")
    if not any(isinstance(modality, simplex) for modality in joint.modalities.values()):
        return joint

    class Counted(simplex):
        def loss(self, output: Tensor, noised: object, *, objective: str = "elbo") -> Tensor:
            return super().loss(output, noised, objective="simple")

        def reconstruction(self, output: Tensor, noised: object) -> Tensor:
            return torch.zeros(len(output), dtype=output.dtype)

    def cheap(modality: Modality) -> Modality:
        return Counted(**modality.config()) if isinstance(modality, simplex) else modality

    modalities = {name: cheap(modality) for name, modality in joint.modalities.items()}
    return JointProcess(modalities, tuple(joint.elementwise), block=joint.block)
