from __future__ import annotations

import codecs
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

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
    "t|>",
    "<|eot|>",
    "b<|",
    "<|eot|><|eot|>",
    "\ufffd<",
    "|>é",
    "python",
]
SPECIALS = ["<|eot|>", "<|python_start|>"]


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


@dataclass
class Case:
    """What one detokenizer is to do, and the specification of it."""

    tokenizer: Tokenizer
    token_ids: list[int]
    stop_strings: list[str]
    min_tokens: int = 0
    shown: Collection[int] = ()
    include_stop: bool = False

    def data(self, num_tokens: int) -> bytes:
        return b"".join(
            self.tokenizer.token_bytes(token_id)
            if token_id in self.shown
            else self.tokenizer.text_bytes(token_id)
            for token_id in self.token_ids[:num_tokens]
        )

    def text(self, num_tokens: int) -> str:
        """The text of the first tokens, and nothing more."""
        return self.data(num_tokens).decode(errors="replace")

    def partial_text(self, num_tokens: int) -> str:
        """Text without a last character that could still be completed."""
        return codecs.utf_8_decode(self.data(num_tokens), "replace", False)[0]

    def cut(self) -> tuple[str, str, str | None]:
        """The whole text, cut at the stop string that ends first: before it, and behind it."""
        text = self.text(len(self.token_ids))
        searched_from = len(self.partial_text(self.min_tokens))
        if len(self.token_ids) <= self.min_tokens:
            searched_from = len(text)
        hits = [
            (start + len(stop), start, stop)
            for stop in self.stop_strings
            if (start := text.find(stop, searched_from)) >= 0
        ]
        if not hits:
            return text, text, None
        end, start, stop = min(hits)
        return text[:start], text[:end], stop

    def run(self, chunks: list[list[int]]) -> tuple[str, Detokenizer]:
        """Detokenizes chunk by chunk; the text is that of the released tokens all the time."""
        detokenizer = Detokenizer(
            self.tokenizer,
            self.stop_strings,
            min_tokens=self.min_tokens,
            shown=self.shown,
            include_stop=self.include_stop,
        )
        text = ""
        for chunk in [*chunks, None]:
            text += detokenizer.finish() if chunk is None else detokenizer.push(chunk)
            released = self.text(detokenizer.num_released)
            if detokenizer.stopped is None:
                assert text == released
            else:
                assert released.startswith(text)
        return text, detokenizer


tokens_strategy = st.lists(
    st.sampled_from(PIECES) | st.sampled_from(SPECIALS) | st.binary(min_size=1, max_size=2),
    max_size=24,
)


@given(
    pieces=tokens_strategy,
    stop_strings=st.lists(st.sampled_from(STOPS), max_size=4),
    min_tokens=st.just(0) | st.integers(0, 12),
    cuts=st.lists(st.integers(0, 30), max_size=8),
    shown=st.sets(st.sampled_from(SPECIALS)),
    include_stop=st.booleans(),
)
@settings(deadline=None, max_examples=400)
def test_any_chunking_gives_the_whole_text_cut_at_the_first_stop_string(
    hub_tokenizer: Tokenizer,
    by_bytes: Bytes,
    pieces: list[bytes | str],
    stop_strings: list[str],
    min_tokens: int,
    cuts: list[int],
    shown: set[str],
    include_stop: bool,
) -> None:
    token_ids = []
    for piece in pieces:
        token_ids += (
            [hub_tokenizer.special_id(piece)]
            if isinstance(piece, str)
            else by_bytes.encode([piece])
        )
    bounds = [0, *sorted(min(cut, len(token_ids)) for cut in cuts), len(token_ids)]
    chunked = [token_ids[a:b] for a, b in itertools.pairwise(bounds)]
    ids = [hub_tokenizer.special_id(name) for name in shown]
    case = Case(hub_tokenizer, token_ids, stop_strings, min_tokens, ids, include_stop)
    before, behind, stop = case.cut()
    counts = set()
    for chunks in (chunked, [token_ids], [[token_id] for token_id in token_ids]):
        text, detokenizer = case.run(chunks)
        assert (text, detokenizer.stopped) == (behind if include_stop else before, stop)
        counts.add((detokenizer.num_tokens, detokenizer.num_released))
    ((num_tokens, num_released),) = counts
    if stop is None:
        assert num_tokens == num_released == len(token_ids)
    elif num_tokens < len(token_ids):
        assert len(case.partial_text(num_tokens - 1)) < len(behind)
        assert len(case.partial_text(num_tokens)) >= len(behind)
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


