"""The transformer: shapes, what sees what, freezing, counts, recomputation, ports."""

import pytest
import torch

from de_core import JointProcess, get_modality
from de_core.errors import DiffuseError
from de_plugins.text_image.blocks import Block, modulated
from de_plugins.text_image.mmdit import SIZES, MMDiT, Size
from de_plugins.text_image.precondition import NormalVelocity

SMALL = Size(16, 2, 8, 2, 1, 16)


def process(**more):
    return JointProcess(
        {
            "image": get_modality("gaussian")((3, 8, 8)),
            "text": get_modality("masked")((5,), num_classes=7),
            **more,
        }
    )


def rows(joint, n=3, seed=0):
    x = {name: m.prior(n, rng=seed) for name, m in joint.modalities.items()}
    return x, {name: torch.linspace(0.1, 0.9, n) for name in x}


def awake(model):
    """A fresh network is the identity plus silence; this one answers."""
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model.eval()


@pytest.mark.parametrize("own", [0, 1])
def test_blocks_alone_are_named_for_muon(own):
    model = MMDiT(process(), Size(16, 2, 8, 2, own, 16))
    named = {n for n, _ in model.named_parameters() if n.startswith(tuple(f"{part}." for part in model.orthogonal))}
    assert named == {n for n, _ in model.named_parameters() if ".blocks." in n}
    assert len(model.orthogonal) == 1 + 2 * own


def test_answers_for_each_modality_in_its_own_shape():
    joint = process(
        label=get_modality("uniform")((), num_classes=4),
        shares=get_modality("simplex")((3,)),
        number=get_modality("gaussian")((2,)),
    )
    x, t = rows(joint)
    out = awake(MMDiT(joint, SMALL))(x, t)
    assert {name: tuple(o.shape[1:]) for name, o in out.items()} == {
        name: tuple(m.output_shape) for name, m in joint.modalities.items()
    }
    loss = joint.loss(awake(MMDiT(joint, SMALL)), {**x, "text": torch.zeros(3, 5, dtype=torch.long)}, rng=0)
    assert loss.total.isfinite()


@pytest.mark.parametrize("changed", ["image", "text"])
def test_every_answer_sees_every_state_and_every_clock(changed):
    joint = process()
    model, (x, t) = awake(MMDiT(joint, SMALL)), rows(process())
    before = model(x, t)
    other = dict(x)
    other[changed] = x["image"] + 1 if changed == "image" else (x["text"] + 1) % 7
    after, late = model(other, t), model(x, {**t, changed: t[changed] / 2})
    for name in joint.modalities:
        assert not torch.allclose(before[name], after[name], atol=1e-4), name
        assert not torch.allclose(before[name], late[name], atol=1e-4), name


def test_rows_do_not_see_each_other():
    joint = process()
    model, (x, t) = awake(MMDiT(joint, SMALL)), rows(process())
    whole = model(x, t)
    alone = model({k: v[1:2] for k, v in x.items()}, {k: v[1:2] for k, v in t.items()})
    for name in whole:
        assert torch.allclose(whole[name][1:2], alone[name], atol=1e-4)


def test_a_block_is_attention_over_all_tokens():
    """Against softmax(q k'/sqrt d) v written out, two modalities with weights of their own."""
    torch.manual_seed(0)
    block = Block(2, 12, 3, 4).double()
    tokens = [torch.randn(2, n, 12, dtype=torch.float64) for n in (4, 3)]
    modulations = [[torch.randn(2, 1, 12, dtype=torch.float64) for _ in range(6)] for _ in tokens]
    q, k, v = (
        torch.cat(
            [
                stream.mix(modulated(h, m[0], m[1])).unflatten(-1, (3, 3, 4))[:, :, j]
                for stream, h, m in zip(block.streams, tokens, modulations, strict=True)
            ],
            1,
        )
        for j in range(3)
    )
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / 2).softmax(-1)
    seen = torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2).split([4, 3], 1)
    for stream, h, m, part, got in zip(
        block.streams, tokens, modulations, seen, block(tokens, modulations), strict=True
    ):
        want = h + m[2] * stream.join(part)
        inner = torch.nn.functional.gelu(stream.up(modulated(want, m[3], m[4])))
        want = want + m[5] * stream.down(inner)
        assert torch.allclose(got, want, atol=1e-12)


