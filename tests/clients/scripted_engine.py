"""An engine without a model, behind the real API: it says what `script` says.

Words in the last message make it misbehave:

    die     it ends in mid-stream
    slow    nothing comes for SLOW_S seconds
    busy    the first request with this prompt is refused: try again in a second
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path

from llguidance import LLMatcher, LLTokenizer

from byte_tokenizer import special_token_ids
from caravan.engine.handle import Generation, Submission
from caravan.engine.vocabulary import grammar_vocabulary
from caravan.errors import ApiError, EngineDead, Overloaded
from caravan.messages import Delta, FinishReason, Progress, Ready, Stats, TokenLogprobs
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_model import PATTERN
from caravan.text.vocabulary import END_OF_TURN, Vocabulary
from clients.prompts import ReadPrompt, read_prompt
from clients.script import candidates

MAX_MODEL_LEN = 16384  # tokens, which are bytes
SLOW_S = 30.0  # no check waits that long
RETRY_S = 1
CUT_SIZES = (1, 3, 2)  # tokens of one delta, in turn
DEATH_TOKENS = 10  # tokens before the engine dies
PYTHON_START, PYTHON_END = "<|python_start|>", "<|python_end|>"


def byte_tokenizer() -> Tokenizer:
    """Token i is byte i, and the special tokens follow."""
    return Tokenizer(
        Vocabulary(
            source=Path("scripted"),
            ranks={bytes([byte]): byte for byte in range(256)},
            special_ids=special_token_ids(),
            pattern=PATTERN,
        )
    )


@dataclass
class ScriptedEngine:
    """Fulfils `caravan.engine.handle.Engine`."""

    tokenizer: Tokenizer
    loading: Progress | None = None
    stats: Stats = field(default_factory=Stats)
    draining: bool = False
    silence_s: float = 0.0
    alive: bool = True
    _refused: set[str] = field(default_factory=set)

    @property
    def ready(self) -> Ready:
        return Ready(
            max_model_len=MAX_MODEL_LEN,
            num_pages=64,
            page_bytes=1024,
            block_len=16,
            vocab_size=self.tokenizer.vocab_size,
            dtype="float32",
            device="cpu",
            fingerprint="fp-scripted",
            load_s=0.0,
            takes_images=True,
        )

    def submit(self, requests: Sequence[Submission]) -> list[Generation]:
        prompts = [read_prompt(self.tokenizer, request.prompt) for request in requests]
        for prompt in prompts:
            if "busy" in prompt.words and prompt.last.text not in self._refused:
                self._refused.add(prompt.last.text)
                raise Overloaded("The engine is busy.", retry_after_s=RETRY_S)
        return [
            ScriptedGeneration(self, prompt, request)
            for prompt, request in zip(prompts, requests, strict=True)
        ]

    @cached_property
    def vocabulary(self) -> LLTokenizer:
        """The tokenizer, as grammars need it."""
        return grammar_vocabulary(self.tokenizer)

    def answer(self, prompt: ReadPrompt, request: Submission) -> list[int]:
        """Tokens of the first answer that the request's grammar allows, and the end of the turn."""
        for text in candidates(prompt, request.sampling.seed):
            tokens = [*self._encode(text), self.tokenizer.special_id(END_OF_TURN)]
            if request.grammar is None or self._matches(request.grammar, tokens):
                return tokens
        raise AssertionError(("the script has nothing that the grammar allows", request.grammar))

    def _matches(self, grammar: str, tokens: list[int]) -> bool:
        return LLMatcher(self.vocabulary, grammar).validate_tokens(tokens) == len(tokens)

    def _encode(self, text: str) -> list[int]:
        """Markers of custom tools become the special tokens that they spell."""
        before, start, rest = text.partition(PYTHON_START)
        if not start:
            return self.tokenizer.encode(text)
        inside, _, after = rest.partition(PYTHON_END)
        return [
            *self.tokenizer.encode(before),
            self.tokenizer.special_id(PYTHON_START),
            *self.tokenizer.encode(inside),
            self.tokenizer.special_id(PYTHON_END),
            *self._encode(after),
        ]


class ScriptedGeneration:
    """One answer, cut into deltas of a few tokens: a character may be split between two."""

    def __init__(self, engine: ScriptedEngine, prompt: ReadPrompt, request: Submission) -> None:
        self._engine = engine
        self._prompt = prompt
        self._request = request
        self._deltas: list[Delta] = []
        self._error: ApiError | AssertionError | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, news: Callable[[], None]) -> None:
        self._task = asyncio.create_task(self._play(news))

    def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        if not deltas and self._error:
            raise self._error
        return deltas

    def close(self) -> None:
        if self._task:
            self._task.cancel()

    async def _play(self, news: Callable[[], None]) -> None:
        try:
            async for delta in self._answer():
                self._deltas.append(delta)
                news()
                await asyncio.sleep(0)
        except (ApiError, AssertionError) as error:
            self._error = error
            news()

    async def _answer(self) -> AsyncIterator[Delta]:
        if "slow" in self._prompt.words:
            await asyncio.sleep(SLOW_S)
        tokens = self._engine.answer(self._prompt, self._request)
        for scores in self._prompt_scores():
            yield Delta(0, [], prompt_logprobs=scores)
        end = 0
        limit = min(self._request.sampling.max_tokens, len(tokens))
        for size in cycle(CUT_SIZES):
            if "die" in self._prompt.words and end >= DEATH_TOKENS:
                raise EngineDead("The engine has ended.")
            start, end = end, min(end + size, limit)
            yield self._delta(tokens, start, end)
            if end == limit:
                return

    def _prompt_scores(self) -> list[list[TokenLogprobs]]:
        """In two parts, as a long prompt's come."""
        num_best = self._request.sampling.prompt_logprobs
        if num_best is None:
            return []
        scores = [self._score(token, num_best) for token in self._request.prompt[1:]]
        middle = len(scores) // 2
        return [scores[:middle], scores[middle:]]

    def _delta(self, tokens: list[int], start: int, end: int) -> Delta:
        new = tokens[start:end]
        num_best = self._request.sampling.logprobs
        logprobs = None if num_best is None else [self._score(token, num_best) for token in new]
        finish: FinishReason | None = "stop" if end == len(tokens) else None
        if end == self._request.sampling.max_tokens and finish is None:
            finish = "length"
        return Delta(0, new, logprobs, finish)

    def _score(self, token: int, num_best: int) -> TokenLogprobs:
        """The drawn token is the best one; the next ids follow it, each less likely."""
        best = logprob(token)
        ids = [(token + i) % self._engine.tokenizer.vocab_size for i in range(num_best)]
        return TokenLogprobs(best, [(id_, best - i / 2) for i, id_ in enumerate(ids)])


def logprob(token: int) -> float:
    """Of a drawn token: neighbours differ, so that a shift of one shows."""
    return -(token % 8 + 1) / 8
