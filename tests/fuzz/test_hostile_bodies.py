"""Hostile bodies to an engine that says anything: every answer is one that a client can read.

Never a 500 unless the engine's part has a bug in it, never an exception out of the app; a stream
ends with [DONE] whatever happens, and what fails on its way is an event.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.described import events
from caravan.config import ApiConfig
from caravan.errors import ApiError, EngineDead, GrammarTooComplex
from fuzz.hostile import BASES, contents
from fuzz.played import ANSWER_S, TOKENIZER, Part, PlayedApp, fuzz_factor
from fuzz.soundness import error_problems, schema_problems

EXAMPLES = {
    "/v1/chat/completions": 150,
    "/v1/completions": 80,
    "/tokenize": 40,
    "/detokenize": 20,
}
ANSWERS = {
    "/v1/chat/completions": ("ChatCompletion", "ChatChunk"),
    "/v1/completions": ("Completion", "CompletionChunk"),
    "/tokenize": ("Tokenized", ""),
    "/detokenize": ("Detokenized", ""),
}
SAID = [
    b"Hello there!",
    b'[f(a="b"), g(c=[1, {"d": None}])]',
    b'[f(a="',
    b'{"name": "f", "parameters": {"a": "b"}}',
    b'{"type": "function", "name": "f", "parameters": {}}; {"name":',
    b"<function=f>{}</function>",
    b"[c]x",
    "é€🙂".encode()[:-1],
    b"abcSTOPabc",
]


class Bug(Exception):
    """What no part of the server raises on purpose."""


parts: st.SearchStrategy[Part] = st.lists(
    st.one_of(
        st.sampled_from(SAID),
        st.binary(max_size=8),
        st.integers(256, TOKENIZER.vocab_size - 1),
        st.sampled_from(
            [EngineDead("gone", retry_after_s=5), GrammarTooComplex("too much"), Bug()]
        ),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("lenient", [False, True], ids=["strict", "lenient"])
@pytest.mark.parametrize("path", BASES)
def test_every_answer_is_sound(runner: asyncio.Runner, path: str, lenient: bool) -> None:
    part: Part = []
    app = PlayedApp(ApiConfig(ignore_unknown_fields=lenient), lambda index, prompt: part)

    async def post(content: bytes) -> tuple[httpx.Response, float]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            began = time.perf_counter()
            headers = {"content-type": "application/json"}
            async with asyncio.timeout(2 * ANSWER_S):
                response = await http.post(path, content=content, headers=headers)
            return response, time.perf_counter() - began

    @settings(
        max_examples=EXAMPLES[path] * fuzz_factor(),
        derandomize=fuzz_factor() == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=contents(path), drawn=parts)
    def fuzz(content: bytes, drawn: Part) -> None:
        nonlocal part
        part = drawn
        response, seconds = runner.run(post(content))
        assert problems(path, response, failure_of(part)) == []
        assert seconds < ANSWER_S
        assert app.forget(), "a generation is open"

    async def close() -> None:
        async with app.images:
            pass

    try:
        fuzz()
    finally:
        runner.run(close())


def failure_of(part: Part) -> Exception | None:
    """The first one."""
    return next((item for item in part if isinstance(item, Exception)), None)


def problems(path: str, response: httpx.Response, failure: Exception | None) -> list[str]:
    """What is wrong with an answer."""
    status = response.status_code
    if status != 200:
        return may_be(status, failure) + error_problems(status, response.headers, response.content)
    whole, chunk = ANSWERS[path]
    if not response.headers["content-type"].startswith("text/event-stream"):
        return schema_problems(whole, response.json())
    *chunks, last = events(response.text)
    if "error" not in last:
        chunks.append(last)
    found = [problem for event in chunks for problem in schema_problems(chunk, event)]
    if found:
        return found
    if "error" in last:
        status = status_of(failure)
        return schema_problems(f"Error{status}", last) if failure else ["an error of its own"]
    choices = [choice for event in chunks for choice in event["choices"]]
    begun = {choice["index"] for choice in choices}
    ended = [choice["index"] for choice in choices if choice["finish_reason"]]
    return [] if sorted(ended) == sorted(begun) else [f"of {begun} these have ended: {ended}"]


def may_be(status: int, failure: Exception | None) -> list[str]:
    """A server's error needs one of the engine's."""
    if status < 500 or (failure and status == status_of(failure)):
        return []
    return [f"status {status} for {failure!r}"]


def status_of(failure: Exception | None) -> int:
    return failure.status if isinstance(failure, ApiError) else 500
