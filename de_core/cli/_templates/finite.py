"""Classes under a chain with any small rate matrix: a modality that works, to make your own of."""

from math import log1p

import torch
from torch.nn.functional import one_hot

from de_core import DiffuseError, Jump, JumpGenerator, Noised
from de_core.families.jump import categorical, guided_log_probs
from de_core.modality import expand, rows, shape_of, times
from de_core.rng import as_generator

__all__ = ["NewthingModality"]

# The rate of a jump from the row's class to the column's; the diagonal is not read.
RATES = (
    (0.0, 1.0, 0.2, 0.1),
    (0.6, 0.0, 0.8, 0.1),
    (0.2, 0.5, 0.0, 0.7),
    (0.1, 0.3, 0.9, 0.0),
)


class NewthingModality(Jump):
    """Class indices 0..K-1, each under a chain with rates r Q: P_t = exp(tau(t) Q), r = d tau/dt.

    Prior: the one law p with p Q = 0; Q must lead from each class to each, and need not be reversible.
    Clock: tau = tau_0 (e^(kappa t) - 1) runs from the time of the fastest jump, tau_0 = 1/(2 max_x |Q(x, x)|), to
    tau(1) = 7/gap, where gap is the least decay rate of Q (its second eigenvalue) and memory of the data is down to
    e^-7; that rest is dropped at t = 1, where the state is a draw of the prior.
    A network gives class scores of mu = p(x_0 | x_t), element by element:
    beta(y)/beta(x) = sum_b mu_b P_t(b, y)/P_t(b, x).

    Args:
        event_shape: any; every entry is one class and one element.
        rates: K rows of K rates >= 0; time is rescaled, so only their ratios matter.

    Source: Campbell et al. 2022 (2205.14987), section 3; Lou et al. 2024 (2310.16834) for the loss.
    """

    capabilities = frozenset({"generator", "density", "elementwise", "implicit"})

    @classmethod
    def examples(cls):
        """What `diffuse plugins check` looks at: modalities, each with clean data whose law is not the prior."""
        first = torch.randint(3, (256,), generator=torch.Generator().manual_seed(0))
        return [(cls((2,)), torch.stack([first, (first + 1) % 4], 1))]

    def __init__(self, event_shape=(), rates=RATES):
        self.rates = torch.tensor(rates, dtype=torch.float64)
        k, shape = len(self.rates), tuple(self.rates.shape)
        if shape != (k, k) or k < 2:
            raise DiffuseError(f"rates: expected K rows of K rates with K >= 2, got shape {shape}")
        self.rates.fill_diagonal_(0)
        if not bool(((self.rates >= 0) & self.rates.isfinite()).all()):
            raise DiffuseError(f"rates: expected finite numbers >= 0, got {rates}")
        if not bool(((self.rates > 0).double() + torch.eye(k)).matrix_power(k).min() > 0):
            raise DiffuseError("rates: expected a chain that leads from each class to each other one")
        self.matrix = self.rates - torch.diag(self.rates.sum(1))  # Q; its rows sum to 0
        gap = -float(torch.linalg.eigvals(self.matrix).real.sort().values[-2])
        self.tau_0 = 0.5 / -float(self.matrix.diagonal().min())
        self.kappa = log1p(7 / gap / self.tau_0)
        equations = torch.cat([self.matrix.T, torch.ones(1, k, dtype=torch.float64)])  # p Q = 0 and sum p = 1
        self.law = torch.linalg.pinv(equations)[:, -1].clamp_min(1e-300)
        self.event_shape = self.element_shape = shape_of(event_shape)
        self.num_classes, self.output_shape = k, (*self.event_shape, k)

    def config(self):
        """The constructor's arguments, as JSON."""
        return {"event_shape": list(self.event_shape), "rates": self.rates.tolist()}

    def validate(self, x):
        """Refuse what is no clean state: one sentence, what was expected and what came."""
        self.check_shape(x, floating=False)
        if bool(((x < 0) | (x >= self.num_classes)).any()):
            raise DiffuseError(f"expected classes 0 to {self.num_classes - 1}, got {int(x.min())} to {int(x.max())}")

    # --- the forward process: these say the same, and the conformance kit holds them to each other ---

    def log_kernel(self, s, t, x):
        """log P_{t|s} from row class to column class, for each element of x, (B, *event, K, K) float64."""
        s, t = expand(times(s, x), x).double(), expand(times(t, x), x).double()
        span = self.tau_0 * torch.exp(self.kappa * s) * torch.expm1(self.kappa * (t - s))  # tau(t) - tau(s)
        distinct, place = span.unique(return_inverse=True)  # rows that are sampled together share their times
        p = torch.matrix_exp(distinct[:, None, None] * self.matrix.to(x.device))[place]
        p = torch.where((span > 0)[..., None, None], p.clamp_min(1e-300), p)  # rounding may leave a zero, or less
        p = torch.where((t == 1)[..., None, None], self.law.to(x.device), p)
        return p.log().expand(*x.shape, self.num_classes, self.num_classes)

    def generator(self, t):
        """The rates at time t, with the neighbours of a state: `NewthingGenerator`."""
        t = t if isinstance(t, torch.Tensor) else torch.tensor(t, dtype=torch.float64)
        rate = self.tau_0 * self.kappa * torch.exp(self.kappa * t.double())
        return NewthingGenerator(self, rate.to(t.dtype))

    def log_transition(self, xt, x0, t):
        """log P_t(x_0, x_t), summed over the elements."""
        t = times(t, xt)
        log_p = self.log_kernel(0.0, t, xt)
        return rows(pick(pick(log_p, x0, -2), xt, -1)).sum(1).to(t.dtype)

    def prior(self, batch, *, rng):
        """A draw at t = 1."""
        rng = as_generator(rng, rng.device if isinstance(rng, torch.Generator) else "cpu")
        log_p = self.law.log().to(rng.device).expand(batch, *self.event_shape, self.num_classes)
        return categorical(log_p, rng)

    def perturb(self, x, t, *, s=0.0, rng):
        """x_t given x_s = x. Where t = s it is x."""
        t = times(t, x)
        s = expand(times(s, x), t).expand_as(t)
        if bool((t < s).any()):
            raise DiffuseError("newthing: the kernel runs forward, expected t >= s")
        moved = categorical(pick(self.log_kernel(s, t, x), x, -2), as_generator(rng, x.device))
        return Noised(x, torch.where(expand(t > s, x), moved, x), s, t)

    # --- what a network says: the loss and the implicit form follow from these, by the family's base ---

    def ratios(self, log_p, xt):
        """log p(y)/p(x_t) over the neighbours y, (B, N), from log p of each class of each element."""
        return rows(log_p.gather(-1, others(xt, self.num_classes)) - log_p.gather(-1, xt[..., None]))

    def target_score(self, noised):
        """log P_t(x_0, y)/P_t(x_0, x_t) over the neighbours: the base would take it from `log_transition`, slowly."""
        log_p = pick(self.log_kernel(0.0, noised.t, noised.xt), noised.x0, -2)
        return self.ratios(log_p, noised.xt).to(noised.t.dtype)

    def score(self, output, xt, t):
        """log beta(y)/beta(x_t) over the neighbours, (B, N)."""
        log_p = self.log_kernel(0.0, t, xt)
        log_beta = (self.lift(output, log_p, xt)[..., None] + log_p).logsumexp(-2)
        return self.ratios(log_beta, xt).to(output.dtype)

    def lift(self, output, log_p, xt):
        """log mu_b/P_t(b, x_t) for every class b, float64."""
        return output.double().log_softmax(-1) - pick(log_p, xt, -1)

    def posterior_output(self, xt, t, candidates, weights):
        """log mu where x_0 is candidates[j] with probability weights[:, j]."""
        hot = rows(one_hot(candidates, self.num_classes)).to(weights.dtype)
        return (weights @ hot).reshape(*xt.shape, self.num_classes).clamp_min(1e-30).log()

    # --- the reverse process ---

    def step(self, output, xt, t, s, *, rng, method=None, weak=None, weight=1.0, again=None, carry=None):
        """A draw of p(x_s = j | x_t), proportional to P_{t|s}(j, x_t) sum_b mu_b P_s(b, j)/P_t(b, x_t)."""
        t, s = times(t, xt), times(s, xt)
        safe = torch.where(t > s, t, 1.0)  # elements whose two times are equal stay as they are
        to_t, to_s, between = (self.log_kernel(a, b, xt) for a, b in ((0.0, safe), (0.0, s), (s, safe)))

        def reverse(said):
            back = (self.lift(said, to_t, xt)[..., None] + to_s).logsumexp(-2)
            return (back + pick(between, xt, -1)).log_softmax(-1)

        log_p = guided_log_probs(reverse(output), None if weak is None else reverse(weak), weight)
        moved = categorical(log_p, as_generator(rng, xt.device))
        return torch.where(expand(t > s, xt), moved, xt), None

    def finish(self, output, xt, t, *, rng, weak=None, weight=1.0):
        """A draw of mu; where t = 0, x_t itself."""
        other = None if weak is None else weak.double().log_softmax(-1)
        log_mu = guided_log_probs(output.double().log_softmax(-1), other, weight)
        drawn = categorical(log_mu, as_generator(rng, xt.device))
        return torch.where(expand(times(t, xt) > 0, xt), drawn, xt)


