"""A rating and three measures, learnt jointly and sampled any-to-any: diabetes patients, and how their disease went on.

    python example.py

The 442 patients of Efron et al. 2004 (scikit-learn's copy): "measures" are the body mass index, the blood pressure and
the logarithm of the triglycerides, standardised; "grade" is the progression of the disease a year later, cut in five.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch.nn.functional import one_hot

from de_core import Given, JointProcess, get_modality
from de_core.networks import ClockFeatures
from de_core.train import Trainer

__all__ = ["Network", "correlation", "patients", "process", "shares", "train"]

GRADES = 5
EDGES = torch.tensor([80.0, 120.0, 170.0, 230.0])  # of the progression, 25 to 346


def patients() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """342 rows to train on and 100 to test: "measures" (n, 3) of mean 0 and variance 1, "grade" (n,) int64."""
    table = cast(Any, load_diabetes(scaled=False))  # its stub knows the pair of arrays alone
    columns = [table.feature_names.index(name) for name in ("bmi", "bp", "s5")]
    measures = torch.from_numpy(table.data[:, columns]).float()
    measures = (measures - measures.mean(0)) / measures.std(0)
    grade = torch.bucketize(torch.from_numpy(table.target).float(), EDGES)
    order = torch.randperm(len(grade), generator=torch.Generator().manual_seed(0))
    parts = order[:342], order[342:]
    train, test = ({"measures": measures[rows], "grade": grade[rows]} for rows in parts)
    return train, test


def correlation(x: dict[str, Tensor]) -> list[float]:
    """Of the grade with each measure."""
    rows = torch.cat([x["grade"][:, None].float(), x["measures"]], 1)
    return [round(float(c), 2) for c in torch.corrcoef(rows.T)[0, 1:]]


def shares(x: dict[str, Tensor]) -> list[float]:
    """Of the grades."""
    return [round(float(p), 2) for p in x["grade"].bincount(minlength=GRADES) / len(x["grade"])]


def process() -> JointProcess:
    """The measures, each with its own clock, and the grade."""
    spaces = {"measures": get_modality("gaussian")((3,)), "grade": get_modality("ordinal")((), GRADES)}
    return JointProcess(spaces, elementwise=["measures"], block=1000)


class Network(nn.Module):
    """An MLP over the measures, the grade as a class, and the clocks."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.clock = ClockFeatures(3)
        self.body = nn.Sequential(
            nn.Linear(3 + GRADES + 4 * 6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Dropout(0.1)
        )
        self.measures, self.grade = nn.Linear(width, 3), nn.Linear(width, GRADES)

    def forward(self, x: dict[str, Tensor], t: dict[str, Tensor]) -> dict[str, Tensor]:
        clocks = self.clock(torch.cat([t["measures"], t["grade"][:, None]], 1)).flatten(1).to(x["measures"].dtype)
        h = self.body(torch.cat([x["measures"], one_hot(x["grade"], GRADES), clocks], 1))
        return {"measures": self.measures(h), "grade": self.grade(h)}


def train(steps: int = 2000, seed: int = 0) -> tuple[JointProcess, nn.Module]:
    """The process and a network trained on the 342 patients."""
    joint = process()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network()
        trainer = Trainer(joint, network, steps=steps, batch_size=342, lr=3e-3, weight_decay=0.1, seed=seed)
        return joint, trainer.fit(patients()[0]).model


def main() -> None:
    """Train, then each way round."""
    torch.set_num_threads(1)
    joint, model = train()
    seen, test = patients()
    many = {name: x.repeat_interleave(50, 0) for name, x in test.items()}
    drawn = joint.sample(model, 5000, rng=1, given={"measures": many["measures"]})["grade"].reshape(100, 50)
    typical = seen["grade"].median().expand(100)
    for name, found in (("median of 50 draws", drawn.median(1).values), ("the same grade for all", typical)):
        print(f"grade | measures: {name}, off by {float((found - test['grade']).abs().float().mean()):.2f} grades")
    rank = (drawn < test["grade"][:, None]).float().mean(1) + 0.5 * (drawn == test["grade"][:, None]).float().mean(1)
    print(f"  mean rank of the truth among the draws {float(rank.mean()):.2f}, even odds 0.5")
    back = joint.sample(model, 5000, rng=2, given={"grade": many["grade"]})
    print(f"measures | grade: correlations {correlation(back)}, patients {correlation(test)}")
    known = torch.tensor([False, True, True])
    part = joint.sample(model, 5000, rng=3, given={"measures": Given(many["measures"], known=known)})
    print(f"bmi, grade | bp, s5: correlations {correlation(part)}")
    free = joint.sample(model, 5000, rng=4)
    print(f"all: correlations {correlation(free)}, patients {correlation(seen)}")
    print(f"  shares of the grades {shares(free)}, patients {shares(seen)}")
    bound = float(joint.bound(model, test, rng=5, draws=32, given=("measures",)).total.mean())
    alone = -sum(p * math.log(p) for p in shares(seen))
    print(f"-log p(grade | measures) <= {bound:.2f} nats; entropy of the shares {alone:.2f}")


if __name__ == "__main__":
    main()
