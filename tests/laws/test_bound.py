"""The likelihood bound with an exact network: at least -log p, equal to it up to the stated slack, along any path,
whole or conditional; its standard error is what it says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from de_core import DiffuseError, JointProcess, Sequential, Synchronous, get_modality
from de_core.paths import Cascaded, Matched
from de_core.testing import OracleDenoiser
from de_core.testing.strategies import joint_laws, seeds

F64 = torch.float64


def finite():
    """Two masked tokens and a class, seven atoms of unequal weight."""
    joint = JointProcess(
        {"tokens": get_modality("masked")((2,), 3), "label": get_modality("uniform")((), 3)}, block=4096
    )
    atoms = {
        "tokens": torch.tensor([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 0], [0, 0]]),
        "label": torch.tensor([0, 0, 1, 1, 2, 2, 1]),
    }
    law = torch.tensor([0.3, 0.1, 0.2, 0.05, 0.15, 0.1, 0.1], dtype=F64)
    return joint, atoms, law


PATHS = [Synchronous(), Sequential(["tokens"]), Sequential(["label"]), Cascaded(["label"], lag=0.4), Matched()]
SLACK = 1e-3 * 3 * math.log(9)  # the information between 3 elements at t_min = 1e-3, each lost with that probability


def means(found, law, copies):
    """Mean and its standard error, by atom, of ``copies`` rows an atom."""
    total = found.total.reshape(len(law), copies)
    return total.mean(1), total.std(1) / math.sqrt(copies)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_with_the_truth_the_bound_is_minus_log_p_on_average_along_every_path(path):
    """T9. With exact heads the chain rule holds with equality in the mean over the data: E bound = H(p) + KL(product of
    the reconstructions), the last being under SLACK. 2,000 copies of each atom, weighted by the law: five of the
    bound's own standard errors. On each row bound >= -log p too."""
    joint, atoms, law = finite()
    oracle = OracleDenoiser(joint, atoms, law)
    copies = 2000
    rows = torch.arange(7).repeat_interleave(copies)
    found = joint.bound(oracle, {k: v[rows] for k, v in atoms.items()}, rng=0, draws=16, path=path)
    mean, error = means(found, law, copies)
    average, stderr = float(law @ mean), float((law**2 @ error**2) ** 0.5)
    entropy = -float(law @ law.log())
    assert abs(average - entropy) < 5 * stderr + SLACK
    assert 5 * stderr < 0.1 * entropy
    assert bool((mean > -law.log() - 5 * error - SLACK).all())
    # the square of what the bound says of its own error is unbiased: its mean over rows against the spread of an atom's
    # copies, five standard errors of the mean of the difference
    spread = (found.total.reshape(7, copies) - mean[:, None]) ** 2 * copies / (copies - 1)
    gap = (found.stderr.reshape(7, copies) ** 2 - spread).flatten()
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(len(gap))
    assert float(gap.std()) / math.sqrt(len(gap)) < 0.03 * float(spread.mean())  # so a fifth off would be seen
    assert found.path == path
    assert found.given == {}
    assert torch.equal(found.total, torch.stack(list(found.terms.values())).sum(0))


def conditional_entropy(law, atoms, name, level):
    """E -log p(all others | ``name`` at the level) of the finite law, where ``name`` is "label" with 3 classes under
    the uniform kernel: kept with probability 1 - level, else any class."""
    others = [key for key in atoms if key != name]
    keys = [tuple(torch.cat([atoms[key][j].flatten() for key in others]).tolist()) for j in range(len(law))]
    table: dict = {}
    for j, weight in enumerate(law.tolist()):
        for seen in range(3):
            p = weight * ((1 - level) * (int(atoms[name][j]) == seen) + level / 3)
            table[keys[j], seen] = table.get((keys[j], seen), 0.0) + p
    marginal = [sum(p for (_, s), p in table.items() if s == seen) for seen in range(3)]
    return -sum(p * math.log(p / marginal[s]) for (_, s), p in table.items() if p > 0)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7, 1.0])
