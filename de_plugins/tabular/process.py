"""A table as a joint process: its modalities, its rows, and the clocks that training draws.

A coded row is (classes, numbers). A number whose gate is shut is not there; its place holds a standard normal draw
that depends on nothing. So there is one joint law over all rows, and process, loss and bound need no mask: behind a
shut gate the network learns that the number is noise (velocity 0), and decoding does not read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import attrs
import torch
from torch import Tensor

from de_core import JointProcess, Modality, Sequential, Synchronous, get_modality
from de_core.paths import Path
from de_core.rng import stream
from de_plugins.tabular._encoded import Encoded, take
from de_plugins.tabular._scoring import scoring_process

__all__ = [
    "BLOCK",
    "TableSource",
    "TableTimes",
    "absent_nats",
    "covariance",
    "draw_order",
    "draw_path",
    "held_out",
    "log_shares",
    "rows_of",
    "table_process",
]

_HELD_OUT = 500  # rows at most: the error of a bound's change is some hundredths of a nat
_TIED = 0.3
_LATER = 0.2  # of the share of rows with given columns, where the classes do not move
_UNKNOWN = 0.05, 0.5  # share of rows, at the least and at the most, in which classes are unknown to numbers
_LOOK = 50_000  # rows that the covariance is taken of
BLOCK = 4096
"""Rows that are sampled together: many, since the networks are small."""


def table_process(
    class_sizes: tuple[int, ...],
    numbers: int,
    objective: str = "simple",
    groups: Mapping[str, int] | None = None,
) -> JointProcess:
    """The product of "numbers" (gaussian, C) and "classes" (masked, one size a column), each column with its own clock,
    and of one simplex a group, by its name and number of parts, with one clock.

    A modality without columns is left out. Under "paper-tabular" the gaussian has the linear schedule without the half
    and predicts eps, as in the authors' code.
    """
    modalities: dict[str, Modality] = {}
    if numbers:
        schedule, prediction = ("linear-tabular", "eps") if objective == "paper-tabular" else ("cosine", "v")
        modalities["numbers"] = get_modality("gaussian")((numbers,), schedule, prediction)
    if class_sizes:
        modalities["classes"] = get_modality("masked")((len(class_sizes),), num_classes=list(class_sizes))
    for name, parts in (groups or {}).items():
        modalities[name] = get_modality("simplex")((parts,))
    return JointProcess(modalities, elementwise=tuple(modalities), block=BLOCK)


def draw_order(names: Iterable[str]) -> tuple[str, ...]:
    """In which the modalities of a table are drawn: the classes, then the numbers and the groups given them.

    A gate's class says where its number lies, and it is then known while the number is drawn.
    """
    return tuple(sorted(names, key=lambda name: (name != "classes", name != "numbers")))


def draw_path(names: Iterable[str], tied: bool) -> Path:
    """Of the clocks in drawing and in the bound, as in training (``TableTimes``)."""
    return Synchronous() if tied else Sequential(draw_order(names))


def rows_of(coded: Encoded, rng: torch.Generator) -> dict[str, Tensor]:
    """States of the process, with a standard normal draw in place of each number that is not there, and one of the
    flat Dirichlet law in place of each group that is not."""
    rows = {}
    if coded.numbers.shape[1]:
        noise = torch.randn(coded.numbers.shape, generator=rng)
        rows["numbers"] = torch.where(coded.present, coded.numbers.float(), noise)
    if coded.classes.shape[1]:
        rows["classes"] = coded.classes
    for name, values in coded.shares.items():
        noise = -torch.rand(values.shape, generator=rng, dtype=torch.float64).clamp_min(1e-300).log()
        there = coded.shares_present[name][:, None]
        x = torch.where(there, values, noise)
        rows[name] = (x / x.sum(1, keepdim=True)).float()
    return rows


def log_shares(coded: Encoded, sizes: tuple[int, ...]) -> Tensor:
    """log of the share of each class in training, column after column; half a row is added to each class."""
    shares = [
        ((torch.bincount(coded.classes[:, d], minlength=size) + 0.5) / (len(coded) + 0.5 * size)).log()
        for d, size in enumerate(sizes)
    ]
    return torch.cat(shares) if shares else torch.zeros(0)


def covariance(coded: Encoded, rng: torch.Generator) -> Tensor | None:
    """Of the numbers of a coded table, at most `_LOOK` rows of it, (C, C) float64; None for less than two numbers."""
    if coded.numbers.shape[1] < 2:
        return None
    some = coded if len(coded) <= _LOOK else take(coded, torch.randint(len(coded), (_LOOK,), generator=rng))
    rows = rows_of(some, rng)["numbers"].double()
    rows = rows - rows.mean(0)
    return rows.T @ rows / len(rows)


def absent_nats(rows: Mapping[str, Tensor], coded: Encoded) -> Tensor:
    """-log N(x; 0, 1) summed over the numbers that are not there, (n,).

    A group that is not there has the flat Dirichlet law, against which its density is measured: it adds nothing.

    A bound on -log p(row, noise) less this, which is -log of the noise's own law, bounds -log p(row) in the mean over
    the noise: E_q[-log p(row, z) + log q(z)] >= -log E_q[p(row, z)/q(z)] = -log p(row), Jensen's inequality.
    """
    if "numbers" not in rows:
        return torch.zeros(len(coded))
    nats = 0.5 * rows["numbers"].double() ** 2 + 0.5 * math.log(2 * math.pi)
    return torch.where(coded.present, 0.0, nats).sum(1)


def held_out(
    joint: JointProcess, coded: Encoded, seed: int, *, tied: bool = False
) -> tuple[Encoded, Callable[[torch.nn.Module], float]]:
    """A tenth of the rows, at most 500, set apart: the others, and the mean bound of a network on those, in nats.

    The bound is along ``draw_path`` and draws the same clocks and noises each time, so that two networks differ by what
    they have learned. A group enters it with its training loss, whose bound takes a thousand times as long.
    """
    scored, path = scoring_process(joint), draw_path(joint.modalities, tied)
    order = torch.randperm(len(coded), generator=stream(seed, "held out"))
    count = min(len(coded) // 10, _HELD_OUT)
    rows = rows_of(take(coded, order[:count]), stream(seed, "held out noise"))

    def score(model: torch.nn.Module) -> float:
        return float(scored.bound(model, rows, rng=seed, draws=8, path=path).total.mean())

    return take(coded, order[count:]), score


@attrs.frozen(eq=False)
class TableSource:
    """Training rows in memory; the noise behind shut gates is drawn anew each time a row is seen."""

    coded: Encoded

    def __len__(self) -> int:
        return len(self.coded)

    def batch(self, index: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Rows by index, (B,)."""
        return rows_of(take(self.coded, index), rng)


