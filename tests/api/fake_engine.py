"""An engine that says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from caravan.engine.handle import Generation, Submission
from caravan.errors import ApiError
from caravan.messages import Delta, FinishReason, Progress, Ready, Sampling, Stats, TokenLogprobs

EOT = 256 + 5  # see conftest.tokenizer
HANG = 3600.0  # a step that never ends

# A float: seconds to wait. An exception: what `take` raises. A delta: given.
Step = Delta | float | Exception
Script = Callable[[int, Sampling], Sequence[Step]]


def say(
    text: str | bytes | list[int], *, by: int = 1, finish: FinishReason = "stop", cached: int = 0
) -> list[Step]:
    """Deltas of `by` tokens each, one per byte; the last has the finish, and <|eot|> for "stop"."""
    data = list(text.encode() if isinstance(text, str) else text)
    if finish == "stop":
        data.append(EOT)
    pieces = [data[start : start + by] for start in range(0, len(data), by)]
    deltas: list[Step] = [Delta(0, piece, cached_tokens=cached) for piece in pieces[:-1]]
    return [*deltas, Delta(0, pieces[-1], finish=finish, cached_tokens=cached)]


def scored(steps: Sequence[Step], top: list[tuple[int, float]] | None = None) -> list[Step]:
    """The same deltas with log-probabilities: -0.5 for each token."""
    return [
        Delta(s.rid, s.tokens, [TokenLogprobs(-0.5, top or [])] * len(s.tokens), s.finish)
        if isinstance(s, Delta)
        else s
        for s in steps
    ]


class FakeGeneration:
    """Plays its steps, from the moment that it is watched until it is closed."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._deltas: list[Delta] = []
        self._error: Exception | None = None
        self._player: asyncio.Task[None] | None = None
        self.closed = False
        self.finished = False  # all of it was taken

    def watch(self, news: Callable[[], None]) -> None:
        self._player = asyncio.get_running_loop().create_task(self._play(news))

    def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        self.finished = bool(deltas and deltas[-1].finish)
        if not deltas and self._error is not None:
            raise self._error
        return deltas

    def close(self) -> None:
        self.closed = True
        self._deltas.clear()

    async def _play(self, news: Callable[[], None]) -> None:
        for step in self._steps:
            if self.closed:
                return
            if isinstance(step, float):
                await self._pause(step)
                continue
            if isinstance(step, Exception):
                self._error = step
            else:
                self._deltas.append(step)
            news()
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> None:
        """So much time, or less if nobody waits any more: a task must not outlive its test."""
        end = asyncio.get_running_loop().time() + seconds
        while not self.closed and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(min(0.001, seconds))


@dataclass
class FakeEngine:
    """Fulfils `caravan.engine.handle.Engine`. `script` gets the index within one submit."""

    script: Script = lambda index, sampling: say("Hello there!")
    ready: Ready | None = Ready(
        max_model_len=200,
        num_pages=64,
        page_bytes=1024,
        block_len=16,
        vocab_size=270,
        dtype="float32",
        device="cpu",
        fingerprint="fp-test",
        load_s=0.0,
        takes_images=True,
    )
    loading: Progress | None = None
    stats: Stats = field(default_factory=Stats)
    draining: bool = False
    silence_s: float = 0.0
    alive: bool = True
    refusal: ApiError | None = None
    submits: list[list[Submission]] = field(default_factory=list)
    generations: list[FakeGeneration] = field(default_factory=list)

    def submit(self, requests: Sequence[Submission]) -> list[Generation]:
        if self.refusal is not None:
            raise self.refusal
        self.submits.append(list(requests))
        new = [FakeGeneration(self.script(i, r.sampling)) for i, r in enumerate(requests)]
        self.generations += new
        return [*new]

    @property
    def sampling(self) -> Sampling:
        """Of the first choice of the last submit."""
        return self.submits[-1][0].sampling

    @property
    def all_closed(self) -> bool:
        """Whether something was submitted, and all of it is closed."""
        return bool(self.generations) and all(g.closed for g in self.generations)
