"""The trainer: an optimiser inside a budget of steps or minutes, averaged weights, a loss curve, stop and resume.

Step k draws its batch, clocks and noises from streams of (seed, k) alone, so a run that stops and resumes inside a
budget of steps takes the steps that it would have taken.

Under ``torchrun`` the same code trains on all ranks. Every rank draws and noises the whole batch of a step and works on
its own rows, so that the ranks together take the step of one process, up to the order of float sums. What is done
twice is reading and noising, linear in the batch and small beside a network; a source whose rows are costly to make
should make them once, beforehand.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from de_core.best import Best
from de_core.checkpoint import load_checkpoint, save_checkpoint
from de_core.distributed import World, stops
from de_core.engine import autocast, check_precision, get_strategy, keep_memory, power_average
from de_core.errors import DiffuseError
from de_core.joint import JointProcess
from de_core.modality import Noised
from de_core.optimizer import Optimizer
from de_core.rng import stream
from de_core.source import Source, TensorSource
from de_core.times import TimePolicy

__all__ = ["Source", "TensorSource", "TrainResult", "Trainer"]


@attrs.frozen(eq=False)
class TrainResult:
    """What a run came to.

    Attributes:
        model: the network with its averaged weights, in evaluation mode; the same on every rank.
        steps: taken in all, earlier parts of a resumed run included.
        seconds: likewise.
        curve: one record a logged step: step, seconds, lr, loss, terms.
        interrupted: whether Ctrl-C ended it (on any rank, or SIGTERM, where there are several).
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
        batch_size: rows a step over all ranks, at most as many as there are.
        lr: peak learning rate; it rises linearly over the first ``warmup`` share of the budget and falls to 0 as a
            cosine.
        weight_decay, betas: of AdamW.
        orthogonal: names of submodules, hidden layers, whose matrices go by Muon (``de_core.optimizer``); not under
            "fsdp".
        clip: largest gradient norm.
        objective, form, weights, times: as in ``JointProcess.loss``.
        seed: of everything that is drawn.
        out: a directory for ``curve.jsonl`` and, every ``save_every`` seconds and at the end, ``checkpoint/``; None
            keeps nothing.
        on_step: called with each logged record.
        progress: a line on stderr where that is a terminal.
        accumulate: micro-batches that a rank goes through in a step, one after the other.
        strategy: "ddp", all weights on every rank; or "fsdp", sharded over the ranks, for networks that need it.
            ``model`` then may stay on the CPU: it is given the weights in the end.
        precision: "float32", or "bfloat16" for the network's matrix products.
        compile: whether the network goes through ``torch.compile``.
        held_out: scores the averaged network on rows that it is not trained on, less is better; called twenty times,
            evenly over the budget. ``fit`` then returns the best weights that it saw, not the last. One process.
        patience: how many scores in a row that are no better end the training; None never ends it.

    Under torchrun all ranks make the same trainer and call ``fit``, ``save`` and ``resume`` together; rank 0 keeps the
    clock, writes and reports. Networks that draw in training (dropout) and form "implicit" draw apart on each rank.

    Raises:
        DiffuseError: no budget; a setting out of range; a batch that ranks and micro-batches do not divide; a strategy
            or precision that is unknown or that this machine lacks; a model with nothing to train.
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
        orthogonal: Sequence[str] = (),
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
        accumulate: int = 1,
        strategy: str = "ddp",
        precision: str = "float32",
        compile: bool = False,
        held_out: Callable[[torch.nn.Module], float] | None = None,
        patience: int | None = None,
    ) -> None:
        if steps is None and minutes is None:
            raise DiffuseError("training: expected a budget, steps= or minutes=")
        above = {"steps": steps, "minutes": minutes, "batch_size": batch_size, "lr": lr, "warmup": warmup, "clip": clip}
        above |= {"accumulate": accumulate, "patience": patience}
        for name, value in above.items():
            if value is not None and not value > 0:  # NaN too
                raise DiffuseError(f"training: expected {name} above 0, got {value}")
        if not any(p.requires_grad for p in model.parameters()):
            raise DiffuseError("training: the model has no parameters to train")
        self.world = World.here().start()
        if held_out is not None and self.world.size > 1:
            raise DiffuseError(f"training: held_out= is for one process, here are {self.world.size}")
        if patience is not None and held_out is None:
            raise DiffuseError("training: patience= needs held_out=, which says what is no better")
        self.best = None if held_out is None else Best(held_out, patience)
        self.accumulate = accumulate
        self.batch_size = batch_size
        self._check_rows(batch_size)
        self.strategy = get_strategy(strategy, self.world)
        self.joint, self.given, self.model = joint, model, self.strategy.place(model)
        self.average = AveragedModel(model, multi_avg_fn=power_average)
        self.average.module = self.strategy.place(self.average.module)
        device = next(self.model.parameters()).device
        check_precision(precision, device)
        self.network = torch.compile(self.model) if compile else self.model
        if precision == "bfloat16":
            self.network = autocast(self.network, device)
        self.steps, self.minutes = steps, minutes
        self.lr, self.warmup, self.clip = lr, warmup, clip
        self.loss = {"objective": objective, "form": form, "weights": weights}
        self.times = times
        self.seed, self.save_every, self.on_step, self.progress = seed, save_every, on_step, progress
        self.out = None if out is None else Path(out)
        if orthogonal and strategy != "ddp":
            raise DiffuseError(f"training: orthogonal= takes whole matrices, strategy '{strategy}' cuts them")
        self.optimizer = Optimizer(self.model, lr, betas, weight_decay, orthogonal)
        self.step, self.seconds = 0, 0.0
        self.curve: list[dict[str, Any]] = []

    def fit(self, data: Source | Mapping[str, Tensor]) -> TrainResult:
        """Train until the budget ends or Ctrl-C, and return the averaged network.

        Raises:
            DiffuseError: no rows; data outside the process's spaces; a loss that is not finite; another rank is gone.
        """
        source: Source = TensorSource(data) if isinstance(data, Mapping) else data
        if not len(source):
            raise DiffuseError("training data: expected at least 1 row, got 0")
        size = min(self.batch_size, len(source))
        self._check_rows(size)
        keep_memory()
        self.model.train()
        self.started = time.perf_counter() - self.seconds
        logged, saved, stop = -math.inf, self.seconds, False
        batches = self._batches(len(source))
        try:
            with stops(self.world) as asked:
                while (share := self._share()) < 1 and not stop:
                    record = self._one(source, next(batches), share, bool(asked))
                    stop = record["stop"]
                    if self.best is not None and self.best.tires(self.average.module, self._share()):
                        break
                    if self.seconds - logged >= 0.5 or self._share() >= 1:
                        logged = self.seconds
                        self._log(record)
                    if self.out is not None and self.seconds - saved > self.save_every:
                        saved = self.seconds
                        self.save(self.out / "checkpoint")
        except KeyboardInterrupt:
            stop = True
        if self._shows():
            sys.stderr.write("\n")
        if self.out is not None:
            self.save(self.out / "checkpoint")
        whole = self.strategy.whole(self.model, self.given)
        if self.best is not None:
            self.best.restore(self.average.module)
        model = self.strategy.whole(self.average.module, self.given) if self.step else whole
        if whole is not self.given:
            self.given.load_state_dict(whole.state_dict())
        return TrainResult(model.eval(), self.step, self.seconds, self.curve, stop)

    def _check_rows(self, rows: int) -> None:
        parts = self.world.size * self.accumulate
        if rows % parts:
            raise DiffuseError(
                f"training: expected a batch divisible by ranks x micro-batches, "
                f"{self.world.size} x {self.accumulate}, got {rows} rows"
            )

    def _shows(self) -> bool:
        return self.progress and self.world.rank == 0 and sys.stderr.isatty()

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

    def _one(self, source: Source, index: Tensor, share: float, asked: bool) -> dict[str, Any]:
        device = next(self.model.parameters()).device
        rng = stream(self.seed, "step", self.step, device=device)
        x0 = {name: x.to(device) for name, x in source.batch(index, stream(self.seed, "batch", self.step)).items()}
        lr = self.lr * min(1.0, (share + 1e-6) / self.warmup) * 0.5 * (1 + math.cos(math.pi * share))
        self.optimizer.set_rate(lr)
        self.optimizer.zero_grad()
        means, stop = self._backward(self.joint.noise(x0, rng=rng, times=self.times, progress=share), rng), False
        if self.world.size > 1:
            means, stop = self._agree(means, asked)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        if self.world.size == 1:
            self.seconds = time.perf_counter() - self.started
        return {"means": means, "lr": lr, "stop": stop}

    def _backward(self, noised: dict[str, Noised], rng: torch.Generator) -> Tensor:
        """The gradient of the mean over this rank's rows; returns the means of the loss and of its terms."""
        batch = len(next(iter(noised.values())).xt)
        size = batch // (self.world.size * self.accumulate)
        means = []
        for k in range(self.accumulate):
            part = noised
            if size < batch:
                low = (self.world.rank * self.accumulate + k) * size
                part = {name: n.pick(slice(low, low + size)) for name, n in noised.items()}
                rng = stream(self.seed, "rows", self.step, low, device=rng.device)
            self.strategy.sync(self.model, k == self.accumulate - 1)
            loss = self.joint.loss(self.network, part, rng=rng, **self.loss)
            (loss.total / self.accumulate).backward()
            terms = [loss.terms[name].detach().mean() for name in self.joint.modalities]
            means.append(torch.stack([loss.total.detach(), *terms]))
        return torch.stack(means).mean(0)

    def _agree(self, means: Tensor, asked: bool) -> tuple[Tensor, bool]:
        """Average the gradients and ``means`` over the ranks, take over the clock of rank 0, and stop if one must."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        clock = time.perf_counter() - self.started if self.world.rank == 0 else 0.0
        mine = [clock, asked, *(p.grad is not None for p in parameters)]
        told = self.world.sum(torch.cat([means.new_tensor(mine, dtype=torch.float64), means.double()]))
        self.seconds, stop, *used = told[: len(mine)].tolist()
        self.strategy.reduce([p for p, count in zip(parameters, used, strict=True) if count])
        return told[len(mine) :] / self.world.size, stop > 0

    def _log(self, record: dict[str, Any]) -> None:
        loss, *terms = record["means"].tolist()
        line = {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "lr": record["lr"],
            "loss": loss,
            "terms": dict(zip(self.joint.modalities, terms, strict=True)),
        }
        self.curve.append(line)
        if self.world.rank:
            return
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / "curve.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.on_step is not None:
            self.on_step(line)
        if self._shows():
            share = min(1.0, self._share())
            bar = "#" * int(30 * share)
            sys.stderr.write(
                f"\r[{bar:<30}] {share:4.0%}  step {self.step}  loss {line['loss']:.4f}  {self.seconds:.0f} s "
            )
            sys.stderr.flush()

    # --- stop and resume --------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the whole state of the run to a directory artifact: weights, averages, optimiser, step, seconds,
        curve. Under torchrun by all ranks together."""
        tensors = self._weights()
        for k, state in self.optimizer.state().items():
            tensors |= {f"optimizer.{k}.{name}": value for name, value in state.items()}
        config = {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        save_checkpoint(path, config, tensors, self.world)

    def _weights(self) -> dict[str, Tensor]:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return tensors | {f"average.{k}": v for k, v in self.average.state_dict().items()}

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of the same model and optimiser, of any number of ranks and either strategy; its
        curve comes along.

        Raises:
            DiffuseError: not a checkpoint, or one of another architecture.
        """
        present, parameters = self._weights(), [*self.model.parameters()]

        def like(name: str) -> Tensor | None:
            group, _, rest = name.partition(".")
            index = rest.partition(".")[0]
            if group != "optimizer":
                return present.get(name)
            return parameters[int(index)] if int(index) < len(parameters) else None

        config, tensors = load_checkpoint(path, like)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
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
        self.optimizer.load_state(state)
        self.step, self.seconds, self.curve = config["step"], config["seconds"], list(config["curve"])
