"""What goes wrong, said well: one sentence that names the modality, what was expected and what came."""

import re

import pytest
import torch

from de_core import (
    ClassifierFreeGuidance,
    DiffuseError,
    Faces,
    Given,
    JointProcess,
    Modality,
    NoisyGuidance,
    Sequential,
    Staged,
    get_modality,
)
from de_core.objective import check_form
from de_core.rng import as_generator
from de_core.testing import OracleDenoiser

B = 3


def process(elementwise=()):
    return JointProcess(
        {
            "image": get_modality("gaussian")((2,)),
            "caption": get_modality("masked")((2,), 4),
            "label": get_modality("uniform")((), 3),
            "ink": get_modality("simplex")((3,)),
        },
        elementwise,
    )


def data():
    return {
        "image": torch.zeros(B, 2),
        "caption": torch.zeros(B, 2, dtype=torch.int64),
        "label": torch.zeros(B, dtype=torch.int64),
        "ink": torch.full((B, 3), 1 / 3),
    }


def zeros(x, t):
    """A model that answers in the right shapes."""
    joint = process()
    return {name: torch.zeros(len(x[name]), *m.output_shape) for name, m in joint.modalities.items()}


def says(*words):
    """A sentence, on one line, with all the words in this order."""
    return re.compile(r"^[^\n]*" + r"[^\n]*".join(re.escape(w) for w in words) + r"[^\n]*$")


nan = float("nan")
BAD_DATA = [
    ("image", torch.zeros(B, 3), ["'image'", "expected (B, 2) floating", "(3, 3) float32"]),
    ("image", torch.zeros(B, 2, dtype=torch.int64), ["'image'", "floating", "int64"]),
    ("image", torch.tensor([[0.0, nan]] * B), ["'image'", "finite", "3", "NaN"]),
    ("image", torch.tensor([[0.0, float("inf")]] * B), ["'image'", "finite"]),
    ("image", [[0.0, 0.0]], ["'image'", "tensor", "list"]),
    ("image", torch.zeros(()), ["'image'", "(B, 2)", "()"]),
    ("caption", torch.full((B, 2), 4), ["'caption'", "0 to 3", "4"]),
    ("caption", torch.full((B, 2), -1), ["'caption'", "0 to 3", "-1"]),
    ("caption", torch.zeros(B, 2), ["'caption'", "int64", "float32"]),
    ("caption", torch.zeros(B, 2, dtype=torch.int32), ["'caption'", "int64", "int32"]),
    ("label", torch.tensor([0, 1, 3]), ["'label'", "0 to 2", "3"]),
    ("label", torch.zeros(B, 1, dtype=torch.int64), ["'label'", "(B,) int64", "(3, 1)"]),
    ("ink", torch.full((B, 3), 0.3), ["'ink'", "sum to 1", "0.9"]),
    ("ink", torch.tensor([[1.2, -0.2, 0.0]] * B), ["'ink'", "at least 0", "-0.2"]),
    ("ink", torch.tensor([[nan, 0.5, 0.5]] * B), ["'ink'", "finite", "NaN"]),
    ("ink", torch.full((B, 2), 0.5), ["'ink'", "(B, 3)", "(3, 2)"]),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD_DATA)
@pytest.mark.parametrize("call", ["loss", "bound", "oracle"])
def test_data_outside_the_space(name, value, words, call):
    joint, x0 = process(), data() | {name: value}
    calls = {
        "loss": lambda: joint.loss(zeros, x0, rng=0),
        "bound": lambda: joint.bound(zeros, x0, rng=0),
        "oracle": lambda: OracleDenoiser(joint, x0),
    }
    with pytest.raises(DiffuseError, match=says(*words)):
        calls[call]()


@pytest.mark.parametrize(("name", "value", "words"), [row for row in BAD_DATA if row[0] != "label" or len(row[1]) != B])
def test_a_given_value_outside_the_space(name, value, words):
    given = {name: value}
    with pytest.raises(DiffuseError, match=says(words[0])):
        process().sample(zeros, B, given=given, rng=0)


