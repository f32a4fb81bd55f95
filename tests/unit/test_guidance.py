"""Guidance: when it acts, what the weak call sees, how many network calls it costs."""

import pytest
import torch

from de_core import ClassifierFreeGuidance, Given, JointProcess, NoisyGuidance, Sequential, get_modality
from de_core.families.jump import guided_log_probs

B = 4


def spy(joint, log, value=0.0):
    def model(x, t):
        log.append(({k: v.clone() for k, v in x.items()}, {k: v.clone() for k, v in t.items()}))
        return {k: torch.full((len(x[k]), *m.output_shape), value) for k, m in joint.modalities.items()}

    return model


def pair(block=B, elementwise=()):
    spaces = {"image": get_modality("gaussian")((2,)), "text": get_modality("masked")((3,), 4)}
    return JointProcess(spaces, elementwise, block=block)


def sides(call, size=B):
    """A call in which strong and weak are joined, as two: ((x, t) strong, (x, t) weak)."""
    assert all(len(v) == 2 * size for part in call for v in part.values())
    return [tuple({k: v[cut] for k, v in part.items()} for part in call) for cut in (slice(size), slice(size, None))]


TEXT = torch.zeros(B, 3, dtype=torch.int64)


def test_levels_weights_and_intervals():
    assert ClassifierFreeGuidance(3.0) == NoisyGuidance(3.0) == NoisyGuidance(3.0, 1.0) == NoisyGuidance(3.0, sigma=1.0)
    mixed = NoisyGuidance(2.0, sigma={"text": 0.4}, interval=[0.3, 0.8])
    assert (mixed.level("text"), mixed.level("image")) == (0.4, 1.0)
    assert [mixed.weight_at("image", t) for t in (0.2, 0.3, 0.5, 0.8, 1.0)] == [1, 1, 2, 1, 1]
    assert [NoisyGuidance(2.0).weight_at("image", t) for t in (0.0, 0.001, 1.0)] == [1, 2, 2]
    each = NoisyGuidance({"image": 3.0})
    assert (each.weight_at("image", 0.5), each.weight_at("text", 0.5)) == (3.0, 1.0)
    weaker = NoisyGuidance(2.0, model=spy)
    assert weaker.sigma is None
    assert weaker.level("text") is None
    assert NoisyGuidance(2.0, {"text": 0.5}, model=spy).level("image") is None


def test_the_weak_side_sees_the_condition_noised_to_sigma_and_all_else_as_it_is():
    joint, log = pair(), []
    joint.sample(spy(joint, log), B, given={"text": TEXT}, steps=3, guidance=NoisyGuidance(2.0, sigma=0.6), rng=0)
    assert len(log) == 3  # one joined call a round
    weak = []
    for call in log:
        (strong_x, strong_t), (weak_x, weak_t) = sides(call)
        assert torch.equal(strong_x["image"], weak_x["image"])
        assert torch.equal(strong_t["image"], weak_t["image"])
        assert torch.equal(strong_x["text"], TEXT)
        assert bool((strong_t["text"] == 0).all())
        assert bool((weak_t["text"] == 0.6).all())
        assert bool(((weak_x["text"] == 0) | (weak_x["text"] == 4)).all())
        weak.append(weak_x["text"])
    masked = (torch.stack(weak) == 4).float().mean()
    # 36 tokens, each masked with probability .6: the binomial law leaves 12..31 with probability under 1e-3; seed fixed
    assert 12 <= 36 * float(masked) <= 31
    assert not torch.equal(weak[0], weak[1])  # fresh noise at each step


def test_frozen_noise_is_one_draw_for_the_run():
    joint, log = pair(), []
    guidance = NoisyGuidance(2.0, sigma=0.6, renoise="frozen")
    joint.sample(spy(joint, log), B, given={"text": TEXT}, steps=4, guidance=guidance, rng=0)
    weak = [sides(call)[1][0]["text"] for call in log]
    assert all(torch.equal(weak[0], other) for other in weak)
    assert bool((weak[0] == 4).any())


