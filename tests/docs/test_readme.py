"""The README's code runs as it stands: every Python block, on stand-ins for the reader's own data."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from de_core import JointProcess, get_modality
from de_core.hookspecs import ModalityInfo
from de_core.plugins import unregister
from de_core.testing import check_modality

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text(), re.S)


def test_there_are_three_blocks():
    assert len(BLOCKS) == 3


def test_anything_given_anything():
    shapes = {"image": (1, 8, 8), "caption": (6, 27)}

    def model(x, t):
        return {name: torch.zeros(len(x[name]), *shape) for name, shape in shapes.items()}

    g = torch.Generator().manual_seed(0)
    image, tokens = torch.randn(16, 1, 8, 8, generator=g), torch.randint(27, (16, 6), generator=g)
    upper_half = torch.zeros(1, 8, 8, dtype=torch.bool)
    upper_half[:, :4] = True
    noisy = torch.where(torch.rand(16, 6, generator=g) < 0.4, 27, tokens)
    space = {"model": model, "x0": {"image": image, "caption": tokens}, "tokens": tokens, "noisy": noisy}
    space |= {"image": image, "upper_half": upper_half}
    exec(BLOCKS[0], space)
    assert torch.equal(space["terms"].total, sum(term.mean() for term in space["terms"].terms.values()))
    assert torch.equal(space["x"]["caption"], tokens)
    assert space["b"].total.shape == (16,)


def test_table():
    pd = pytest.importorskip("pandas")
    people = pd.DataFrame(
        {"age": [20, 31, 45, 52] * 8, "sex": ["Female", "Male"] * 16, "pay": [1.5, 2.25, 8.0, 4.125] * 8}
    )
    space = {"people": people}
    exec(BLOCKS[1].replace("minutes=5", "minutes=0.01"), space)
    fake = space["fake"]
    assert list(fake.columns) == list(people.columns)
    assert (fake.dtypes == people.dtypes).all()
    assert len(fake) == len(people)


def test_a_modality_of_your_own():
    """The plugin of the README is found by its name, trains jointly with a built-in, and samples inside its space."""
    module = types.ModuleType("readme_angle")
    sys.modules["readme_angle"] = module
    try:
        exec(BLOCKS[2], module.__dict__)
        angle = get_modality("angle")((2,))
        joint = JointProcess({"angle": angle, "label": get_modality("uniform")((), num_classes=3)})
        net = torch.nn.Linear(4, 5)

        def model(x, t):
            both = torch.cat([x["angle"].cos(), x["angle"].sin()], 1)
            out = net(both)
            return {"angle": out[:, :2], "label": out[:, 2:]}

        x0 = {"angle": torch.rand(8, 2) * 6, "label": torch.arange(8) % 3}
        loss = joint.loss(model, x0, rng=0)
        loss.total.backward()
        assert net.weight.grad.abs().sum() > 0
        x = joint.sample(model, 5, rng=0, steps=6)["angle"]
        assert ((x >= 0) & (x <= 2 * torch.pi)).all()
        # its score is the gradient of the log of the wrapped normal law, by central differences: h^2 times a third
        # derivative of about 1/v^{3/2} = 1 here, so 1e-6 at h = 1e-4 leaves a wide margin over 1e-8 and rounding
        t, a, b = (
            torch.tensor([0.25]).double(),
            torch.tensor([[0.3, 2.0]]).double(),
            torch.tensor([[6.1, 1.0]]).double(),
        )
        turns = 2 * torch.pi * torch.arange(-9, 10)

        def log_density(x):
            return torch.logsumexp(-(((x - b)[..., None] + turns) ** 2) / (2 * 16 * 0.25**2), -1).sum()

        numeric = torch.stack(
            [(log_density(a + d) - log_density(a - d)) / 2e-4 for d in 1e-4 * torch.eye(2, dtype=torch.float64)]
        )
        score = angle.conditional_score(types.SimpleNamespace(xt=a, x0=b, t=t))
        assert torch.allclose(score[0], numeric, atol=1e-6)
        report = check_modality(angle, torch.rand(64, 2) * 6)
        assert report.ok, report.failed
    finally:
        del sys.modules["readme_angle"]
        unregister(ModalityInfo(name="angle", target="readme_angle:Angle"))
