from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caravan.text.detokenizer import Detokenizer
from caravan.text.tokenizer import Tokenizer, UnknownTokenId

# Characters of one to four bytes, whole and broken.
PIECES = [
    *(piece.encode() for piece in ("a", "ab", "b", "\n", "\n\n", "é", "統", "😀", "\ufffd", " ab")),
    *(b"\xe2", b"\x80", b"\xf0\x9f", b"\x98", b"\xc3", b"\xff", b"\xed\xa0", b"\xe0\x80"),
    *(b" th\xe1\xbb", b"\xa1", b"\x84\xe1\x80\xba\xe1\x80"),
]
STOPS = [
    "h",
    "t",
    "a",
    "ab",
    "ba",
    "bab",
    "abb",
    "\n\n",
    "é",
    "é統",
    "統😀",
    "\ufffd",
    "\ufffda",
    "b\n",
    "a é",
]


class Bytes:
    """Token ids by bytes, and text by the bytes of tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids = {tokenizer.text_bytes(token_id): token_id for token_id in range(20_000)}

    def encode(self, pieces: Iterable[bytes]) -> list[int]:
        """One token for each piece that is one, else one for each byte."""
        tokens: list[int] = []
        for piece in pieces:
            parts = [piece] if piece in self.ids else [bytes([byte]) for byte in piece]
            tokens += [self.ids[part] for part in parts]
        return tokens


@pytest.fixture(scope="module")
def by_bytes(hub_tokenizer: Tokenizer) -> Bytes:
    return Bytes(hub_tokenizer)


def partial_text(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """Text without a last character that could still be completed."""
    data = b"".join(map(tokenizer.text_bytes, token_ids))
    return codecs.utf_8_decode(data, "replace", False)[0]


def cut(
    tokenizer: Tokenizer, token_ids: list[int], stop_strings: list[str], min_tokens: int
) -> tuple[str, str | None]:
    """The specification: the whole text, cut at the stop string that ends first."""
    text = tokenizer.decode(token_ids)
    searched_from = len(partial_text(tokenizer, token_ids[:min_tokens]))
    if len(token_ids) <= min_tokens:
        searched_from = len(text)
    hits = [
        (start + len(stop), start, stop)
        for stop in stop_strings
        if (start := text.find(stop, searched_from)) >= 0
    ]
    if not hits:
        return text, None
    _, start, stop = min(hits)
    return text[:start], stop


def detokenize(
    tokenizer: Tokenizer,
    chunks: list[list[int]],
    stop_strings: list[str],
    min_tokens: int,
) -> tuple[str, Detokenizer]:
    detokenizer = Detokenizer(tokenizer, stop_strings, min_tokens=min_tokens)
    token_ids = [token_id for chunk in chunks for token_id in chunk]
    text = ""
    for chunk in [*chunks, None]:
        text += detokenizer.finish() if chunk is None else detokenizer.push(chunk)
        released = tokenizer.decode(token_ids[: detokenizer.num_released])
        if detokenizer.stopped is None:
            assert text == released
        else:
            assert released.startswith(text)
    return text, detokenizer


tokens_strategy = st.lists(
    st.sampled_from(PIECES) | st.just(b"special") | st.binary(min_size=1, max_size=2), max_size=24
)


@given(
    pieces=tokens_strategy,
    stop_strings=st.lists(st.sampled_from(STOPS), max_size=4),
    min_tokens=st.just(0) | st.integers(0, 12),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
@settings(deadline=None, max_examples=150)
def test_any_chunking_gives_the_whole_text_cut_at_the_first_stop_string(
    hub_tokenizer: Tokenizer,
    by_bytes: Bytes,
    pieces: list[bytes],
    stop_strings: list[str],
    min_tokens: int,
    cuts: list[int],
) -> None:
    token_ids = []
    for piece in pieces:
        token_ids += (
            [hub_tokenizer.special_id("<|eot|>")]
            if piece == b"special"
            else by_bytes.encode([piece])
        )
    bounds = [0, *sorted(min(cut, len(token_ids)) for cut in cuts), len(token_ids)]
    chunked = [token_ids[a:b] for a, b in itertools.pairwise(bounds)]
    expected, stop = cut(hub_tokenizer, token_ids, stop_strings, min_tokens)
    counts = set()
    for chunks in (chunked, [token_ids], [[token_id] for token_id in token_ids]):
        text, detokenizer = detokenize(hub_tokenizer, chunks, stop_strings, min_tokens)
        assert (text, detokenizer.stopped) == (expected, stop)
        counts.add((detokenizer.num_tokens, detokenizer.num_released))
    ((num_tokens, num_released),) = counts
    if stop is None:
        assert num_tokens == num_released == len(token_ids)
    elif num_tokens < len(token_ids):
        end = len(expected + stop)
        assert len(partial_text(hub_tokenizer, token_ids[: num_tokens - 1])) < end
        assert len(partial_text(hub_tokenizer, token_ids[:num_tokens])) >= end
        assert num_released <= num_tokens


def test_ordinary_text_is_out_at_once(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer, ["###", "\n\nUser:"])
    for number, token_id in enumerate(tokenizer.encode("Llamas live in Peru, and in Chile."), 1):
        assert detokenizer.push([token_id]) == tokenizer.decode([token_id])
        assert detokenizer.num_released == number


def test_a_character_waits_for_its_last_byte(hub_tokenizer: Tokenizer, by_bytes: Bytes) -> None:
    detokenizer = Detokenizer(hub_tokenizer)
    tokens = by_bytes.encode([b"a", b"\xf0", b"\x9f", b"\x98", b"\x80", b"b"])
    assert [detokenizer.push([token_id]) for token_id in tokens] == ["a", "", "", "", "😀", "b"]
    assert detokenizer.finish() == ""


def test_a_broken_character_waits_for_the_byte_that_breaks_it(
    hub_tokenizer: Tokenizer, by_bytes: Bytes
) -> None:
    detokenizer = Detokenizer(hub_tokenizer)
    tokens = by_bytes.encode([b"\xe2", b"\xe2", b"\x82", b"a", b"\xff", b"\xe2"])
    texts = [detokenizer.push([token_id]) for token_id in tokens]
    assert texts == ["", "\ufffd", "", "\ufffda", "\ufffd", ""]
    assert detokenizer.num_released == 5
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.num_released == 6


def test_what_follows_a_stop_string_in_its_token_is_dropped(
    hub_tokenizer: Tokenizer, by_bytes: Bytes
) -> None:
    detokenizer = Detokenizer(hub_tokenizer, ["h"])
    assert detokenizer.push(by_bytes.encode([b" th\xe1\xbb", b"\xa1"])) == " t"
    assert detokenizer.finish() == ""
    assert (detokenizer.num_tokens, detokenizer.num_released) == (1, 1)


def test_a_broken_character_can_complete_a_stop_string(
    hub_tokenizer: Tokenizer, by_bytes: Bytes
) -> None:
    for pieces in ([b"b", b"\xe2", b"a"], [b"b", b"\xff", b"a"], [b"b", b"\xe2"]):
        detokenizer = Detokenizer(hub_tokenizer, ["\ufffd"])
        assert detokenizer.push(by_bytes.encode(pieces)) == "b"
        assert detokenizer.finish() == ""
        assert detokenizer.stopped == "\ufffd"
        assert detokenizer.num_released == 1


@pytest.mark.parametrize(
    ("stop_strings", "pieces", "texts", "stopped"),
    [
        (["ab"], "x a b c", ["x", "", "", ""], "ab"),
        (["ab"], "x a a c", ["x", "", "a", "ac"], None),
        (["abc", "b"], "a b c", ["", "a", ""], "b"),
        (["bc", "abcd"], "a b c d", ["", "", "a", ""], "bc"),
        (["bc", "abc"], "a b c d", ["", "", "", ""], "abc"),
        (["one"], "is someone here", ["is", "some", ""], "one"),
        (["統一"], "a 統 a 統 一 x", ["a", "", "統a", "", "", ""], "統一"),
        (["aaab"], "a a a a b", ["", "", "", "a", ""], "aaab"),
    ],
)
def test_what_could_become_a_stop_string_is_held_back(
    tokenizer: Tokenizer,
    stop_strings: list[str],
    pieces: str,
    texts: list[str],
    stopped: str | None,
) -> None:
    detokenizer = Detokenizer(tokenizer, stop_strings)
    assert [detokenizer.push(tokenizer.encode(piece)) for piece in pieces.split()] == texts
    assert detokenizer.stopped == stopped
    assert detokenizer.finish() == ""


def test_the_end_brings_out_what_a_stop_string_held(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer, ["\n\nUser:"])
    assert detokenizer.push(tokenizer.encode("Yes.\n\nUser")[:-1]) == "Yes"
    assert detokenizer.push(tokenizer.encode("User")) == ""
    assert detokenizer.finish() == ".\n\nUser"
    assert detokenizer.stopped is None


def test_stop_strings_are_not_looked_for_in_the_first_tokens(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("a") * 3 + tokenizer.encode("b")
    for min_tokens, text in ((0, ""), (1, "a"), (2, "aa"), (3, "aaab"), (4, "aaab"), (9, "aaab")):
        detokenizer = Detokenizer(tokenizer, ["a"], min_tokens=min_tokens)
        assert detokenizer.push(tokens) + detokenizer.finish() == text
    straddling = Detokenizer(tokenizer, ["ab"], min_tokens=3)
    assert straddling.push(tokens) == "aaab"


def test_counts_end_where_the_stop_string_does(tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.encode(piece)[0] for piece in ("x", "some", "one", "y", "z")]
    detokenizer = Detokenizer(tokenizer, ["eon"])
    assert detokenizer.push(tokens) == "xsom"
    assert detokenizer.num_tokens == 3
    assert detokenizer.num_released == 2
    assert detokenizer.push(tokens) == ""
    assert (detokenizer.num_tokens, detokenizer.num_released) == (3, 2)


def test_special_tokens_give_no_text_and_are_released(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer, ["ab"])
    eot = tokenizer.special_id("<|eot|>")
    assert detokenizer.push([eot]) == ""
    assert detokenizer.num_released == 1
    assert detokenizer.push([*tokenizer.encode("a"), eot]) == ""
    assert detokenizer.num_released == 1
    assert detokenizer.push(tokenizer.encode("b")) == ""
    assert detokenizer.stopped == "ab"


def test_unknown_ids_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UnknownTokenId):
        Detokenizer(tokenizer).push([tokenizer.vocab_size])


@pytest.mark.parametrize("piece", [b"a", b"\xe2", b"\x84\xe1\x80\xba\xe1\x80"])
def test_hostile_text_comes_through(
    hub_tokenizer: Tokenizer, by_bytes: Bytes, piece: bytes
) -> None:
    # About 0.2 s; quadratic, it would take minutes. Each token could begin the stop string, whose
    # 20000 characters never come whole.
    token_ids = by_bytes.encode([piece]) * 50_000
    detokenizer = Detokenizer(hub_tokenizer, ["a" * 20_000 + "b", "\ufffd" * 20_000 + "b"])
    text = "".join(detokenizer.push([token_id]) for token_id in token_ids)
    assert text + detokenizer.finish() == hub_tokenizer.decode(token_ids)
