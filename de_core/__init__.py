"""Diffuse Everything: joint diffusion over any mix of state spaces.

    from de_core import JointProcess, get_modality

The contract is in SPEC.md; the built-in modalities are plugins like any other: "gaussian", "masked", "uniform",
"simplex".
"""

from de_core.artifact import load_artifact, save_artifact
from de_core.bound import Bound
from de_core.errors import DiffuseError, PluginError
from de_core.families import Diffusion, Jump
from de_core.generator import DiffusionGenerator, Generator, JumpGenerator
from de_core.guidance import ClassifierFreeGuidance, NoisyGuidance
from de_core.hookspecs import ModalityInfo, hookimpl
from de_core.joint import JointLoss, JointProcess
from de_core.likelihood import bits_per_dim
from de_core.modality import Modality, Noised
from de_core.paths import Cascaded, Matched, Sequential, Synchronous
from de_core.plugins import get_modality, list_modalities, register
from de_core.sampling import Given, SampleState, Trajectory
from de_core.times import Bell, Faces, Independent, Mixed, Staged, Stratified, Tied

__all__ = [
    "Bell",
    "Bound",
    "Cascaded",
    "ClassifierFreeGuidance",
    "DiffuseError",
    "Diffusion",
    "DiffusionGenerator",
    "Faces",
    "Generator",
    "Given",
    "Independent",
    "JointLoss",
    "JointProcess",
    "Jump",
    "JumpGenerator",
    "Matched",
    "Mixed",
    "Modality",
    "ModalityInfo",
    "Noised",
    "NoisyGuidance",
    "PluginError",
    "SampleState",
    "Sequential",
    "Staged",
    "Stratified",
    "Synchronous",
    "Tied",
    "Trajectory",
    "bits_per_dim",
    "get_modality",
    "hookimpl",
    "list_modalities",
    "load_artifact",
    "register",
    "save_artifact",
]
__version__ = "0.1.0"
