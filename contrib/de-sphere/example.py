"""A direction and a colour, learnt jointly and sampled any-to-any.

    python example.py

Red lies around the north pole, green along a band about the equator, blue around two opposite points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import ClassifierFreeGuidance, JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

__all__ = ["COLOURS", "Network", "log_law", "process", "simulate", "train"]

COLOURS = ("red", "green", "blue")
SHARES = torch.tensor([0.3, 0.4, 0.3])
POLE = torch.tensor([0.0, 0.0, 1.0])
SPOT = torch.tensor([0.5, 0.0, 0.75**0.5])  # and its opposite: 30 degrees from the pole
SPREAD = (0.15, 0.2, 0.1)  # rad, by colour


def simulate(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """``n`` draws: "direction" (n, 3) of length one, "colour" (n,) int64."""
    colour = torch.multinomial(SHARES, n, replacement=True, generator=rng)
    z, side = torch.randn(n, 3, generator=rng), torch.rand(n, generator=rng) < 0.5
    bearing = 2 * math.pi * torch.rand(n, generator=rng)
    latitude = SPREAD[1] * z[:, 0]
    band = torch.stack([latitude.cos() * bearing.cos(), latitude.cos() * bearing.sin(), latitude.sin()], 1)
    spot = torch.where(side[:, None], SPOT, -SPOT)
    x = torch.stack([POLE + SPREAD[0] * z, band, spot + SPREAD[2] * z])[colour, torch.arange(n)]
    return {"direction": x / x.norm(dim=1, keepdim=True), "colour": colour}


def log_law(x: Tensor) -> Tensor:
    """log p(direction, colour) up to a constant, (n, 3), the spots' as gaussians of the angle."""

    def spot(centre: Tensor, sd: float) -> Tensor:
        return -(torch.acos((x @ centre).clamp(-1, 1)) ** 2) / (2 * sd**2) - math.log(2 * math.pi * sd**2)

    latitude = torch.asin(x[:, 2].clamp(-1, 1))
    wide = -0.5 * (latitude / SPREAD[1]) ** 2 - math.log(SPREAD[1] * (2 * math.pi) ** 1.5) - latitude.cos().log()
    blue = torch.logaddexp(spot(SPOT, SPREAD[2]), spot(-SPOT, SPREAD[2])) - math.log(2)
    return torch.stack([spot(POLE, SPREAD[0]), wide, blue], 1) + SHARES.log()


def process() -> JointProcess:
    """The direction and the colour."""
    spaces = {"direction": get_modality("sphere")(), "colour": get_modality("uniform")((), len(COLOURS))}
    return JointProcess(spaces, block=1024)


class Network(nn.Module):
    """An MLP over the direction, its clock, the colour and its clock."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.clock = ClockFeatures(4)
        self.body = nn.Sequential(
            nn.Linear(9 + len(COLOURS) + 2 * 8, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.direction, self.colour = nn.Linear(width, 3), nn.Linear(width, len(COLOURS))

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        d, c = x["direction"], one_hot(x["colour"], len(COLOURS))
        squares = torch.cat([d * d, d * d.roll(1, 1)], 1)
        h = self.body(torch.cat([d, squares, c, self.clock(t["direction"]), self.clock(t["colour"])], 1))
        return {"direction": self.direction(h), "colour": self.colour(h)}


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

    def right(direction: Tensor, colour: Tensor) -> float:
        return float((log_law(direction).argmax(1) == colour).float().mean())

    found = joint.sample(model, 2000, rng=2, given={"direction": test["direction"]})["colour"]
    agree = float((found == test["colour"]).float().mean())
    print(f"colour | direction: right {agree:.3f}, best possible {right(**test):.3f}")
    drawn = joint.sample(model, 2000, rng=3, given={"colour": test["colour"]})
    print(f"direction | colour: read back {right(**drawn):.3f}, data {right(**test):.3f}")
    drawn = joint.sample(model, 2000, rng=3, given={"colour": test["colour"]}, guidance=ClassifierFreeGuidance(2.0))
    print(f"the same, guided with weight 2: read back {right(**drawn):.3f}")
    both = joint.sample(model, 2000, rng=4)
    shares = both["colour"].bincount(minlength=len(COLOURS)) / 2000
    print(f"direction, colour: shares {[round(float(p), 3) for p in shares]}, true {SHARES.tolist()}")
    bound = joint.bound(model, {k: v[:500] for k, v in test.items()}, rng=5, draws=16)
    best = -float(log_law(test["direction"][:500])[torch.arange(500), test["colour"][:500]].mean())
    print(f"bound {float(bound.total.mean()):.3f} nats, -log p of the simulation {best:.3f}")


if __name__ == "__main__":
    main()
