"""The log-likelihood by the probability flow against closed forms, and nats as bits per dimension."""

import math

import pytest
import torch

from de_core import DiffuseError, JointProcess, bits_per_dim, get_modality

F64 = torch.float64
MEAN = torch.tensor([0.7, -0.4], dtype=F64)
COV = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=F64)


def normal(x, mean, cov):
    return torch.distributions.MultivariateNormal(mean, cov).log_prob(x)


def gaussian_case(schedule, prediction):
    """Data N(MEAN, COV) in the plane, and the exact network of it."""
    m = get_modality("gaussian")((2,), schedule, prediction)

    def model(x, t):
        a, s = (f(t["m"].double())[:, None, None] for f in (m.path.alpha, m.path.sigma))
        gain = a * COV @ torch.linalg.inv(a**2 * COV + s**2 * torch.eye(2, dtype=F64))
        x0 = MEAN + (gain @ (x["m"].double() - a[..., 0] * MEAN)[..., None])[..., 0]
        return {"m": m.convert(x0.to(x["m"].dtype), x["m"], t["m"], prediction, source="x0")}

    return m, model


def gaussian_truth(m, x):
    """log p_{t_min}(x) - log p_1(y) + log prior(y): y, where the flow ends, is alpha mean + S_1^{1/2} S_0^{-1/2} (x -
    alpha mean), S_t = alpha^2 COV + sigma^2, whose eigenvectors are the same at all times. On the cosine path the last
    two cancel."""
    ends = torch.tensor([m.t_min, 1.0], dtype=F64)
    (a0, a1), (s0, s1) = m.path.alpha(ends), m.path.sigma(ends)
    values, vectors = torch.linalg.eigh(COV)
    early, late = (torch.diag_embed(a**2 * values + s**2) for a, s in ((a0, s0), (a1, s1)))
    move = vectors @ (late @ torch.linalg.inv(early)).sqrt() @ vectors.T
    y = a1 * MEAN + (x - a0 * MEAN) @ move.T
    first, last = (vectors @ v @ vectors.T for v in (early, late))
    scale = 80.0 if m.schedule == "edm" else 1.0
    prior = normal(y, torch.zeros(2, dtype=F64), scale**2 * torch.eye(2, dtype=F64))
    return normal(x, a0 * MEAN, first) - normal(y, a1 * MEAN, last) + prior


def points(n, seed=0):
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return MEAN + noise @ torch.linalg.cholesky(COV).T


@pytest.mark.parametrize(("schedule", "prediction"), [("cosine", "v"), ("cosine", "x0"), ("linear", "v"), ("edm", "v")])
def test_gaussian_data_have_their_density_to_the_integrators_order(schedule, prediction):
    """Order 4: halving the step divides the error by 16 in the limit, here by at least 2^3.6 from 32 to 64 steps (EDM
    comes from below, as its clock runs over five decades of sigma). At the default 64 steps the error is below 1e-6 on
    the variance-preserving paths and 1e-3 on EDM's."""
    m, model = gaussian_case(schedule, prediction)
    joint, x = JointProcess({"m": m}, block=40), points(40)
    truth = gaussian_truth(m, x)
    runs = [joint.log_likelihood(model, {"m": x}, steps=n) for n in (32, 64)]
    coarse, fine = (float((found - truth).abs().max()) for found in runs)
    assert math.log2(coarse / fine) > 3.6
    assert fine < (1e-3 if schedule == "edm" else 1e-6)
    # the data's own density up to the blur, sigma^2(t_min) = 1.1e-4 at most over the least variance .3, and on the
    # linear path, which ends at alpha = 6.6e-3, up to alpha |mean| |y| in the prior: 0.005 times a y of size 1 to 3
    clean = normal(x, MEAN, COV)
    assert float((runs[1] - clean).abs().mean()) < (0.02 if schedule == "linear" else 0.01)


W = torch.tensor([0.5, 0.2, 0.3], dtype=F64)
CENTRE = torch.tensor([-1.0, 0.4, 1.5], dtype=F64)
V = torch.tensor([0.2, 0.05, 0.1], dtype=F64)


def mixture_log(x, a, s, log_w):
    """log w_k N(x; a centre_k, a^2 V_k + s^2) for x, a, s (B,), (B, 3)."""
    return log_w + torch.distributions.Normal(
        a[:, None] * CENTRE, (a[:, None] ** 2 * V + s[:, None] ** 2).sqrt()
    ).log_prob(x[:, None])


def mixture_model(joint):
    """The exact network of label ~ W, x | label ~ N(CENTRE, V), whatever the label's level is."""
    path, label = joint.modalities["x"].path, joint.modalities["label"]

    def model(x, t):
        a, s = path.alpha(t["x"]), path.sigma(t["x"])
        classes, seen = torch.arange(3).repeat(len(a)), x["label"].repeat_interleave(3, 0)
        kernel = label.log_transition(seen, classes, t["label"].double().repeat_interleave(3, 0)).reshape(-1, 3)
        log_p = mixture_log(x["x"], a, s, W.log() + kernel).log_softmax(1)
        gain = a[:, None] * V / (a[:, None] ** 2 * V + s[:, None] ** 2)
        each = CENTRE + gain * (x["x"][:, None] - a[:, None] * CENTRE)
        return {"x": (log_p.exp() * each).sum(1), "label": log_p.clamp_min(-200)}

    return model


