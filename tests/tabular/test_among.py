"""Sets of values as conditions: the law of what is drawn, against the conditional of a law with an exact network."""

import math

import attrs
import pytest
import torch

from de_core import Given
from de_plugins.tabular._among import Among, draw_among
from de_plugins.tabular.process import table_process

N = 4096
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.0], [0.5, 1.0], [1.0, -1.0]], dtype=torch.float64)
COV = torch.tensor([[0.36, 0.24], [0.24, 0.25]], dtype=torch.float64)  # correlation .8


class Exact:
    """The exact network of a class c and two numbers that are normal given c, each under a clock of its own.

    Given c and clocks t, x_t is N(A mu_c, C), C = A S A + B with A = diag(alpha), B = diag(sigma^2); E[x_0 | x_t] =
    mu_c + S A C^-1 (x_t - A mu_c), E[eps | x_t] = sqrt(B) C^-1 (x_t - A mu_c), finite at every t; v = alpha eps -
    sigma x_0.
    """

    def __call__(self, x, t):
        y, when = x["numbers"].double(), 0.5 * math.pi * t["numbers"].double()
        alpha, sigma = when.cos(), when.sin()
        cov = alpha[:, :, None] * COV * alpha[:, None, :] + torch.diag_embed(sigma**2 + 1e-12)
        off = y[:, None] - alpha[:, None] * MEANS  # (B, 3, 2)
        pull = torch.linalg.solve(cov[:, None].expand(-1, 3, -1, -1), off)
        fit = -0.5 * (off * pull).sum(2) + SHARES.log()
        c = x["classes"][:, 0]
        shown = torch.where((c == 3)[:, None] | (torch.arange(3) == c[:, None]), fit, -torch.inf).softmax(1)
        x0 = MEANS + (alpha[:, None] * pull) @ COV
        v = alpha[:, None] * sigma[:, None] * pull - sigma[:, None] * x0
        return {"classes": fit.float(), "numbers": (shown[..., None] * v).sum(1).float()}


def truth(keep, n=2_000_000):
    """Draws of (c, a, b) that ``keep`` keeps."""
    rng = torch.Generator().manual_seed(1)
    c = torch.multinomial(SHARES, n, True, generator=rng)
    noise = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    x = MEANS[c] + noise @ torch.linalg.cholesky(COV).T
    kept = keep(c, x)
    return c[kept], x[kept]


def drawn(sets, steps=32):
    joint, model = table_process((3,), 2), Exact()
    rng = torch.Generator().manual_seed(0)
    x = {"numbers": torch.randn(N, 2, generator=rng), "classes": torch.full((N, 1), 3)}
    t = {name: torch.ones_like(value, dtype=torch.float32) for name, value in x.items()}
    draw_among(joint, model, x, t, sets, steps, rng)
    given = {name: Given(x[name], known=t[name] == 0) for name in x}
    x = joint.sample(model, N, given=given, steps=40, rng=0, methods={"classes": "systematic"})
    return x["classes"][:, 0], x["numbers"].double()


def compare(got, want):
    """Shares of classes, means and second moments: five standard errors of N draws, and .01 for the steps."""
    (c, x), (d, y) = got, want
    assert len(d) > 20 * N  # the truth's own error is small beside that of N draws
    pairs = [((c == k).double(), (d == k).double()) for k in range(3)]
    pairs += [(x[:, i], y[:, i]) for i in (0, 1)]
    pairs += [(x[:, i] * x[:, j], y[:, i] * y[:, j]) for i, j in ((0, 0), (0, 1), (1, 1))]
    pairs += [(x[:, 1] * (c == k), y[:, 1] * (d == k)) for k in range(3)]
    for a, b in pairs:
        assert abs(float(a.mean() - b.mean())) < 5 * float(b.std()) / N**0.5 + 0.01


ONLY = torch.zeros(0, dtype=torch.float64)
NONE = torch.zeros(0, 2, dtype=torch.float64)
INF = math.inf


def number(k, *stretches):
    return Among(-1, ONLY, k, torch.tensor(stretches, dtype=torch.float64))


def classes(*chances):
    return Among(0, torch.tensor(chances, dtype=torch.float64), -1, NONE)


def within(x, low, high):
    return (x >= low) & (x <= high)


CASES = {
    "classes": ([classes(1, 0, 1)], lambda c, x: c != 1),
    "a range": ([number(0, (0.2, 0.9))], lambda c, x: within(x[:, 0], 0.2, 0.9)),
    "an open range in the tail": ([number(0, (1.5, INF))], lambda c, x: x[:, 0] >= 1.5),
    "two ranges of one": (
        [number(1, (-INF, -1.0), (0.5, 1.0))],
        lambda c, x: within(x[:, 1], -INF, -1) | within(x[:, 1], 0.5, 1),
    ),
    "a range and classes": (
        [classes(0, 1, 1), number(0, (-0.5, 0.5))],
        lambda c, x: (c > 0) & within(x[:, 0], -0.5, 0.5),
    ),
    "a class, or a number behind a gate": (
        [attrs.evolve(number(0, (-0.8, -0.2)), place=0, chances=torch.tensor([1.0, 1.0, 0.0]).double())],
        lambda c, x: (c == 1) | (c == 0) & within(x[:, 0], -0.8, -0.2),
    ),
    "two ranges that pull apart": (
        [number(0, (-1.0, 0.3)), number(1, (0.2, 2.0))],
        lambda c, x: within(x[:, 0], -1, 0.3) & within(x[:, 1], 0.2, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_have_the_conditional_law(case):
    sets, keep = CASES[case]
    c, x = drawn(sets)
    assert bool(keep(c, x).all())
    compare((c, x), truth(keep))


def test_a_share_of_a_class():
    """The share of a class that lies in the set scales its chance: .5 : .15 : 0 here. Five standard errors."""
    c, _ = drawn([classes(1, 0.5, 0)])
    p = 0.15 / 0.65
    assert abs(float((c == 1).double().mean()) - p) < 5 * (p * (1 - p) / N) ** 0.5
    assert not bool((c == 2).any())
