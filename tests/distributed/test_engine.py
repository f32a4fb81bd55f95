"""The engine on one process: environment, micro-batches, precision, compilation, broken checkpoints, shared samples."""

import json

import pytest
import torch

from de_core import DiffuseError, JointProcess, get_modality
from de_core import engine as engine_module
from de_core.distributed import World
from de_core.sampling import load_samples, sample_shards
from de_core.train import Trainer

JOINT = JointProcess({"x": get_modality("gaussian")((2,))}, block=4)
ROWS = {"x": torch.randn(64, 2, generator=torch.Generator().manual_seed(0))}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 16), torch.nn.Linear(16, 2)

    def forward(self, x, t):
        return {"x": self.last(torch.nn.functional.silu(self.first(torch.cat([x["x"], t["x"][:, None]], 1))))}


def fit(**settings):
    torch.manual_seed(0)
    trainer = Trainer(JOINT, Net(), **{"steps": 5, "batch_size": 16, "progress": False, **settings})
    return trainer, trainer.fit(ROWS)


def test_the_world_is_what_torchrun_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (World.here().rank, World.here().size) == (0, 1)
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert (World.here().rank, World.here().size) == (3, 4)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_an_environment_that_is_none(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(DiffuseError, match=f"expected 0 <= RANK < WORLD_SIZE, got RANK={rank}, WORLD_SIZE={size}"):
        World.here()


def test_micro_batches_are_the_batch():
    """Float32 sums of 16 rows in another order, 1e-7 relative, through five steps of Adam at a rate of at most 1e-2,
    each of which moves a weight by at most the rate whatever the gradient: 1e-4 is 1 % of one step, another draw moves
    by whole ones."""
    (_, whole), (_, parts) = fit(lr=1e-2), fit(lr=1e-2, accumulate=4)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert abs(whole.curve[-1]["loss"] - parts.curve[-1]["loss"]) < 1e-5


def test_noise_may_be_drawn_first():
    """``loss`` of what ``noise`` drew is ``loss`` of the rows, and rows of a draw have the terms of their own."""
    torch.manual_seed(0)
    model, rng = Net(), torch.Generator().manual_seed(4)
    noised = JOINT.noise(ROWS, rng=rng)
    once = JOINT.loss(model, ROWS, rng=torch.Generator().manual_seed(4))
    assert torch.equal(once.total, JOINT.loss(model, noised, rng=rng).total)
    part = JOINT.loss(model, {"x": noised["x"].pick(slice(8, 24))}, rng=rng)
    assert torch.allclose(part.terms["x"], once.terms["x"][8:24], rtol=1e-5)
    assert torch.equal(part.times["x"], once.times["x"][8:24])


def test_bfloat16_is_the_networks_alone(monkeypatch):
    """Its products are off by 2^-9 relative each, the loss of 64 rows by about as much; weights and moments stay in
    float32."""
    monkeypatch.setattr(engine_module, "_has_bfloat16", lambda device: True)
    (trainer, short), (_, full) = fit(precision="bfloat16", batch_size=64), fit(batch_size=64)
    assert {p.dtype for p in short.model.parameters()} == {torch.float32}
    found, expected = short.curve[0]["loss"], full.curve[0]["loss"]
    assert found != expected
    assert abs(found - expected) < 2**-7 * expected
    seen = trainer.network({"x": ROWS["x"]}, {"x": torch.full((64,), 0.5)})["x"]
    assert seen.dtype == torch.float32
    assert torch.equal(seen, seen.bfloat16().float())


def test_bfloat16_where_there_is_none(monkeypatch):
    monkeypatch.setattr(engine_module, "_has_bfloat16", lambda device: False)
    with pytest.raises(DiffuseError, match="precision 'bfloat16': the device cpu has no arithmetic for it"):
        fit(precision="bfloat16")


def test_compile_trains_the_same_weights(monkeypatch):
    """The compiled call is used, and its weights are the model's, under the model's names."""
    calls = []

    def compiled(module):
        def call(x, t):
            calls.append(1)
            return module(x, t)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    (trainer, result), (_, plain) = fit(compile=True), fit()
    assert len(calls) == 5
    assert trainer._weights().keys() == fit()[0]._weights().keys()
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), plain.model.parameters(), strict=True))


@pytest.mark.slow
def test_a_compiled_network_trains():
    (_, result), (_, plain) = fit(compile=True), fit()
    for a, b in zip(result.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accumulate": 0}, "expected accumulate above 0, got 0"),
        ({"accumulate": 3}, "divisible by ranks x micro-batches, 1 x 3, got 16 rows"),
        ({"accumulate": 5, "batch_size": 100}, "1 x 5, got 64 rows"),  # there are no more
        ({"strategy": "deepspeed"}, "unknown strategy 'deepspeed'; there are ddp, fsdp"),
        ({"precision": "float16"}, "unknown precision 'float16'; there are float32, bfloat16"),
    ],
)
def test_settings_that_are_none(settings, words):
    with pytest.raises(DiffuseError, match=words):
        fit(**settings)


def test_shards_of_a_checkpoint_that_are_missing_or_damaged(tmp_path):
    trainer, _ = fit(strategy="fsdp")  # alone, so whole
    trainer.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps({**config, "shards": ["one.safetensors"]}))
    with pytest.raises(DiffuseError, match=r"expected the file shards/one.safetensors, it is missing"):
        trainer.resume(tmp_path / "saved")
    (tmp_path / "saved" / "shards").mkdir()
    (tmp_path / "saved" / "shards" / "one.safetensors").write_bytes(b"no shard at all")
    with pytest.raises(DiffuseError, match="shards are damaged"):
        trainer.resume(tmp_path / "saved")


def test_shared_samples(tmp_path):
    """Three ranks for two blocks: one has nothing to do. A gap is no sample."""
    torch.manual_seed(0)
    net = Net()
    files = [sample_shards(JOINT, net, 7, out=tmp_path, rng=3, steps=2, world=World(rank, 3)) for rank in (2, 0, 1)]
    assert sum(file is None for file in files) == 1
    whole = JOINT.sample(net, 7, rng=3, steps=2)["x"]
    assert torch.equal(load_samples(tmp_path)["x"], whole)
    first = min(tmp_path.iterdir())
    first.unlink()
    with pytest.raises(DiffuseError, match="expected a file that starts at row 0, got rows-000000000004-000000000007"):
        load_samples(tmp_path)
    first.write_bytes(b"?")
    with pytest.raises(DiffuseError, match="the file is damaged"):
        load_samples(tmp_path)
    with pytest.raises(DiffuseError, match="expected files of rows, there are none"):
        load_samples(tmp_path / "nowhere")
    with pytest.raises(DiffuseError, match="modality 'x'"):  # refused whole, also by a rank whose rows would fit
        sample_shards(JOINT, net, 7, out=tmp_path, rng=3, given={"x": whole[:4]}, world=World(0, 3))


def test_the_quick_precision_is_that_of_the_units_there_are(monkeypatch):
    monkeypatch.setattr(engine_module, "_has_bfloat16", lambda device: True)
    for able, wanted in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able}, raising=False)
        assert engine_module.quick_precision() == wanted
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert engine_module.quick_precision() == "float32"
