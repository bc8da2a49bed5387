"""Text of tokens as they come: in pieces that later tokens do not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dsa_exec.cli.run.text_stream import TextStream
from dsa_exec.integrations.transformers.bytes_tokenizer import BytesTokenizer


def pieces_of(decode, tokens) -> list[str]:
    """What is written after each token, and at the end."""
    written: list[str] = []
    stream = TextStream(decode, written.append)
    for count in range(1, len(tokens) + 1):
        stream.more(tokens[:count])
    stream.finish(tokens)
    return written


@given(st.lists(st.integers(0, 255), max_size=40))
def test_pieces_of_any_bytes_are_the_text(tokens):
    """Together they are what all tokens say, whatever bytes come: also such as begin no character."""
    decode = BytesTokenizer().decode
    assert "".join(pieces_of(decode, tokens)) == decode(tokens)


def test_a_character_comes_whole():
    """Its first bytes are held back, and what is before them is not."""
    assert pieces_of(BytesTokenizer().decode, list("a\u20acb".encode())) == ["a", "\u20ac", "b"]


def test_a_text_that_ends_within_a_character():
    """What is there of it is written at the end, as the whole text has it."""
    assert pieces_of(BytesTokenizer().decode, list("a\u20ac".encode()[:-1])) == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_nothing_is_written_of_nothing():
    """No token, or tokens without a text, write no piece."""
    assert pieces_of(BytesTokenizer().decode, []) == []
    assert pieces_of(lambda _: "", [1, 2, 3]) == []


@pytest.mark.parametrize("words", [["\u2581a", "\u2581b", "c"], ["\u2581a", "\u2581a", "\u2581a"]])
def test_blanks_between_words_are_kept(words):
    """A tokenizer that drops the blank in front of a text does not drop those of its later pieces."""
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(dict.fromkeys(words))}, unk_token=words[0])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokens = [tokenizer.token_to_id(word) for word in words]
    assert (
        "".join(pieces_of(tokenizer.decode, tokens))
        == tokenizer.decode(tokens)
        == "".join(words).replace("\u2581", " ")[1:]
    )


def test_an_interrupted_write_is_not_repeated():
    """What a write has taken when it is interrupted is not written once more at the end."""
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 1:
            raise KeyboardInterrupt

    stream = TextStream(BytesTokenizer().decode, write)
    with pytest.raises(KeyboardInterrupt):
        stream.more([97])
    stream.finish([97, 98])
    assert written == ["a", "b"]
