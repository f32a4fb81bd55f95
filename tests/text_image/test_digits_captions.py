"""Captions: a true, fixed grammar, drawn evenly, and read back."""

import pytest
import torch

from de_core.errors import DiffuseError
from de_plugins.text_image.digits.captions import DIGITS, LENGTH, PAD, STROKES, VOCABULARY, Captions
from de_plugins.text_image.digits.data import load_digits_joint

DATA = load_digits_joint()
CAPTIONS = Captions.fit(DATA.train.image)
MASK = len(VOCABULARY)


def test_vocabulary_and_coding():
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 27
    assert VOCABULARY[0] == PAD
    tokens = Captions.encode("this is an eight")
    assert tokens.shape == (LENGTH,)
    assert tokens[4:].tolist() == [0, 0]
    assert Captions.decode(tokens) == "this is an eight"
    assert Captions.decode([*tokens[:3].tolist(), MASK, MASK, 0]) == "this is an _ _"


def test_coding_errors_name_the_word():
    with pytest.raises(DiffuseError, match="got 'dozen' in 'the digit dozen'"):
        Captions.encode("the digit dozen")
    with pytest.raises(DiffuseError, match="at most 6 words, got 7"):
        Captions.encode("a a a a a a a")


def test_every_caption_is_true_and_a_sentence():
    for part in (DATA.train, DATA.held_out):
        tokens = CAPTIONS.draw(part.label, part.image, rng=3)
        assert tokens.shape == (len(part), LENGTH)
        assert tokens.dtype == torch.int64
        assert torch.equal(Captions.parse(tokens), part.label)
        assert bool(Captions.is_sentence(tokens).all())
        stroke = Captions.parse_stroke(tokens)
        named = stroke >= 0
        assert torch.equal(stroke[named], CAPTIONS.strokes(part.image)[named])


def test_strokes_are_thirds_of_training_and_grow_with_ink():
    counts = torch.bincount(CAPTIONS.strokes(DATA.train.image))
    # ties of the mean pixel stay on one side of a threshold; the ties there hold 15 and 16 pictures
    assert bool(((counts - 479).abs() <= 16).all())
    shade = torch.tensor([-0.9, -0.4, 0.5])[:, None, None, None].expand(3, 1, 8, 8)
    assert CAPTIONS.strokes(shade).tolist() == [0, 1, 2]  # mean pixel 0.8, 4.8, 12
    assert STROKES == ("thin", "medium", "bold")


def test_draw_is_even_over_templates_and_strokes():
    n = 18_000
    tokens = Captions(4.0, 5.0).draw(torch.full((n,), 7), rng=0)
    said, counts = tokens.unique(dim=0, return_counts=True)
    # five templates without a stroke word at 1/9, four with three strokes each at 1/27: 17 sentences
    assert len(said) == 5 + 4 * 3
    share = torch.where(Captions.parse_stroke(said) >= 0, 1 / 27, 1 / 9)
    # five binomial standard deviations for 17 counts: one seed in 10^5 would fail, and the seed is fixed
    assert bool(((counts - n * share).abs() <= 5 * (n * share * (1 - share)).sqrt()).all())
    lengths = (tokens != 0).sum(1)
    assert set(lengths.tolist()) == {1, 3, 4, 5, 6}


def test_draw_depends_on_the_seed_alone():
    labels = torch.arange(10)
    state = torch.get_rng_state()
    first, again, other = (CAPTIONS.draw(labels, rng=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_parse_of_none_several_and_masked():
    rows = ["the digit", "seven seven", "seven eight", "a bold zero", "nine"]
    tokens = torch.stack([Captions.encode(row) for row in rows])
    assert Captions.parse(tokens).tolist() == [-1, -1, -1, 0, 9]
    assert Captions.parse_stroke(tokens).tolist() == [-1, -1, -1, 2, -1]
    tokens[4, 0] = MASK
    assert Captions.parse(tokens)[4] == -1
    assert [int(Captions.parse(Captions.encode(word))) for word in DIGITS] == list(range(10))


def test_sentences_need_order_article_and_padding_at_the_end():
    right = ["this is an eight", "a thin eight", "seven , in bold strokes", "zero", "one , drawn by hand"]
    wrong = [
        "this is a eight",
        "an thin eight",
        "this is an seven",
        "is this a seven",
        "seven in bold strokes",
    ]
    said = torch.stack([Captions.encode(row) for row in right + wrong])
    assert Captions.is_sentence(said).tolist() == [True] * 5 + [False] * 5
    assert not bool(Captions.is_sentence(torch.stack([Captions.encode("<pad> zero")])))


def test_wrong_labels_are_named():
    with pytest.raises(DiffuseError, match=r"labels: expected digits 0\.\.9, got 0\.\.10"):
        CAPTIONS.draw(torch.tensor([0, 10]), rng=0)
    with pytest.raises(DiffuseError, match="images: expected one a label"):
        CAPTIONS.draw(torch.tensor([0, 1]), DATA.train.image[:3], rng=0)