def test_a_ragged_class_out_of_range_names_the_element():
    modality = get_modality("masked")((2,), [2, 5])
    with pytest.raises(DiffuseError, match=says("0 to 1", "element", "0", "got 3 in row 1")):
        modality.validate(torch.tensor([[1, 4], [3, 1]]))
    modality.validate(torch.tensor([[1, 4], [0, 1]]))


def test_names_and_batches():
    joint = process()
    with pytest.raises(DiffuseError, match=says("unknown modality 'sound'", "image, caption, label, ink")):
        joint.loss(zeros, data() | {"sound": torch.zeros(B)}, rng=0)
    short = data()
    del short["label"]
    with pytest.raises(DiffuseError, match=says("'label'", "expected in the data")):
        joint.loss(zeros, short, rng=0)
    with pytest.raises(DiffuseError, match=says("one batch size", "'label': 2")):
        joint.loss(zeros, data() | {"label": torch.zeros(2, dtype=torch.int64)}, rng=0)
    with pytest.raises(DiffuseError, match=says("unknown modality 'sound'")):
        joint.loss(zeros, data(), rng=0, weights={"sound": 1.0})
    with pytest.raises(DiffuseError, match=says("unknown modality 'sound'")):
        joint.sample(zeros, B, given={"sound": torch.zeros(B)}, rng=0)
    with pytest.raises(DiffuseError, match=says("unknown modality 'sound'")):
        JointProcess(joint.modalities, ["sound"])
    with pytest.raises(DiffuseError, match=says("unknown modality 'sound'")):
        joint.bound(zeros, data(), rng=0, path=Sequential(["sound"]))
    with pytest.raises(DiffuseError, match=says("no modality", "sound")):
        joint.loss(zeros, data(), rng=0, times=Staged([(1.0, Staged([(1.0, _Fixed(), {})]), {"sound": 1.0})]))


@pytest.mark.parametrize("weight", [-1.0, -1e-9, nan, float("inf")])
def test_weights_that_are_none(weight):
    """A negative weight would train a head away from the data, in silence."""
    with pytest.raises(DiffuseError, match=says("weights", "at least 0", "'label'", str(weight))):
        process().loss(zeros, data(), rng=0, weights={"label": weight})


def test_no_rows_have_no_loss():
    with pytest.raises(DiffuseError, match=says("loss", "at least 1 row", "got 0")):
        process().loss(zeros, {name: x[:0] for name, x in data().items()}, rng=0)


def test_policies_that_are_none():
    for options in ({"share": 1.5}, {"share": -0.1}, {"ends": 2.0}, {"ends": nan}):
        name, value = next(iter(options.items()))
        with pytest.raises(DiffuseError, match=says("faces", name, r"[0, 1]", str(value))):
            Faces(**options)
    for t in (1.5, -0.1, nan):
        with pytest.raises(DiffuseError, match=says("stages", "'ink'", r"[0, 1]", str(t))):
            Staged([(1.0, Faces(), {"ink": t})])
    joint = process()
    with pytest.raises(DiffuseError, match=says("'image'", r"times in [0, 1]")):
        joint.loss(zeros, data(), rng=0, times=_Drawn(lambda shape: torch.full(shape, 1.5)))
    with pytest.raises(DiffuseError, match=says("'image'", "(3,)", "(3, 1)")):
        joint.loss(zeros, data(), rng=0, times=_Drawn(lambda shape: torch.full((*shape, 1), 0.5)))
    with pytest.raises(DiffuseError, match=says("'ink'", "clock")):
        joint.loss(zeros, data(), rng=0, times=_Drawn(lambda shape: torch.full(shape, 0.5), leave="ink"))


class _Drawn:
    """A policy that answers with ``value(shape)``, for all modalities but one."""

    def __init__(self, value, leave=None):
        self.value, self.leave = value, leave

    def draw(self, shapes, *, rng, progress=0.0):
        return {name: self.value(shape) for name, shape in shapes.items() if name != self.leave}


NOISED = [
    ("caption", torch.full((B, 2), 5), ["'caption'", "0 to 4", "5"]),  # 4 is the mask
    ("caption", torch.full((B, 2), -1), ["'caption'", "0 to 4", "-1"]),
    ("label", torch.full((B,), 3), ["'label'", "0 to 2", "3"]),
    ("ink", torch.full((B, 3), 0.3), ["'ink'", "sum to 1"]),
    ("image", torch.full((B, 2), nan), ["'image'", "finite"]),
]