def test_frozen_noise_with_nothing_given_has_the_same_variates_at_every_step():
    """The image at x = 0 (network 0, Euler: v = 0 keeps x) noised from t to sigma is sqrt(1 - (alpha_sigma/alpha_t)^2)
    times one standard normal draw, the same at every t. Float32: 1e-4."""
    joint, log = pair(), []
    guidance = NoisyGuidance({"text": 2.0}, sigma=0.9, renoise="frozen")
    joint.sample(
        spy(joint, log), B, steps=4, guidance=guidance, rng=0, methods={"image": "euler"}, path=Sequential(["text"])
    )
    guided = [sides(call) for call in log if len(call[0]["text"]) == 2 * B]
    assert len(guided) == 0  # the image is still at 1, above sigma: nothing to noise, no weak call
    log.clear()
    joint.sample(spy(joint, log), B, steps=8, guidance=guidance, rng=0, methods={"image": "euler"})
    draws = []
    for call in log:
        if len(call[0]["text"]) == 2 * B:
            (x, t), (weak, when) = sides(call)
            t, sigma = t["image"].double(), when["image"].double()
            assert bool((sigma == torch.tensor(0.9)).all())
            ratio = torch.cos(torch.pi / 2 * sigma) / torch.cos(torch.pi / 2 * t)
            draws.append((weak["image"] - ratio[:, None] * x["image"]) / (1 - ratio**2).sqrt()[:, None])
    assert len(draws) == 7  # at t = 7/8, ..., 1/8
    assert all((draws[0] - draw).abs().max() < 1e-4 for draw in draws)


def test_each_condition_has_its_own_sigma():
    joint = JointProcess({**pair().modalities, "label": get_modality("uniform")((), 3)}, block=B)
    log, given = [], {"text": TEXT, "label": torch.zeros(B, dtype=torch.int64)}
    guidance = NoisyGuidance(2.0, sigma={"text": 0.25, "label": 1.0})
    joint.sample(spy(joint, log), B, given=given, steps=2, guidance=guidance, rng=0)
    for call in log:
        _, (_, when) = sides(call)
        assert bool((when["text"] == 0.25).all())
        assert bool((when["label"] == 1).all())


def test_a_condition_at_a_level_is_noised_from_there():
    """From level .4 to .6 a kept token is masked with probability 1 - (1 - .6)/(1 - .4) = 1/3; one that is
    masked stays so. 1,024 tokens, five standard errors."""
    joint, log = pair(512), []
    noisy = torch.tensor([[0, 4, 0]]).repeat(512, 1)
    given = {"text": Given(noisy, level=0.4)}
    joint.sample(spy(joint, log), 512, given=given, steps=1, guidance=NoisyGuidance(2.0, sigma=0.6), rng=0)
    weak = sides(log[0], 512)[1][0]["text"]
    assert bool((weak[:, 1] == 4).all())
    assert abs(float((weak[:, ::2] == 4).float().mean()) - 1 / 3) < 5 * (2 / 9 / 1024) ** 0.5


def test_with_nothing_given_each_modality_is_guided_by_the_others():
    joint, log = pair(), []
    joint.sample(spy(joint, log), B, steps=2, guidance=NoisyGuidance(2.0, sigma=0.7), rng=0)
    # at t = 1 all lies above sigma and the weak side would be the strong one: one plain call; then three queries, two
    # of them joined
    assert [len(x["text"]) for x, _ in log] == [B, 2 * B, B]
    (strong_x, strong), (_, for_image) = sides(log[1])
    for_text_x, for_text = log[2]
    assert bool((strong["text"] == 0.5).all())
    assert torch.equal(for_image["image"], strong["image"])
    assert bool((for_image["text"] == 0.7).all())  # max(sigma, its own time .5)
    assert torch.equal(for_text["text"], strong["text"])
    assert torch.equal(for_text_x["text"], strong_x["text"])
    assert bool((for_text["image"] == 0.7).all())


