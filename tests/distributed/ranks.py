"""What the tests run on several ranks: ``ranks.py OUT TASKS``, TASKS a JSON list of [name, task, settings].

Rank k leaves ``OUT/name/rank<k>.json`` and ``.safetensors``. In float64, so that only the order of sums is left."""

import json
import os
import signal
import sys
from pathlib import Path

import safetensors.torch
import torch

from de_core import DiffuseError, JointProcess, get_modality
from de_core.distributed import World
from de_core.sampling import Given, sample_shards
from de_core.train import Trainer

JOINT = JointProcess(
    {"x": get_modality("gaussian")((3,)), "c": get_modality("masked")((4,), 5), "s": get_modality("simplex")((3,))},
    block=8,
)


class Block(torch.nn.Module):
    """With a list of its own, whose parts are not called."""

    def __init__(self, width):
        super().__init__()
        self.parts = torch.nn.ModuleList([torch.nn.Linear(width, width)])

    def forward(self, h):
        return h + torch.nn.functional.silu(torch.nn.functional.linear(h, self.parts[0].weight, self.parts[0].bias))


class Net(torch.nn.Module):
    """Widths that two ranks do not divide, a part that stands still, and one that nobody uses."""

    def __init__(self, width=9):
        super().__init__()
        self.first = torch.nn.Linear(3 + 20 + 3 + 3, width)
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range(3))
        self.last = torch.nn.Linear(width, 3 + 20 + 3)
        self.blocks[1].requires_grad_(False)
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, x, t):
        words = torch.nn.functional.one_hot(x["c"], 6)[..., :5].flatten(1).to(x["x"])
        h = self.first(torch.cat([x["x"], words, x["s"], torch.stack([t["x"], t["c"].to(x["x"]), t["s"]], 1)], 1))
        for block in self.blocks:
            h = block(h)
        a, b, c = self.last(h).split([3, 20, 3], 1)
        return {"x": a.clone(), "c": b.unflatten(1, (4, 5)).clone(), "s": c.clone()}


class Augmented:
    """Rows with something random about them."""

    def __init__(self, n=64):
        rng = torch.Generator().manual_seed(3)
        shares = torch.rand(n, 3, generator=rng, dtype=torch.float64) + 0.1
        self.rows = {
            "x": torch.randn(n, 3, generator=rng, dtype=torch.float64),
            "c": torch.randint(5, (n, 4), generator=rng),
            "s": shares / shares.sum(1, keepdim=True),
        }

    def __len__(self):
        return len(self.rows["x"])

    def batch(self, index, rng):
        rows = {name: x[index] for name, x in self.rows.items()}
        return {**rows, "x": rows["x"] + torch.randn(rows["x"].shape, generator=rng, dtype=torch.float64)}


def net(seed=0):
    torch.manual_seed(seed)
    return Net().double()


def trainer_of(seed=0, **settings):
    """No clipping: Adam hardly sees the scale of gradients, its moments do."""
    common = {"batch_size": 16, "lr": 1e-2, "weight_decay": 0.1, "clip": 1e9, "seed": 1, "progress": False}
    return Trainer(JOINT, net(seed), **{**common, **settings})


def fit(out, world, *, checkpoint=None, killed=None, asked=None, **settings):
    """Rank k starts from other weights: those of rank 0 count. Rank 1 is killed, or asked to stop, before a step."""
    trainer = trainer_of(world.rank, **settings, out=out / "run", save_every=0.0 if killed else 60.0)
    if checkpoint:
        trainer.resume(checkpoint)
    batches = trainer._batches

    def dies(rows):
        for index in batches(rows):
            for step, sign in ((killed, signal.SIGKILL), (asked, signal.SIGINT)):
                if world.rank == 1 and trainer.step == step:
                    os.kill(os.getpid(), sign)
            yield index

    trainer._batches = dies
    result = trainer.fit(Augmented())
    trainer.save(out / "saved")
    tensors = {f"model.{k}": v for k, v in trainer.given.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in result.model.state_dict().items()}
    safetensors.torch.save_file(tensors, out / f"rank{world.rank}.safetensors")
    return {"losses": [line["loss"] for line in result.curve], "steps": result.steps, "asked": result.interrupted}


def sample(out, world, *, n=37):
    """A part of x is known row by row, at a level of its own."""
    file = sample_shards(JOINT, net(), n, out=out / "rows", rng=11, given=conditions(n), steps=4)
    return {"file": file and file.name}


def conditions(n):
    rows = Augmented(n).rows
    known = torch.rand(n, 3, generator=torch.Generator().manual_seed(5)) < 0.4
    return {"x": Given(rows["x"], 0.0, known), "s": rows["s"]}


def refused(out, world, **settings):
    try:
        trainer_of(**{"steps": 1, **settings}).fit(Augmented())
    except DiffuseError as error:
        return {"error": str(error)}
    return {}


TASKS = {"fit": fit, "sample": sample, "refused": refused}


def main(folder, tasks):
    torch.set_num_threads(1)
    with World.here() as world:
        for name, task, settings in json.loads(tasks):
            out = Path(folder) / name
            out.mkdir(parents=True, exist_ok=True)
            facts = TASKS[task](out, world, **settings)
            (out / f"rank{world.rank}.json").write_text(json.dumps(facts))
    running = [place.read_text().strip() for place in Path("/proc/self/task").glob("*/comm")]
    (Path(folder) / f"threads{world.rank}.json").write_text(json.dumps(running))


if __name__ == "__main__":
    main(*sys.argv[1:])