def mixture():
    joint = JointProcess({"x": get_modality("gaussian")((), "cosine", "x0"), "label": get_modality("uniform")((), 3)})
    x = torch.linspace(-2.5, 2.5, 30, dtype=F64)
    return joint, {"x": x, "label": torch.arange(30) % 3}


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_mixture_given_its_label_clean_or_all_noise(level):
    """log N(x; .) of the label's own part at level 0, and of the whole mixture at 1, at t_min. The cosine path ends in
    the prior exactly, so only the integrator errs: 3e-7 at 128 steps when this was written, 1e-5 leaves room."""
    joint, x0 = mixture()
    a, s = (
        f(torch.full((30,), 1e-3, dtype=F64))
        for f in (joint.modalities["x"].path.alpha, joint.modalities["x"].path.sigma)
    )
    each = mixture_log(x0["x"], a, s, W.log())
    truth = each.gather(1, x0["label"][:, None])[:, 0] - W.log()[x0["label"]] if level == 0 else each.logsumexp(1)
    found = joint.log_likelihood(mixture_model(joint), x0, given={"label": level}, steps=128, rng=0)
    assert float((found - truth).abs().max()) < 1e-5


def test_it_is_the_bound_without_its_gap():
    """E bound >= -log p, and at the exact network equal on average over the data: five standard errors of 2,000 rows,
    and the blur sigma^2(t_min)/V < 1e-4 of each density."""
    joint, _ = mixture()
    rng = torch.Generator().manual_seed(0)
    label = torch.multinomial(W, 2000, replacement=True, generator=rng)
    x0 = {"x": CENTRE[label] + V[label].sqrt() * torch.randn(2000, generator=rng, dtype=F64), "label": label}
    model = mixture_model(joint)
    exact = joint.log_likelihood(model, x0, given=("label",), steps=16)
    gap = joint.bound(model, x0, given=("label",), rng=0).total + exact
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(2000) + 1e-3


def pair(elementwise=()):
    """Three correlated numbers as two modalities, each with its own path of clocks, and the exact network."""
    root = torch.tensor([[0.9, 0.0, 0.0], [0.4, 0.6, 0.0], [-0.5, 0.3, 0.7]], dtype=F64)
    cov = root @ root.T
    joint = JointProcess(
        {"a": get_modality("gaussian")((2,), "cosine", "x0"), "b": get_modality("gaussian")((), "cosine", "x0")},
        elementwise=elementwise,
        block=8,
    )

    def model(x, t):
        path, both = joint.modalities["a"].path, torch.cat([x["a"], x["b"][:, None]], 1)
        clocks = torch.cat([t["a"].reshape(len(both), -1).expand(-1, 2), t["b"].reshape(-1, 1)], 1)
        a, s = torch.diag_embed(path.alpha(clocks)), torch.diag_embed(path.sigma(clocks))
        guess = (cov @ a @ torch.linalg.inv(a @ cov @ a + s @ s) @ both[..., None])[..., 0]
        return {"a": guess[:, :2], "b": guess[:, 2]}

    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=F64) @ root.T
    return joint, model, {"a": x[:, :2], "b": x[:, 2]}, cov


@pytest.mark.parametrize("elementwise", [(), ("a",)])
def test_two_modalities_joint_and_conditional(elementwise):
    """The joint density, p(a | b), p(b | a) and (b all noise) p(a) of three correlated normal numbers, each noised to
    t_min where it is not given: cov at t_min is alpha^2 cov + sigma^2, and a given is clean. 1e-6: the integrator's
    error at 64 steps."""
    joint, model, x0, cov = pair(elementwise)
    x = torch.cat([x0["a"], x0["b"][:, None]], 1)
    t = torch.tensor(1e-3, dtype=F64)
    alpha, sigma = joint.modalities["a"].path.alpha(t), joint.modalities["a"].path.sigma(t)

    def truth(moving, given):
        scale = torch.ones(3, dtype=F64)
        scale[moving] = alpha
        noisy = scale[:, None] * cov * scale
        noisy[moving, moving] += sigma**2
        kept = moving + given
        whole = normal(x[:, kept], torch.zeros(len(kept), dtype=F64), noisy[kept][:, kept])
        return whole - (normal(x[:, given], torch.zeros(len(given), dtype=F64), cov[given][:, given]) if given else 0)

    cases = [((), [0, 1, 2], []), (("b",), [0, 1], [2]), (("a",), [2], [0, 1]), ({"b": 1.0}, [0, 1], [])]
    for given, moving, known in cases:
        found = joint.log_likelihood(model, x0, given=given, rng=0)
        assert float((found - truth(moving, known)).abs().max()) < 1e-6


