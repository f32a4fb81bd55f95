"""Captions as tokens: training, loading, lengths, what is refused, and the way back."""

import re

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from de_core import DiffuseError
from de_plugins.text_image.data.captions import END, Captioner

COLOURS = ("red", "blue", "green", "grey")
CAPTIONS = [f"a {a} circle to the left of a {b} square" for a in COLOURS for b in COLOURS]


def trained(**kwargs) -> Captioner:
    return Captioner.train(CAPTIONS, **{"vocabulary": 60, "length": 16, **kwargs})


def byte_level() -> Tokenizer:
    """As CLIP's and GPT-2's: every byte is a token, nothing is unknown."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_captions_come_back():
    captioner = trained()
    encoded = captioner.encode(CAPTIONS)
    assert encoded.tokens.shape == (16, 16)
    assert encoded.tokens.dtype == torch.int64
    assert int(encoded.tokens.max()) < captioner.vocabulary <= 60
    assert encoded.truncated == 0
    assert captioner.decode(encoded.tokens) == CAPTIONS


def test_the_rest_of_the_context_is_the_end_token():
    captioner = trained()
    row, _ = captioner.row("a red circle")
    words = row.index(captioner.end)
    assert 0 < words < 16
    assert set(row[words:]) == {captioner.end}


def test_training_is_the_same_for_the_same_captions():
    captions = [f"{word} {word[::-1]}" for word in ("xyz", "zyx", "über", "größe", "naïve", "ça")]  # many ties
    assert len({Captioner.train(captions, vocabulary=16, length=4).text() for _ in range(5)}) == 1


def test_a_tokenizer_is_saved_and_loaded(tmp_path):
    captioner = trained()
    (tmp_path / "tokenizer.json").write_text(captioner.text(), encoding="utf-8")
    loaded = Captioner.load(tmp_path / "tokenizer.json", length=16)
    assert torch.equal(loaded.encode(CAPTIONS).tokens, captioner.encode(CAPTIONS).tokens)
    assert loaded.vocabulary == captioner.vocabulary


def test_a_byte_level_tokenizer_knows_everything():
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.enable_truncation(3)  # what a file says of lengths does not count here
    tokenizer.enable_padding(length=50)
    captioner = Captioner(tokenizer, 24)
    assert captioner.vocabulary == 257
    assert captioner.end == 256
    assert captioner.unknown is None
    tokens = captioner.encode(["größe 😀 Ω", "x"]).tokens
    assert tokens.shape == (2, 24)
    assert captioner.decode(tokens) == ["größe 😀 Ω", "x"]


def test_too_long_is_cut_and_counted_or_refused():
    long = CAPTIONS[0] + " " + CAPTIONS[1]
    whole, cut = trained(length=64).row(long)[0], trained(length=8)
    encoded = cut.encode([long, "a red circle"])
    assert encoded.truncated == 1
    assert encoded.tokens[0].tolist() == whole[:8]
    assert long.startswith(cut.decode(encoded.tokens)[0])
    with pytest.raises(DiffuseError, match=r"^caption 'a red circle.*\.\.\.': expected at most 8 tokens, got \d+$"):
        trained(length=8, overflow="refuse").encode(["a red circle", long])


def test_a_caption_that_just_fits_is_not_cut():
    count = trained(length=64).row(CAPTIONS[5])[0].index(trained().end)
    captioner = trained(length=count, overflow="refuse")
    assert captioner.decode(captioner.encode([CAPTIONS[5]]).tokens) == [CAPTIONS[5]]


def test_an_unknown_letter_is_named():
    with pytest.raises(DiffuseError, match=r"^caption 'a réd circle': 'é' is not in the tokenizer's vocabulary$"):
        trained().encode(["a réd circle"])


def test_rare_letters_go_first_where_the_vocabulary_is_small():
    captioner = Captioner.train(["aaaa bbb cc d"], vocabulary=6, length=20)  # blank, a, b, c
    assert captioner.vocabulary == 6
    assert captioner.decode(captioner.encode(["cab"]).tokens) == ["cab"]
    with pytest.raises(DiffuseError, match="'d' is not in"):
        captioner.encode(["d"])


@pytest.mark.parametrize("caption", ["", "  \n "])
def test_an_empty_caption_only_where_asked(caption):
    with pytest.raises(DiffuseError, match=r"^caption: expected words, it is empty$"):
        trained().encode([caption])
    captioner = trained(empty=True)
    tokens = captioner.encode([caption]).tokens
    assert (tokens == captioner.end).all()
    assert captioner.decode(tokens) == [""]


def test_blanks_and_written_out_special_tokens_are_text():
    captioner = Captioner.train([*CAPTIONS, "[END]"], vocabulary=70, length=30)
    assert captioner.decode(captioner.encode([" a \t red\n\ncircle "]).tokens) == ["a red circle"]
    assert captioner.decode(captioner.encode([f"a {END} circle"]).tokens) == [f"a {END} circle"]


def test_half_a_surrogate_pair_is_no_text():
    with pytest.raises(DiffuseError, match="half of a surrogate pair"):
        trained().encode(["a \ud800 circle"])
    Captioner.train(["a \ud800", "a"], vocabulary=9, length=2)


def test_no_captions_and_none_to_encode():
    assert trained().encode([]).tokens.shape == (0, 16)
    assert trained().decode(torch.empty(0, 16, dtype=torch.int64)) == []
    with pytest.raises(DiffuseError, match="at least one with words"):
        Captioner.train(["", " "], vocabulary=9, length=2)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((1, 4), 30), "expected tokens in [0, 30), got 30 to 30"),
        (torch.full((1, 4), -1), "expected tokens in [0, 30), got -1 to -1"),
        (torch.zeros(4, dtype=torch.int64), "expected integers (n, length), got torch.int64 (4,)"),
        (torch.zeros(1, 4), "expected integers (n, length), got torch.float32 (1, 4)"),
    ],
)
def test_what_cannot_be_decoded(tokens, message):
    captioner = trained(vocabulary=30)
    assert captioner.vocabulary == 30
    with pytest.raises(DiffuseError, match=re.escape(message)):
        captioner.decode(tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "a length of at least 1"),
        ({"vocabulary": 2}, "a vocabulary of at least 3"),
        ({"overflow": "wrap"}, "overflow 'truncate' or 'refuse', got 'wrap'"),
    ],
)
def test_arguments_out_of_range(change, message):
    with pytest.raises(DiffuseError, match=message):
        trained(**change)


def test_tokenizers_that_will_not_do(tmp_path):
    with pytest.raises(DiffuseError, match="there is no such file"):
        Captioner.load(tmp_path / "tokenizer.json", length=4)
    for content in (b"{}", b"no json", b"\xff\xfe"):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(DiffuseError, match=r"expected a tokenizer\.json of the library tokenizers"):
            Captioner.load(tmp_path / "tokenizer.json", length=4)
    with pytest.raises(DiffuseError, match="expected an end token"):
        Captioner(byte_level(), 4)
    dropping = Tokenizer(models.BPE({"a": 0, END: 1}, []))
    with pytest.raises(DiffuseError, match="an unknown token or the whole byte alphabet"):
        Captioner(dropping, 4)