@pytest.mark.parametrize(("name", "value", "words"), NOISED)
def test_a_noised_given_value_outside_the_space(name, value, words):
    with pytest.raises(DiffuseError, match=says(*words)):
        process().sample(zeros, B, given={name: Given(value, level=0.5)}, rng=0, steps=2)


def test_a_noised_given_value_may_hold_masks_and_mixtures():
    joint = process()
    joint.sample(zeros, B, given={"caption": Given(torch.full((B, 2), 4), level=0.5)}, rng=0, steps=2)
    corners = get_modality("simplex")((3,), "posterior")
    mixed = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    corners.validate_noised(mixed)
    corners.validate(mixed[:1])
    with pytest.raises(DiffuseError, match=says("one-hot", "'posterior'", "row 1")):
        corners.validate(mixed)  # its last move draws a corner, and its bound counts one


class _Fixed:
    def draw(self, shapes, *, rng, progress=0.0):
        return {name: torch.full(shape, 0.5) for name, shape in shapes.items()}


def test_processes_that_are_none():
    with pytest.raises(DiffuseError, match=says("at least one modality")):
        JointProcess({})
    with pytest.raises(DiffuseError, match=says("'x'", "expected a Modality", "int")):
        JointProcess({"x": 3})
    with pytest.raises(DiffuseError, match=says("block", "at least 1", "0")):
        JointProcess(process().modalities, block=0)


class _Plain(get_modality("gaussian")):
    capabilities = frozenset()


def test_capabilities():
    with pytest.raises(DiffuseError, match=says("unknown capability", "telepathy", "expected of")):

        class Odd(Modality):
            capabilities = frozenset({"telepathy"})

    plain = JointProcess({"x": _Plain((2,))})
    x0 = {"x": torch.zeros(B, 2)}
    with pytest.raises(DiffuseError, match=says("'x'", "lacks", "'elementwise'")):
        JointProcess(plain.modalities, ["x"])
    with pytest.raises(DiffuseError, match=says("'x'", "lacks", "'likelihood'")):
        plain.bound(lambda x, t: x, x0, rng=0)
    with pytest.raises(DiffuseError, match=says("'x'", "lacks", "'density'")):
        OracleDenoiser(plain, x0)


def test_forms_objectives_and_streams():
    joint = process()
    with pytest.raises(DiffuseError, match=says("form", "denoising, implicit, explicit", "'score'")):
        joint.loss(zeros, data(), rng=0, form="score")
    with pytest.raises(DiffuseError, match=says("form")):
        check_form("")
    with pytest.raises(DiffuseError, match=says("objective", "elbo", "'best'")):
        joint.loss(zeros, data(), rng=0, objective="best")
    with pytest.raises(DiffuseError, match=says("no objective 'paper-tabular'")):
        joint.loss(zeros, data(), rng=0, objective="paper-tabular")  # the simplex has none
    with pytest.raises(DiffuseError, match=says("explicit", "truth")):
        joint.loss(zeros, data(), rng=0, form="explicit")
    for wrong in ("seven", 1.5, True, None):
        with pytest.raises(DiffuseError, match=says("rng", "torch.Generator or an int seed", type(wrong).__name__)):
            as_generator(wrong)


def test_clocks():
    joint = process(["caption"])
    t = {name: torch.full((B,), 0.5) for name in joint.modalities}
    with pytest.raises(DiffuseError, match=says("'caption'", "(3, 2)", "(3,)")):
        joint.loss(zeros, data(), rng=0, times=t)
    t["caption"] = torch.full((B, 2), 0.5)
    with pytest.raises(DiffuseError, match=says("'label'", r"times in [0, 1]")):
        joint.loss(zeros, data(), rng=0, times=t | {"label": torch.full((B,), 1.5)})
    with pytest.raises(DiffuseError, match=says("'label'", r"times in [0, 1]")):
        joint.loss(zeros, data(), rng=0, times=t | {"label": torch.full((B,), nan)})
    del t["label"]
    with pytest.raises(DiffuseError, match=says("'label'", "clock")):
        joint.loss(zeros, data(), rng=0, times=t)