@attrs.frozen
class TableTimes:
    """Clocks of the columns, by row: every pattern that sampling, imputation and guidance show to a network.

    The modalities are where the chain rule has them, which is how rows are drawn (``draw_order``): one, each as often
    as another, is at a time t, those before it are clean, those after it unknown. t = u^``tilt``, of classes t = u,
    with u ~ U(0, 1) evenly spread over the batch. Upon that, in a share ``given`` of the rows each column is clean
    (t = 0), as when it is given, and in a share ``loose`` each number has a clock of its own, as when it is given with
    noise: in either with a probability that is itself uniform. Classes alone need neither: one clock shows every set of
    masked columns.

    ``given`` is of the rows in which the classes move, and a fifth of it of the others: numbers given some of them are
    many more laws than all numbers together, and a small network that learns them often draws whole rows worse.

    In a share ``unknown`` of the rows in which something else moves than the classes, each class is unknown, with a
    probability that is again uniform, as guidance by a class shows it. All classes together are nearly a name of the
    row, by which numbers can be learnt by heart; some of them say of many rows alike.

    With ``tied`` all columns have one t instead, as in the authors' code, ``given`` is of all rows and ``unknown`` of
    none.
    """

    given: float = 0.5
    loose: float = 0.05
    unknown: float = 0.0
    tilt: float = 1.0
    tied: bool = False

    @classmethod
    def of(cls, spread: Tensor | None, crowded: float) -> TableTimes:
        """For numbers of covariance (C, C), and a network with so many parameters to learn one by heart (``crowding``).

        What ties some numbers closely shows at low noise, of which a cosine's time has little: times are tilted there
        where a direction has less than `_TIED` of a column's variance. Classes are unknown in a share ``crowded`` of
        the rows, within `_UNKNOWN`.
        """
        close = spread is not None and float(torch.linalg.eigvalsh(spread)[0]) < _TIED
        least, most = _UNKNOWN
        return cls(tilt=1.5 if close else 1.0, unknown=min(most, max(least, crowded)))

    def draw(
        self, shapes: Mapping[str, tuple[int, ...]], *, rng: torch.Generator, progress: float = 0.0
    ) -> dict[str, Tensor]:
        """``shapes``: (B, columns) by name; (B,) of a group."""
        batch = next(iter(shapes.values()))[0]

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=rng, device=rng.device)

        order = draw_order(shapes)
        u = (torch.randperm(batch, generator=rng, device=rng.device)[:, None] + uniform(1)) / batch
        moves = (uniform(batch, 1) * len(order)).floor()
        kind, share = uniform(batch, 1), uniform(batch, 1)
        early = (moves == 0) & ("classes" in shapes) | self.tied
        given = torch.where(early, self.given, _LATER * self.given)
        out = {}
        for place, name in enumerate(order):
            shape = shapes[name]
            columns = shape[1] if len(shape) == 2 else 1  # a group has one clock, (B,)
            tilt = 1.0 if name == "classes" else self.tilt
            value = (u**tilt).expand(batch, columns)
            if not self.tied:
                value = torch.where(moves == place, value, torch.where(moves > place, 0.0, 1.0))
            if set(shapes) - {"classes"}:
                if name != "classes":
                    own = (kind < self.loose) & (uniform(batch, columns) < share)
                    value = torch.where(own, uniform(batch, columns) ** tilt, value)
                if name == "classes" and not self.tied:
                    hidden = (moves > 0) & (kind >= 1 - self.unknown) & (uniform(batch, columns) < share)
                    value = torch.where(hidden, 1.0, value)
                clean = (kind >= self.loose) & (kind < self.loose + given) & (uniform(batch, columns) < share)
                value = torch.where(clean, 0.0, value)
            out[name] = value.reshape(shape).contiguous()
        return {name: out[name] for name in shapes}
