"""Where the weights of a network in training lie: whole on every rank, or a part on each.

Both give the weights that one process would give: the gradient of the mean over all rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from de_core.distributed import World, average_gradients
from de_core.errors import DiffuseError

__all__ = [
    "PRECISIONS",
    "STRATEGIES",
    "Replicas",
    "Shards",
    "Strategy",
    "autocast",
    "check_precision",
    "get_strategy",
    "keep_memory",
    "power_average",
    "quick_precision",
]

_HORIZON = 16.0  # averaging weights grow like step^16: the average looks back over about a twentieth of the run
_MAPPED = 2**25 - 2**13  # bytes, a little below the largest block that glibc takes as a measure
PRECISIONS = ("float32", "bfloat16")


class Strategy(Protocol):
    """What differs between the two."""

    def place(self, module: nn.Module) -> nn.Module:
        """The module that is trained: this one, or a sharded copy; with the weights of rank 0."""
        ...

    def sync(self, module: nn.Module, last: bool) -> None:
        """Before each micro-batch: whether it is the last of its step."""
        ...

    def reduce(self, parameters: Sequence[Tensor]) -> None:
        """After the last: average the gradients over the ranks."""
        ...

    def whole(self, module: nn.Module, given: nn.Module) -> nn.Module:
        """A placed module as a plain one; ``given`` is what it was made from."""
        ...


class Replicas:
    """Every rank holds all weights, and gradients are averaged after the backward pass.

    The same sums as torch's DistributedDataParallel, after the backward pass and not during it, and so without its
    conditions: any form of the loss, any part frozen or unused.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def place(self, module: nn.Module) -> nn.Module:
        self.world.broadcast([*module.parameters(), *module.buffers()])
        return module

    def sync(self, module: nn.Module, last: bool) -> None: ...

    def reduce(self, parameters: Sequence[Tensor]) -> None:
        average_gradients(parameters, self.world)

    def whole(self, module: nn.Module, given: nn.Module) -> nn.Module:
        return module


class Shards:
    """Every rank holds a part of weights, gradients, averages and moments: torch's ``fully_shard``, FSDP2.

    A shard group is each module of an outermost ``ModuleList``, called as a whole, and what is left. The network that
    came in stays whole where it is and is given the weights in the end; the sharded copy is on the rank's device.

    Raises:
        DiffuseError: a torch whose checkpoints of shards need pickle.
    """

    def __init__(self, world: World) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        try:
            from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter  # noqa: F401
            from torch.distributed.fsdp import fully_shard  # noqa: F401
        except ImportError:
            raise DiffuseError(
                f"strategy 'fsdp': expected a torch that writes shards as safetensors, 2.9 or later, got "
                f"{torch.__version__}"
            ) from None
        self.world = world
        self.mesh = init_device_mesh(world.device.type, (world.size,))

    def place(self, module: nn.Module) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        self.world.broadcast([*module.parameters(), *module.buffers()])
        placed = copy.deepcopy(module).to(self.world.device)
        for block in _blocks(placed):
            fully_shard(block, mesh=self.mesh)
        fully_shard(placed, mesh=self.mesh)
        return placed

    def sync(self, module: nn.Module, last: bool) -> None:
        cast(Any, module).set_requires_gradient_sync(last)

    def reduce(self, parameters: Sequence[Tensor]) -> None: ...

    def whole(self, module: nn.Module, given: nn.Module) -> nn.Module:
        state = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in module.state_dict().items()}
        plain = copy.deepcopy(given)
        plain.load_state_dict(state)
        return plain


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of lists, and none inside them; a list has no forward pass to gather weights before."""
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield child
        else:
            yield from _blocks(child)


STRATEGIES = {"ddp": Replicas, "fsdp": Shards}


def get_strategy(name: str, world: World) -> Strategy:
    """By name; one process holds everything whatever the name.

    Raises:
        DiffuseError: an unknown name.
    """
    if name not in STRATEGIES:
        raise DiffuseError(f"training: unknown strategy {name!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name](world) if world.size > 1 else Replicas(world)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that is unknown, or that ``device`` computes in only by detour.

    Raises:
        DiffuseError: it is none of PRECISIONS, or no arithmetic of the device.
    """
    if precision not in PRECISIONS:
        raise DiffuseError(f"training: unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise DiffuseError(f"precision 'bfloat16': the device {device} has no arithmetic for it; use 'float32'")


def quick_precision(device: torch.device | str = "cpu") -> str:
    """The precision in which matrix products are faster: "bfloat16" where the device has units for it (on a CPU, AMX),
    else "float32"."""
    device = torch.device(device)
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
        return "bfloat16" if able and _has_bfloat16(device) else "float32"
    return "bfloat16" if _has_bfloat16(device) else "float32"


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type != "mps"


def autocast(network: Any, device: torch.device) -> Any:
    """The network with its matrix products in bfloat16 and its answers in float32; losses stay in float32."""

    def answer(x: dict[str, Tensor], t: dict[str, Tensor]) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            out = network(x, t)
        if not isinstance(out, dict):
            return out  # refused by the process, with its name
        return {k: y.float() if isinstance(y, Tensor) and y.dtype == torch.bfloat16 else y for k, y in out.items()}

    return answer


def keep_memory() -> None:
    """Ask the C library to keep what is freed for the next step, in place of new pages from the system each time.

    glibc gives back what is free beyond twice the largest block that was ever mapped and freed, 64 MiB at most
    (mallopt(3), M_MMAP_THRESHOLD): so one block of nearly half of that, which nobody writes to, is made and freed.
    Without glibc, nothing happens.
    """
    torch.empty(_MAPPED, dtype=torch.uint8)


@torch.no_grad()
def power_average(
    average: tuple[Tensor, ...] | list[Tensor], now: tuple[Tensor, ...] | list[Tensor], count: Tensor | int
) -> None:
    """average <- average + (1 - (1 - 1/k)^17) (now - average): weights that grow like step^16, whatever the run's
    length.

    Source: Karras et al. 2024 (2312.02696), power-function averaging.
    """
    k = float(count) + 1
    share = 1 - (1 - 1 / k) ** (_HORIZON + 1)
    for mean, value in zip(average, now, strict=True):
        mean.lerp_(value, share)
