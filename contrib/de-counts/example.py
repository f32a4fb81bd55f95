"""Handwritten digits as 64 counts and a label, learnt jointly and sampled any-to-any.

    python example.py

The 1,797 digits of Alpaydin and Kaynak 1998 (scikit-learn's copy of the UCI set): each of 8 x 8 numbers counts the
inked pixels of a 4 x 4 block, 0 to 16.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

__all__ = ["Network", "digits", "histograms", "process", "reader", "train"]


def digits() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """1,400 rows to train on and 397 to test: "ink" (n, 8, 8) counts and "label" (n,), int64."""
    images, labels = load_digits(return_X_y=True)
    ink, label = torch.from_numpy(images).long().reshape(-1, 8, 8), torch.from_numpy(labels).long()
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))
    parts = order[:1400], order[1400:]
    train, test = ({"ink": ink[rows], "label": label[rows]} for rows in parts)
    return train, test


def process() -> JointProcess:
    """The ink, with a prior of each block's own mean, and the label."""
    mean = digits()[0]["ink"].double().mean(0).clamp_min(0.1)
    spaces = {
        "ink": get_modality("counts")((8, 8), mean=mean.tolist()),
        "label": get_modality("masked")((), 10),
    }
    return JointProcess(spaces, block=500)


class Network(nn.Module):
    """An MLP over the square roots of the counts, their clock, and the label."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.clock = ClockFeatures(6)
        self.body = nn.Sequential(
            nn.Linear(64 + 11 + 12, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Dropout(0.1)
        )
        self.ink, self.label = nn.Linear(width, 128), nn.Linear(width, 10)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        clock = self.clock(t["ink"].sqrt())
        h = self.body(torch.cat([x["ink"].flatten(1).sqrt() - 2, one_hot(x["label"], 11), clock], 1))
        return {"ink": self.ink(h).reshape(-1, 8, 8, 2), "label": self.label(h)}


def train(steps: int = 1500, seed: int = 0) -> tuple[JointProcess, nn.Module]:
    """The process and a network trained on the 1,400 rows."""
    joint = process()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network()
    trainer = Trainer(joint, network, steps=steps, batch_size=128, lr=3e-3, objective="simple", seed=seed)
    return joint, trainer.fit(digits()[0]).model


def reader() -> LogisticRegression:
    """A classifier of the real digits, to read samples with."""
    data = digits()[0]
    return LogisticRegression(max_iter=2000).fit(data["ink"].flatten(1), data["label"])


def histograms(x: dict[str, Tensor]) -> Tensor:
    """-log p of a label and 64 independent blocks given it, each by its smoothed histogram: naive Bayes, (n,)."""
    data = digits()[0]
    seen = one_hot(data["label"], 10).double().T @ one_hot(data["ink"].flatten(1), 17).double().flatten(1)
    p = seen.reshape(10, 64, 17) + 0.1
    shares = data["label"].bincount(minlength=10).double() / len(data["label"])
    each = (p / p.sum(2, keepdim=True))[x["label"][:, None], torch.arange(64), x["ink"].flatten(1)]
    return -each.log().sum(1) - shares[x["label"]].log()


def main() -> None:
    """Train, then each way round."""
    torch.set_num_threads(1)
    joint, model = train()
    test, eye = digits()[1], reader()

    def read(x: dict[str, Tensor]) -> float:
        return float(eye.score(x["ink"].flatten(1), x["label"]))

    found = joint.sample(model, 397, rng=0, given={"ink": test["ink"]}, steps=8)["label"]
    right = float((found == test["label"]).float().mean())
    print(f"label | ink: right {right:.3f}, a logistic regression {read(test):.3f}")
    drawn = joint.sample(model, 500, rng=1, given={"label": torch.arange(500) % 10})
    print(f"ink | label: read as it {read(drawn):.3f}, real digits {read(test):.3f}")
    both = joint.sample(model, 500, rng=2)
    print(f"ink, label: read as it {read(both):.3f}")
    inks = {name: x["ink"].flatten(1).sum(1).double() for name, x in {"samples": both, "real": test}.items()}
    for name, ink in inks.items():
        print(f"  all ink of a digit, {name}: mean {float(ink.mean()):.1f}, standard deviation {float(ink.std()):.1f}")
    bound = joint.bound(model, test, rng=3, draws=16)
    stderr = float(bound.total.std()) / 397**0.5
    print(f"bound on -log p: {float(bound.total.mean()):.1f} +- {stderr:.1f} nats")
    print(f"naive Bayes with histograms: {float(histograms(test).mean()):.1f} nats")


if __name__ == "__main__":
    main()
