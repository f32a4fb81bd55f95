"""The whole of a training run as a TOML file, read and checked before anything is built."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from de_core import JointProcess, get_modality
from de_core.errors import DiffuseError
from de_plugins.text_image.mmdit import SIZES, MMDiT, Size
from de_plugins.text_image.stages import Stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] # the backport is there on Python 3.10 only

__all__ = ["CONFIGS", "Config", "load_config"]

CONFIGS = Path(__file__).parent / "configs"
_TABLES = {
    "data": {"image", "length", "vocabulary"},
    "network": {"size", "patch", "recompute"},
    "training": {
        *("objective", "steps", "minutes", "batch_size", "lr", "betas", "weight_decay", "warmup", "clip"),
        *("precision", "strategy", "accumulate", "compile", "seed"),
    },
    "stages": {"name", "share", "weights", "frozen", "batch_size"},
}


@attrs.frozen
class Config:
    """A run.

    Attributes:
        image: (C, H, W) of a picture or latent. length, vocabulary: of the captions, in tokens; the vocabulary at most.
        size, patch, recompute: of the network, as ``MMDiT`` takes them.
        training: arguments of ``Trainer``.
        stages: of the training.
    """

    image: tuple[int, int, int]
    length: int
    vocabulary: int
    size: Size
    patch: int
    recompute: bool
    training: dict[str, Any]
    stages: tuple[Stage, ...]

    def process(self) -> JointProcess:
        """Image: gaussian. Caption: masked tokens."""
        return JointProcess(
            {
                "image": get_modality("gaussian")(self.image),
                "caption": get_modality("masked")((self.length,), num_classes=self.vocabulary),
            }
        )

    def network(self, joint: JointProcess) -> MMDiT:
        """A fresh network."""
        return MMDiT(joint, self.size, patch=self.patch, recompute=self.recompute)

    def shrunk(self) -> Config:
        """The same depths, patches and tokens at a width of 32, 512 words and a batch of 2, in single precision."""
        size = attrs.evolve(self.size, width=32, heads=2, head_width=16, condition=32)
        training = {**self.training, "batch_size": 2, "precision": "float32", "strategy": "ddp", "accumulate": 1}
        stages = tuple(attrs.evolve(stage, batch_size=None) for stage in self.stages)
        return attrs.evolve(self, size=size, vocabulary=min(self.vocabulary, 512), training=training, stages=stages)


def load_config(path: str | Path) -> Config:
    """Read a run from a TOML file, or one of those that come with the package by name ("paper", "small").

    Raises:
        DiffuseError: no such file, not TOML, an unknown or missing entry, or a value that cannot be.
    """
    path = Path(path)
    if not path.is_file() and (CONFIGS / f"{path.name}.toml").is_file():
        path = CONFIGS / f"{path.name}.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise DiffuseError(f"config: expected a TOML file or one of {known}, got {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DiffuseError(f"config {path}: not TOML ({error})") from None
    for name, table in tables.items():
        if name not in _TABLES:
            raise DiffuseError(f"config {path}: there is no table '{name}'; expected {', '.join(_TABLES)}")
        for part in table if isinstance(table, list) else [table]:
            if unknown := sorted(set(part) - _TABLES[name]):
                known = ", ".join(sorted(_TABLES[name]))
                raise DiffuseError(f"config {path}: [{name}] has no entry '{unknown[0]}'; expected some of {known}")
    try:
        return _config(tables)
    except KeyError as error:
        raise DiffuseError(f"config {path}: expected an entry {error}, there is none") from None
    except (TypeError, ValueError) as error:
        raise DiffuseError(f"config {path}: {error}") from None


def _config(tables: Mapping[str, Any]) -> Config:
    data, network = tables["data"], tables["network"]
    size = network["size"]
    if isinstance(size, str) and size not in SIZES:
        raise DiffuseError(f"config: [network] size: expected one of {', '.join(SIZES)} or a table, got {size!r}")
    image = tuple(int(n) for n in data["image"])
    if len(image) != 3 or min(image) < 1:
        raise DiffuseError(f"config: [data] image: expected channels, height and width, got {list(data['image'])}")
    stages = tuple(
        Stage(
            s["name"],
            float(s["share"]),
            dict(s.get("weights", {})),
            frozen=tuple(s.get("frozen", ())),
            batch_size=s.get("batch_size"),
        )
        for s in tables["stages"]
    )
    training = dict(tables["training"])
    if "betas" in training:
        training["betas"] = tuple(training["betas"])
    return Config(
        image=image,  # type: ignore[arg-type] # of length 3
        length=int(data["length"]),
        vocabulary=int(data["vocabulary"]),
        size=SIZES[size] if isinstance(size, str) else Size(**size),
        patch=int(network["patch"]),
        recompute=bool(network.get("recompute", False)),
        training=training,
        stages=stages,
    )
