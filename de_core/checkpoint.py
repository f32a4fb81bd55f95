"""Checkpoints of a run: an artifact that rank 0 writes, and beside its tensors, where they are sharded, the parts that
every rank writes (torch.distributed.checkpoint, safetensors; nothing is pickled).

Either kind is read by any number of processes and by either strategy.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from de_core.artifact import Artifact, load_artifact, save_artifact
from de_core.distributed import World
from de_core.errors import DiffuseError

__all__ = ["load_checkpoint", "save_checkpoint"]

_SHARDS = "shards"


def save_checkpoint(path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], world: World) -> None:
    """Write a run's state; every rank calls it, and goes on when all is written.

    Sharded tensors go to ``shards/``, one safetensors file a rank, and all others into the artifact. As with any
    artifact the older one stays until the new one is whole.
    """
    config = {"kind": "checkpoint", **config}
    sharded = {k: v.detach() for k, v in tensors.items() if _is_sharded(v)}
    rest = {k: v for k, v in tensors.items() if k not in sharded}
    folders = {}
    if sharded:
        target = Path(path).resolve()
        aside = target.with_name(f".{target.name}.{_SHARDS}")
        if world.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed while it wrote
            aside.mkdir(parents=True)
        world.barrier()
        _write_shards(aside, sharded)
        world.barrier()
        folders = {_SHARDS: aside}
    if world.rank == 0:  # alone: by the time that another rank looked, the parts would have moved
        if sharded:
            config[_SHARDS] = sorted(file.name for file in folders[_SHARDS].iterdir())
        save_artifact(path, config, rest, folders=folders)
    world.barrier()


def load_checkpoint(path: str | Path, like: Callable[[str], Tensor | None]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A run's configuration and its tensors by name, sharded as this run shards them.

    Args:
        path: of the checkpoint, the same on every rank.
        like: the present tensor of a name; None where there is none.

    Raises:
        DiffuseError: no checkpoint, or a part of it is missing or damaged.
    """
    artifact = load_artifact(path)
    if artifact.config.get("kind") != "checkpoint":
        raise DiffuseError(f"{path}: expected a checkpoint, got an artifact of kind {artifact.config.get('kind')!r}")
    tensors = dict(artifact.tensors)
    if _SHARDS in artifact.config:
        tensors |= _read_shards(artifact, like)
    return artifact.config, {name: _placed(value, like(name)) for name, value in tensors.items()}


def _is_sharded(x: Tensor | None) -> bool:
    return hasattr(x, "full_tensor")


def _write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def _read_shards(artifact: Artifact, like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    folder = artifact.path / _SHARDS
    for name in artifact.config[_SHARDS]:
        if not (folder / name).is_file():
            raise DiffuseError(f"artifact {artifact.path}: expected the file {_SHARDS}/{name}, it is missing")
    try:
        reader = HuggingFaceStorageReader(str(folder))
        tensors = {}
        for name, facts in cast(Any, reader.read_metadata()).state_dict_metadata.items():
            mine = like(name)
            same = _is_sharded(mine) and cast(Tensor, mine).shape == facts.size
            tensors[name] = (
                torch.empty_like(cast(Tensor, mine)) if same else torch.empty(facts.size, dtype=facts.properties.dtype)
            )
        alone = not any(_is_sharded(x) for x in tensors.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that one process reads alone
            load(tensors, storage_reader=reader, no_dist=alone)
    except (Exception, CheckpointException) as error:
        first = str(error).strip().splitlines()
        raise DiffuseError(
            f"artifact {artifact.path}: {_SHARDS} are damaged ({first[-1] if first else type(error).__name__})"
        ) from error
    return {name: x.detach() for name, x in tensors.items()}


def _placed(value: Tensor, like: Tensor | None) -> Tensor:
    """A whole tensor cut as ``like`` is cut; each rank has the whole and keeps its part."""
    if _is_sharded(value) or not _is_sharded(like) or value.shape != cast(Tensor, like).shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mine = cast(Any, like)
    return distribute_tensor(value.to(mine.device), mine.device_mesh, mine.placements, src_data_rank=None)
