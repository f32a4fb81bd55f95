"""Two ranks are one: losses, weights, moments, samples; ways to stop; checkpoints from one world to another.

Everything is in float64. What is left is the order of sums, some 1e-17 of a gradient, which Adam divides by at least
eps = 1e-8: at a learning rate of 1e-2 that is 1e-11 a step. 1e-9 is a hundred times the twelve steps' sum; a step that
summed gradients over ranks, or drew one row otherwise, is off by 1e-3 and more.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from de_core.distributed import World
from de_core.sampling import load_samples

HERE = Path(__file__).parent
SPEC = importlib.util.spec_from_file_location("ranks", HERE / "ranks.py")
ranks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ranks)

TOLERANCE = 1e-9
STEPS = 12


def tasks(out):
    steps = {"steps": STEPS}
    return [
        ["ddp", "fit", steps],
        ["accumulated", "fit", {**steps, "accumulate": 2}],
        ["fsdp", "fit", {**steps, "accumulate": 4, "strategy": "fsdp"}],
        ["ddp asked", "fit", {**steps, "asked": 5}],
        ["fsdp asked", "fit", {**steps, "asked": 5, "strategy": "fsdp"}],
        ["ddp to fsdp", "fit", {**steps, "strategy": "fsdp", "checkpoint": f"{out}/ddp asked/saved"}],
        ["fsdp to ddp", "fit", {**steps, "checkpoint": f"{out}/fsdp asked/saved"}],
        ["minutes", "fit", {"minutes": 0.002}],
        ["sample", "sample", {}],
        ["odd batch", "refused", {"batch_size": 15}],
        ["odd parts", "refused", {"accumulate": 3}],
        ["strategy", "refused", {"strategy": "zero"}],
        ["precision", "refused", {"precision": "float8"}],
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """All tasks, in one pair of processes under torchrun."""
    folder = tmp_path_factory.mktemp("ranks")
    run(folder, tasks(folder))
    return folder


def run(folder, work):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(HERE / "ranks.py"), str(folder), json.dumps(work)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("one")
    facts = ranks.fit(folder, World(), steps=STEPS)
    return facts, state(folder), safetensors.torch.load_file(folder / "rank0.safetensors")


def state(folder):
    """Of a checkpoint, as one process reads it: weights, averages, moments."""
    trainer = ranks.trainer_of(5, steps=STEPS)
    trainer.resume(folder / "saved")
    moments = trainer.optimizer.state()
    return trainer._weights() | {f"{k}.{name}": x for k, found in moments.items() for name, x in found.items()}


def facts(out, name, rank=0):
    return json.loads((out / name / f"rank{rank}.json").read_text())


def distance(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


@pytest.mark.parametrize("name", ["ddp", "accumulated", "fsdp", "ddp to fsdp", "fsdp to ddp"])
def test_two_ranks_are_one(out, one, name):
    """Also in micro-batches, sharded, and resumed from a checkpoint of the other strategy."""
    told, whole, weights = one
    assert facts(out, name)["steps"] == told["steps"] == STEPS
    assert abs(facts(out, name)["losses"][-1] - told["losses"][-1]) < TOLERANCE
    assert distance(state(out / name), whole) < TOLERANCE
    for rank in (0, 1):
        assert distance(safetensors.torch.load_file(out / name / f"rank{rank}.safetensors"), weights) < TOLERANCE


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the threads of a process are read from Linux's /proc")
def test_the_groups_threads_end_with_the_group(out):
    """After training with all strategies; none runs on while the interpreter goes down."""
    for rank in (0, 1):
        running = json.loads((out / f"threads{rank}.json").read_text())
        assert running
        assert not [name for name in running if "gloo" in name]


def test_the_ranks_hold_the_same_bits(out):
    for name in ("ddp", "fsdp"):
        a, b = (safetensors.torch.load_file(out / name / f"rank{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_moments_and_shards_are_there(out, one):
    """So that the comparison above is one of gradients' scale too; frozen and unused parts have none."""
    learned = [
        k for k, (name, _) in enumerate(ranks.net().named_parameters()) if name[:8] not in ("blocks.1", "unused.w")
    ]
    assert {f"{k}.exp_avg" for k in learned if k < 10} == {k for k in one[1] if k.endswith("exp_avg")}
    assert len(list((out / "fsdp" / "saved" / "shards").glob("*.safetensors"))) == 2
    assert not list(out.rglob("*.pt")) + list(out.rglob(".metadata"))
    assert (out / "ddp" / "run" / "curve.jsonl").read_text().count("\n") == len(facts(out, "ddp")["losses"])


@pytest.mark.parametrize("name", ["ddp asked", "fsdp asked"])
def test_ctrl_c_on_one_rank_stops_both_and_one_process_goes_on(out, one, name, tmp_path):
    for rank in (0, 1):
        assert facts(out, name, rank)["asked"]
        assert facts(out, name, rank)["steps"] == 6  # the step that it was asked in is the last
    ranks.fit(tmp_path, World(), steps=STEPS, checkpoint=out / name / "saved")
    assert distance(state(tmp_path), one[1]) < TOLERANCE


def test_rank_0_keeps_the_clock(out):
    assert facts(out, "minutes", 0)["steps"] == facts(out, "minutes", 1)["steps"] > 1


def test_samples_are_those_of_one_process(out):
    """37 rows are five blocks: two for rank 0, three for rank 1."""
    rows = load_samples(out / "sample" / "rows")
    whole = ranks.JOINT.sample(ranks.net(), 37, rng=11, given=ranks.conditions(37), steps=4)
    assert all(torch.equal(rows[name], whole[name]) for name in whole)
    assert facts(out, "sample", 0)["file"].endswith("000000-000000000016.safetensors")
    assert facts(out, "sample", 1)["file"].endswith("000016-000000000037.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd batch", "divisible by ranks x micro-batches, 2 x 1, got 15 rows"),
        ("odd parts", "divisible by ranks x micro-batches, 2 x 3, got 16 rows"),
        ("strategy", "unknown strategy 'zero'; there are ddp, fsdp"),
        ("precision", "unknown precision 'float8'; there are float32, bfloat16"),
    ],
)
def test_settings_that_are_none(out, name, words):
    for rank in (0, 1):
        assert words in facts(out, name, rank)["error"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_rank_leaves_a_checkpoint(one, strategy, tmp_path):
    """SIGKILL for rank 1 before its seventh step; rank 0 ends too, and one process goes on from step 6."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = {"steps": STEPS, "killed": 6, "strategy": strategy}
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "ranks.py"), str(tmp_path), json.dumps([["killed", "fit", run]])]
    pair = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(k)}, stderr=subprocess.PIPE, text=True)
        for k in (0, 1)
    ]
    said = [process.communicate(timeout=120)[1] for process in pair]
    assert pair[1].returncode == -9, said[1]
    assert pair[0].returncode == 1
    checkpoint = tmp_path / "killed" / "run" / "checkpoint"
    if strategy == "ddp":  # fully_shard talks to the other rank in the network's own forward pass, and torch says it
        assert "DiffuseError: rank 0: another process of the run is gone" in said[0]
    assert json.loads((checkpoint / "config.json").read_text())["step"] == 6
    ranks.fit(tmp_path, World(), steps=STEPS, checkpoint=checkpoint)
    assert distance(state(tmp_path), one[1]) < TOLERANCE
