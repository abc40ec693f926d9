"""The choices of one request: engine deltas to text, merged as they arrive.

    Generation --Delta--> Choice --Piece--> whoever writes the answer
        ... one per choice ...

A `Piece` is what has become final of one choice since the last one. Closing `Choices` aborts what
still runs in the engine; it is the only thing that ends a request early, whatever the reason.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from caravan.engine.handle import Generation
from caravan.messages import Delta, FinishReason, TokenLogprobs
from caravan.metrics import Ending, RequestTimer
from caravan.text.detokenizer import Detokenizer


class ListedToken(NamedTuple):
    """A token whose text is out, with its log-probabilities."""

    token_id: int
    logprobs: TokenLogprobs


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice, its tokens where log-probabilities were asked for, and its end."""

    index: int
    text: str
    tokens: list[ListedToken]
    finish: FinishReason | None

    def __bool__(self) -> bool:
        return bool(self.text or self.finish)


class Choice:
    """One completion as it grows.

    Tokens are listed with the piece that holds their text. The stop token is not listed, nor are
    tokens that a stop string cut off whole; they count as generated all the same.
    """

    def __init__(
        self, index: int, generation: Generation, detokenizer: Detokenizer, timer: RequestTimer
    ) -> None:
        self.index = index
        self.generation = generation
        self.timer = timer
        self.cached_tokens = 0  # of the prompt
        self.num_tokens = 0
        self.finish: FinishReason | None = None
        self._detokenizer = detokenizer
        self._text: list[str] = []
        self._unlisted: deque[ListedToken] = deque()  # tokens whose text is not out
        self._num_listed = 0

    def read(self, delta: Delta) -> None:
        """Takes in new tokens. A stop string ends the choice and closes its generation."""
        assert self.finish is None, (self.index, self.finish)
        self.cached_tokens = max(self.cached_tokens, delta.cached_tokens)
        visible = delta.tokens[:-1] if delta.finish == "stop" else delta.tokens
        self._text.append(self._detokenizer.push(visible))
        if delta.logprobs is not None:
            self._unlisted.extend(map(ListedToken, visible, delta.logprobs))
        before = self.num_tokens
        self.num_tokens += len(delta.tokens)
        if delta.finish:
            self._text.append(self._detokenizer.finish())
            self.finish = delta.finish
        if self._detokenizer.stopped is not None:
            self.num_tokens = self._detokenizer.num_tokens
            self.finish = "stop"
            self.generation.close()
        self.timer.tokens(self.num_tokens - before, self.cached_tokens)
        if self.finish:
            self.timer.end(self.finish)

    def take(self) -> Piece:
        """What is new since the last call; falsy if a client could not see it."""
        text = "".join(self._text)
        self._text.clear()
        tokens = []
        if self._unlisted and (text or self.finish):
            num_new = self._detokenizer.num_released - self._num_listed
            tokens = [self._unlisted.popleft() for _ in range(num_new)]
            self._num_listed += num_new
        return Piece(self.index, text, tokens, self.finish)

    def close(self, ending: Ending) -> None:
        """Aborts the generation unless it has finished."""
        self.generation.close()
        self.timer.end(ending)


class Choices:
    """All choices of one request. Always `close` them: in a `finally`, whatever happened."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._arrivals: asyncio.Queue[tuple[Choice, Delta | None]] = asyncio.Queue()
        self._readers = [asyncio.create_task(self._read(choice)) for choice in choices]
        self._ending: Ending = "abort"  # of the choices that are open when it closes

    def __iter__(self) -> Iterator[Choice]:
        return iter(self._choices)

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason."""
        return all(choice.finish for choice in self._choices)

    async def changed(self) -> list[Choice]:
        """Waits for tokens and takes in all that are there; returns the choices they belong to.

        Raises EngineDead if the engine ends first. Cancelling it loses nothing.
        """
        arrivals = [await self._arrivals.get()]
        while not self._arrivals.empty():
            arrivals.append(self._arrivals.get_nowait())
        changed = {}
        for choice, delta in arrivals:
            if choice.finish:
                continue
            if delta is None:
                self._ending = "error"
                await self._readers[choice.index]
                raise AssertionError(("a generation ended without a finish", choice.index))
            choice.read(delta)
            changed[choice.index] = choice
        return list(changed.values())

    async def finish(self) -> None:
        """Returns when every choice has finished. Raises EngineDead."""
        while not self.finished:
            await self.changed()

    def close(self) -> None:
        """Aborts what still runs. May be called again."""
        for choice in self._choices:
            choice.close(self._ending)
        for reader in self._readers:
            reader.cancel()  # asyncio no longer complains about an error it ended with, either

    async def _read(self, choice: Choice) -> None:
        try:
            async for delta in choice.generation:
                self._arrivals.put_nowait((choice, delta))
        finally:
            self._arrivals.put_nowait((choice, None))