def test_a_fresh_network_is_silent():
    joint = process()
    x, t = rows(joint)
    assert torch.equal(MMDiT(joint, SMALL)(x, t)["image"], torch.zeros_like(x["image"]))


def test_recomputed_activations_give_the_same_gradients():
    joint = process()
    x0 = {"image": torch.randn(4, 3, 8, 8), "text": torch.randint(7, (4, 5))}
    grads = []
    for recompute in (False, True):
        model = awake(MMDiT(joint, SMALL, recompute=recompute)).train()
        joint.loss(model, x0, rng=1).total.backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_frozen_holds_still_and_the_rest_learns():
    joint = process()
    model = MMDiT(joint, SMALL)
    model.freeze(["joint", "image"])
    learning = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad
    }
    assert learning == {"own.text"}
    model.freeze([])
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(DiffuseError, match="nothing would be trained"):
        model.freeze(["joint", "image", "text"])
    with pytest.raises(DiffuseError, match="no part 'sound'"):
        model.freeze(["sound"])


def test_counts_add_up_and_the_papers_blocks_have_its_size():
    """481M in the blocks, embeddings of words and patches beside them (THEORY 6.3, from a secondary summary)."""
    joint = JointProcess(
        {
            "image": get_modality("gaussian")((4, 32, 32)),
            "text": get_modality("masked")((120,), num_classes=49_408),
        }
    )
    with torch.device("meta"):
        model = MMDiT(joint, "paper")
    counts = model.parameter_counts()
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    core = sum(n for part, n in counts.items() if "embeddings" not in part)
    assert abs(core / 481e6 - 1) < 0.02
    assert len(SIZES) >= 5


def test_what_it_refuses():
    joint = process()
    with pytest.raises(DiffuseError, match="size: expected one of tiny"):
        MMDiT(joint, "huge")
    with pytest.raises(DiffuseError, match="'image': patches of 3 do not tile a picture of 8 x 8"):
        MMDiT(joint, SMALL, patch=3)
    with pytest.raises(DiffuseError, match=r"'image': expected pictures of shape \(3, 8, 8\), got \(3, 4, 4\)"):
        MMDiT(joint, SMALL, pictures={"image": torch.zeros(5, 3, 4, 4)})
    with pytest.raises(DiffuseError, match="one clock a sample"):
        MMDiT(JointProcess(joint.modalities, elementwise=["image"]), SMALL)


def test_the_normal_velocity_is_that_of_a_normal_law():
    """E[v | x_t] = alpha E[eps | x_t] - sigma E[x_0 | x_t] for x_0 ~ N(m, s^2), by the joint normal of (x_0, eps)."""
    torch.manual_seed(1)
    pictures = 0.3 + 0.5 * torch.randn(4000, 1, 2, 2)
    layer = NormalVelocity((1, 2, 2), pictures).double()
    x, t = torch.randn(6, 1, 2, 2, dtype=torch.float64), torch.linspace(0.05, 0.95, 6)
    alpha, sigma = (f(t.double() * torch.pi / 2).reshape(-1, 1, 1, 1) for f in (torch.cos, torch.sin))
    m, s2 = layer.mean, layer.spread**2
    gap = (x - alpha * m) / (alpha**2 * s2 + sigma**2)
    want = alpha * sigma * gap - sigma * (m + alpha * s2 * gap)
    assert torch.allclose(layer(x, t, torch.zeros_like(x)), want, atol=1e-6)  # its times are float32


def test_attention_in_bfloat16_is_that_of_float32_rounded():
    """Outputs and gradients; a product rounded to 8 bits errs by 2^-9 of it, some hundreds of them by a few percent."""
    block = Block(1, 32, 2, 16)
    tokens, modulations = [torch.randn(3, 5, 32)], [[torch.randn(3, 1, 32) for _ in range(6)]]
    (full,) = block(tokens, modulations)
    with torch.autocast("cpu", torch.bfloat16):
        (short,) = block(tokens, modulations)
    assert float(((short - full).norm() / full.norm()).detach()) < 0.05
    weight = block.streams[0].mix.weight
    grads = [torch.autograd.grad(out.float().sum(), weight)[0] for out in (full, short)]
    assert float((grads[1] - grads[0]).norm() / grads[0].norm()) < 0.05
