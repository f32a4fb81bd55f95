"""The sections of the demo's page, built from samples; what each shows is said in its text."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from de_plugins.text_image.digits.captions import Captions
from de_plugins.text_image.digits.judge import Judge
from de_plugins.text_image.digits.page import Section
from de_plugins.text_image.digits.pictures import Panel

__all__ = [
    "caption_section",
    "guidance_section",
    "image_section",
    "inpainting_section",
    "joint_section",
    "noisy_caption_section",
]


def _said(tokens: Tensor) -> tuple[str, ...]:
    return tuple(Captions.decode(row) or "(no word)" for row in tokens)


def _same(left: Tensor, right: Tensor) -> tuple[bool, ...]:
    return tuple(((left == right) & (left >= 0)).tolist())


def joint_section(sample: Mapping[str, Tensor], judge: Judge) -> Section:
    """Samples with nothing given: picture, ink bars, caption and label, coloured by whether they agree."""
    digits = judge.digits(sample["image"])
    told = Captions.parse(sample["caption"])
    agree = (told == digits) & (sample["label"] == digits)
    texts = [f"{said} [{int(label)}]" for said, label in zip(_said(sample["caption"]), sample["label"], strict=True)]
    panel = Panel("joint", sample["image"], 8, texts, agree.tolist(), sample["ink"])
    return Section(
        "Everything at once",
        "Nothing was given: picture, caption, label (in brackets) and ink shares were drawn together. The "
        "bars are the drawn shares of ink in 16 tiles, the dark ticks those the picture really has. Text is "
        "green where the judge reads the same digit in the picture, red where not.",
        (panel,),
    )


def caption_section(sample: Mapping[str, Tensor], requested: Tensor, judge: Judge) -> Section:
    """Pictures given captions; `requested` (n,) is the digit that each caption states."""
    right = _same(judge.digits(sample["image"]), requested)
    panel = Panel("image_given_caption", sample["image"], 10, _said(sample["caption"]), right)
    return Section(
        "A picture for a caption",
        "The caption was given, the rest drawn. Green: the judge reads the digit that was asked for.",
        (panel,),
    )


def noisy_caption_section(sample: Mapping[str, Tensor], requested: Tensor, judge: Judge) -> Section:
    """Pictures given captions with masked words; `requested` (n,) is what they stated before the noise."""
    right = [
        same if states else None
        for same, states in zip(
            _same(judge.digits(sample["image"]), requested),
            Captions.parse(sample["caption"]) >= 0,
            strict=True,
        )
    ]
    panel = Panel("image_given_noisy_caption", sample["image"], 10, _said(sample["caption"]), right)
    return Section(
        "A picture for a noisy caption",
        "The caption was given part of the way to noise: words shown as _ were hidden. Where the digit can "
        "still be read the picture follows it (green or red by the judge); where it is hidden the picture is "
        "free (dark).",
        (panel,),
    )


def image_section(sample: Mapping[str, Tensor], truth: Tensor) -> Section:
    """Caption and label given held-out pictures; `truth` (n,) is the true digit."""
    right = (Captions.parse(sample["caption"]) == truth) & (sample["label"] == truth)
    texts = [f"{said} [{int(label)}]" for said, label in zip(_said(sample["caption"]), sample["label"], strict=True)]
    return Section(
        "A caption for a picture",
        "These pictures are real and were held out from training. Caption and label (in brackets) were "
        "drawn: green where both name the true digit, red where one does not.",
        (Panel("caption_given_image", sample["image"], 10, texts, right.tolist()),),
    )


def inpainting_section(original: Tensor, known: Tensor, completions: Tensor) -> Section:
    """Completions of held-out pictures.

    Args:
        original: (n, 1, 8, 8) in [-1, 1].
        known: (1, 8, 8) bool, the pixels that were given.
        completions: (n, k, 1, 8, 8), k draws each.
    """
    draws = completions.shape[1]
    half = torch.where(known, original, torch.nan)
    rows = torch.cat([original[:, None], half[:, None], completions], 1).flatten(0, 1)
    titles = ["held-out", "given", *(f"draw {k + 1}" for k in range(draws))]
    return Section(
        "The lower half, imagined",
        "Only the upper half of a held-out picture was given (the hatched part was not). Each draw completes "
        "it anew: where the upper half decides the digit the draws agree, where it does not they differ.",
        (Panel("inpainting", rows, 2 + draws, titles=titles),),
    )


def guidance_section(samples: Mapping[str, Mapping[str, Tensor]], requested: Tensor, judge: Judge) -> Section:
    """The same captions under the three kinds of guidance; key: its name, e.g. "none", value: the sample.

    Three panels of three columns fill the page's width; nine captions make them square.
    """
    panels = []
    for name, sample in samples.items():
        digits = judge.digits(sample["image"])
        right = _same(digits, requested)
        heading = f"{name}: {sum(right)} of {len(right)} as asked"
        texts = _said(sample["caption"])
        panels.append(Panel(f"guidance_{len(panels)}", sample["image"], 3, texts, right, heading=heading))
    return Section(
        "Guidance, side by side",
        "The same captions three times: without guidance; pushed away from what the model draws without a "
        "caption (classifier-free); pushed away from what it draws for a noisier caption (noisy guidance).",
        panels,
    )