def test_special_tokens_show_their_names_where_they_are_asked_for(tokenizer: Tokenizer) -> None:
    start, end = map(tokenizer.special_id, ("<|python_start|>", "<|python_end|>"))
    detokenizer = Detokenizer(tokenizer, shown={start})
    assert detokenizer.push([start]) == "<|python_start|>"
    assert detokenizer.push([*tokenizer.encode("f()"), end]) == "f()"
    assert detokenizer.num_released == detokenizer.num_tokens


def test_a_special_token_that_is_shown_breaks_a_character(
    hub_tokenizer: Tokenizer, by_bytes: Bytes
) -> None:
    start, end = map(hub_tokenizer.special_id, ("<|python_start|>", "<|python_end|>"))
    first, *rest = by_bytes.encode([b"\xf0", b"\x9f", b"\x98", b"\x80"])
    detokenizer = Detokenizer(hub_tokenizer, shown=[end])
    tokens = [first, end, first, start, *rest, first]
    texts = [detokenizer.push([token_id]) for token_id in tokens]
    assert texts == ["", "\ufffd<|python_end|>", "", "", "", "", "😀", ""]
    assert detokenizer.finish() == "\ufffd"
    holding = Detokenizer(hub_tokenizer, ["<|python_end|>b"], shown=[end])
    assert holding.push([first, end]) == "\ufffd"  # out, while the name could become a stop string
    assert holding.num_released == 1


@pytest.mark.parametrize(
    ("stop_string", "text"),
    [("python", "a<|"), ("<|python_end|>", "a"), ("a<|py", ""), ("|>b", "a<|python_end")],
)
def test_a_stop_string_can_lie_in_the_name_of_a_special_token(
    tokenizer: Tokenizer, stop_string: str, text: str
) -> None:
    end = tokenizer.special_id("<|python_end|>")
    tokens = [*tokenizer.encode("a"), end, *tokenizer.encode("b")]
    detokenizer = Detokenizer(tokenizer, [stop_string], shown=[end])
    assert detokenizer.push(tokens) == text
    assert detokenizer.stopped == stop_string
    hidden = Detokenizer(tokenizer, [stop_string])
    assert hidden.push(tokens) + hidden.finish() == "ab"


def test_a_stop_string_can_stay_and_ends_the_text(tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.encode(piece)[0] for piece in ("x", "some", "one", "y")]
    detokenizer = Detokenizer(tokenizer, ["eon"], include_stop=True)
    assert [detokenizer.push([token_id]) for token_id in tokens] == ["x", "", "someon", ""]
    assert detokenizer.stopped == "eon"
    assert (detokenizer.num_tokens, detokenizer.num_released) == (3, 3)
    assert detokenizer.finish() == ""


def test_a_broken_character_can_stay_as_a_stop_string(
    hub_tokenizer: Tokenizer, by_bytes: Bytes
) -> None:
    for pieces in ([b"b", b"\xe2", b"a"], [b"b", b"\xff", b"a"], [b"b", b"\xe2"]):
        detokenizer = Detokenizer(hub_tokenizer, ["\ufffd"], include_stop=True)
        text = detokenizer.push(by_bytes.encode(pieces))
        assert text + detokenizer.finish() == "b\ufffd"
        assert detokenizer.num_released == 2


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
