"""Output drawn at random, from what masks allow, as the engine draws it."""

from __future__ import annotations

import random

import numpy as np

from caravan.grammars.matchers import Matcher
from grammars.vocabularies import Words

MAX_TOKENS = 4000
MANY = 60  # options: inside of a string


def compiled(words: Words, grammar: str) -> Matcher:
    """A matcher; the grammar must be right."""
    words.compiler.start(0, grammar)
    words.compiler.wait(30)
    ((_, matcher),) = words.compiler.done()
    assert isinstance(matcher, Matcher), matcher
    return matcher


def allowed(words: Words, matcher: Matcher) -> list[int]:
    """Tokens that may come next."""
    row = words.new_row()
    matcher.mask_into(row)
    assert matcher.failed is None, matcher.failed
    bits = np.unpackbits(row.view(np.uint8), bitorder="little")
    return list(map(int, np.flatnonzero(bits)))


def write(words: Words, matcher: Matcher, text: str | bytes) -> None:
    """Feeds text; every token of it must be allowed."""
    for token in words.encode(text.encode() if isinstance(text, str) else text):
        assert token in allowed(words, matcher), (words.texts[token], text)
        assert matcher.accept(token)


def refuses(words: Words, matcher: Matcher, text: str) -> bool:
    """Whether the text, byte by byte, meets a byte that is not allowed."""
    for byte in text.encode():
        if byte not in allowed(words, matcher):
            return True
        assert matcher.accept(byte)
    return False


def accepts(words: Words, grammar: str, text: str) -> bool:
    """Whether the text, byte by byte, is a whole output."""
    matcher = compiled(words, grammar)
    return not refuses(words, matcher, text) and bool(words.stops & set(allowed(words, matcher)))


class Walk:
    """Draws tokens; tends to end what is open, the more the longer it has become."""

    def __init__(self, words: Words, seed: int) -> None:
        self._words = words
        self._random = random.Random(seed)
        texts = enumerate(words.texts)
        self._quotes = {token for token, text in texts if text.startswith(b'"')}
        self._quotes.add(words.ids["<|python_end|>"])
        texts = enumerate(words.texts)
        self._closers = self._quotes | {
            token for token, text in texts if text.startswith((b"}", b"]", b")"))
        }

    def tokens(self, matcher: Matcher) -> list[int]:
        """A whole output, without its end token."""
        tokens: list[int] = []
        while True:
            token = self.choose(allowed(self._words, matcher), len(tokens))
            assert matcher.accept(token), token
            if token in self._words.stops:
                return tokens
            tokens.append(token)
            assert len(tokens) < MAX_TOKENS, self._text(tokens)[:2000]

    def text(self, matcher: Matcher) -> str:
        """A whole output."""
        return self._text(self.tokens(matcher)).decode()

    def _text(self, tokens: list[int]) -> bytes:
        return b"".join(self._words.texts[token] for token in tokens)

    def choose(self, options: list[int], length: int) -> int:
        """The next token, behind so many."""
        hurry = min(0.95, 0.3 + length / 200)
        ends = sorted(self._words.stops.intersection(options))
        others = sorted(set(options) - self._words.stops) if ends else options
        if ends and (not others or self._random.random() < hurry):
            return self._random.choice(ends)
        closers = self._quotes if len(others) > MANY else self._closers
        closing = sorted(closers.intersection(others))
        if closing and self._random.random() < hurry:
            return self._random.choice(closing)
        return self._random.choice(others)