def test_conditional_bounds_are_conditional_entropies(level):
    """E bound(tokens | label at level s) = H(tokens | label_s), between H(tokens | label) at 0 and H(tokens) at 1.
    Five standard errors of 1,000 rows an atom, and SLACK."""
    joint, atoms, law = finite()
    rows = torch.arange(7).repeat_interleave(1000)
    x0 = {k: v[rows] for k, v in atoms.items()}
    found = joint.bound(OracleDenoiser(joint, atoms, law), x0, rng=0, given={"label": level})
    assert list(found.terms) == ["tokens"]
    assert found.given == {"label": level}
    mean, error = means(found, law, 1000)
    truth, stderr = conditional_entropy(law, atoms, "label", level), float((law**2 @ error**2) ** 0.5)
    assert abs(float(law @ mean) - truth) < 5 * stderr + SLACK
    assert 5 * stderr < 0.1 * truth
    if level == 0:  # names alone mean clean
        again = joint.bound(OracleDenoiser(joint, atoms, law), x0, rng=0, given=("label",))
        assert torch.equal(again.total, found.total)


# --- numbers and a label: a gaussian mixture -----------------------------------------------------------


class Mixture:
    """label ~ w, x | label = k ~ N(mean_k, v_k) in the plane, and the exact network of it.

    ``wrong`` scales the predicted data and ``tilt`` the class scores: heads of no one law.
    """

    w = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
    centre = torch.tensor([[0.0, 0.5], [1.5, -0.5], [-1.0, -1.0]], dtype=F64)
    v = torch.tensor([0.3, 0.1, 0.5], dtype=F64)

    def __init__(self, kind, wrong=1.0, tilt=1.0):
        number = get_modality("gaussian")((2,), "cosine", "x0")
        label = get_modality(kind)((), 3)
        self.joint = JointProcess({"x": number, "label": label}, block=4096)
        self.number, self.label, self.wrong, self.tilt = number, label, wrong, tilt

    def log_normal(self, x, a, s):
        """log N(x; a mean_k, a^2 v_k + s^2) for every k, (B, 3)."""
        variance = a[:, None] ** 2 * self.v + s[:, None] ** 2
        square = ((x[:, None] - a[:, None, None] * self.centre) ** 2).sum(-1)
        return -0.5 * square / variance - torch.log(2 * math.pi * variance)

    def __call__(self, x, t):
        a, s = self.number.path.alpha(t["x"].double()), self.number.path.sigma(t["x"].double())
        classes = torch.arange(3).repeat(len(a))
        seen, clock = x["label"].repeat_interleave(3, 0), t["label"].double().repeat_interleave(3, 0)
        kernel = self.label.log_transition(seen, classes, clock).reshape(-1, 3)
        log_p = (self.w.log() + self.log_normal(x["x"], a, s) + kernel).log_softmax(1)
        gain = a[:, None] * self.v / (a[:, None] ** 2 * self.v + s[:, None] ** 2)
        each = self.centre + gain[..., None] * (x["x"][:, None] - a[:, None, None] * self.centre)
        guess = (log_p.exp()[..., None] * each).sum(1)
        return {"x": self.wrong * guess, "label": self.tilt * log_p.clamp_min(-200)}

    def draw(self, n, seed):
        rng = torch.Generator().manual_seed(seed)
        label = torch.multinomial(self.w, n, replacement=True, generator=rng)
        noise = torch.randn(n, 2, generator=rng, dtype=F64)
        return {"x": self.centre[label] + self.v[label].sqrt()[:, None] * noise, "label": label}

    def nats(self, x0):
        """-log p(x, label), -log p(label | x), -log p(x | label), each (n,)."""
        one, zero = torch.ones(len(x0["x"]), dtype=F64), torch.zeros(len(x0["x"]), dtype=F64)
        each = self.log_normal(x0["x"], one, zero) + self.w.log()
        both = each.gather(1, x0["label"][:, None])[:, 0]
        return -both, each.logsumexp(1) - both, -both + self.w.log()[x0["label"]]


