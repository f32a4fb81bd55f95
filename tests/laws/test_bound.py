"""The likelihood bound with an exact network: at least -log p, equal to it up to the stated slack, along any path."""

import math

import pytest
import torch

from de_core import JointProcess, Sequential, Synchronous, get_modality
from de_core.testing import OracleDenoiser

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


PATHS = [Synchronous(), Sequential(["tokens"]), Sequential(["label"])]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_with_the_truth_the_bound_is_minus_log_p_on_average_along_every_path(path):
    """With exact heads the chain rule holds with equality in the mean over the data: E bound = H(p) + KL(product of the
    reconstructions), the last being the information between elements at t_min = 1e-3, under 1e-3 x 3 elements x log 9.
    2,000 copies of each atom, weighted by the law: five of the bound's own standard errors. On each row bound >= -log
    p too."""
    joint, atoms, law = finite()
    oracle = OracleDenoiser(joint, atoms, law)
    copies = 2000
    rows = torch.arange(7).repeat_interleave(copies)
    found = joint.bound(oracle, {k: v[rows] for k, v in atoms.items()}, rng=0, draws=16, path=path)
    total = found.total.reshape(7, copies)
    mean, error = total.mean(1), total.std(1) / math.sqrt(copies)
    average, stderr = float(law @ mean), float((law**2 @ error**2) ** 0.5)
    entropy = -float(law @ law.log())
    assert abs(average - entropy) < 5 * stderr + 1e-3 * 3 * math.log(9)
    assert 5 * stderr < 0.1 * entropy
    assert bool((mean > -law.log() - 5 * error - 0.01).all())
    # what the bound says of its own error is not less than what it is (evenly spread draws err less than it says)
    said = (found.stderr.reshape(7, copies) ** 2).mean(1).sqrt() / math.sqrt(copies)
    assert bool((said > 0.8 * error).all())
    assert found.path == path
    assert torch.equal(found.total, torch.stack(list(found.terms.values())).sum(0))


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
    prior_kl. Five standard errors of 600 rows."""
    joint = JointProcess({"m": get_modality("simplex")((3,), "posterior")}, block=1024)
    law = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    oracle = OracleDenoiser(joint, {"m": torch.eye(3, dtype=F64)}, law)
    rows = torch.arange(3).repeat_interleave(200)
    found = joint.bound(oracle, {"m": torch.eye(3, dtype=F64)[rows]}, rng=0, draws=8)
    total = found.total.reshape(3, 200)
    stderr = float((law**2 @ (total.var(1) / 200)) ** 0.5)
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
    for path in [*PATHS, Sequential([])]:
        clocks = path.clocks(["tokens", "label"], u)
        for t, speed in clocks.values():
            assert float(t[0]) < 0.05
            assert float(t[-1]) > 0.95
            assert bool((t[1:] >= t[:-1]).all())
            slope = (t[1:] - t[:-1]) / (u[1:] - u[:-1])
            inner = speed[1:] == speed[:-1]
            assert bool(((slope - speed[:-1]).abs()[inner] < 1e-6).all())
        total = sum(float(speed.mean()) for _, speed in clocks.values())
        assert abs(total - 2) < 0.05  # every clock runs once through
