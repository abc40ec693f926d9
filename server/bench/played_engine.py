"""An engine without a model, in the API process: it plays tokens as fast as they are taken.

A step gives every open generation its next token, in one callback of the event loop, as the reader
of the engine's messages does. The next step waits until all of them have taken theirs, so that
each token is an event of its own: that is the most work which a stream can be.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import msgspec

from caravan.engine.handle import Generation, Submission
from caravan.messages import Delta, Progress, Ready, Stats


class PlayedGeneration:
    """See handle.Generation. It plays `deltas` again and again, `max_tokens` in all."""

    def __init__(self, deltas: Sequence[Delta], max_tokens: int, taken: Callable[[], None]) -> None:
        self.num_left = max_tokens
        self._cycle = itertools.cycle(deltas)
        self._owes = False  # it has a token that nobody has taken
        self._taken = taken
        self._news: Callable[[], None] | None = None
        self._deltas: list[Delta] = []

    def play(self) -> None:
        """The next token comes."""
        self.num_left -= 1
        delta = next(self._cycle)
        if self.num_left == 0:
            delta = msgspec.structs.replace(delta, finish="length")
        self._deltas.append(delta)
        self._owes = True
        if self._news is not None:
            self._news()

    def watch(self, news: Callable[[], None]) -> None:
        """See handle.Generation."""
        self._news = news
        if self._deltas:
            news()

    def take(self) -> list[Delta]:
        """See handle.Generation."""
        deltas, self._deltas = self._deltas, []
        if self._owes:
            self._owes = False
            self._taken()
        return deltas

    def close(self) -> None:
        """See handle.Generation."""
        self.num_left = 0
        self._news = None
        self.take()


class PlayedEngine:
    """See handle.Engine. Every answer is made of `tokens`."""

    loading: Progress | None = None
    stats = Stats()
    draining = False
    silence_s = 0.0
    alive = True

    def __init__(self, tokens: Sequence[int], vocab_size: int) -> None:
        self.ready: Ready | None = Ready(
            max_model_len=8192,
            num_pages=1,
            page_bytes=1,
            block_len=16,
            vocab_size=vocab_size,
            dtype="none",
            device="none",
            fingerprint="fp-played",
            load_s=0.0,
        )
        self._deltas = [Delta(0, [token]) for token in tokens]
        self._open: list[PlayedGeneration] = []
        self._num_owing = 0
        self._step_is_due = False

    def submit(self, requests: Sequence[Submission]) -> list[Generation]:
        """See handle.Engine."""
        generations = [
            PlayedGeneration(self._deltas, request.sampling.max_tokens, self._on_taken)
            for request in requests
        ]
        self._open += generations
        if not self._num_owing:
            self._step_soon()
        return [*generations]

    def _on_taken(self) -> None:
        self._num_owing -= 1
        if not self._num_owing:
            self._step_soon()

    def _step_soon(self) -> None:
        if not self._step_is_due:
            self._step_is_due = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._step_is_due = False
        self._open = [generation for generation in self._open if generation.num_left]
        self._num_owing = len(self._open)
        for generation in self._open:
            generation.play()
