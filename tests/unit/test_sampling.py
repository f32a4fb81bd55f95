"""The sampling loop: shapes, calls, paths, known parts, seeds, what a callback sees, requests that are refused."""

import itertools
import subprocess
import sys

import numpy
import pytest
import torch

from de_core import (
    Cascaded,
    ClassifierFreeGuidance,
    DiffuseError,
    Given,
    JointProcess,
    Matched,
    NoisyGuidance,
    Sequential,
    Trajectory,
    get_modality,
)
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
    log.clear()
    joint.sample(answer(joint, log), 4, given=given, steps=5, path=Sequential(["text"]), rng=0)
    assert len(log) == 5 + 3 * 4 + 1  # only a round that steps the image is taken again
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


# --- steps and paths --------------------------------------------------------------------------------------------------


def test_fewer_steps_hold_in_between():
    joint, log = process(), []
    joint.sample(answer(joint, log), 4, steps={"image": 6, "text": 2}, rng=0)
    assert [float(t["text"][0]) for t in log] == [1.0] * 3 + [0.5] * 3
    assert [float(t["image"][0]) for t in log] == pytest.approx([1 - k / 6 for k in range(6)])


def test_readings_of_ones_own():
    joint, log = process(), []
    joint.sample(answer(joint, log), 4, steps={"image": [1.0, 0.9, 0.2], "text": 3}, rng=0)
    assert [float(t["image"][0]) for t in log] == pytest.approx([1.0, 0.9, 0.2])


def test_steps_of_given_modalities_are_not_asked_for():
    joint, log = process(), []
    text = torch.zeros(4, 3, dtype=torch.int64)
    joint.sample(answer(joint, log), 4, given={"text": text}, steps={"image": 3}, rng=0)
    assert len(log) == 3


def test_sequential_runs_one_modality_at_a_time_and_then_holds_it_clean():
    joint, seen = process(), []
    x = joint.sample(answer(joint), 4, steps=3, path=Sequential(["text"]), rng=0, callback=seen.append)
    assert len(seen) == 7
    prior, text = seen[0].x["image"], seen[3].x["text"]
    assert all(torch.equal(state.x["image"], prior) for state in seen[:4])
    assert all(bool((state.t["image"] == 1).all()) for state in seen[:4])
    assert all(torch.equal(state.x["text"], text) for state in seen[3:])
    assert all(bool((state.t["text"] == 0).all()) for state in seen[3:])
    assert torch.equal(x["text"], text)
    joint.validate(x)


@pytest.mark.parametrize("path", [Cascaded(["text"], lag=0.5), Matched()], ids=str)
def test_calls_follow_the_path(path):
    joint, log = process(), []
    joint.sample(answer(joint, log), 4, steps=6, path=path, rng=0)
    readings = path.readings(joint.modalities, {"image": 6, "text": 6})
    assert len(log) == len(readings["text"]) - 1
    for k, t in enumerate(log):
        for name in t:
            assert float(t[name][0]) == pytest.approx(readings[name][k], rel=1e-6)  # float32


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_a_callback_sees_every_state_and_changes_nothing():
    joint, seen, log = process(), [], []
    x = joint.sample(answer(joint, log), 11, steps=3, rng=0, callback=seen.append)
    assert [(state.rows, state.step, state.of) for state in seen] == [
        (rows, step, 3) for rows in (range(8), range(8, 11)) for step in range(4)
    ]
    for state in seen:
        assert all(len(v) == len(state.rows) for part in (state.x, state.t) for v in part.values())
    assert torch.equal(torch.cat([state.x["image"] for state in seen if state.step == 3]), x["image"])
    for state, t in zip([s for s in seen if s.step < 3], log, strict=True):
        assert torch.equal(state.t["text"], t["text"][: len(state.rows)])
    plain = joint.sample(answer(joint), 11, steps=3, rng=0)
    assert all(torch.equal(plain[name], x[name]) for name in x)


def test_a_trajectory_collects_frames_over_blocks():
    joint, trajectory = process(), Trajectory(every=2)
    x = joint.sample(answer(joint), 11, steps=5, rng=0, callback=trajectory)
    assert trajectory.steps == [0, 2, 4, 5]
    assert trajectory.x["image"].shape == (4, 11, 2)
    assert trajectory.t["text"].shape == (4, 11)
    assert trajectory.t["text"][:, 10].tolist() == pytest.approx([1.0, 0.6, 0.2, 0.0])
    assert torch.equal(trajectory.x["image"][-1], x["image"])
    assert bool((trajectory.x["text"][0] == torch.tensor([2, 3, 4])).all())  # all masked


# --- seeds ------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, numpy, torch
from de_core import JointProcess, NoisyGuidance, get_modality

joint = JointProcess(
    {"image": get_modality("gaussian")((2,)), "text": get_modality("masked")((3,), [2, 3, 4]),
     "label": get_modality("uniform")((), 3), "ink": get_modality("simplex")((3,))}, block=8)


