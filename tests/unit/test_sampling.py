"""The sampling loop: shapes, calls, grids, devices of plans, progress."""

import pytest
import torch

from de_core import Given, JointProcess, get_modality
from de_core.sampling.plan import make_plan


def process(block=8):
    return JointProcess(
        {"image": get_modality("gaussian")((2,)), "text": get_modality("masked")((3,), [2, 3, 4])}, block=block
    )


def answer(joint, log=None):
    def model(x, t):
        if log is not None:
            log.append({k: v.clone() for k, v in t.items()})
        return {k: torch.zeros(len(x[k]), *m.output_shape) for k, m in joint.modalities.items()}

    return model


@pytest.mark.parametrize("n", [1, 8, 11])
def test_rows_blocks_and_progress(n):
    joint, seen = process(), []
    x = joint.sample(answer(joint), n, steps=3, rng=0, progress=lambda done, total: seen.append((done, total)))
    assert x["image"].shape == (n, 2)
    assert x["text"].shape == (n, 3)
    joint.validate(x)  # no mask is left
    assert seen[-1] == (n, n)
    assert len(seen) == -(-n // 8)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_one_call_a_reading_from_one_down(steps):
    joint, log = process(), []
    joint.sample(answer(joint, log), 4, steps=steps, rng=0)
    assert len(log) == steps
    readings = [float(t["text"][0]) for t in log]
    assert readings == pytest.approx([1 - k / steps for k in range(steps)])
    assert all(t["text"].shape == (8,) for t in log)  # a block is always worked whole


def test_heun_calls_twice_but_for_the_last():
    joint, log = process(), []
    joint.sample(answer(joint, log), 4, steps=5, methods={"image": "heun"}, rng=0)
    assert len(log) == 2 * 4 + 1
    assert all(float(a["text"][0]) == float(b["text"][0]) for a, b in zip(log[0:8:2], log[1:8:2], strict=True))
    assert all(float(a["image"][0]) > float(b["image"][0]) for a, b in zip(log[0:8:2], log[1:8:2], strict=True))


def test_a_given_modality_stays_at_its_level_and_is_returned_as_it_was():
    joint, log = process(), []
    noisy = torch.tensor([[0, 3, 1]] * 4)  # the second element's mask is its own K = 3
    x = joint.sample(answer(joint, log), 4, given={"text": Given(noisy, level=0.3)}, steps=3, rng=0)
    assert x["text"] is noisy
    assert all(bool((t["text"] == torch.tensor(0.3)).all()) for t in log)


def test_known_elements_of_an_elementwise_clock_read_zero():
    joint, log = JointProcess(process().modalities, ["image"], block=4), []
    value, known = torch.full((4, 2), 5.0), torch.tensor([True, False])
    x = joint.sample(answer(joint, log), 4, given={"image": Given(value, known=known)}, steps=4, rng=0)
    for t in log:
        assert bool((t["image"][:, 0] == 0).all())
        assert bool((t["image"][:, 1] > 0).all())
    assert bool((x["image"][:, 0] == 5).all())


def test_resampling_takes_each_step_again():
    """Replacement with r passes: r calls for each of the steps but the last, which is ``finish``."""
    joint, log = process(), []
    given = {"image": Given(torch.zeros(4, 2), known=torch.tensor([True, False]), resample=3)}
    joint.sample(answer(joint, log), 4, given=given, steps=5, rng=0)
    assert len(log) == 3 * 4 + 1
    plan = make_plan(joint, 4, given=given, steps=5, methods=None, guidance=None)
    assert plan.passes(joint) == 3
    tokens = {"text": Given(torch.zeros(4, 3, dtype=torch.int64), known=torch.tensor([True, False, False]), resample=3)}
    assert make_plan(joint, 4, given=tokens, steps=5, methods=None, guidance=None).passes(joint) == 1  # exact as it is


def test_known_may_differ_from_row_to_row():
    joint = process()
    known = torch.tensor([[True, False, False], [False, True, True], [False, False, False], [True, True, True]])
    value = torch.tensor([[1, 2, 3]] * 4)
    x = joint.sample(answer(joint), 4, given={"text": Given(value, known=known)}, steps=4, rng=0)["text"]
    assert torch.equal(x[known], value[known])


def test_the_simplex_has_its_own_grid():
    """Geometric in WF-time: e^{-psi tau/2} = 1 - .999 t, from t = 1 to t_min; each step multiplies tau by one
    number."""
    m = get_modality("simplex")((4,))
    t = m.grid(20)
    assert float(t[0]) == 1
    assert float(t[-1]) == pytest.approx(m.t_min, rel=1e-9)
    tau = m.tau(t)
    ratio = tau[1:] / tau[:-1]
    assert float(ratio.max() - ratio.min()) < 1e-9
    assert m.grid(1).tolist() == [1.0]
