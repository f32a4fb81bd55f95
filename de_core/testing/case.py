"""A modality under test, with a small data law, an exact network for it, streams and statistics.

The data law has a few atoms of unequal weight, taken from the rows that the caller gives, so that it differs from every
prior: a law equal to the prior would let a time-reversed process pass. Every draw has a stream of its own, named by the
check and the role: data and noise from one seed would let wrong things pass and right ones fail.

Statistics. Means are compared in standard errors. One comparison of a right modality exceeds ``SIGMAS`` = 7 with
chance 2.6e-12 where the mean is normal; a run makes some hundreds, so that it fails with a chance far below one in a
million, with room for means that are only nearly normal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.modality import Modality, Noised, rows
from de_core.rng import stream

__all__ = ["SIGMAS", "Case", "pick", "repeated", "zscore"]

SIGMAS = 7.0
_WEIGHTS = (0.5, 0.3, 0.2)


class Case:
    """Args:
        modality: under test.
        data: (n, *event), clean, with at least two distinct rows.
        seed: of every stream.

    Raises:
        DiffuseError: data that is no tensor of states, or has fewer than two distinct rows.
    """

    def __init__(self, modality: Modality, data: Tensor, seed: int = 0) -> None:
        if not isinstance(modality, Modality):
            raise DiffuseError(f"check_modality: expected a Modality, got {type(modality).__name__}")
        if not isinstance(data, Tensor) or data.ndim < 1 or tuple(data.shape[1:]) != tuple(modality.event_shape):
            came = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
            raise DiffuseError(
                f"check_modality: expected data of shape (n, *{tuple(modality.event_shape)}), got {came}"
            )
        self.m, self.seed = modality, seed
        self.data = data.double() if data.is_floating_point() else data
        self.floating = data.is_floating_point()
        self.atoms = _spread(self.data)
        if len(self.atoms) < 2:
            raise DiffuseError("check_modality: expected data with at least two distinct rows")
        raw = torch.tensor(_WEIGHTS[: len(self.atoms)], dtype=torch.float64)
        self.weights = raw / raw.sum()
        self.entropy = float(-(self.weights * self.weights.log()).sum())
        self.size = max(1, math.prod(modality.event_shape))

    def has(self, *capabilities: str) -> bool:
        """Whether the modality declares all of these."""
        return set(capabilities) <= set(self.m.capabilities)

    def rng(self, *path: str | int) -> torch.Generator:
        """The stream of one role."""
        return stream(self.seed, *path)

    def count(self, most: int) -> int:
        """A number of rows: fewer where an event is large, and where kernels may be long series."""
        if self.floating and most > 8000:
            most //= 10 if self.dear else 2
        return max(200, min(most, 400_000 // self.size))

    @functools.cached_property
    def dear(self) -> bool:
        """Whether densities may be dear: those of numbers that are not against Lebesgue's measure are mostly series."""
        return self.floating and self.reference != "lebesgue"

    @functools.cached_property
    def curved(self) -> bool:
        """Whether the space is a manifold whose kernel has a density against its volume."""
        return self.floating and self.has("density") and self.reference == "volume"

    @functools.cached_property
    def reference(self) -> str:
        """The measure that densities are taken against; "" where no generator says."""
        if not self.has("generator"):
            return ""
        return self.m.generator(torch.tensor(0.5, dtype=torch.float64)).reference

    # --- draws ------------------------------------------------------------------------------------------------------

    def clean(self, n: int, *path: str | int) -> Tensor:
        """Draws of the data law, (n, *event)."""
        pick = torch.multinomial(self.weights, n, replacement=True, generator=self.rng(*path, "data"))
        return self.atoms[pick]

    def noised(self, n: int, t: float | Tensor, *path: str | int) -> Noised:
        """Draws of the data law, noised to t."""
        when = torch.full((n,), t, dtype=torch.float64) if isinstance(t, float) else t
        return self.m.perturb(self.clean(n, *path), when, rng=self.rng(*path, "noise"))

    def output(self, n: int, *path: str | int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
        """Random outputs of a network, (n, *output)."""
        shape = (n, *self.m.output_shape)
        return (scale * torch.randn(shape, generator=self.rng(*path, "output"), dtype=torch.float64)).to(dtype)

    def head(self, *path: str | int, scale: float = 0.5) -> Callable[[Tensor], Tensor]:
        """A smooth network output as a function of the state alone, (B, *event) -> (B, *output)."""
        size = math.prod(self.m.output_shape)
        mix = torch.randn(8, size, generator=self.rng(*path, "head"), dtype=torch.float64)
        bias = torch.randn(size, generator=self.rng(*path, "bias"), dtype=torch.float64)
        wave = self.waves(8, *path)
        return lambda x: scale * (bias + 0.5 * wave(x) @ mix).reshape(len(x), *self.m.output_shape)

    # --- test functions ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def scale(self) -> Tensor:
        """The size of each faded coordinate: its standard deviation over data noised to the middle of its range."""
        x = torch.cat([rows(self.noised(400, t, "scale", k).xt).double() for k, t in enumerate((0.05, *self.times))])
        return self.faded(x).std(0).clamp_min(1e-3)

    def waves(self, count: int, *path: str | int) -> Callable[[Tensor], Tensor]:
        """Bounded smooth test functions cos(w . x + phase), half of them of one coordinate: (B, *event) -> (B, count).

        Differentiable in x; on whole numbers they tell classes and counts apart. On a curved space the coordinates may
        have a cut, so the functions are made of the kernel's own densities about six points, which are smooth on it;
        where it has none, of coordinates that fade to 0, as the square of a sine, towards their ends.
        """
        draw = self.rng(*path, "waves")
        if self.curved:
            return self._on_manifold(count, draw)
        w = torch.randn(self.size, count, generator=draw, dtype=torch.float64) / self.size**0.5
        single = torch.zeros_like(w)
        where = torch.randint(self.size, (count,), generator=draw)
        single[where, torch.arange(count)] = torch.randn(count, generator=draw, dtype=torch.float64)
        w = torch.where(torch.arange(count) % 2 == 0, w, single)
        speed = torch.tensor([0.7, 1.5, 3.0], dtype=torch.float64)[torch.arange(count) // 2 % 3]
        phase = 2 * math.pi * torch.rand(count, generator=draw, dtype=torch.float64)
        faded, scale = self.faded, self.scale
        return lambda x: ((faded(rows(x).double()) / scale) @ (w * speed) + phase).cos()

    @functools.cached_property
    def faded(self) -> Callable[[Tensor], Tensor]:
        """Coordinates (B, size) without a cut: as they are, save on a curved space.

        x sin^2 has the value and the slope 0 at both ends of its range, so that a function of it is differentiable
        across the cut with a bounded second derivative, which is all that d/dt E f = E L f asks. The ends are those
        of 4,000 draws of the prior, of a uniform one off by 1/4000 of the width: there the sine's square is 6e-7.
        """
        if not self.floating or self.reference != "volume":
            return lambda x: x
        ends = rows(self.m.prior(4000, rng=self.rng("ends"))).double()
        low, width = ends.amin(0), (ends.amax(0) - ends.amin(0)).clamp_min(1e-3)
        return lambda x: x * (math.pi * (x - low) / width).sin() ** 2

    def _on_manifold(self, count: int, draw: torch.Generator) -> Callable[[Tensor], Tensor]:
        centres = self.m.prior(6, rng=draw).double()
        mix = torch.randn(6, count, generator=draw, dtype=torch.float64)
        phase = 2 * math.pi * torch.rand(count, generator=draw, dtype=torch.float64)
        t = self.times[2]

        def waves(x: Tensor) -> Tensor:
            pairs = (x.repeat_interleave(6, 0), centres.repeat(len(x), *[1] * (x.ndim - 1)))
            logs = self.m.log_transition(*pairs, torch.full((6 * len(x),), t, dtype=torch.float64))
            return (2 * logs.reshape(len(x), 6).softmax(1) @ mix + phase).cos()

        return waves

    @functools.cached_property
    def fixed(self) -> Callable[[Tensor], float] | None:
        """How far states are off the space: the largest change of a quadratic function of the coordinates that is
        constant over data, noised states and draws of the prior (a sphere, a simplex, a group of matrices), in units
        of the coordinates' sizes. None where no such function is, or where there are more than 12 coordinates."""
        if not self.floating or self.size > 12:  # 12 have 91 quadratic functions
            return None
        n = 400
        noised = [self.noised(n, t, "fixed", str(t)).xt for t in (self.m.t_min, *self.times)]
        seen = torch.cat([rows(x).double() for x in (self.m.prior(n, rng=self.rng("fixed", "prior")), *noised)])
        if not bool(seen.isfinite().all()):
            return None
        scale = seen.abs().amax(0).clamp_min(1e-9)
        i, j = torch.triu_indices(self.size, self.size)

        def quadratics(x: Tensor) -> Tensor:
            y = rows(x).double() / scale
            return torch.cat([torch.ones(len(y), 1, dtype=y.dtype), y, y[:, i] * y[:, j]], 1)

        _, sizes, functions = torch.linalg.svd(quadratics(seen), full_matrices=False)
        none = functions[sizes < 1e-5 * len(seen) ** 0.5]  # draws of the prior may be in single precision
        return None if len(none) == 0 else lambda x: float((quadratics(x) @ none.T).abs().max())

    # --- an exact network -------------------------------------------------------------------------------------------

    def log_joint(self, xt: Tensor, t: Tensor) -> Tensor:
        """log w_j + log p_{t|0}(x_t | atom_j), (B, k)."""
        k = len(self.atoms)
        when = t.repeat_interleave(k, 0)
        pairs = self.m.log_transition(
            xt.repeat_interleave(k, 0), self.atoms.repeat(len(xt), *[1] * (xt.ndim - 1)), when
        )
        return pairs.reshape(len(xt), k).double() + self.weights.log()

    def oracle(self, xt: Tensor, t: Tensor) -> Tensor:
        """The output of a perfect network for the data law; where no atom can have led to the state (elements of a
        chain that moved in one step), as if nothing were known."""
        joint = self.log_joint(xt, t)
        lost = (joint == -torch.inf).all(1, keepdim=True)
        return self.m.posterior_output(xt, t, self.atoms, torch.where(lost, self.weights.log(), joint).softmax(1))

    @functools.cached_property
    def times(self) -> tuple[float, float, float]:
        """Three clock readings, increasing, where the atom is almost known, half known and almost lost.

        By the mean entropy of the posterior where there is a density, else .3, .6 and .85.
        """
        if not self.has("density"):
            return 0.3, 0.6, 0.85
        grid = [max(0.05, self.m.t_min), *(k / 20 for k in range(2, 20)), 0.97]
        left = []
        for k, t in enumerate(grid):
            z = self.noised(128, t, "times", k)
            post = self.log_joint(z.xt, z.t).log_softmax(1)
            left.append(float(-(post.exp() * post.clamp_min(-1e4)).sum(1).mean()) / self.entropy)
        found = [min(range(len(grid)), key=lambda k, want=want: abs(left[k] - want)) for want in (0.2, 0.5, 0.8)]
        low = min(found[0], len(grid) - 3)
        middle = min(max(found[1], low + 1), len(grid) - 2)
        return grid[low], grid[middle], grid[max(found[2], middle + 1)]

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The index of the atom nearest to each state, (B,), and whether it is far from all, (B,) bool.

        Numbers: by the kernel's density at the first of ``times``, far where that is below e^-3 times the least of a
        thousand noised data: coordinates may have a cut. Chains: by the squared distance, far above a tenth of that
        between the first two atoms.
        """
        if not self.floating:
            far = (x.reshape(len(x), 1, -1) - self.atoms.reshape(1, len(self.atoms), -1)).double().square().sum(2)
            between = (self.atoms[0] - self.atoms[1]).double().square().sum()
            return far.argmin(1), far.amin(1) > 0.1 * between
        z = self.noised(1000, self.times[0], "nearest")
        least = float(self.m.log_transition(z.xt, z.x0, z.t).min())
        logs = self.log_joint(x, z.t[:1].expand(len(x))) - self.weights.log()
        return logs.argmax(1), ~(logs.amax(1) > least - 3)

    # --- comparisons ------------------------------------------------------------------------------------------------

    def gap(self, a: Tensor, b: Tensor, *path: str | int, slack: float = 0.0, paired: bool = False) -> float:
        """How far two samples of states differ, in standard errors beyond ``slack``, over 48 test functions. ``paired``
        where row i of both comes from one state: what the states share is no error then."""
        pooled = rows(torch.cat([a, b])).double()
        size = pooled.std(0).clamp_min(1e-9)
        draw = self.rng(*path, "gap")
        w = torch.randn(self.size, 48, generator=draw, dtype=torch.float64) / self.size**0.5
        single = torch.zeros_like(w)
        single[torch.randint(self.size, (48,), generator=draw), torch.arange(48)] = 1.0
        w = torch.where(torch.arange(48) % 2 == 0, w, single)
        speed = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)[torch.arange(48) // 2 % 4]
        phase = 2 * math.pi * torch.rand(48, generator=draw, dtype=torch.float64)

        def f(x: Tensor) -> Tensor:
            return ((rows(x).double() / size) @ (w * speed) + phase).cos()

        fa, fb = f(a), f(b)
        if paired:
            return zscore((fa - fb).mean(0), (fa - fb).std(0) / len(a) ** 0.5, slack)
        error = (fa.var(0) / len(a) + fb.var(0) / len(b)).sqrt()
        return zscore(fa.mean(0) - fb.mean(0), error, slack)


def zscore(difference: Tensor, error: Tensor, slack: float | Tensor = 0.0) -> float:
    """The largest |difference| beyond ``slack``, in units of its standard error; infinite where it is not a number."""
    if not bool(difference.isfinite().all()):
        return math.inf
    over = (difference.abs() - slack - 1e-9).clamp_min(0)
    return float((over / error.clamp_min(1e-12)).max())


def pick(noised: Noised, index: Tensor) -> Noised:
    """Some rows of a draw."""
    return noised.pick(index)


def repeated(value: Tensor, like: Tensor) -> Tensor:
    """Rows of ``value``, each repeated so that there are as many as in ``like``: generators ask for several states a
    row."""
    return value.repeat_interleave(len(like) // len(value), 0)


def _spread(data: Tensor) -> Tensor:
    """Up to three rows far from each other: the first, the farthest from it, the farthest from both."""
    distinct = data.unique(dim=0)
    flat = rows(distinct).double()
    chosen = [int((flat - flat.mean(0)).square().sum(1).argmin())]
    while len(chosen) < min(3, len(distinct)):
        far = torch.stack([(flat - flat[k]).square().sum(1) for k in chosen]).amin(0)
        chosen.append(int(far.argmax()))
    return distinct[torch.tensor(chosen)]
