"""What the MMDiT costs beside a plain transformer of the same width, depth and tokens, and what the joint process adds.

    python benchmarks/mmdit.py [--rounds N] [--threads T] [--batch B]

"step": forward, backward and AdamW of the MMDiT on pictures of 24 x 24 and 16 words (25 tokens), over the same of
PyTorch's ``TransformerEncoder`` on as many tokens, in turn; the median of the ratios of neighbours. "loss_overhead":
what ``JointProcess.loss`` takes beyond the network and a mean of its outputs, as a share of a training step.
"sampling_overhead": what ``JointProcess.sample`` takes beyond its network calls, as a share of the whole. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from de_plugins.text_image.mmdit import MMDiT, Size
from de_plugins.text_image.scenes.model import PATCH, scenes_process

SIZE = Size(128, 4, 32, 3, 2, 128)  # three million parameters


class Plain(nn.Module):
    """A pre-norm transformer encoder between two linear maps."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            size.width, size.heads, 4 * size.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, size.joint + size.own, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    joint = scenes_process()
    model = MMDiT(joint, SIZE, patch=PATCH, pictures={"image": torch.randn(64, 3, 24, 24)})
    tokens = (24 // PATCH) ** 2 + 16
    plain = Plain(SIZE)
    x = {"image": torch.randn(args.batch, 3, 24, 24), "caption": torch.randint(20, (args.batch, 16))}
    t = {name: torch.rand(args.batch) for name in x}
    embedded = torch.randn(args.batch, tokens, SIZE.width)
    optimizers = [torch.optim.AdamW(m.parameters(), fused=True) for m in (model, plain)]

    def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    def ours() -> Tensor:
        return sum(o.square().mean() for o in model(x, t).values())  # type: ignore[return-value]

    works = {
        "mmdit": lambda: step(ours, optimizers[0]),
        "encoder": lambda: step(lambda: plain(embedded).square().mean(), optimizers[1]),
        "joint": lambda: step(lambda: joint.loss(model, x, rng=0, objective="simple").total, optimizers[0]),
    }
    took: dict[str, list[float]] = {name: [] for name in works}
    for k in range(args.rounds + 2):
        for name, work in works.items():
            spent = seconds(work)
            if k >= 2:
                took[name].append(spent)
    calls = [0.0]

    def timed(x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        start = time.perf_counter()
        out = model(x, t)
        calls[0] += time.perf_counter() - start
        return out

    model.eval()
    shares = []
    for _ in range(3):
        calls[0] = 0.0
        whole = seconds(lambda: joint.sample(timed, args.batch, rng=0, steps=20))
        shares.append(1 - calls[0] / whole)
    pairs = zip(took["mmdit"], took["encoder"], strict=True)
    more = zip(took["joint"], took["mmdit"], strict=True)
    print(
        json.dumps(
            {
                "parameters": {"mmdit": count(model), "encoder": count(plain)},
                "step_ms": {name: round(1e3 * statistics.median(v), 2) for name, v in took.items()},
                "step_over_encoder": round(statistics.median(a / b for a, b in pairs), 4),
                "loss_overhead": round(statistics.median((a - b) / a for a, b in more), 4),
                "sampling_overhead": round(statistics.median(shares), 4),
                "targets": {"step_over_encoder": 1.25, "loss_overhead": 0.05, "sampling_overhead": 0.05},
                "threads": args.threads,
                "batch": args.batch,
            },
            indent=1,
        )
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