def model(x, t):  # every head reads every state
    seen = x["image"].sum(1) + x["text"].sum(1) + x["label"] + x["ink"][:, 0] + t["text"]
    return {k: torch.sin(seen[:, None] + torch.arange(m.output_shape[0])) for k, m in joint.modalities.items()}


first, n, text, out = int(sys.argv[1]), int(sys.argv[2]), torch.arange(40 * 3).reshape(40, 3) % 2, sys.argv[3]
rows = slice(first, first + n)
x = joint.sample(model, n, given={"text": text[rows]}, guidance=NoisyGuidance(2.0, sigma=0.6), steps=5, rng=7,
                 first_row=first)
numpy.savez(out, **{k: v.numpy() for k, v in x.items()})
"""


def test_two_processes_share_a_sample(tmp_path, monkeypatch):
    """Rows 0 to 15 by one process, 16 to 20 by another, and all 21 by this one: bit for bit, guided and given."""
    outs = {part: tmp_path / f"{part[0]}_{part[1]}.npz" for part in ((0, 16), (16, 5), (0, 21))}
    lines = {part: [str(number) for number in part] + [str(out)] for part, out in outs.items()}
    head, tail, whole = lines
    runs = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, *lines[part]]) for part in (head, tail)]
    monkeypatch.setattr(sys, "argv", ["", *lines[whole]])
    exec(SCRIPT, {})
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    found = {part: numpy.load(out) for part, out in outs.items()}
    for name in found[whole]:
        assert (numpy.concatenate([found[head][name], found[tail][name]]) == found[whole][name]).all()
    assert len(numpy.unique(found[whole]["image"][:, 0])) == 21


@pytest.mark.parametrize("guidance", [None, NoisyGuidance(2.0, 0.6), NoisyGuidance(2.0, 0.6, renoise="frozen")])
@pytest.mark.parametrize("path", [None, Cascaded(["text"]), Sequential(["image"])], ids=str)
def test_row_i_is_row_i_for_any_number_of_rows_and_any_cut(guidance, path):
    joint = process()

    def model(x, t):
        seen = x["image"].sum(1) + x["text"].sum(1) + t["text"]
        return {k: torch.sin(seen[:, None] + torch.arange(m.output_shape[0])) for k, m in joint.modalities.items()}

    request = {"steps": 4, "guidance": guidance, "path": path, "rng": 3}
    whole = joint.sample(model, 27, **request)
    for n in (1, 7, 8, 9, 24):
        part = joint.sample(model, n, **request)
        assert all(torch.equal(part[name], whole[name][:n]) for name in whole)
    for first, n in ((8, 3), (16, 11), (24, 1)):
        part = joint.sample(model, n, first_row=first, **request)
        assert all(torch.equal(part[name], whole[name][first : first + n]) for name in whole)


@pytest.mark.parametrize("kind", ["gaussian", "masked", "uniform", "simplex"])
@pytest.mark.parametrize("elementwise", [["part"], []])
def test_a_row_whose_elements_are_all_known_leaves_the_other_rows_as_they_are(kind, elementwise):
    """And theirs it: the first row, alone or in front of seven with less known, has the same draws elsewhere."""
    make = {"gaussian": ((2,),), "masked": ((2,), 3), "uniform": ((2,), 3), "simplex": ((2, 3),)}
    part = get_modality(kind)(*make[kind])
    spaces = {"part": part, "image": get_modality("gaussian")((2,)), "label": get_modality("uniform")((), 5)}
    joint = JointProcess(spaces, elementwise, block=8)
    value = part.prior(8, rng=0) if kind != "masked" else torch.zeros(8, 2, dtype=torch.int64)
    known = torch.zeros(8, 2, dtype=torch.bool)
    known[0], known[3, 0] = True, True

    def run(n):
        given = {"part": Given(value[:n], known=known[:n])}
        return joint.sample(answer(joint), n, given=given, methods={"image": "ancestral"}, steps=4, rng=1)

    whole = run(8)
    for n in (1, 4):
        part = run(n)
        assert all(torch.equal(part[name], whole[name][:n]) for name in whole)


# --- requests that are refused ----------------------------------------------------------------------------------------

TEXT = torch.zeros(3, 3, dtype=torch.int64)
HALF = torch.tensor([True, False])
REFUSED = [
    ({"given": {"sound": TEXT}}, "unknown modality 'sound'"),
    ({"given": {"text": Given(TEXT, level=-0.1)}}, "'text': expected a level in .0, 1., got -0.1"),
    ({"given": {"text": Given(TEXT, level=float("nan"))}}, "'text': expected a level in .0, 1., got nan"),
    ({"given": {"text": TEXT[:2]}}, "'text': expected the given value of shape .3, 3., got .2, 3."),
    ({"given": {"text": TEXT, "image": torch.zeros(3, 2)}}, "nothing is left to sample"),
    ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
    ({"steps": 2.5}, "steps: expected a whole number of at least 1, got 2.5"),
    ({"steps": "many"}, "steps: expected a whole number of at least 1, got 'many'"),
    ({"steps": {"image": 4, "text": 0}}, "steps of 'text': expected a whole number of at least 1, got 0"),
    ({"steps": {"image": 4}}, "steps: expected a count for 'text' too, got image"),
    ({"steps": {"image": 4, "text": 4, "sound": 4}}, "unknown modality 'sound'"),
    ({"steps": {"image": 4, "text": [0.5]}}, "'text': expected readings that descend from 1"),
    ({"methods": {"text": "heun"}}, "'text': no stepper 'heun'; expected one of analytic"),
    ({"path": "sequential"}, "path: expected a path such as Synchronous.., got 'sequential'"),
    ({"path": Sequential(["sound"])}, "path: unknown modality 'sound'"),
    ({"path": Sequential(["text", "text"])}, "path: expected each modality once"),
    (
        {"path": Sequential(["text"]), "given": {"text": TEXT}},
        "path: unknown modality 'text'; those that move are image",
    ),
    ({"guidance": NoisyGuidance({"sound": 2.0})}, "unknown modality 'sound'"),
    ({"guidance": NoisyGuidance(2.0, {"sound": 0.5})}, "unknown modality 'sound'"),
    (
        {"given": {"text": Given(TEXT, level=0.7)}, "guidance": NoisyGuidance(2.0, 0.5)},
        "guidance: sigma 0.5 is below the level 0.7 of the given 'text'",
    ),
    (
        {
            "given": {"image": Given(torch.zeros(3, 2), known=HALF), "text": TEXT},
            "guidance": NoisyGuidance(2.0, {"image": 0.5, "text": 0.5}),
        },
        "the known part of 'image' runs under one clock with the rest and cannot be noised apart from it",
    ),
    ({"first_row": 3}, "first_row: expected a multiple of the block, 8, got 3"),
    ({"first_row": -8}, "first_row: expected a multiple of the block, 8, got -8"),
]


@pytest.mark.parametrize(("request_", "words"), REFUSED)
def test_what_cannot_be_done_is_refused_in_a_sentence_before_any_work(request_, words):
    def never(x, t):
        raise AssertionError("the network was called")

    with pytest.raises(DiffuseError, match=words) as caught:
        process().sample(never, 3, rng=0, **request_)
    assert "\n" not in str(caught.value)


def test_guidance_by_a_part_that_cannot_be_noised_alone():
    alone = JointProcess({"image": get_modality("gaussian")((2,))})
    given = {"image": Given(torch.zeros(3, 2), known=HALF)}
    with pytest.raises(DiffuseError, match=r"'image' runs under one clock.*declare the modality elementwise"):
        alone.sample(answer(alone), 3, given=given, guidance=ClassifierFreeGuidance(2.0), rng=0)


class _Wild:
    """A stranger's path with the given readings of the image."""

    def __init__(self, readings):
        self.image = readings

    def readings(self, modalities, steps):
        return {"image": self.image, "text": [1.0, 0.5, 0.0]}