@pytest.mark.parametrize("call", ["loss", "sample", "bound"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: out | {"label": torch.zeros(len(out["label"]), 4)}, ["'label'", "shape", "3)", "4)"]),
        (lambda out: {k: v for k, v in out.items() if k != "ink"}, ["'ink'", "no output"]),
        (lambda out: out["image"], ["'image'", "no output"]),
        (lambda out: None, ["'image'", "no output"]),
        (lambda out: out | {"caption": torch.full_like(out["caption"], nan)}, ["'caption'", "NaN"]),
        (lambda out: out | {"image": torch.full_like(out["image"], float("inf"))}, ["'image'", "infinite"]),
    ],
)
def test_models_that_answer_wrongly(call, change, words):
    joint = process()
    model = lambda x, t: change(zeros(x, t))  # noqa: E731 # one word for one line
    calls = {
        "loss": lambda: joint.loss(model, data(), rng=0, times=_Fixed()),
        "sample": lambda: joint.sample(model, B, steps=2, rng=0),
        "bound": lambda: joint.bound(model, data(), rng=0, draws=2),
    }
    with pytest.raises(DiffuseError, match=says(*words)):
        calls[call]()


GIVEN = data()
BAD_REQUESTS = [
    ({"n": 0}, ["rows", "at least 1", "0"]),
    ({"n": 2.5}, ["rows", "2.5"]),
    ({"steps": 0}, ["steps", "at least 1"]),
    ({"given": dict(GIVEN)}, ["nothing is left to sample"]),
    ({"given": {"label": torch.zeros(B + 1, dtype=torch.int64)}}, ["'label'", "(3,)", "(4,)"]),
    ({"given": {"label": Given(GIVEN["label"], level=1.2)}}, ["'label'", "level in [0, 1]", "1.2"]),
    ({"given": {"label": Given(torch.zeros(B), level=0.5)}}, ["'label'", "int64", "float32"]),
    ({"given": {"image": Given(torch.zeros(B, 2, dtype=torch.int64), level=0.5)}}, ["'image'", "floating", "int64"]),
    ({"given": {"image": Given(torch.full((B, 2), nan), level=0.5)}}, ["'image'", "finite"]),
    (
        {"given": {"image": Given(torch.full((B, 2), nan), known=torch.tensor([True, False]))}},
        ["'image'", "finite"],
    ),
    (
        {"given": {"caption": Given(torch.full((B, 2), 9), known=torch.tensor([True, False]))}},
        ["'caption'", "0 to 3", "9"],
    ),
    ({"given": {"label": Given([0, 1, 2])}}, ["'label'", "tensor", "list"]),
    ({"given": {"caption": Given(GIVEN["caption"], known=torch.ones(2))}}, ["'caption'", "known", "bool", "float32"]),
    ({"given": {"caption": Given(GIVEN["caption"], known=torch.ones(3, dtype=torch.bool))}}, ["'caption'", "(2,)"]),
    (
        {"given": {"caption": Given(GIVEN["caption"], level=0.5, known=torch.ones(2, dtype=torch.bool))}},
        ["'caption'", "level 0", "0.5"],
    ),
    (
        {
            "given": {
                "caption": Given(GIVEN["caption"], torch.tensor([0.5, 0.0]), known=torch.ones(2, dtype=torch.bool))
            }
        },
        ["'caption'", "level as one number", "(2,)"],
    ),
    ({"given": {"caption": Given(GIVEN["caption"], resample=0)}}, ["'caption'", "resample", "0"]),
    ({"methods": {"image": "magic"}}, ["'image'", "'magic'", "expected one of dpm_solver, euler, heun"]),
    ({"methods": {"sound": "euler"}}, ["unknown modality 'sound'"]),
    (
        {"given": {"label": Given(GIVEN["label"], level=0.6)}, "guidance": NoisyGuidance(2.0, sigma=0.5)},
        ["sigma 0.5", "below", "0.6", "'label'"],
    ),
    ({"guidance": NoisyGuidance(2.0, sigma={"sound": 0.5})}, ["unknown modality 'sound'"]),
]