def test_outside_the_interval_there_is_no_weak_call():
    joint, log = pair(), []
    guidance = ClassifierFreeGuidance(2.0, interval=(0.35, 0.75))
    joint.sample(spy(joint, log), B, given={"text": TEXT}, steps=10, guidance=guidance, rng=0)
    assert len(log) == 10
    guided = [float(t["image"][0]) for _, t in log if len(t["image"]) == 2 * B]
    assert guided == pytest.approx([0.7, 0.6, 0.5, 0.4])


@pytest.mark.parametrize("guidance", [NoisyGuidance(1.0, 0.5), NoisyGuidance(3.0, 0.4), NoisyGuidance({"text": 2.0})])
def test_no_weak_call_where_the_two_sides_agree(guidance):
    """Weight 1, sigma at the condition's own level, or a weight for another modality: no call, and the same bits."""
    joint, log = pair(), []
    given = {"text": Given(torch.full((B, 3), 4), level=0.4)}
    plain = joint.sample(spy(joint, []), B, given=given, steps=3, rng=0)
    guided = joint.sample(spy(joint, log), B, given=given, steps=3, guidance=guidance, rng=0)
    assert [len(x["text"]) for x, _ in log] == [B] * 3
    assert torch.equal(plain["image"], guided["image"])


def test_weights_by_modality():
    """Only the text is guided: the image moves as without guidance, the text does not (network: 0 against 0 would
    agree, so it answers with the mean of what it sees)."""
    joint = pair(64)

    def model(x, t):
        seen = x["image"].mean(1, keepdim=True) + (x["text"] == 4).float().mean(1, keepdim=True)
        scores = torch.arange(4.0) * seen[:, :, None]
        return {"image": seen.expand(-1, 2), "text": scores.expand(-1, 3, 4)}

    run = lambda guidance: joint.sample(model, 64, steps=1, guidance=guidance, rng=0)  # noqa: E731 # one word
    plain, text = (
        run(None),
        run(NoisyGuidance({"text": 3.0}, model=lambda x, t: {k: -v for k, v in model(x, t).items()})),
    )
    assert torch.equal(plain["image"], text["image"])
    assert not torch.equal(plain["text"], text["text"])


# --- a partly given modality as a condition ---------------------------------------------------------------------------

KNOWN = torch.tensor([True, False])


def test_the_known_elements_of_an_elementwise_clock_are_noised_apart_from_the_rest():
    joint, log = pair(elementwise=["image"]), []
    given = {"image": Given(torch.full((B, 2), 5.0), known=KNOWN)}
    for renoise in ("fresh", "frozen"):
        log.clear()
        guidance = NoisyGuidance(2.0, sigma=0.6, renoise=renoise)
        joint.sample(spy(joint, log), B, given=given, steps=3, guidance=guidance, rng=0)
        assert len(log) == 3
        first = None
        for call in log:
            (x, t), (weak, when) = sides(call)
            assert bool((x["image"][:, 0] == 5).all())
            assert bool((t["image"][:, 0] == 0).all())
            assert torch.equal(when["image"][:, 0], torch.full((B,), 0.6))
            assert bool((weak["image"][:, 0] != 5).all())
            assert torch.equal(weak["image"][:, 1], x["image"][:, 1])
            assert torch.equal(when["image"][:, 1], t["image"][:, 1])
            assert torch.equal(weak["text"], x["text"])
            assert torch.equal(when["text"], t["text"])
            first = weak["image"][:, 0] if first is None else first
            assert torch.equal(first, weak["image"][:, 0]) == (renoise == "frozen" or call is log[0])


def test_the_known_tokens_of_a_masked_modality_are_masked_under_its_one_clock():
    """Which elements are kept is all that a masked state says, so the known ones can be masked again without a clock of
    their own: with probability sigma = .6. 512 tokens, five standard errors."""
    joint, log = pair(512), []
    known = torch.tensor([True, False, False])
    given = {"text": Given(torch.full((512, 3), 2), known=known)}
    joint.sample(spy(joint, log), 512, given=given, steps=1, guidance=NoisyGuidance(2.0, sigma=0.6), rng=0)
    (x, t), (weak, when) = sides(log[0], 512)
    assert bool((x["text"] == torch.tensor([2, 4, 4])).all())
    assert torch.equal(t["text"], when["text"])
    assert bool((weak["text"][:, 1:] == 4).all())
    assert bool(((weak["text"][:, 0] == 4) | (weak["text"][:, 0] == 2)).all())
    assert abs(float((weak["text"][:, 0] == 4).float().mean()) - 0.6) < 5 * (0.24 / 512) ** 0.5


