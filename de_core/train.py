"""The trainer: AdamW inside a budget of steps or minutes, averaged weights, a loss curve, stop and resume.

Step k draws its batch, clocks and noises from streams of (seed, k) alone, so a run that stops and resumes inside a
budget of steps takes the steps that it would have taken.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from de_core.artifact import load_artifact, save_artifact
from de_core.errors import DiffuseError
from de_core.joint import JointProcess
from de_core.rng import stream
from de_core.times import TimePolicy

__all__ = ["Source", "TensorSource", "TrainResult", "Trainer"]

_HORIZON = 16.0  # averaging weights grow like step^16: the average looks back over about a twentieth of the run


class Source(Protocol):
    """Rows to train on."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Clean rows by index, (B,) int64; what is random about them (augmentation, captions) is drawn from ``rng``."""
        ...


@attrs.frozen(eq=False)
class TensorSource:
    """Rows that lie in memory: name -> (n, *event)."""

    tensors: Mapping[str, Tensor]

    def __attrs_post_init__(self) -> None:
        sizes = {name: len(x) for name, x in self.tensors.items()}
        if len(set(sizes.values())) != 1 or not min(sizes.values()):
            raise DiffuseError(f"training data: expected one number of rows, at least 1, got {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        return {name: x[index] for name, x in self.tensors.items()}


@attrs.frozen(eq=False)
class TrainResult:
    """What a run came to.

    Attributes:
        model: the network with its averaged weights, in evaluation mode.
        steps: taken in all, earlier parts of a resumed run included.
        seconds: likewise.
        curve: one record a logged step: step, seconds, lr, loss, terms.
        interrupted: whether Ctrl-C ended it.
    """

    model: torch.nn.Module
    steps: int
    seconds: float
    curve: list[dict[str, Any]]
    interrupted: bool


class Trainer:
    """Trains one network on one joint process.

    Args:
        joint, model: the process and the network; the network's weights are changed in place.
        steps, minutes: the budget; whichever is reached first, at least one must be given. Warm-up and decay of the
            learning rate are laid out over it.
        batch_size: rows a step, at most as many as there are.
        lr: peak learning rate; it rises linearly over the first ``warmup`` share of the budget and falls to 0 as a
            cosine.
        weight_decay, betas: of AdamW.
        clip: largest gradient norm.
        objective, form, weights, times: as in ``JointProcess.loss``.
        seed: of everything that is drawn.
        out: a directory for ``curve.jsonl`` and, every ``save_every`` seconds and at the end, ``checkpoint/``; None
            keeps nothing.
        on_step: called with each logged record.
        progress: a line on stderr where that is a terminal.
    """

    def __init__(
        self,
        joint: JointProcess,
        model: torch.nn.Module,
        *,
        steps: int | None = None,
        minutes: float | None = None,
        batch_size: int = 256,
        lr: float = 2e-3,
        warmup: float = 0.03,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        clip: float = 1.0,
        objective: str = "simple",
        form: str = "denoising",
        weights: Mapping[str, float] | None = None,
        times: TimePolicy | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        save_every: float = 60.0,
        on_step: Callable[[dict[str, Any]], None] | None = None,
        progress: bool = True,
    ) -> None:
        if steps is None and minutes is None:
            raise DiffuseError("training: expected a budget, steps= or minutes=")
        above = {"steps": steps, "minutes": minutes, "batch_size": batch_size, "lr": lr, "warmup": warmup, "clip": clip}
        for name, value in above.items():
            if value is not None and not value > 0:  # NaN too
                raise DiffuseError(f"training: expected {name} above 0, got {value}")
        if not any(p.requires_grad for p in model.parameters()):
            raise DiffuseError("training: the model has no parameters to train")
        self.joint, self.model = joint, model
        self.steps, self.minutes, self.batch_size = steps, minutes, batch_size
        self.lr, self.warmup, self.clip = lr, warmup, clip
        self.loss = {"objective": objective, "form": form, "weights": weights, "times": times}
        self.seed, self.save_every, self.on_step, self.progress = seed, save_every, on_step, progress
        self.out = None if out is None else Path(out)
        self.average = AveragedModel(model, multi_avg_fn=_power_average)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True
        )
        self.step, self.seconds = 0, 0.0
        self.curve: list[dict[str, Any]] = []

    def fit(self, data: Source | Mapping[str, Tensor]) -> TrainResult:
        """Train until the budget ends or Ctrl-C, and return the averaged network.

        Raises:
            DiffuseError: no rows; data outside the process's spaces; a loss that is not finite.
        """
        source: Source = TensorSource(data) if isinstance(data, Mapping) else data
        if not len(source):
            raise DiffuseError("training data: expected at least 1 row, got 0")
        self.model.train()
        started = time.perf_counter() - self.seconds
        logged, saved, interrupted = -math.inf, time.perf_counter(), False
        batches = self._batches(len(source))
        try:
            while (share := self._share()) < 1:
                record = self._one(source, next(batches), share)
                self.seconds = time.perf_counter() - started
                if self.seconds - logged >= 0.5 or self._share() >= 1:
                    logged = self.seconds
                    self._log(record)
                if self.out is not None and time.perf_counter() - saved > self.save_every:
                    self.save(self.out / "checkpoint")
                    saved = time.perf_counter()
        except KeyboardInterrupt:
            interrupted = True
        if self.progress and sys.stderr.isatty():
            sys.stderr.write("\n")
        if self.out is not None:
            self.save(self.out / "checkpoint")
        model = self.average.module if self.step else self.model
        return TrainResult(model.eval(), self.step, self.seconds, self.curve, interrupted)

    def _share(self) -> float:
        """How much of the budget is used, in [0, 1]."""
        by_steps = self.step / self.steps if self.steps else 0.0
        by_time = self.seconds / (60 * self.minutes) if self.minutes else 0.0
        return max(by_steps, by_time)

    def _batches(self, rows: int) -> Iterator[Tensor]:
        """Row indices of each step, without replacement within an epoch; starts at the present step."""
        size = min(self.batch_size, rows)
        each = rows // size
        while True:
            epoch, k = divmod(self.step, each)
            order = torch.randperm(rows, generator=stream(self.seed, "epoch", epoch))
            for part in range(k, each):
                yield order[part * size : (part + 1) * size]

    def _one(self, source: Source, index: Tensor, share: float) -> dict[str, Any]:
        device = next(self.model.parameters()).device
        rng = stream(self.seed, "step", self.step, device=device)
        x0 = {name: x.to(device) for name, x in source.batch(index, stream(self.seed, "batch", self.step)).items()}
        lr = self.lr * min(1.0, (share + 1e-6) / self.warmup) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.joint.loss(self.model, x0, rng=rng, progress=share, **self.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return {"loss": loss.total, "terms": loss.terms, "lr": lr}

    def _log(self, record: dict[str, Any]) -> None:
        line = {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "lr": record["lr"],
            "loss": float(record["loss"].detach()),
            "terms": {name: float(term.detach().mean()) for name, term in record["terms"].items()},
        }
        self.curve.append(line)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.on_step is not None:
            self.on_step(line)
        if self.progress and sys.stderr.isatty():
            share = min(1.0, self._share())
            bar = "#" * int(30 * share)
            sys.stderr.write(
                f"\r[{bar:<30}] {share:4.0%}  step {self.step}  loss {line['loss']:.4f}  {self.seconds:.0f} s "
            )
            sys.stderr.flush()

    # --- stop and resume --------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the whole state of the run to a directory artifact: weights, averages, optimiser, step, seconds,
        curve."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for k, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{name}": value for name, value in state.items()}
        config = {"kind": "checkpoint", "step": self.step, "seconds": self.seconds, "curve": self.curve}
        save_artifact(path, config, {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same model and optimiser; its curve comes along.

        Raises:
            DiffuseError: not a checkpoint, or one of another architecture.
        """
        artifact = load_artifact(path)
        if artifact.config.get("kind") != "checkpoint":
            raise DiffuseError(
                f"{path}: expected a checkpoint, got an artifact of kind {artifact.config.get('kind')!r}"
            )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for key, value in artifact.tensors.items():
            group, _, rest = key.partition(".")
            groups.setdefault(group, {})[rest] = value
        try:
            self.model.load_state_dict(groups["model"])
            self.average.load_state_dict(groups["average"])
        except RuntimeError as error:
            raise DiffuseError(
                f"{path}: the checkpoint is of another architecture: {str(error).splitlines()[-1].strip()}"
            ) from None
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in groups["optimizer"].items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step, self.seconds = artifact.config["step"], artifact.config["seconds"]
        self.curve = list(artifact.config["curve"])


@torch.no_grad()
def _power_average(
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