@pytest.mark.parametrize(("request_", "words"), BAD_REQUESTS)
def test_requests_that_cannot_be_met(request_, words):
    request_ = dict(request_)
    with pytest.raises(DiffuseError, match=says(*words)):
        process().sample(zeros, request_.pop("n", B), rng=0, **request_)


def test_guidance_that_makes_no_sense():
    with pytest.raises(DiffuseError, match=says("sigma in [0, 1]", "1.5")):
        NoisyGuidance(2.0, sigma=1.5)
    with pytest.raises(DiffuseError, match=says("interval", "0.8", "0.3")):
        NoisyGuidance(2.0, interval=(0.8, 0.3))
    with pytest.raises(DiffuseError, match=says("interval")):
        ClassifierFreeGuidance(2.0, interval=(0.0, 1.5))
    alone = JointProcess({"x": get_modality("gaussian")((1,))})
    with pytest.raises(DiffuseError, match=says("nothing to guide by")):
        alone.sample(lambda x, t: x, 2, guidance=ClassifierFreeGuidance(2.0), rng=0)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("gaussian", ((2,), "square"), ["schedule", "cosine, linear, linear-tabular, edm", "'square'"]),
        ("gaussian", ((2,), "cosine", "noise"), ["prediction", "v, x0, eps, score", "'noise'"]),
        ("masked", ((2,), 3, "square"), ["schedule", "linear, cosine", "'square'"]),
        ("masked", ((2,), 0), ["num_classes", "at least 1", "0"]),
        ("masked", ((2,), [2, 3, 4]), ["num_classes", "(2,)", "3"]),
        ("uniform", ((2,), 1), ["num_classes", "at least 2", "1"]),
        ("uniform", ((2,), 3, "loo"), ["head", "posterior, leave_one_out", "'loo'"]),
        ("simplex", ((1,),), ["event_shape", "at least 2", "(1,)"]),
        ("simplex", ((3,), "logit"), ["head", "score, posterior", "'logit'"]),
    ],
)
def test_modalities_that_cannot_be_built(kind, arguments, words):
    with pytest.raises(DiffuseError, match=says(*words)):
        get_modality(kind)(*arguments)


def test_steps_and_oracles():
    m = get_modality("gaussian")((1,))
    x, t = torch.zeros(2, 1), torch.full((2,), 0.5)
    with pytest.raises(DiffuseError, match=says("heun", "second network call")):
        m.step(x, x, t, t / 2, rng=0, method="heun")
    for kind in ("gaussian", "simplex"):
        modality = get_modality(kind)((2,))
        with pytest.raises(DiffuseError, match=says(kind, "no stepper 'magic'")):
            modality.step(torch.full((2, 2), 0.5), torch.full((2, 2), 0.5), t, t / 2, rng=0, method="magic")
    for weights in (torch.ones(2), -torch.ones(B), torch.zeros(B)):
        with pytest.raises(DiffuseError, match=says("weights", "(3,)")):
            OracleDenoiser(process(), data(), weights)


def test_levels_of_single_elements_fit_the_clock():
    joint, known = process(["image"]), torch.ones(2, dtype=torch.bool)
    for level, words in (
        (torch.zeros(3), "expected the level as one number, or one an element of shape (2,) or (3, 2), got shape (3,)"),
        (torch.tensor([0.5, 1.5]), "expected a level in [0, 1], got 1.5"),
        (torch.tensor([-0.5, 0.5]), "expected a level in [0, 1], got -0.5"),
    ):
        with pytest.raises(DiffuseError, match=re.escape(words)):
            joint.sample(zeros, B, given={"image": Given(torch.zeros(B, 2), level, known)}, rng=0, steps=2)
    given = {"image": Given(torch.zeros(B, 2), torch.tensor([0.0, 0.6]), known)}
    with pytest.raises(DiffuseError, match=r"sigma 0\.5 is below the level 0\.6 of the given 'image'"):
        joint.sample(zeros, B, given=given, guidance=NoisyGuidance(2.0, sigma=0.5), rng=0, steps=2)
