"""What a 200 says: the objects around the choices, whole or chunk by chunk.

What differs between chat and completions is a `Dialect`; everything else is written here once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from caravan.api.choices import AskedPrompt, Choice, Choices, Piece

Json = dict[str, Any]


class Dialect(Protocol):
    """How one endpoint writes choices. One object per request: it remembers what it has written."""

    id_prefix: str
    object: str
    chunk_object: str

    @property
    def only_text(self) -> bool:
        """Whether the chunks of a choice, before its end, differ in their text and nothing else."""

    def beside(self) -> Json:
        """Fields beside the choices, in an answer in one object and in a stream's first chunk."""

    def opening(self, index: int) -> Json | None:
        """The choice of a stream's first chunk, before any token; None: there is no such chunk."""

    def chunk(self, piece: Piece) -> Json | None:
        """A choice of a chunk; None: there is nothing to see yet."""

    def whole(self, piece: Piece) -> Json:
        """A choice of an answer in one object; `piece` is all of it."""


class Answer:
    """The answer to one request, while its choices grow."""

    def __init__(
        self,
        dialect: Dialect,
        choices: Choices,
        prompts: Sequence[AskedPrompt],
        num_told: int,
        head: Json,
    ) -> None:
        """The `num_told` likeliest choices of each prompt are told; `head` stands in all objects.

        A stream tells all of them.
        """
        self.choices = choices
        self._dialect = dialect
        self._prompts = prompts
        self._num_told = num_told
        self.head = {
            "id": dialect.id_prefix + secrets.token_hex(16),
            "object": dialect.object,
            "created": int(time.time()),
            **head,
        }
        self.chunk_head = {**self.head, "object": dialect.chunk_object}

    def whole(self) -> Json:
        """The answer in one object, when all choices have finished."""
        choices = [self._dialect.whole(choice.take()) for choice in self._told()]
        for index, choice in enumerate(choices):
            choice["index"] = index
        return {**self.head, "choices": choices, "usage": self.usage(), **self._dialect.beside()}

    def openings(self) -> Iterator[Json]:
        """A stream's first chunks' choices, in ascending order."""
        for choice in self.choices:
            opening = self._dialect.opening(choice.index)
            if opening is not None:
                yield opening

    def beside(self) -> Json:
        """Fields beside the choices of a stream's first chunk."""
        return self._dialect.beside()

    @property
    def only_text(self) -> bool:
        """Whether the chunks of a choice, before its end, differ in their text and nothing else."""
        return self._dialect.only_text

    def chunk(self, piece: Piece) -> Json | None:
        """A chunk's choice; None if there is nothing to say."""
        return self._dialect.chunk(piece) if piece else None

    def usage(self) -> Json:
        """A prompt counts once, however many choices it has; cached is what the first one found."""
        choices = list(self.choices)
        n = len(choices) // len(self._prompts)
        prompt_tokens = sum(len(prompt.tokens) for prompt in self._prompts)
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

    def _told(self) -> Iterator[Choice]:
        """The choices whose tokens are the likeliest on average, in this order, prompt by prompt.

        All of them, in their own order, if all are told.
        """
        choices = list(self.choices)
        n = len(choices) // len(self._prompts)
        for start in range(0, len(choices), n):
            family = choices[start : start + n]
            if self._num_told < n:
                family.sort(key=lambda choice: -choice.sum_logprobs / max(1, choice.num_tokens))
            yield from family[: self._num_told]