MIXED_PATHS = [Synchronous(), Sequential(["x"]), Sequential(["label"]), Cascaded(lag=0.5), Matched()]


@pytest.mark.parametrize("kind", ["uniform", "masked"])
def test_t9_numbers_and_a_label_any_path_any_condition(kind):
    """E [bound + log p] = 0 at the truth, whole along five paths, and for either part given the other; row by row the
    difference loses the spread of the data. The decoder's slack: spread^2/v_k a number, spread = sigma/alpha at t_min =
    1.6e-3, under 1e-4; that of the label SLACK. Five standard errors of the mean of 8,000 rows."""
    mixture = Mixture(kind)
    x0 = mixture.draw(8000, 0)
    whole, label, number = mixture.nats(x0)
    found = [(mixture.joint.bound(mixture, x0, rng=k, path=path), whole) for k, path in enumerate(MIXED_PATHS)]
    found += [(mixture.joint.bound(mixture, x0, rng=5, given=("x",)), label)]
    found += [(mixture.joint.bound(mixture, x0, rng=6, given=("label",)), number)]
    for bound, truth in found:
        gap = bound.total - truth
        error = float(gap.std()) / math.sqrt(len(gap))
        assert abs(float(gap.mean())) < 5 * error + 1e-4 + SLACK
        assert error < 0.1
        # rows are independent, and beside its own error a row differs from -log p by what the means of bounds do
        assert 0.7 < float((bound.stderr**2).mean()) / float(gap.var()) < 1.3
    # draws are dense near the data: under even times one number's integrand (1/t at small t) has a variance of about
    # 3/t_min, which 16 draws bring to 190; here two numbers together stay far below that
    assert float((found[-1][0].stderr ** 2).mean()) < 60


@pytest.mark.parametrize("kind", ["uniform", "masked"])
def test_t9_heads_that_are_off_cost_nats_along_every_path(kind):
    """E bound - H(p) >= KL(p || p_theta) >= 0 for heads of no one law: never below H(p), and above it by more than five
    standard errors of 4,096 rows."""
    mixture = Mixture(kind, wrong=0.9, tilt=0.6)
    x0 = mixture.draw(4096, 1)
    whole, label, number = mixture.nats(x0)
    found = [(mixture.joint.bound(mixture, x0, rng=k, path=path), whole) for k, path in enumerate(MIXED_PATHS)]
    found += [(mixture.joint.bound(mixture, x0, rng=5, given=("x",)), label)]
    found += [(mixture.joint.bound(mixture, x0, rng=6, given=("label",)), number)]
    for bound, truth in found:
        gap = bound.total - truth
        assert float(gap.mean()) > 5 * float(gap.std()) / math.sqrt(len(gap))


def corners(draw):
    joint = JointProcess(
        {
            "word": get_modality("masked")((2,), [2, 3]),
            "label": get_modality("uniform")((), 3, draw(st.sampled_from(["posterior", "leave_one_out"]))),
        },
        elementwise=draw(st.sampled_from([(), ("word",)])),
        block=1024,
    )
    return joint, *draw(joint_laws(joint))


@settings(max_examples=8)
@given(st.data(), seeds())
def test_t9_finite_laws_no_head_beats_the_entropy(data, seed):
    """E bound >= H(p) for class scores with noise of size 1, and more than with the truth; five standard errors of
    the mean, and SLACK. Atoms may repeat: H(p) is of the merged law."""
    joint, atoms, weights = corners(data.draw)
    law = weights / weights.sum()
    oracle = OracleDenoiser(joint, atoms, law)
    keys = [tuple(torch.cat([x[j].flatten() for x in atoms.values()]).tolist()) for j in range(len(law))]
    merged = {key: sum(float(p) for k, p in zip(keys, law, strict=True) if k == key) for key in keys}
    entropy = -sum(p * math.log(p) for p in merged.values())

    def off(x, t):
        rng = torch.Generator().manual_seed(seed)
        out = oracle(x, t)
        return {
            name: o.clamp_min(-30) + torch.randn(o.shape[1:], generator=rng, dtype=o.dtype) for name, o in out.items()
        }

    rows = torch.multinomial(law, 1024, replacement=True, generator=torch.Generator().manual_seed(seed))
    x0 = {name: x[rows] for name, x in atoms.items()}
    exact = joint.bound(oracle, x0, rng=seed).total.double()
    gap = exact + torch.tensor([math.log(merged[keys[j]]) for j in rows.tolist()], dtype=F64)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / 32 + SLACK
    worse = joint.bound(off, x0, rng=seed).total - joint.bound(oracle, x0, rng=seed).total  # common noises
    assert float(worse.mean()) > -5 * float(worse.std()) / 32
    assert float(joint.bound(off, x0, rng=seed).total.mean()) > entropy - 5 * float(exact.std()) / 32 - SLACK