def test_random_probes_are_unbiased_and_rows_keep_to_themselves():
    """4,096 copies of a row, each with directions of its own: the mean is the exact sum's within five standard errors,
    with one probe; the error shrinks as 1/sqrt(probes): 16 times less variance with 16, within 15 % (the relative error
    of a variance from 4,096 rows is about 2.2 % for a normal law, and 5 times that with room for its tails)."""
    joint, model, x0, _ = pair()
    joint = JointProcess(joint.modalities, block=4096)
    copies = {name: x[:1].expand(4096, *x.shape[1:]) for name, x in x0.items()}
    exact = float(joint.log_likelihood(model, {name: x[:1] for name, x in x0.items()}, steps=8))
    one = joint.log_likelihood(model, copies, steps=8, probes=1, rng=0)
    many = joint.log_likelihood(model, copies, steps=8, probes=16, rng=1)
    assert float(one.std()) > 0.01
    for found in (one, many):
        assert abs(float(found.mean()) - exact) < 5 * float(found.std()) / 64
    assert abs(float(one.var() / many.var()) / 16 - 1) < 0.15
    few = JointProcess(joint.modalities, block=8)
    rows = few.log_likelihood(model, x0, steps=4, probes=2, rng=3)
    assert torch.equal(few.log_likelihood(model, {k: v[:5] for k, v in x0.items()}, steps=4, probes=2, rng=3), rows[:5])
    assert few.log_likelihood(model, {k: v[:0] for k, v in x0.items()}).shape == (0,)


def test_float32_data_keep_their_network_in_float32():
    """The path is followed in float64 and the network sees float32: 2^-24 of values of size 10 in each of 256 calls,
    and ten times that through its own rounding: 1e-3 is far above."""
    m, model = gaussian_case("cosine", "v")
    seen = set()

    def single(x, t):
        seen.update((x["m"].dtype, t["m"].dtype))
        return {"m": model(x, t)["m"].float()}

    joint, x = JointProcess({"m": m}), points(10)
    found = joint.log_likelihood(single, {"m": x.float()})
    assert seen == {torch.float32}
    assert found.dtype == F64
    assert float((found - joint.log_likelihood(model, {"m": x})).abs().max()) < 1e-3


def test_what_is_no_flow_on_rn_is_refused():
    joint, x0 = mixture()
    model = mixture_model(joint)
    shares = JointProcess({"m": get_modality("simplex")((3,))})
    flat = {"m": torch.full((2, 3), 1 / 3, dtype=F64)}
    cases = [
        (joint, model, x0, {}, r"'label' lacks the capability 'ode'; give it, or use bound"),
        (shares, model, flat, {}, r"flow on R\^n, but modality 'm' has densities against 'dirichlet'"),
        (joint, model, x0, {"given": ["label"], "steps": 0}, r"steps: expected a whole number of at least 1, got 0"),
        (joint, model, x0, {"given": ["label"], "probes": -1}, r"probes: .* at least 0, got -1"),
        (joint, model, x0, {"given": ["label"], "probes": 1}, r"rng: expected"),
        (joint, model, x0, {"given": {"label": 0.5}}, r"rng: expected"),
        (joint, model, x0, {"given": ["x", "label"]}, r"every modality is given"),
        (joint, model, {"x": x0["x"]}, {"given": ["label"]}, r"'label': expected in the data"),
        (joint, torch.no_grad()(model), x0, {"given": ["label"]}, r"'x' has no gradient in the state"),
        (joint, lambda x, t: model({k: v.detach() for k, v in x.items()}, t), x0, {"given": ["label"]}, r"no gradient"),
    ]
    for process, network, data, options, words in cases:
        with pytest.raises(DiffuseError, match=words):
            process.log_likelihood(network, data, **options)


def test_bits_per_dimension():
    """Grey values 0 to 255, all alike and with noise of one step added, coded as z = x/127.5 - 1: 8 bits a pixel. Four
    classes, all alike: 2 bits an element."""
    numbers = get_modality("gaussian")((3,))
    nats = torch.full((5,), 3 * math.log(256 / 127.5), dtype=F64)  # -log of the uniform density of z
    bits = bits_per_dim(numbers, nats, log_jacobian=-3 * math.log(127.5))
    torch.testing.assert_close(bits, torch.full((5,), 8.0, dtype=F64), rtol=1e-12, atol=0)
    by_row = bits_per_dim(numbers, nats, log_jacobian=torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=F64))
    torch.testing.assert_close(by_row, (nats - torch.arange(5)) / (3 * math.log(2)), rtol=1e-12, atol=0)
    words = get_modality("masked")((6,), 4)
    two = bits_per_dim(words, torch.full((2,), 6 * math.log(4), dtype=F64))
    torch.testing.assert_close(two, torch.full((2,), 2.0, dtype=F64), rtol=1e-12, atol=0)
    with pytest.raises(DiffuseError, match=r"Gaussian has a density, expected log_jacobian= of the codec"):
        bits_per_dim(numbers, nats)
    with pytest.raises(DiffuseError, match=r"Masked is discrete, expected no log_jacobian"):
        bits_per_dim(words, nats, log_jacobian=0.0)
    with pytest.raises(DiffuseError, match=r"got Simplex, whose density is against 'dirichlet'"):
        bits_per_dim(get_modality("simplex")((3,)), nats, log_jacobian=0.0)