def test_a_replaced_part_is_no_condition():
    """A gaussian under one clock, half known, and a text: the text guides, the known half does not."""
    joint, log = pair(), []
    given = {"image": Given(torch.zeros(B, 2), known=KNOWN, resample=1), "text": TEXT}
    joint.sample(spy(joint, log), B, given=given, steps=2, guidance=ClassifierFreeGuidance(2.0), rng=0)
    for call in log:
        (x, t), (weak, when) = sides(call)
        assert torch.equal(x["image"], weak["image"])
        assert torch.equal(t["image"], when["image"])
        assert bool((weak["text"] == 4).all())


# --- another model ----------------------------------------------------------------------------------------------------


def test_a_weaker_model_sees_what_the_model_sees():
    joint, log, other = pair(), [], []
    weaker = spy(joint, other, 1.0)
    x = joint.sample(spy(joint, log), B, steps=3, guidance=NoisyGuidance(2.0, model=weaker), rng=0)
    assert len(log) == len(other) == 3
    for (a, s), (b, t) in zip(log, other, strict=True):
        assert all(torch.equal(a[k], b[k]) and torch.equal(s[k], t[k]) for k in a)
    # the last call: v = 2 * 0 - 1 * 1 = -1 at the state, t = 1/3: x0_hat = alpha x + sigma
    a, s = torch.cos(torch.tensor(torch.pi / 6)), torch.sin(torch.tensor(torch.pi / 6))
    assert (x["image"] - (a * log[-1][0]["image"] + s)).abs().max() < 1e-5  # float32
    alone = JointProcess({"image": joint.modalities["image"]}, block=B)
    alone.sample(
        spy(alone, []), B, steps=2, guidance=NoisyGuidance(2.0, model=spy(alone, other)), rng=0
    )  # no condition


def test_a_weaker_model_with_a_sigma_sees_the_condition_noised_too():
    joint, log, other = pair(), [], []
    guidance = NoisyGuidance(2.0, sigma=1.0, model=spy(joint, other))
    joint.sample(spy(joint, log), B, given={"text": TEXT}, steps=2, guidance=guidance, rng=0)
    assert all(bool((x["text"] == 0).all()) for x, _ in log)
    assert all(bool((x["text"] == 4).all()) and bool((t["text"] == 1).all()) for x, t in other)
    assert len(log) == len(other) == 2


# --- one call or two --------------------------------------------------------------------------------------------------


def test_heun_joins_its_second_stage_too():
    joint, log = pair(), []
    guidance = NoisyGuidance(2.0, sigma=0.6)
    joint.sample(spy(joint, log), B, given={"text": TEXT}, steps=3, guidance=guidance, methods={"image": "heun"}, rng=0)
    assert [len(x["text"]) for x, _ in log] == [2 * B] * 5
    for first, second in (log[0:2], log[2:4]):
        (_, (weak, when)), (_, (again, later)) = sides(first), sides(second)
        assert torch.equal(weak["text"], again["text"])  # the weak condition is as it was
        assert torch.equal(when["text"], later["text"])
        assert bool((later["image"] < when["image"]).all())


def test_without_the_memory_for_both_the_two_sides_are_called_one_by_one():
    joint, log = pair(), []
    inner = spy(joint, log)

    def small(x, t):
        if len(x["text"]) > B:
            raise torch.OutOfMemoryError("no room")
        return inner(x, t)

    guidance = NoisyGuidance(2.0, sigma=0.6)
    request = {"given": {"text": TEXT}, "steps": 3, "guidance": guidance, "rng": 0}
    apart = joint.sample(small, B, **request)
    assert [len(x["text"]) for x, _ in log] == [B] * 6
    together = joint.sample(inner, B, **request)
    assert torch.equal(apart["image"], together["image"])  # this network's rows do not depend on each other


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
