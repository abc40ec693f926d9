"""The vocabulary as llguidance sees it."""

from __future__ import annotations

import pytest

from caravan.grammars.constraints import json_object, regex
from caravan.grammars.tools import ToolRule, required
from caravan.grammars.vocabulary import guidance_tokenizer
from grammars.vocabularies import NUM_PADDING, STOPS, Words, byte_words, piece_words
from grammars.walking import allowed, compiled, write

both = pytest.mark.parametrize("words", [byte_words(), piece_words()], ids=["bytes", "pieces"])


@both
def test_all_ids_have_their_place(words: Words) -> None:
    tokenizer = words.tokenizer
    assert tokenizer.vocab_size == len(words.texts) == words.size
    assert tokenizer.eos_tokens == [words.ids[name] for name in STOPS]
    for name, token_id in words.ids.items():
        assert tokenizer.is_special_token(token_id)
        assert name in STOPS or name in tokenizer.dbg_tokens([token_id])
    for token_id in range(words.size - NUM_PADDING - len(words.ids)):
        if words.texts[token_id] == b"\xff":
            continue  # llguidance's mark of special tokens, which UTF-8 never has
        assert tokenizer.decode_bytes([token_id]) == words.texts[token_id]


@both
@pytest.mark.parametrize("grammar", [regex("(?s:.*)"), json_object()])
def test_neither_padding_nor_special_tokens_are_text(words: Words, grammar: str) -> None:
    matcher = compiled(words, grammar)
    write(words, matcher, "" if "(?s" in grammar else '{"')
    options = set(allowed(words, matcher))
    assert len(options) > 100
    beyond = set(range(words.size - NUM_PADDING - len(words.ids), words.size))
    assert options & beyond <= words.stops


@both
def test_every_end_token_ends_an_output(words: Words) -> None:
    for stop in words.stops:
        matcher = compiled(words, regex("a"))
        write(words, matcher, "a")
        assert set(allowed(words, matcher)) == words.stops
        assert matcher.accept(stop)


def test_halves_of_characters_are_allowed_where_they_can_be_completed() -> None:
    words = piece_words()
    half = words.texts.index("日".encode()[:2])
    assert half in allowed(words, compiled(words, regex("日本?")))
    assert half not in allowed(words, compiled(words, regex("本日")))
    matcher = compiled(words, regex("[日本]x"))
    assert matcher.accept(half)
    assert [words.texts[token] for token in allowed(words, matcher)] == ["日".encode()[2:]]


def test_what_is_forced_is_spelled_as_the_model_would() -> None:
    words = piece_words()
    matcher = compiled(words, required([ToolRule("get_weather")], parallel=False))
    text = b'{"type": "function", "name": "get_weather", "parameters": {'
    single = 0
    for token in words.encode(text)[:-1]:
        options = allowed(words, matcher)
        assert token in options
        assert all(text.startswith(words.texts[option]) for option in options)
        single += options == [token]
        assert matcher.accept(token)
        text = text.removeprefix(words.texts[token])
    assert single > 1


def test_the_name_of_a_special_token_counts_whatever_its_text() -> None:
    tokenizer = guidance_tokenizer(
        [b"a", b"", b"shown"], {"<|one|>": 1, "<|two|>": 2}, [2], lambda text: [0] * len(text), 5
    )
    assert tokenizer.vocab_size == 5
    assert [tokenizer.is_special_token(i) for i in range(3)] == [False, True, True]
    assert "<|one|>" in tokenizer.dbg_tokens([1])
