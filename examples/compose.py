"""Four state spaces in one network, one of them from another distribution: a simulated weather station.

    python examples/compose.py

Weather (classes), wind (an angle, the contrib distribution de-torus), temperature (a number) and the day's shares of
sun, cloud and rain are learnt jointly. The simulated law has every conditional in closed form, so each way of sampling
is held to the truth: the true conditional distribution functions turn exact draws into independent uniform numbers
(Rosenblatt 1952), and the table prints how far from uniform the model's draws come out.
"""

from __future__ import annotations

import math
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import DiffuseError, JointProcess, PluginError, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

# ---- the truth: p(weather) p(wind | weather) p(temperature | weather, wind) p(sky | weather), by weather -------------

SHARES = torch.tensor([0.5, 0.3, 0.2]).double()  # clear, cloudy, rainy
WIND, WIND_SD = torch.tensor([0.5, 2.8, -1.5]).double(), torch.tensor([0.6, 0.5, 0.4]).double()  # wrapped normal, rad
LEVEL, SWING = torch.tensor([0.6, -0.2, -0.9]).double(), torch.tensor([0.8, -0.8, 0.3]).double()
NOISE = 0.4  # temperature ~ N(level + swing cos(wind), NOISE^2), in units of about its own spread
SKY = torch.tensor([[6, 2, 1], [2, 5, 2], [1, 3, 5]])  # Dirichlet
GRID = (
    math.pi * ((2 * torch.arange(720) + 1) / 720 - 1).double()
)  # middles of cells of the wind, where it is summed out


def simulate(n: int, seed: int) -> dict[str, Tensor]:
    """``n`` rows: "weather" (n,) int64, "wind" (n, 1) radians, "temperature" (n, 1), "sky" (n, 3)."""
    rng = torch.Generator().manual_seed(seed)
    w = torch.multinomial(SHARES, n, replacement=True, generator=rng)
    z = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    angle = WIND[w] + WIND_SD[w] * z[:, 0]
    temperature = LEVEL[w] + SWING[w] * angle.cos() + NOISE * z[:, 1]
    # gamma variables of whole shape a are sums of a exponential ones
    waits = -torch.rand(n, 3, int(SKY.max()), generator=rng, dtype=torch.float64).log()
    sky = torch.where(torch.arange(int(SKY.max())) < SKY[w][..., None], waits, 0.0).sum(-1)
    x = {"wind": torch.atan2(angle.sin(), angle.cos())[:, None], "temperature": temperature[:, None]}
    x["sky"] = sky / sky.sum(1, keepdim=True)
    return {"weather": w, **{name: value.float() for name, value in x.items()}}


