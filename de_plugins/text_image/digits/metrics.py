"""What the demo measures: from samples to the numbers of `metrics.json`, their meanings and targets.

The functions are pure: tensors in, one float out. `measure` puts them together for the demo's four kinds of
samples. A *sample* is what `JointProcess.sample` returns: {"image" (n, 1, 8, 8), "caption" (n, 6), "label"
(n,), "ink" (n, 16)}.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from de_core.errors import DiffuseError
from de_core.rng import Rng, as_generator
from de_plugins.text_image.digits.captions import Captions
from de_plugins.text_image.digits.data import DigitsData, DigitsPart, ink_of, pixels_of
from de_plugins.text_image.digits.judge import Judge

__all__ = [
    "MEANINGS",
    "Meaning",
    "agreement",
    "ink_mae",
    "ink_mae_class_mean",
    "ink_mae_same_digit",
    "measure",
    "nearest_train_ratio",
]


def agreement(left: Tensor, right: Tensor) -> float:
    """The share of rows in which two judgements name the same digit; -1, "none named", never agrees.

    Args:
        left, right: (n,) int64, digits 0..9 or -1.

    Raises:
        DiffuseError: the shapes differ or there is no row.
    """
    if left.shape != right.shape or left.ndim != 1 or len(left) == 0:
        raise DiffuseError(
            f"agreement: expected two shapes (n,), n > 0, got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    return float(((left == right) & (left >= 0)).double().mean())


def _mean_error(ink: Tensor, images: Tensor) -> float:
    own = ink_of(images).double()
    if ink.shape != own.shape or len(own) == 0:
        raise DiffuseError(f"ink: expected {tuple(own.shape)} for the images given, n > 0, got {tuple(ink.shape)}")
    return float((ink.double() - own).abs().mean())


def ink_mae(ink: Tensor, images: Tensor) -> float:
    """Mean absolute error, over rows and tiles, of sampled ink shares against those of the pictures.

    Args:
        ink: (n, 16) shares, rows sum to one.
        images: (n, 1, 8, 8) in [-1, 1].
    """
    return _mean_error(ink, images)


def ink_mae_class_mean(images: Tensor, digits: Tensor, train: DigitsPart) -> float:
    """`ink_mae` of the baseline that knows the digit only: the mean shares of that digit's training pictures.

    Args:
        images: (n, 1, 8, 8) in [-1, 1].
        digits: (n,) int64 0..9, the digit each picture shows.
        train: the training part.
    """
    means = torch.stack([train.ink[train.label == digit].double().mean(0) for digit in range(10)])
    return _mean_error(means[digits], images)


def ink_mae_same_digit(images: Tensor, digits: Tensor, train: DigitsPart, *, rng: Rng) -> float:
    """`ink_mae` of the baseline that takes the shares of a random training picture of the same digit.

    Args as `ink_mae_class_mean`; rng: generator or seed.
    """
    generator = as_generator(rng)
    weights = (digits[:, None] == train.label[None]).double()  # an even draw among the rows of the digit
    return _mean_error(train.ink[torch.multinomial(weights, 1, generator=generator)[:, 0]], images)


def nearest_train_ratio(images: Tensor, held_out: Tensor, train: Tensor) -> float:
    """How near generated pictures come to training pictures, in units of how near new real ones come.

    ratio = median_i min_j ||g_i - x_j|| / median_i min_j ||h_i - x_j||, Euclidean over the 64 pixels, with g
    generated, h held-out and x training pictures. Copies give 0, fresh pictures about 1; noise lies above 1,
    so that the ratio means something only beside the judge's agreement. Pictures are clamped to the pixel
    range.

    Args:
        images, held_out, train: (n, 1, 8, 8) in [-1, 1], each its own n > 0.
    """
    if 0 in (len(images), len(held_out), len(train)):
        raise DiffuseError("nearest_train_ratio: expected pictures of all three kinds, got none of one")
    known = pixels_of(train).flatten(1)

    def nearest(pictures: Tensor) -> Tensor:
        # By differences: the expanded square would leave rounding noise where a copy has distance 0.
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(pixels_of(pictures).flatten(1), known, compute_mode=exact).amin(1).quantile(0.5)

    return float(nearest(images) / nearest(held_out))


def measure(
    judge: Judge,
    captions: Captions,
    data: DigitsData,
    *,
    joint: Mapping[str, Tensor],
    from_caption: Mapping[str, Tensor],
    from_noisy_caption: Mapping[str, Tensor],
    requested: Tensor,
    from_image: Mapping[str, Tensor],
    rng: Rng,
) -> dict[str, float]:
    """Every number of the demo that comes from samples: MEANINGS without `seconds` and `parameters`.

    Args:
        joint: samples of everything.
        from_caption: samples given the captions in it.
        from_noisy_caption: samples given the captions in it, some words of which are masked.
        requested: (n,) int64, the digit that row i of the captions states, and of the noisy ones did before
            the noise.
        from_image: samples given the held-out pictures, in the order of data.held_out, the whole once or several times.
        rng: generator or seed, for the baseline that draws.
    """
    shown = judge.digits(joint["image"])
    stroke = captions.parse_stroke(joint["caption"])
    named = stroke >= 0
    truth = data.held_out.label.repeat(len(from_image["label"]) // len(data.held_out))
    return {
        "judge_accuracy": judge.accuracy,
        "image_given_caption": agreement(judge.digits(from_caption["image"]), requested),
        "image_given_noisy_caption": agreement(judge.digits(from_noisy_caption["image"]), requested),
        "noisy_caption_states_digit": agreement(captions.parse(from_noisy_caption["caption"]), requested),
        "joint_agreement": agreement(shown, captions.parse(joint["caption"])),
        "joint_label_agreement": agreement(shown, joint["label"]),
        "joint_stroke_agreement": agreement(captions.strokes(joint["image"])[named], stroke[named])
        if bool(named.any())
        else 0.0,
        "caption_is_sentence": float(captions.is_sentence(joint["caption"]).double().mean()),
        "caption_given_image": agreement(captions.parse(from_image["caption"]), truth),
        "label_given_image": agreement(from_image["label"], truth),
        "ink_mae": ink_mae(joint["ink"], joint["image"]),
        "ink_mae_class_mean": ink_mae_class_mean(joint["image"], shown, data.train),
        "ink_mae_same_digit": ink_mae_same_digit(joint["image"], shown, data.train, rng=rng),
        "nearest_train_ratio": nearest_train_ratio(joint["image"], data.held_out.image, data.train.image),
    }


@attrs.frozen
class Meaning:
    """How a number is shown to a person.

    Attributes:
        title: its name in words.
        text: what it means, one sentence.
        unit: "%" for a share, "" for a plain number, "count" or "s".
        target: what the demo must reach; None where there is none.
        at_least: whether larger is better; else smaller is.
    """

    title: str
    text: str
    unit: str = "%"
    target: float | None = None
    at_least: bool = True

    def reached(self, value: float) -> bool | None:
        """Whether the target is reached; None when there is none."""
        if self.target is None:
            return None
        return value >= self.target if self.at_least else value <= self.target


MEANINGS: dict[str, Meaning] = {
    "judge_accuracy": Meaning(
        "The judge itself",
        "A support vector machine, fitted on the real training pictures, reads this share of the held-out "
        "real pictures right. It is the yardstick of the rows below.",
    ),
    "image_given_caption": Meaning(
        "Picture from a caption",
        "The judge reads in the picture the digit that the caption asked for.",
        target=0.98,
    ),
    "image_given_noisy_caption": Meaning(
        "Picture from a noisy caption",
        "The same, with some of the caption's words hidden. Where the digit's word is hidden the picture is "
        "free, so this cannot be much above the next row.",
    ),
    "noisy_caption_states_digit": Meaning(
        "… digit still readable", "The noisy captions in which the digit's word has survived."
    ),
    "joint_agreement": Meaning(
        "Picture and caption together",
        "Nothing given: the judge reads in the picture the digit that the caption beside it states.",
        target=0.97,
    ),
    "joint_label_agreement": Meaning(
        "Picture and label together", "Nothing given: the judge reads in the picture the label beside it."
    ),
    "joint_stroke_agreement": Meaning(
        "Picture and stroke word",
        "Captions that call the strokes thin, medium or bold and are right about it.",
    ),
    "caption_is_sentence": Meaning(
        "Captions that are sentences",
        "Nothing given: the caption is, word for word, a sentence of the grammar.",
    ),
    "caption_given_image": Meaning(
        "Caption from a picture", "The caption of a held-out real picture states its true digit.", target=0.97
    ),
    "label_given_image": Meaning(
        "Label from a picture", "The label of a held-out real picture is its true digit.", target=0.97
    ),
    "ink_mae": Meaning(
        "Ink shares against the picture",
        "Mean absolute error of the sampled share of ink in a tile against the sampled picture's own.",
        unit="",
        target=0.010,
        at_least=False,
    ),
    "ink_mae_class_mean": Meaning(
        "… baseline: mean of the digit",
        "The error made by always stating the mean shares of the digit.",
        unit="",
    ),
    "ink_mae_same_digit": Meaning(
        "… baseline: another picture",
        "The error made by the shares of another picture of the same digit.",
        unit="",
    ),
    "nearest_train_ratio": Meaning(
        "New, not copied",
        "Distance from a generated picture to the nearest training picture, over the same for held-out real "
        "pictures (medians). A model that copies has 0, real new digits have 1.",
        unit="",
        target=0.85,
    ),
    "seconds": Meaning("Time", "The whole command on this machine, training included.", unit="s"),
    "parameters": Meaning("Size of the model", "Numbers that were learned, all of them counted.", unit="count"),
}