def test_with_a_wrong_model_the_bound_is_larger():
    """E bound - H(p) >= KL(p || q) of an oracle of another law: cross entropy is the least it can be. Five standard
    errors."""
    joint, atoms, law = finite()
    other = law.flip(0)
    rows = torch.arange(7).repeat_interleave(300)
    found = joint.bound(OracleDenoiser(joint, atoms, other), {k: v[rows] for k, v in atoms.items()}, rng=0, draws=16)
    total = found.total.reshape(7, 300)
    stderr = float((law**2 @ (total.var(1) / 300)) ** 0.5)
    cross = -float(law @ other.log())
    assert abs(float(law @ total.mean(1)) - cross) < 5 * stderr + 1e-3 * 3 * math.log(9)


def test_the_gaussian_bound_is_the_density_of_gaussian_data():
    """x_0 ~ N(0, v), the exact head x_0_hat = alpha v x/(alpha^2 v + sigma^2) in closed form: E bound = the
    differential entropy log(2 pi e v)/2 up to the decoder's slack: N(x0_hat, s^2) for a posterior of variance s^2
    v/(v + s^2), s = sigma/alpha at t_min, whose relative gap is s^2/v < 1e-5. Five standard errors of 8,000 rows."""
    modality = get_modality("gaussian")((1,), "cosine", "x0")
    joint = JointProcess({"m": modality}, block=8192)
    v = 0.4

    def model(x, t):
        a, s = modality.path.alpha(t["m"]), modality.path.sigma(t["m"])
        return {"m": (a * v / (a**2 * v + s**2))[:, None] * x["m"]}

    x0 = math.sqrt(v) * torch.randn(8000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = joint.bound(model, {"m": x0}, rng=1, draws=16)
    error = float(found.total.std()) / math.sqrt(len(x0))
    assert abs(float(found.total.mean()) - 0.5 * math.log(2 * math.pi * math.e * v)) < 5 * error
    # a model that is off pays
    off = joint.bound(lambda x, t: {"m": 0.8 * model(x, t)["m"]}, {"m": x0}, rng=1, draws=16)
    assert float(off.total.mean()) > float(found.total.mean()) + 5 * error


def test_the_bound_of_corners_of_the_simplex_is_their_entropy():
    """One-hot data are discrete: E bound = H(p), up to the end of the clock, c^2 (psi + 1)(K - 1)/2 < 1e-5, counted by
    prior_kl. Five standard errors of 300 rows."""
    joint = JointProcess({"m": get_modality("simplex")((3,), "posterior")}, block=300)
    law = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    oracle = OracleDenoiser(joint, {"m": torch.eye(3, dtype=F64)}, law)
    rows = torch.arange(3).repeat_interleave(100)
    found = joint.bound(oracle, {"m": torch.eye(3, dtype=F64)[rows]}, rng=0, draws=8)
    total = found.total.reshape(3, 100)
    stderr = float((law**2 @ (total.var(1) / 100)) ** 0.5)
    assert abs(float(law @ total.mean(1)) + float(law @ law.log())) < 5 * stderr + 1e-3


def test_row_i_of_the_bound_does_not_depend_on_the_other_rows():
    joint, atoms, law = finite()
    joint = JointProcess(joint.modalities, block=4)
    oracle = OracleDenoiser(joint, atoms, law)
    many = joint.bound(oracle, atoms, rng=3, draws=4)
    few = joint.bound(oracle, {k: v[:3] for k, v in atoms.items()}, rng=3, draws=4)
    assert torch.equal(many.total[:3], few.total)
    assert torch.equal(many.stderr[:3], few.stderr)


def test_paths_start_clean_end_noisy_and_never_run_back():
    u = torch.linspace(0, 1, 101, dtype=F64)[:-1] + 1e-9
    for path in [Synchronous(), Sequential(), Sequential(["label"]), Cascaded(lag=0.3)]:
        clocks = path.clocks(finite()[0].modalities, u)
        for t, speed in clocks.values():
            assert float(t[0]) < 0.05
            assert float(t[-1]) > 0.95
            assert bool((t[1:] >= t[:-1]).all())
            slope = (t[1:] - t[:-1]) / (u[1:] - u[:-1])
            inner = speed[1:] == speed[:-1]
            assert bool(((slope - speed[:-1]).abs()[inner] < 1e-6).all())
        total = sum(float(speed.mean()) for _, speed in clocks.values())
        assert abs(total - 2) < 0.05  # every clock runs once through


def test_the_weights_of_the_draws_are_exact_along_every_path():
    """The draws' density is exact whatever the path: int t'(u) du = 1 for each clock, seen through a loss that is 1.

    A modality with integrand 1 and no other terms has the bound sum_i (1 - t_min) exactly in expectation; the
    importance weight du/dw makes it noisy: five standard errors of 4,096 rows."""

    class One(get_modality("gaussian")):
        def loss(self, output, noised, *, objective="elbo"):
            return torch.ones(len(noised.x0), dtype=F64)

        def reconstruction(self, output, noised):
            return torch.zeros(len(noised.x0), dtype=F64)

        def prior_kl(self, x0):
            return torch.zeros(len(x0), dtype=F64)

    joint = JointProcess({"a": One((1,)), "b": One((1,), "edm")}, block=4096)
    x0 = {name: torch.zeros(4096, 1, dtype=F64) for name in "ab"}
    for path in [Synchronous(), Sequential(["b"]), Cascaded(lag=0.2), Matched()]:
        found = joint.bound(lambda x, t: x, x0, rng=0, draws=8, path=path)
        for term in found.terms.values():
            # Matched takes its slopes over 1e-4 on each side, which is off by as much at the kinks
            assert abs(float(term.mean()) - 0.999) < 5 * float(term.std()) / 64 + 1e-3 * (path == Matched())


def test_no_rows_make_an_empty_bound():
    joint, atoms, law = finite()
    found = joint.bound(OracleDenoiser(joint, atoms, law), {k: v[:0] for k, v in atoms.items()}, rng=0)
    assert found.total.shape == found.stderr.shape == (0,)
    assert {name: tuple(term.shape) for name, term in found.terms.items()} == {"tokens": (0,), "label": (0,)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 3}, r"draws: expected an even whole number of at least 2, got 3"),
        ({"draws": 0}, r"draws: .* got 0"),
        ({"draws": True}, r"draws: .* got True"),
        ({"given": "label"}, r"given: expected names, as in given=\('label',\)"),
        ({"given": ["sound"]}, r"unknown modality 'sound'"),
        ({"given": {"label": 1.5}}, r"given 'label': expected a level in \[0, 1\], got 1.5"),
        ({"given": {"label": math.nan}}, r"given 'label': expected a level"),
        ({"given": {"label": None}}, r"given 'label': expected a level"),
        ({"given": ["tokens", "label"]}, r"every modality is given"),
        ({"given": ["label"], "path": Sequential(["label"])}, r"path: unknown modality 'label'; .* tokens"),
    ],
)
def test_bad_calls_are_refused_before_any_work(options, words):
    joint, atoms, _ = finite()

    def never(x, t):
        raise AssertionError("the network was called")

    with pytest.raises(DiffuseError, match=words):
        joint.bound(never, atoms, rng=0, **options)
