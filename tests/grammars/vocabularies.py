"""Two small vocabularies: bytes, and pieces of text that cross the borders of JSON's tokens."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from llguidance import LLTokenizer
from numpy.typing import NDArray

from caravan.grammars.matchers import Compiler
from caravan.grammars.vocabulary import guidance_tokenizer

SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|python_start|>",
    "<|python_end|>",
)
STOPS = ("<|end_of_text|>", "<|eom|>", "<|eot|>")
NUM_PADDING = 13  # ids of the model that no token has

PIECES = [
    *('{"', '":', '": ', '": "', '",', '"', '", "', '"}', "}}", "},", '}, {"', '[{"', '"]', "]}"),
    *("[[", "]]", "\n", "\n\n", "\n  ", "\n    ", "  ", "    ", "\t", ", ", ": ", " {", ' "'),
    *(
        '{"type": "function", "name": "',
        '", "parameters": {',
        '"}}',
        '}}\n{"type"',
        '"}\n',
        '{"type',
    ),
    *(
        "\\n",
        '\\"',
        "\\\\",
        "true",
        "false",
        "null",
        "tru",
        "e-",
        "00",
        "12",
        "345",
        "0.",
        ".5",
        "-1",
    ),
    *(
        "e+1",
        "1,",
        "7}",
        "a",
        "name",
        "get_weather",
        "weather",
        '_x", "',
        "city",
        "é",
        "日本",
        "a\n",
    ),
    *("\U0001f600", "b<", "2024-02-29", "12:00:00Z", "@example.com", "https://", "::", "192.168."),
    *("run\n", "run\nx", "x\n"),
]


@dataclass(frozen=True)
class Words:
    """A vocabulary: its tokens' bytes, and llguidance's tokenizer over them."""

    texts: list[bytes]  # special tokens have none
    tokenizer: LLTokenizer
    compiler: Compiler
    ids: dict[str, int]  # of special tokens
    encode: Callable[[bytes], list[int]]

    @cached_property
    def stops(self) -> frozenset[int]:
        """End tokens."""
        return frozenset(self.ids[name] for name in STOPS)

    @property
    def size(self) -> int:
        """All ids, padding included."""
        return self.tokenizer.vocab_size

    def new_row(self) -> NDArray[np.int32]:
        """Room for a mask."""
        return np.zeros((self.size + 31) // 32, np.int32)


def make(pieces: list[bytes]) -> Words:
    texts = [*(bytes([byte]) for byte in range(256)), *pieces]
    by_text = {text: index for index, text in enumerate(texts)}
    longest = max(map(len, texts))

    def encode(text: bytes) -> list[int]:
        tokens, at = [], 0
        while at < len(text):
            size = next(n for n in range(longest, 0, -1) if text[at : at + n] in by_text)
            tokens.append(by_text[text[at : at + size]])
            at += len(texts[tokens[-1]])
        return tokens

    ids = {name: len(texts) + index for index, name in enumerate(SPECIALS)}
    texts += [b""] * len(SPECIALS)
    tokenizer = guidance_tokenizer(
        texts,
        ids,
        [ids[name] for name in STOPS],
        lambda text: encode(text.encode()),
        len(texts) + NUM_PADDING,
    )
    compiler = Compiler(lambda: tokenizer)
    return Words([*texts, *[b""] * NUM_PADDING], tokenizer, compiler, ids, encode)


@lru_cache
def byte_words() -> Words:
    """A token for each byte."""
    return make([])


@lru_cache
def piece_words() -> Words:
    """Bytes, pieces, pairs of letters, and halves of characters."""
    pairs = [a + b for a in "aeionrst" for b in string.ascii_lowercase]
    halves = ["日".encode()[:2], "\U0001f600".encode()[:3]]
    pieces = dict.fromkeys([*(p.encode() for p in [*PIECES, *pairs]), *halves])
    return make([piece for piece in pieces if len(piece) > 1])
