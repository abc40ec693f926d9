"""The app over an engine that plays parts, for tests that send it anything at all.

The engine keeps to the protocol: as many tokens as were asked for at most, log-probabilities where
they were asked for, and no others. What it says is up to the part. No picture is downloaded.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from api.fake_engine import FakeEngine, Step
from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.config import ApiConfig, ImageConfig
from caravan.errors import FailedToDownloadImage
from caravan.images.fetch import ImageFetcher
from caravan.messages import Delta, FinishReason, Sampling, TokenLogprobs
from caravan.text.defaults import GenerationDefaults
from caravan.tiles import TileLayout
from clients.scripted_engine import byte_tokenizer

MODEL = "meta-llama/Llama-4-Test"
KEY = "key-of-the-tests"
MAX_MODEL_LEN = 4096  # tokens, which are bytes
ANSWER_S = 5.0
VARIABLE = "CARAVAN_FUZZ_FACTOR"  # so many times the usual number of examples, drawn at random

TOKENIZER = byte_tokenizer()


def fuzz_factor() -> int:
    """1 in the default tier, which sends the same examples every time."""
    return int(os.environ.get(VARIABLE, "1"))


class NoDownloads(ImageFetcher):
    """Downloads nothing: tests send addresses that nobody has chosen."""

    async def fetch(self, url: str) -> bytes:
        self._checked(url)
        raise FailedToDownloadImage("could not be downloaded")


Part = Sequence[int | bytes | Exception]  # tokens by id or as bytes; an exception ends it


class PlayedApp:
    """The app, and what is left open in its engine. `play` picks the part of each choice."""

    def __init__(self, config: ApiConfig, play: Callable[[int, list[int]], Part]) -> None:
        self.engine = FakeEngine(script=self._script)
        assert self.engine.ready
        self.engine.ready = msgspec.structs.replace(
            self.engine.ready, max_model_len=MAX_MODEL_LEN, vocab_size=TOKENIZER.vocab_size
        )
        self._play = play
        images = ImageConfig()
        layout = TileLayout(tile_size=8, tile_tokens=4, max_tiles=4)
        self.images = ImageLoader(images, layout, NoDownloads(images))
        self._app = create_app(
            self.engine,
            TOKENIZER,
            GenerationDefaults(),
            config,
            model_name=MODEL,
            images=self.images,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app; its lifespan is that of the pictures' loader."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        async with self.images:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def forget(self) -> bool:
        """Whether all generations so far were closed; then they are forgotten."""
        closed = all(generation.closed for generation in self.engine.generations)
        self.engine.generations.clear()
        self.engine.submits.clear()
        return closed

    def _script(self, index: int, sampling: Sampling) -> list[Step]:
        prompt = self.engine.submits[-1][index].prompt
        return steps(self._play(index, prompt), sampling, prompt)


def steps(part: Part, sampling: Sampling, prompt: list[int]) -> list[Step]:
    """A part as an engine gives it, in deltas of one to three tokens."""
    tokens: list[int] = []
    failure: Exception | None = None
    for item in part:
        if isinstance(item, Exception):
            failure = item
            break
        tokens += list(item) if isinstance(item, bytes) else [item]
    tokens = tokens[: sampling.max_tokens]
    finish: FinishReason = "length"
    if len(tokens) < sampling.max_tokens and sampling.stop_token_ids:
        tokens.append(sampling.stop_token_ids[0])
        finish = "stop"
    played: list[Step] = [
        Delta(0, [], prompt_logprobs=scores) for scores in _about(sampling, prompt)
    ]
    end = 0
    for size in itertools.cycle((1, 3, 2)):
        start, end = end, min(end + size, len(tokens))
        last = end == len(tokens)
        if last and failure is not None:
            return [*played, failure]
        new = tokens[start:end]
        scores = _scores(new, sampling.logprobs)
        played.append(Delta(0, new, scores, finish if last else None, cached_tokens=1))
        if last:
            return played
    raise AssertionError("unreachable")


def _about(sampling: Sampling, prompt: list[int]) -> list[list[TokenLogprobs]]:
    """Of the prompt, in two messages, as a long one's come."""
    scores = _scores(prompt[1:], sampling.prompt_logprobs)
    return [] if scores is None else [scores[:1], scores[1:]]


def _scores(tokens: list[int], num_best: int | None) -> list[TokenLogprobs] | None:
    """The drawn token is impossible, as it can be where a grammar decided."""
    if num_best is None:
        return None
    best = [(index * 40 % TOKENIZER.vocab_size, -float(index)) for index in range(num_best)]
    return [TokenLogprobs(-math.inf, best) for _ in tokens]
