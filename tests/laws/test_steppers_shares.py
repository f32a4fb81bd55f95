"""What the simplex's steppers sample with an exact network, at two step counts, by chi-square at level 1e-6."""

import pytest
import torch
from scipy.stats import chi2

from de_core import Given, JointProcess, get_modality
from de_core.testing import OracleDenoiser


@pytest.mark.parametrize("steps", [16, 40])
@pytest.mark.parametrize("method", ["dirichlet_euler", "euler", "heun"])
def test_shares_alone_given_a_noisy_label(method, steps):
    """p(corner | label at level .6): 200 draws. The noisy step is off by .024 at 40 steps (THEORY's log) and about
    twice that at 16, by which the statistic grows by 200 x 2 x .05^2/.3 = 3 where its bound is 28."""
    joint = JointProcess(
        {"shares": get_modality("simplex")((3,), "posterior"), "label": get_modality("uniform")((), 3)}
    )
    joint.block = n = 200
    atoms = {"shares": torch.eye(3), "label": torch.tensor([0, 1, 1])}
    law = torch.tensor([0.4, 0.4, 0.2])
    oracle = OracleDenoiser(joint, atoms, law)
    given = {"label": Given(torch.ones(n, dtype=torch.int64), level=0.6)}
    x = joint.sample(oracle, n, given=given, steps=steps, methods={"shares": method}, rng=0)["shares"]
    assert bool(((x == 0) | (x == 1)).all())
    likelihood = torch.where(atoms["label"] == 1, 0.4 + 0.2, 0.2)  # a(.6) = .4, the rest falls on any of three
    counts, expected = torch.bincount(x.argmax(1), minlength=3), n * law * likelihood / (law * likelihood).sum()
    assert float(((counts - expected) ** 2 / expected).sum()) < float(chi2.ppf(1 - 1e-6, 2))