def normal(x: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """log N(x; mean, sd^2)."""
    return -0.5 * ((x - mean) / sd) ** 2 - (sd * math.sqrt(2 * math.pi)).log()


def log_joint(x: dict[str, Tensor], given: tuple[str, ...]) -> Tensor:
    """log p(weather, wind, what is given of temperature and sky), (n, 3, 720), or (n, 3, 1) where the wind is given."""
    wind = x["wind"][:, None, :] if "wind" in given else GRID[None, None, :]
    turns = 2 * math.pi * torch.arange(-2, 3)
    log_p = SHARES.log()[:, None] + torch.logsumexp(
        normal(wind[..., None] + turns, WIND[:, None, None], WIND_SD[:, None, None]), -1
    )
    if "temperature" in given:
        mean = LEVEL[:, None] + SWING[:, None] * wind.cos()
        log_p = log_p + normal(x["temperature"][:, :, None], mean, torch.tensor(NOISE).double())
    if "sky" in given:
        constant = torch.lgamma(SKY.sum(1).double()) - torch.lgamma(SKY.double()).sum(1)
        log_p = log_p + (constant + (x["sky"].clamp_min(1e-30).log() @ (SKY - 1.0).double().T))[..., None]
    return log_p


def beta_cdf(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """P(Beta(a, b) <= x), a and b whole: the binomial tail sum_{j >= a} C(n, j) x^j (1 - x)^(n - j), n = a + b - 1."""
    j, n = torch.arange(int((a + b).max())), (a + b - 1)[:, None]
    count = torch.lgamma(n + 1.0) - torch.lgamma(j + 1.0) - torch.lgamma((n - j).clamp_min(0) + 1.0)
    terms = count.double().exp() * x[:, None] ** j * (1 - x[:, None]) ** (n - j).clamp_min(0)
    return torch.where((j >= a[:, None]) & (j <= n), terms, 0.0).sum(1)


def uniforms(x: dict[str, Tensor], given: tuple[str, ...], seed: int) -> dict[str, Tensor]:
    """Each sampled coordinate through its true distribution function given ``given`` and the coordinates before it.

    Independent U(0, 1) numbers, (n,) each, if and only if ``x`` is an exact draw of p(. | given).
    """
    rng, x = torch.Generator().manual_seed(seed), {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
    w, rows, out = x["weather"], torch.arange(len(x["weather"])), {}
    log_p = log_joint(x, given).expand(len(w), -1, -1)
    if "weather" not in given:
        p = log_p.logsumexp(-1).softmax(1)
        below = p.cumsum(1)[rows, w] - p[rows, w]
        out["weather"] = below + p[rows, w] * torch.rand(len(w), generator=rng, dtype=torch.float64)
    if "wind" not in given:
        p = log_p[rows, w].softmax(-1)
        place = (x["wind"][:, 0] + math.pi) / (2 * math.pi) * len(GRID)
        k = place.long().clamp(0, len(GRID) - 1)
        out["wind"] = p.cumsum(1)[rows, k] - p[rows, k] * (k + 1 - place)
    if "temperature" not in given:
        gap = x["temperature"][:, 0] - LEVEL[w] - SWING[w] * x["wind"][:, 0].cos()
        out["temperature"] = torch.special.ndtr(gap / NOISE)
    if "sky" not in given:
        sun, a = x["sky"][:, 0], SKY[w]
        out["sky, sun"] = beta_cdf(sun, a[:, 0], a[:, 1] + a[:, 2])
        out["sky, cloud"] = beta_cdf((x["sky"][:, 1] / (1 - sun).clamp_min(1e-12)).clamp(0, 1), a[:, 1], a[:, 2])
    return out


def distance(u: Tensor) -> float:
    """Kolmogorov's distance of numbers in [0, 1], (n,), from the uniform law."""
    n = len(u)
    u, k = u.sort().values, torch.arange(n, dtype=torch.float64)
    return float(torch.maximum(u - k / n, (k + 1) / n - u).max())


def limit(n: int, chance: float = 0.01) -> float:
    """What the distance of ``n`` exact draws exceeds with at most this chance: 2 exp(-2 n d^2), Massart 1990."""
    return math.sqrt(math.log(2 / chance) / (2 * n))


# ---- the model -------------------------------------------------------------------------------------------------------


def process() -> JointProcess:
    """One state space a variable, each with its own clock."""
    spaces = {
        "weather": get_modality("masked")((), num_classes=3),
        "wind": get_modality("torus")((1,)),  # de-torus, found through its entry point
        "temperature": get_modality("gaussian")((1,)),
        "sky": get_modality("simplex")((3,)),
    }
    return JointProcess(spaces, block=1000)


class Network(nn.Module):
    """All noisy states and clocks in, an answer for each state space out."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.clock = ClockFeatures(4)
        self.enter = nn.Linear(4 + 4 + 1 + 6 + 3 * 8 + 1, width)
        self.body = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.leave = nn.Linear(width, 3 + 1 + 1 + 3)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        wind = torch.cat([x["wind"], 2 * x["wind"]], 1)
        sky = torch.cat([x["sky"], x["sky"].clamp_min(1e-3).log()], 1)  # the score of shares grows like their inverse
        states = [one_hot(x["weather"], 4), wind.cos(), wind.sin(), x["temperature"], sky]
        clocks = [self.clock(t[name]) for name in ("wind", "temperature", "sky")]  # a mask needs no clock
        clocks.append(t["sky"].clamp_min(1e-2).log()[:, None])
        h = self.enter(torch.cat(states + clocks, 1))
        for layer in self.body:
            h = h + layer(nn.functional.silu(h))
        parts = self.leave(nn.functional.silu(h)).split([3, 1, 1, 3], 1)
        return dict(zip(("weather", "wind", "temperature", "sky"), parts, strict=True))


def train(steps: int = 2500, rows: int = 50_000, seed: int = 0) -> tuple[JointProcess, nn.Module]:
    """The process and a trained network."""
    joint = process()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network()
    trainer = Trainer(joint, network, steps=steps, batch_size=512, lr=5e-3, weights={"sky": 3.0}, seed=seed)
    return joint, trainer.fit(simulate(rows, seed)).model


QUERIES: list[tuple[str, ...]] = [  # what is given; everything else is sampled
    (),
    ("wind", "temperature", "sky"),
    ("weather", "temperature", "sky"),
    ("weather", "wind", "sky"),
    ("weather", "wind", "temperature"),
    ("temperature", "sky"),
    ("wind",),
]


def agreement(joint: JointProcess, model: nn.Module, n: int = 4000) -> dict[str, dict[str, tuple[float, float]]]:
    """Query -> sampled coordinate -> distance from the truth over ``n`` rows: of the model, and of draws that
    ignore what is given (exact draws where nothing is)."""
    test, other, found = simulate(n, seed=1), simulate(n, seed=2), {}
    for k, given in enumerate(QUERIES):
        held = {name: test[name] for name in given}
        model_u, blind_u = (uniforms(x, given, k) for x in (joint.sample(model, n, rng=k, given=held), other | held))
        asked = ", ".join(name for name in joint.modalities if name not in given)
        title = f"{asked} | {', '.join(given)}" if given else asked
        found[title] = {name: (distance(u), distance(blind_u[name])) for name, u in model_u.items()}
    return found


def main() -> None:
    torch.set_num_threads(1)
    start, n = time.perf_counter(), 4000
    try:
        get_modality("torus")
    except (DiffuseError, PluginError) as error:
        sys.exit(f"this example needs de-torus (from a checkout: pip install -e contrib/de-torus): {error}")
    joint, model = train()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, trained in {time.perf_counter() - start:.0f} s")
    print(f"Kolmogorov's distance from the true law over {n:,} rows; of 100 exact draws 99 stay below {limit(n):.3f}")
    print(f"{'sampled | given':44}{'model':>8}{'draws that ignore the given':>30}")
    for query, distances in agreement(joint, model, n).items():
        print(query)
        for name, (mine, blind) in distances.items():
            print(f"    {name:40}{mine:8.3f}{blind:30.3f}")


if __name__ == "__main__":
    main()
