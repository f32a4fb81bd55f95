"""Guidance: when it acts, what the weak call sees, how many calls it costs."""

import pytest
import torch

from de_core import ClassifierFreeGuidance, Given, JointProcess, NoisyGuidance, get_modality
from de_core.families.jump import guided_log_probs


def spy(joint, log):
    def model(x, t):
        log.append(({k: v.clone() for k, v in x.items()}, {k: v.clone() for k, v in t.items()}))
        return {k: torch.zeros(len(x[k]), *m.output_shape) for k, m in joint.modalities.items()}

    return model


def pair():
    return JointProcess({"image": get_modality("gaussian")((2,)), "text": get_modality("masked")((3,), 4)}, block=4)


def test_levels_and_intervals():
    assert ClassifierFreeGuidance(3.0) == NoisyGuidance(3.0, sigma=1.0)
    mixed = NoisyGuidance(2.0, sigma={"text": 0.4}, interval=[0.3, 0.8])
    assert (mixed.level("text"), mixed.level("image")) == (0.4, 1.0)
    assert [mixed.active(t) for t in (0.2, 0.3, 0.5, 0.8, 1.0)] == [False, False, True, False, False]
    assert [NoisyGuidance(2.0).active(t) for t in (0.001, 1.0)] == [True, True]
    assert not NoisyGuidance(1.0).active(0.5)


def test_the_weak_call_sees_the_condition_noised_to_sigma_and_all_else_as_it_is():
    joint, log = pair(), []
    text = torch.zeros(4, 3, dtype=torch.int64)
    joint.sample(spy(joint, log), 4, given={"text": text}, steps=3, guidance=NoisyGuidance(2.0, sigma=0.6), rng=0)
    assert len(log) == 6  # two calls a reading
    for (strong_x, strong_t), (weak_x, weak_t) in zip(log[::2], log[1::2], strict=True):
        assert torch.equal(strong_x["image"], weak_x["image"])
        assert torch.equal(strong_t["image"], weak_t["image"])
        assert torch.equal(strong_x["text"], text)
        assert bool((strong_t["text"] == 0).all())
        assert bool((weak_t["text"] == 0.6).all())
        assert bool(((weak_x["text"] == 0) | (weak_x["text"] == 4)).all())
    masked = torch.stack([x["text"] == 4 for x, _ in log[1::2]]).float().mean()
    assert 0.25 < float(masked) < 0.95  # 36 tokens, each masked with probability 0.6: sd .08


def test_a_condition_at_a_level_is_noised_from_there():
    """From level .4 to .6 a kept token is masked with probability 1 - .4/.6 = 1/3; one that is masked stays so."""
    joint, log = JointProcess(pair().modalities, block=512), []
    noisy = torch.tensor([[0, 4, 0]]).repeat(512, 1)
    joint.sample(
        spy(joint, log), 512, given={"text": Given(noisy, level=0.4)}, steps=1,
        guidance=NoisyGuidance(2.0, sigma=0.6), rng=0,
    )  # fmt: skip
    weak = log[1][0]["text"]
    assert bool((weak[:, 1] == 4).all())
    assert abs(float((weak[:, ::2] == 4).float().mean()) - 1 / 3) < 5 * (2 / 9 / 1024) ** 0.5


def test_with_nothing_given_each_modality_is_guided_by_the_others():
    joint, log = pair(), []
    joint.sample(spy(joint, log), 4, steps=2, guidance=NoisyGuidance(2.0, sigma=0.7), rng=0)
    assert len(log) == 6  # the strong call and one weak call for each of the two
    (_, strong), (_, for_image), (_, for_text) = log[3:]
    assert torch.equal(for_image["image"], strong["image"])
    assert bool((for_image["text"] == 0.7).all())  # max(sigma, its own time .5)
    assert torch.equal(for_text["text"], strong["text"])
    assert bool((for_text["image"] == 0.7).all())
    first = log[:3]
    assert bool((first[1][1]["text"] == 1).all())


def test_outside_the_interval_there_is_one_call():
    joint, log = pair(), []
    text = torch.zeros(4, 3, dtype=torch.int64)
    guidance = ClassifierFreeGuidance(2.0, interval=(0.35, 0.75))
    joint.sample(spy(joint, log), 4, given={"text": text}, steps=10, guidance=guidance, rng=0)
    assert len(log) == 10 + 4  # at t = .7, .6, .5, .4
    assert [float(t["image"][0]) for _, t in log if bool((t["text"] == 1).all())] == pytest.approx([0.7, 0.6, 0.5, 0.4])


def test_mixing_in_log_probabilities():
    strong = torch.tensor([[0.7, 0.2, 0.1]]).log()
    weak = torch.tensor([[0.5, 0.0, 0.5]]).log()
    assert guided_log_probs(strong, None, 3.0) is strong
    assert (guided_log_probs(strong, weak, 1.0) - strong).abs().max() < 1e-6  # float32 rounding
    mixed = guided_log_probs(strong, strong.flip(1), 2.0).exp()
    wanted = torch.tensor([[0.7**2 / 0.1, 0.2**2 / 0.2, 0.1**2 / 0.7]])
    assert (mixed - wanted / wanted.sum()).abs().max() < 1e-6
    assert bool(guided_log_probs(strong, weak, 2.0).isfinite().all())  # -inf times -1 is clamped
    assert bool(guided_log_probs(strong, weak, 0.0)[0, 1] < -50)