@pytest.mark.parametrize("image", [[1.0, 0.0], [0.9, 0.5, 0.0], [1.0, 0.5, 0.1], [1.0, 1.1, 0.0]])
def test_a_path_that_runs_back_or_does_not_end(image):
    with pytest.raises(DiffuseError, match="path: expected readings from 1 down to 0 for 'image'"):
        process().sample(answer(process()), 3, path=_Wild(image), rng=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NoisyGuidance(2.0, sigma=-0.1), r"sigma in \[0, 1\], got -0.1"),
        (lambda: NoisyGuidance(2.0, sigma=float("nan")), r"sigma in \[0, 1\], got nan"),
        (lambda: NoisyGuidance(2.0, sigma={"text": 2.0}), r"sigma in \[0, 1\], got 2.0"),
        (lambda: NoisyGuidance(2.0, sigma=None), "expected sigma in .0, 1., or another model, got neither"),
        (lambda: NoisyGuidance(float("inf")), "a weight that is a finite number, got inf"),
        (lambda: NoisyGuidance({"text": "two"}), "a weight that is a finite number, got 'two'"),
        (lambda: NoisyGuidance(2.0, interval=(0.8, 0.3)), "interval 0 <= a < b <= 1, got .0.8, 0.3."),
        (lambda: NoisyGuidance(2.0, interval=(0.1, 0.2, 0.3)), "interval 0 <= a < b <= 1"),
        (lambda: NoisyGuidance(2.0, renoise="often"), "renoise 'fresh' or 'frozen', got 'often'"),
        (lambda: NoisyGuidance(2.0, model=3), "expected a model .x, t. -> outputs, got int"),
        (lambda: Trajectory(every=0), "every: expected a whole number of at least 1, got 0"),
        (lambda: Trajectory().x, "nothing was collected"),
    ],
)
def test_values_that_make_no_sense(make, words):
    with pytest.raises(DiffuseError, match=words):
        make()


def test_readings_are_pairs_of_falling_numbers_for_the_default_path():
    plan = make_plan(process(), 4, given=None, steps=7, methods=None, guidance=None)
    for readings in plan.readings.values():
        assert all(a > b for a, b in itertools.pairwise(readings))
