"""The joint process: what the loss returns, defaults, streams, precision, configuration."""

import pytest
import torch

from de_core import Faces, JointProcess, Tied, get_modality
from de_core.testing import OracleDenoiser


def process(elementwise=()):
    return JointProcess(
        {
            "image": get_modality("gaussian")((2,)),
            "caption": get_modality("masked")((2,), 4),
            "label": get_modality("uniform")((), 3),
            "ink": get_modality("simplex")((3,)),
        },
        elementwise,
        block=16,
    )


def data(n=6):
    return {
        "image": torch.linspace(-1, 1, 2 * n).reshape(n, 2),
        "caption": torch.arange(2 * n).reshape(n, 2) % 4,
        "label": torch.arange(n) % 3,
        "ink": torch.full((n, 3), 1 / 3),
    }


class Net(torch.nn.Module):
    def __init__(self, joint, dtype=torch.float32):
        super().__init__()
        self.joint = joint
        self.bias = torch.nn.ParameterDict(
            {k: torch.nn.Parameter(torch.zeros(m.output_shape, dtype=dtype)) for k, m in joint.modalities.items()}
        )

    def forward(self, x, t):
        return {k: b.expand(len(x[k]), *b.shape) for k, b in self.bias.items()}


def test_what_a_loss_is():
    joint = process()
    found = joint.loss(Net(joint), data(), rng=0)
    assert found.total.shape == ()
    assert {k: tuple(v.shape) for k, v in found.terms.items()} == dict.fromkeys(joint.modalities, (6,))
    assert {k: tuple(v.shape) for k, v in found.times.items()} == dict.fromkeys(joint.modalities, (6,))
    found.total.backward()
    again = joint.loss(Net(joint), data(), rng=0)
    assert torch.equal(found.total.detach(), again.total.detach())
    other = joint.loss(Net(joint), data(), rng=1)
    assert not torch.equal(found.total.detach(), other.total.detach())


def test_weights_scale_terms_in_the_total_alone():
    joint = process()
    plain = joint.loss(Net(joint), data(), rng=0)
    scaled = joint.loss(Net(joint), data(), rng=0, weights={"label": 3.0, "ink": 0.0})
    for name in joint.modalities:
        assert torch.equal(plain.terms[name], scaled.terms[name])
    wanted = sum(w * plain.terms[k].mean() for k, w in {"image": 1.0, "caption": 1.0, "label": 3.0, "ink": 0.0}.items())
    assert (scaled.total - wanted).abs() < 1e-5 * wanted.abs()  # float32, order of summation


def test_policies_and_times_by_name():
    joint = process(["caption"])
    tied = joint.loss(Net(joint), data(), rng=0, times=Tied()).times
    assert tied["caption"].shape == (6, 2)
    t_min = {k: m.t_min for k, m in joint.modalities.items()}
    clock = lambda name: (tied[name] - t_min[name]) / (1 - t_min[name])  # noqa: E731 # one word for one line
    assert (clock("image") - clock("label")).abs().max() < 1e-6
    assert (clock("caption") - clock("label")[:, None]).abs().max() < 1e-6
    own = {k: torch.full((6, 2) if k == "caption" else (6,), 0.4) for k in joint.modalities}
    assert joint.loss(Net(joint), data(), rng=0, times=own).times["caption"] is own["caption"]


def test_inputs_and_the_global_seed_are_left_alone():
    joint, x0 = process(), data()
    copies, state = {k: v.clone() for k, v in x0.items()}, torch.get_rng_state()
    net = Net(joint)
    joint.loss(net, x0, rng=0)
    joint.sample(net, 3, given={"label": x0["label"][:3]}, steps=3, rng=0)
    joint.bound(net, x0, rng=0, draws=2)
    assert all(torch.equal(x0[k], copies[k]) for k in x0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("form", ["denoising", "implicit", "explicit"])
def test_every_form_trains_every_head(form):
    joint = process()
    net = Net(joint)
    truth = OracleDenoiser(joint, data()) if form == "explicit" else None
    t = {k: torch.full((6,), 0.5) for k in joint.modalities}
    joint.loss(net, data(), rng=0, times=t, form=form, truth=truth).total.backward()
    for name, parameter in net.bias.items():
        assert bool(parameter.grad.any()), name
        assert bool(parameter.grad.isfinite().all()), name


def test_explicit_with_the_truth_itself_is_zero():
    """Phi(p/p) = 0, in every modality; float32 times against float64 atoms: 1e-5."""
    joint = process()
    oracle = OracleDenoiser(joint, data())
    found = joint.loss(oracle, data(), rng=0, form="explicit", truth=oracle, times=Faces())
    for term in found.terms.values():
        assert float(term.abs().max()) < 1e-5


def test_configuration_goes_round():
    joint = process(["caption", "image"])
    again = JointProcess.from_config(joint.config())
    assert again.config() == joint.config()
    assert repr(again) == repr(joint)
    assert again.elementwise == {"caption", "image"}


def test_precision_follows_the_data():
    joint = process()
    x0 = {k: v.double() if v.is_floating_point() else v for k, v in data().items()}
    found = joint.loss(Net(joint, torch.float64), x0, rng=0)
    assert found.times["image"].dtype == torch.float64
    assert found.terms["image"].dtype == torch.float64


def test_an_oracle_knows_the_data():
    """At t = 0 in one modality the posterior is over the atoms that have that value; at t = 1 it is the law; a value
    that no atom has is left out."""
    joint, atoms = process(), data()
    law = torch.arange(1.0, 7.0)
    oracle = OracleDenoiser(joint, atoms, law)
    absent = {k: torch.ones(2) for k in joint.modalities}
    x = {k: m.prior(2, rng=0) for k, m in joint.modalities.items()}
    assert torch.allclose(oracle.log_posterior(x, absent).exp(), (law / law.sum()).double().expand(2, 6))
    x["label"] = torch.tensor([1, 2])
    found = oracle.log_posterior(x, absent | {"label": torch.zeros(2)}).exp()
    assert torch.allclose(found[0, [1, 4]], torch.tensor([2.0, 5.0]).double() / 7)
    assert float(found[0].sum()) == pytest.approx(1)
    x["image"] = torch.full((2, 2), 7.7)  # no atom is there
    same = oracle.log_posterior(x, absent | {"label": torch.zeros(2), "image": torch.zeros(2)}).exp()
    assert torch.allclose(same, found)
    assert oracle.log_posterior({k: v[:0] for k, v in x.items()}, {k: v[:0] for k, v in absent.items()}).shape == (0, 6)


def test_the_kit_needs_neither_pytest_nor_hypothesis():
    import subprocess
    import sys

    code = "import sys, de_core.testing; print([m for m in ('pytest', 'hypothesis') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
