"""Several processes as one: who this one is, and the few things that they do together.

``torchrun --nproc-per-node N script.py`` starts N processes and tells each its rank in the environment. Without it
there is one process, and nothing here costs anything.
"""

from __future__ import annotations

import contextlib
import gc
import operator
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from de_core.errors import DiffuseError

__all__ = ["World", "average_gradients", "stops"]

_BUCKET = 2**22  # numbers that travel together


@attrs.frozen
class World:
    """This process among those of the run. ``with World.here() as world:`` starts and ends the process group.

    Attributes:
        rank: of this process, 0 <= rank < size. Rank 0 writes what is written once.
        size: number of processes.
        device: where this process computes: its own GPU, or the CPU.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = attrs.field(factory=lambda: torch.device("cpu"))

    @classmethod
    def here(cls) -> World:
        """From RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets; one process where they are not set.

        Raises:
            DiffuseError: they are no whole numbers, or the rank is not below the size.
        """
        given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
        given["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", given["RANK"])
        try:
            rank, size, local = (int(value) for value in given.values())
        except ValueError:
            rank, size, local = -1, 0, -1
        if not (0 <= rank < size and 0 <= local <= rank):
            found = ", ".join(f"{name}={value}" for name, value in given.items())
            raise DiffuseError(f"the environment of torchrun: expected 0 <= RANK < WORLD_SIZE, got {found}")
        return cls(rank, size, torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu"))

    def start(self) -> World:
        """Join the process group, gloo for the CPU and nccl for GPUs, unless this process is alone or has joined."""
        if self.size > 1 and not dist.is_initialized():
            import torch.distributed.nn  # its defaults name the group of the time of import, and keep it

            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        return self

    def stop(self) -> None:
        """Leave the process group, and end its threads: one still at work can abort a process that ends.

        They end with the last thing that holds the group. Sharded tensors do, of strategy "fsdp", and torch's caches
        of how to move them, which are emptied here.
        """
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
            _forget_sharded_tensors()

    def __enter__(self) -> World:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            self.sum(torch.zeros(1))

    def sum(self, x: Tensor) -> Tensor:
        """``x`` summed over the ranks, in place, the same numbers on all.

        Raises:
            DiffuseError: another process is gone.
        """
        if self.size > 1:
            try:
                dist.all_reduce(x)
            except RuntimeError as error:
                raise DiffuseError(f"rank {self.rank}: another process of the run is gone ({_first(error)})") from error
        return x

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """What rank 0 holds, to all, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


def _forget_sharded_tensors() -> None:
    """Empty torch's caches that hold device meshes. Their names are torch's own: one that is gone is passed over."""
    if "torch.distributed.fsdp" not in sys.modules:
        return
    from torch.distributed.tensor import _collective_utils, _redistribute

    for place, name in (
        (_redistribute, "clear_redistribute_planner_cache"),
        (_redistribute, "_gen_transform_infos.cache_clear"),
        (_collective_utils, "MeshTopoInfo.build_from_mesh.cache_clear"),
        (torch._C, "_clear_DTensor_sharding_propagator_cache"),
    ):
        with contextlib.suppress(AttributeError):
            operator.attrgetter(name)(place)()
    gc.collect()  # what was in them, and sharded modules, are cycles


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def average_gradients(parameters: Sequence[Tensor], world: World) -> None:
    """Gradients averaged over the ranks, in place, in flat buckets; a missing one counts as zero.

    With equal numbers of rows a rank, that is the gradient of the mean over all rows.
    """
    grads = []
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        grads.append(p.grad)
    for bucket in _buckets(grads):
        flat = world.sum(torch.cat([g.flatten() for g in bucket])).div_(world.size)
        for g, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            g.copy_(mean.view_as(g))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, up to a size."""
    bucket: list[Tensor] = []
    held = 0
    for x in tensors:
        if bucket and (held + x.numel() > _BUCKET or (x.dtype, x.device) != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, held = [], 0
        bucket.append(x)
        held += x.numel()
    if bucket:
        yield bucket


@contextlib.contextmanager
def stops(world: World) -> Iterator[list[int]]:
    """A list that is empty until this process is asked to stop, by Ctrl-C or SIGTERM.

    One rank that stopped alone would leave the others waiting for it; so the ranks compare their lists after each step
    and stop together. A process that is alone is interrupted as ever.
    """
    asked: list[int] = []
    if world.size == 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    old = {sign: signal.signal(sign, lambda s, _: asked.append(s)) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for sign, handler in old.items():
            signal.signal(sign, handler)
