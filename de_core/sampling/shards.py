"""A large sample by several processes: each draws and writes its own rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from de_core.artifact import atomic_write
from de_core.distributed import World
from de_core.errors import DiffuseError
from de_core.rng import Rng, seed_of
from de_core.sampling.plan import Given, make_plan

if TYPE_CHECKING:
    from de_core.joint import JointProcess, Model

__all__ = ["load_samples", "sample_shards"]


def sample_shards(
    joint: JointProcess,
    model: Model,
    n: int,
    *,
    out: str | Path,
    rng: Rng,
    given: Mapping[str, Tensor | Given] | None = None,
    world: World | None = None,
    **request: Any,
) -> Path | None:
    """This process's share of ``joint.sample(model, n, rng=rng, ...)``, written to ``out/rows-FIRST-END.safetensors``.

    Whole blocks are dealt out, so that every row is what one process would draw, bit for bit. Ranks do not wait for
    each other, and nothing has to be started.

    Args:
        joint, model, n, given: as in ``sample``, for all n rows.
        out: a directory, made if need be, the same for all ranks.
        rng: the same on all ranks.
        world: this process among the others; where torchrun put it by default.
        request: what else ``sample`` takes (steps, methods, guidance, path, device, callback, progress).

    Returns:
        The file, or None where there are fewer blocks than ranks and none is left for this one.

    Raises:
        DiffuseError: as ``sample``, on every rank alike.
    """
    world = World.here() if world is None else world
    seed = seed_of(rng)
    asked = {name: request.get(name) for name in ("methods", "guidance", "path")}
    make_plan(joint, n, given=given, steps=request.get("steps", 64), **asked)
    blocks = -(-n // joint.block)
    first, end = (min(n, blocks * k // world.size * joint.block) for k in (world.rank, world.rank + 1))
    if first == end:
        return None
    mine = {name: _cut(joint, name, value, n, slice(first, end)) for name, value in (given or {}).items()}
    x = joint.sample(model, end - first, rng=seed, given=mine, first_row=first, **request)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in x.items()})
    return atomic_write(folder / f"rows-{first:012d}-{end:012d}.safetensors", content)


def load_samples(out: str | Path) -> dict[str, Tensor]:
    """All rows that the ranks wrote to a directory: name -> (n, *event).

    Raises:
        DiffuseError: no rows, a gap or an overlap between files, or a damaged file.
    """
    files = sorted(Path(out).glob("rows-*-*.safetensors"))
    if not files:
        raise DiffuseError(f"{out}: expected files of rows, there are none")
    found, row = [], 0
    for file in files:
        first, end = (int(part) for part in file.stem.split("-")[1:])
        if first != row:
            raise DiffuseError(f"{out}: expected a file that starts at row {row}, got {file.name}")
        row = end
        try:
            found.append(safetensors.torch.load_file(file))
        except SafetensorError as error:
            raise DiffuseError(f"{file}: the file is damaged ({error})") from error
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def _cut(joint: JointProcess, name: str, given: Tensor | Given, n: int, rows: slice) -> Tensor | Given:
    """The condition of some of the rows."""
    if isinstance(given, Tensor):
        return given[rows]
    each = len(joint.modalities[name].element_shape)

    def cut(x: Any) -> Any:
        return x[rows] if isinstance(x, Tensor) and x.ndim > each and len(x) == n else x

    return attrs.evolve(given, value=given.value[rows], level=cut(given.level), known=cut(given.known))
