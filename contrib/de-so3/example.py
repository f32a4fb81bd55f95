"""A rotation and a label, learnt jointly and sampled any-to-any.

    python example.py

Label 0 lies around the identity; label 1 along the turns about the z axis by 45 degrees and more; label 2 around the
half turns about x and y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

__all__ = ["Network", "centres", "log_law", "process", "simulate", "train"]

SHARES = (0.3, 0.4, 0.3)
BLUR = 0.5  # of the so3 clock: the data are the centres, noised up to here, 0.17 rad an axis


def centres() -> tuple[Tensor, Tensor]:
    """Rotations (n, 3, 3) and labels (n,); those of one label are equally likely."""
    angle = torch.linspace(math.pi / 4, 7 * math.pi / 4, 36)
    turns = torch.zeros(36, 3, 3)
    turns[:, 0, 0] = turns[:, 1, 1] = angle.cos()
    turns[:, 1, 0], turns[:, 0, 1], turns[:, 2, 2] = angle.sin(), -angle.sin(), 1.0
    half = torch.diag_embed(torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]]))
    return torch.cat([torch.eye(3)[None], turns, half]), torch.tensor([0] + 36 * [1] + 2 * [2])


def simulate(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """``n`` draws: "rotation" (n, 3, 3), "label" (n,) int64."""
    places, labels = centres()
    weight = torch.tensor(SHARES)[labels] / labels.bincount()[labels]
    pick = torch.multinomial(weight, n, replacement=True, generator=rng)
    return {"rotation": process().modalities["rotation"].perturb(places[pick], BLUR, rng=rng).xt, "label": labels[pick]}


def log_law(x: Tensor) -> Tensor:
    """log p(rotation, label), (n, 3), exact, against volume."""
    so3, (places, labels) = process().modalities["rotation"], centres()
    blur = torch.full((len(x),), BLUR)
    parts = torch.stack([so3.log_transition(x, c.expand_as(x), blur) for c in places], 1)
    each = [parts[:, labels == k].logsumexp(1) - math.log(int((labels == k).sum())) for k in range(len(SHARES))]
    return torch.stack(each, 1) + torch.tensor(SHARES).log()


def process() -> JointProcess:
    """The rotation and the label."""
    spaces = {"rotation": get_modality("so3")(), "label": get_modality("masked")((), len(SHARES))}
    return JointProcess(spaces, block=1024)


class Network(nn.Module):
    """An MLP over the matrix, its clock, and the label."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.clock = ClockFeatures(4)
        self.body = nn.Sequential(
            nn.Linear(9 + len(SHARES) + 1 + 8, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.rotation, self.label = nn.Linear(width, 3), nn.Linear(width, len(SHARES))

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        hot = one_hot(x["label"], len(SHARES) + 1)
        h = self.body(torch.cat([x["rotation"].flatten(1), hot, self.clock(t["rotation"])], 1))
        return {"rotation": self.rotation(h), "label": self.label(h)}


def train(steps: int = 1500, seed: int = 0) -> tuple[JointProcess, nn.Module]:
    """The process and a network trained on 20,000 simulated rows."""
    joint = process()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network()
    data = simulate(20_000, torch.Generator().manual_seed(seed))
    trainer = Trainer(joint, network, steps=steps, batch_size=512, lr=1e-2, objective="elbo", seed=seed)
    return joint, trainer.fit(data).model


def main() -> None:
    """Train, then each way round."""
    torch.set_num_threads(1)
    joint, model = train()
    test = simulate(2000, torch.Generator().manual_seed(1))

    def right(rotation: Tensor, label: Tensor) -> float:
        return float((log_law(rotation).argmax(1) == label).float().mean())

    found = joint.sample(model, 2000, rng=2, given={"rotation": test["rotation"]}, steps=8)["label"]
    agree = float((found == test["label"]).float().mean())
    print(f"label | rotation: right {agree:.3f}, best possible {right(**test):.3f}")
    drawn = joint.sample(model, 2000, rng=3, given={"label": test["label"]})
    print(f"rotation | label: read back {right(**drawn):.3f}, data {right(**test):.3f}")
    shares = joint.sample(model, 2000, rng=4)["label"].bincount(minlength=len(SHARES)) / 2000
    print(f"rotation, label: shares {[round(float(p), 3) for p in shares]}, true {list(SHARES)}")
    bound = joint.bound(model, test, rng=5, draws=16)
    stderr = float(bound.total.std()) / 2000**0.5
    entropy = -float(log_law(test["rotation"])[torch.arange(2000), test["label"]].mean())
    print(f"bound on -log p: {float(bound.total.mean()):.3f} +- {stderr:.3f} nats; of the simulation {entropy:.3f}")


if __name__ == "__main__":
    main()
