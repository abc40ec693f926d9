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
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from caravan.engine.handle import Generation
from caravan.errors import ApiError
from caravan.messages import Delta, FinishReason, TokenLogprobs
from caravan.metrics import Ending, RequestTimer
from caravan.text.detokenizer import Detokenizer


class ListedToken(NamedTuple):
    """A token whose text is out, with its log-probabilities; the first of a prompt has none."""

    token_id: int
    logprobs: TokenLogprobs | None


@dataclass(slots=True)
class AskedPrompt:
    """A prompt, and what its first choice hears of it."""

    tokens: list[int]
    image_tokens: int = 0  # patches of pictures, and the special tokens around them
    num_added: int = 0  # tokens at its beginning that the client did not send
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # from the second token on

    def listed(self, start: int = 0) -> list[ListedToken]:
        """The tokens from `start` on."""
        scores = [None, *self.logprobs]
        pairs = zip(self.tokens[start:], scores[start:], strict=True)
        return [ListedToken(*pair) for pair in pairs]


class Piece(msgspec.Struct, frozen=True):
    """New text of one choice, its tokens where they were asked for, and its end."""

    index: int
    text: str
    tokens: list[ListedToken] = []
    token_ids: list[int] = []  # all that were generated, special ones too
    finish: FinishReason | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.finish)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wants to know of its tokens."""

    token_ids: bool = False
    output: bool = True  # False: of the prompt only; the one token that is drawn does not count


class Choice:
    """One completion as it grows.

    Tokens are listed with the piece that holds their text. The stop token is not listed, nor are
    tokens that a stop string cut off whole; they count as generated all the same.
    """

    def __init__(
        self,
        index: int,
        generation: Generation,
        detokenizer: Detokenizer,
        timer: RequestTimer,
        prompt: AskedPrompt,
        wishes: Wishes,
    ) -> None:
        self.index = index
        self.generation = generation
        self.timer = timer
        self.prompt = prompt
        self.cached_tokens = 0  # of the prompt
        self.num_tokens = 0
        self.sum_logprobs = 0.0
        self.finish: FinishReason | None = None
        self._wishes = wishes
        self._detokenizer = detokenizer
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._unlisted: deque[ListedToken] = deque()  # tokens whose text is not out
        self._num_listed = 0

    def read(self, delta: Delta) -> None:
        """Takes in new tokens. A stop string ends the choice and closes its generation."""
        assert self.finish is None, (self.index, self.finish)
        if delta.cached_tokens > self.cached_tokens:
            self.cached_tokens = delta.cached_tokens
        if delta.prompt_logprobs is not None:
            self.prompt.logprobs += delta.prompt_logprobs
        if self._wishes.output:
            self._read_output(delta)
        else:
            self.finish = delta.finish and "length"
        if self.finish:
            self.timer.end(self.finish)

    def _read_output(self, delta: Delta) -> None:
        tokens, detokenizer = delta.tokens, self._detokenizer
        visible = tokens[:-1] if delta.finish == "stop" else tokens
        self._text.append(detokenizer.push(visible))
        if delta.logprobs is not None:
            self._unlisted.extend(map(ListedToken, visible, delta.logprobs))
            self.sum_logprobs += sum(entry.logprob for entry in delta.logprobs)
        if self._wishes.token_ids:
            self._token_ids += tokens
        num_new = len(tokens)
        if delta.finish:
            self._text.append(detokenizer.finish())
            self.finish = delta.finish
        if detokenizer.stopped is not None:
            num_new = detokenizer.num_tokens - self.num_tokens
            self.finish = "stop"
            self.generation.close()
        self.num_tokens += num_new
        self.timer.tokens(num_new, self.cached_tokens)

    def take(self) -> Piece:
        """What is new since the last call; falsy if a client could not see it."""
        text = self.take_text()
        tokens = []
        if self._unlisted and (text or self.finish):
            num_new = self._detokenizer.num_released - self._num_listed
            tokens = [self._unlisted.popleft() for _ in range(num_new)]
            self._num_listed += num_new
        token_ids = self._token_ids
        if token_ids and (text or self.finish):
            self._token_ids = []
        return Piece(self.index, text, tokens, token_ids, self.finish)

    def take_text(self) -> str:
        """What is new of a choice that has nothing but text."""
        text = "".join(self._text)
        self._text.clear()
        return text

    def close(self, ending: Ending) -> None:
        """Aborts the generation unless it has finished."""
        self.generation.close()
        self.timer.end(ending)


class Choices:
    """All choices of one request. Always `close` them: in a `finally`, whatever happened."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._ending: Ending = "abort"  # of the choices that are open when it closes
        self._error: ApiError | None = None
        self._noted: dict[int, Choice] = {}  # those with something to take
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None  # of who waits for them in `changed`
        self._num_open = len(choices)
        self.finished = not choices  # every choice has its finish reason
        for choice in choices:
            choice.generation.watch(partial(self._note, choice))

    def __iter__(self) -> Iterator[Choice]:
        return iter(self._choices)

    async def changed(self) -> list[Choice]:
        """Waits for tokens and takes in all that are there; returns the choices they belong to.

        None of them, if `nudge` was called first. Raises EngineDead or GrammarTooComplex if a
        choice cannot be finished, when what came before was returned. Cancelling it loses nothing.
        """
        while self._error is None:
            if not self._noted:
                self._waiter = self._loop.create_future()
                await self._waiter
                if not self._noted:
                    return []
            noted, self._noted = self._noted, {}
            changed = []
            for choice in noted.values():
                if self._take_in(choice):
                    changed.append(choice)
            if changed:
                return changed
        raise self._error

    def nudge(self) -> None:
        """Ends a wait in `changed`, if there is one."""
        if self._waiter is not None and not self._waiter.done():  # done: or cancelled
            self._waiter.set_result(None)

    async def finish(self) -> None:
        """Returns when every choice has finished. Raises what `changed` raises."""
        while not self.finished:
            await self.changed()

    def close(self) -> None:
        """Aborts what still runs. May be called again."""
        for choice in self._choices:
            choice.close(self._ending)

    def _note(self, choice: Choice) -> None:
        self._noted[choice.index] = choice
        self.nudge()

    def _take_in(self, choice: Choice) -> bool:
        """Whether the choice has news."""
        try:
            deltas = choice.generation.take()
        except ApiError as error:
            self._ending = "error"
            self._error = error
            return False
        for delta in deltas:
            choice.read(delta)
            if choice.finish:
                self._num_open -= 1
                self.finished = not self._num_open
                break
        return bool(deltas)
