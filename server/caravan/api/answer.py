"""What a 200 says: the objects around the choices, whole or chunk by chunk.

What differs between chat and completions is a `Dialect`; everything else is written here once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from caravan.api.choices import Choice, Choices, Piece

Json = dict[str, Any]


class PromptSize(NamedTuple):
    """Tokens of one prompt."""

    tokens: int
    image_tokens: int  # of them: patches of pictures, and the special tokens around them


class Dialect(Protocol):
    """How one endpoint writes choices. One object per request: it may remember offsets."""

    id_prefix: str
    object: str
    chunk_object: str

    def opening(self, index: int) -> Json | None:
        """The choice of a stream's first chunk, before any token; None: there is no such chunk."""

    def chunk(self, piece: Piece) -> Json:
        """A choice of a chunk."""

    def whole(self, piece: Piece) -> Json:
        """A choice of an answer in one object; `piece` is all of it."""


class Answer:
    """The answer to one request, while its choices grow."""

    def __init__(
        self,
        dialect: Dialect,
        choices: Choices,
        prompts: list[PromptSize],
        model: str,
        fingerprint: str,
    ) -> None:
        self.choices = choices
        self._dialect = dialect
        self._prompts = prompts
        self._head = {
            "id": dialect.id_prefix + secrets.token_hex(16),
            "object": dialect.object,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self) -> Json:
        """The answer in one object, when all choices have finished."""
        choices = [self._dialect.whole(choice.take()) for choice in self.choices]
        return {**self._head, "choices": choices, "usage": self._usage()}

    def openings(self) -> Iterator[Json]:
        """A stream's first chunks, in ascending order of the choices."""
        for choice in self.choices:
            opening = self._dialect.opening(choice.index)
            if opening is not None:
                yield self._chunk([opening])

    def chunks(self, changed: Iterable[Choice]) -> Iterator[Json]:
        """One chunk for each choice that has something to say."""
        for choice in changed:
            piece = choice.take()
            if piece:
                yield self._chunk([self._dialect.chunk(piece)])

    def usage_chunk(self) -> Json:
        """A stream's last chunk, for clients that asked for the usage."""
        return {**self._chunk([]), "usage": self._usage()}

    def _chunk(self, choices: list[Json]) -> Json:
        return {**self._head, "object": self._dialect.chunk_object, "choices": choices}

    def _usage(self) -> Json:
        """A prompt counts once, however many choices it has; cached is what the first one found."""
        choices = list(self.choices)
        n = len(choices) // len(self._prompts)
        prompt_tokens = sum(prompt.tokens for prompt in self._prompts)
        image_tokens = sum(prompt.image_tokens for prompt in self._prompts)
        completion_tokens = sum(choice.num_tokens for choice in choices)
        cached_tokens = sum(choice.cached_tokens for choice in choices[::n])
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": cached_tokens,
                "text_tokens": prompt_tokens - image_tokens,
                "image_tokens": image_tokens,
            },
        }
