"""Two angles and a class, learnt jointly and sampled any-to-any: a simulated Ramachandran plot.

    python example.py

Class 0 lies tight at (-1.1, -0.8); class 1 lies across the cut at +-pi, its angles correlated; class 2 has two places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import Given, JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

__all__ = ["Network", "log_law", "process", "simulate", "train"]

CLASSES = 3
# class, weight, centre (phi, psi), standard deviation, correlation: one row a component
PLACES = [
    (0, 0.40, (-1.1, -0.8), 0.20, 0.0),
    (1, 0.35, (-2.2, 3.0), 0.35, 0.8),
    (2, 0.15, (1.0, 0.7), 0.25, 0.0),
    (2, 0.10, (1.2, -2.4), 0.25, 0.0),
]


def simulate(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """``n`` draws: "angles" (n, 2) in [-pi, pi], "label" (n,) int64."""
    pick = torch.multinomial(torch.tensor([p[1] for p in PLACES]), n, replacement=True, generator=rng)
    z = torch.randn(n, 2, generator=rng)
    rho = torch.tensor([p[4] for p in PLACES])[pick]
    z[:, 1] = rho * z[:, 0] + (1 - rho**2).sqrt() * z[:, 1]
    angles = torch.tensor([p[2] for p in PLACES])[pick] + torch.tensor([p[3] for p in PLACES])[pick, None] * z
    return {
        "angles": torch.atan2(angles.sin(), angles.cos()),
        "label": torch.tensor([p[0] for p in PLACES])[pick],
    }


def log_law(angles: Tensor) -> Tensor:
    """log p(angles, label) of the simulation up to a constant, (n, 3): the best classifier there is."""
    parts = torch.full((len(PLACES), len(angles)), -torch.inf)
    for k, (_, weight, centre, sd, rho) in enumerate(PLACES):
        gap = angles - torch.tensor(centre)
        a, b = torch.atan2(gap.sin(), gap.cos()).T / sd
        parts[k] = math.log(weight / sd**2 / math.sqrt(1 - rho**2)) - (a**2 - 2 * rho * a * b + b**2) / (1 - rho**2) / 2
    label = torch.tensor([p[0] for p in PLACES])
    return torch.stack([parts[label == c].logsumexp(0) for c in range(CLASSES)], 1)


def process() -> JointProcess:
    """The angles, each with its own clock, and the label."""
    spaces = {"angles": get_modality("torus")((2,)), "label": get_modality("masked")((), CLASSES)}
    return JointProcess(spaces, elementwise=["angles"], block=1024)


class Network(nn.Module):
    """An MLP over circular features of the angles, their clocks, and the label."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.clock = ClockFeatures(4)
        self.body = nn.Sequential(
            nn.Linear(2 * 4 + CLASSES + 1 + 2 * 8, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.angles, self.label = nn.Linear(width, 2), nn.Linear(width, CLASSES)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        a = x["angles"]
        circle = torch.cat([a.cos(), a.sin(), (2 * a).cos(), (2 * a).sin()], 1)
        h = self.body(torch.cat([circle, one_hot(x["label"], CLASSES + 1), self.clock(t["angles"]).flatten(1)], 1))
        return {"angles": self.angles(h), "label": self.label(h)}


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

    def right(angles: Tensor, label: Tensor) -> float:
        return float((log_law(angles).argmax(1) == label).float().mean())

    found = joint.sample(model, 2000, rng=2, given={"angles": test["angles"]}, steps=8)["label"]
    agree = float((found == test["label"]).float().mean())
    print(f"label | angles: right {agree:.3f}, best possible {right(**test):.3f}")
    drawn = joint.sample(model, 2000, rng=3, given={"label": test["label"]})
    print(f"angles | label: read back as the label {right(**drawn):.3f}")
    shares = joint.sample(model, 2000, rng=4)["label"].bincount(minlength=CLASSES) / 2000
    print(f"angles, label: shares of the classes {[round(float(p), 3) for p in shares]}, true [0.4, 0.35, 0.25]")
    known = torch.tensor([True, False])
    other = joint.sample(model, 2000, rng=5, given={"angles": Given(test["angles"], known=known)})
    means = [float(x["angles"][:, 1].sin().mean()) for x in (other, test)]
    print(f"psi, label | phi: E sin(psi) {means[0]:.3f}, true {means[1]:.3f}; read back {right(**other):.3f}")


if __name__ == "__main__":
    main()