class NewthingGenerator(JumpGenerator):
    """L f(x) = r sum_l sum_j Q(x_l, j) [f(x with element l = j) - f(x)]."""

    def __init__(self, modality, rate):
        self.modality, self.rate = modality, rate

    def neighbours(self, x):
        """Every state that differs in one element, with the rates there and back; x itself where both are 0."""
        k, n = self.modality.num_classes, self.modality.elements
        flat = x.reshape(len(x), n)
        value = others(flat, k)
        own = torch.eye(n, dtype=torch.bool, device=x.device)[:, None]
        rate = self.rate if self.rate.ndim == 0 else rows(self.rate)[..., None]
        rates = self.modality.rates.to(x.device, self.rate.dtype)
        out, into = rates[flat[..., None], value], rates[value, flat[..., None]]
        linked = own & (out + into > 0)[..., None]
        y = torch.where(linked, value[..., None], flat[:, None, None])
        return y.reshape(len(x), n * (k - 1), *x.shape[1:]), (rate * out).flatten(1), (rate * into).flatten(1)

    def states(self):
        """All of them, where they are few."""
        axes = [torch.arange(self.modality.num_classes)] * self.modality.elements
        return torch.cartesian_prod(*axes).reshape(-1, *self.modality.event_shape)


def others(x, k):
    """The k - 1 other classes of each element, (*x.shape, k - 1)."""
    return (x[..., None] + torch.arange(1, k, device=x.device)) % k


def pick(table, x, dim):
    """table, (*x.shape, ...), at class x of each element along that axis, which goes."""
    return table.take_along_dim(x.reshape(x.shape + (1,) * (table.ndim - x.ndim)), dim).squeeze(dim)
