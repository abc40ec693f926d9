"""What a token costs on its way out, counted instead of timed; and what the short way must keep."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import fastapi
import httpx
import prometheus_client
import pydantic
import pytest
import starlette
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as TokenCounter

import caravan
from api.conftest import MODEL
from api.fake_engine import FakeEngine, say, scored
from caravan.api.answer import Answer
from caravan.api.choices import Choices
from caravan.config import ApiConfig
from caravan.messages import Stats
from caravan.metrics import BETWEEN_TOKENS_BUCKETS, Metrics

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"model": MODEL, "prompt": "Hi"},
}

# Calls of Python functions that a token of a stream costs between the engine's news and the
# server's `send`. Not a law: what needs one more raises it, a layer's own `send` should not.
CALLS_PER_TOKEN = 17
LONG, SHORT = 60, 10  # tokens

# What a client can ask for beside the text, at both endpoints.
ASKED: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"stream_options": {"include_obfuscation": True}},
    {"return_token_ids": True},
    {"stop": "é"},
]


async def post(
    http: httpx.AsyncClient, engine: FakeEngine, path: str, length: int, *, stream: bool
) -> None:
    """Asks for so many tokens; in a stream each is an event of its own."""
    engine.script = lambda index, sampling: say("x" * length)
    response = await http.post(path, json={**BODIES[path], "stream": stream})
    assert response.text.count('"x"' if stream else "x" * length) == (length if stream else 1)


@contextmanager
def counted_calls(*packages: ModuleType) -> Iterator[Counter[str]]:
    """Counts the calls of some packages' functions, resumed coroutines and pydantic's core too."""
    folders = tuple(str(Path(package.__file__ or "").parent) for package in packages)
    counter: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folders):
            counter[f"{code.co_filename}: {code.co_name}"] += 1
        elif event == "c_call":
            owner = type(getattr(argument, "__self__", None))
            if owner.__module__.startswith("pydantic_core"):
                counter[f"{owner.__name__}.{getattr(argument, '__name__', '')}"] += 1

    sys.setprofile(watch)
    try:
        yield counter
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("path", BODIES)
async def test_a_token_is_few_calls(http: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    await post(http, engine, path, SHORT, stream=True)  # what is cached is made
    counters = []
    for length in (SHORT, LONG):
        with counted_calls(caravan, fastapi, starlette, pydantic, prometheus_client) as counter:
            await post(http, engine, path, length, stream=True)
        counters.append(counter)
    more = counters[1] - counters[0]
    assert more.total() / (LONG - SHORT) <= CALLS_PER_TOKEN, more
    assert more  # the count counts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_no_pydantic_object_is_built_for_a_token(
    http: httpx.AsyncClient, engine: FakeEngine, path: str, stream: bool
) -> None:
    """Nor is pydantic called in any other way."""
    await post(http, engine, path, SHORT, stream=stream)
    counters = []
    for length in (SHORT, LONG):
        with counted_calls(pydantic) as counter:
            await post(http, engine, path, length, stream=stream)
        counters.append(counter)
    assert counters[0] == counters[1]
    assert counters[0]["SchemaValidator.validate_python"]  # that of the request: the count counts


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        *((path, asked) for path in BODIES for asked in ASKED),
        ("/v1/chat/completions", {"logprobs": True}),
        ("/v1/completions", {"logprobs": 0}),
        ("/v1/completions", {"echo": True}),
    ],
)
async def test_the_short_way_writes_what_the_long_one_does(
    http: httpx.AsyncClient,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    asked: dict[str, Any],
) -> None:
    """Some of what a client can ask for needs the long one."""
    engine.script = lambda index, sampling: scored(say(f'{index}"\\ é\0'))
    texts = []
    for _ in range(2):
        response = await http.post(path, json={**BODIES[path], "n": 2, **asked, "stream": True})
        assert response.status_code == 200, response.text
        assert response.text.count('"finish_reason":"stop"') == 2
        texts.append(re.sub(r'"(id|obfuscation)":"\w[^"]*"|"created":\d+', "", response.text))
        monkeypatch.setattr(Answer, "only_text", False)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("config", [ApiConfig(ping_interval=0.3)])
async def test_no_ping_while_tokens_come(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [
        part for step in say("x" * 10) for part in (0.06, step)
    ]
    response = await http.post(
        "/v1/completions", json={**BODIES["/v1/completions"], "stream": True}
    )
    assert response.text.count('"x"') == 10
    assert ": ping" not in response.text


@pytest.mark.parametrize("config", [ApiConfig(ping_interval=0.01)])
async def test_no_timer_outlives_its_stream(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await http.post("/v1/completions", json={**BODIES["/v1/completions"], "stream": True})
    nudged: list[Choices] = []
    monkeypatch.setattr(Choices, "nudge", nudged.append)
    await asyncio.sleep(0.05)
    assert not nudged


def lines(page: bytes, name: str) -> list[str]:
    """Of one metric, without the moment of its making."""
    found = [line for line in page.decode().splitlines() if name in line]
    return [line.partition("_created ")[0] for line in found]


def test_what_is_counted_by_hand_reads_as_if_it_were_observed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounds of buckets are among the times, and tokens that arrive together."""
    metrics = Metrics(Stats, "0")
    now = 100.0
    monkeypatch.setattr("caravan.metrics.time.perf_counter", lambda: now)
    registry = CollectorRegistry()
    between = Histogram(
        "caravan_inter_token_latency_seconds",
        "Between two tokens; tokens that arrive together share the wait",
        buckets=BETWEEN_TOKENS_BUCKETS,
        registry=registry,
    )
    tokens = TokenCounter("caravan_generation_tokens", "Generated tokens", registry=registry)
    timers = [metrics.start(now, 3), metrics.start(now, 3)]
    first = True
    for wait_s, count in [(0.25, 3), (0.5, 1), (0.5, 4), (0.25, 0), (2.5, 1), (8.0, 2), (0.0, 1)]:
        now += wait_s
        for timer in timers:
            timer.tokens(count, 0)
            tokens.inc(count)
            for _ in range(count - first):
                between.observe(wait_s / count)
        first = False
    ours, expected = metrics.page(), generate_latest(registry)
    for name in ("caravan_inter_token_latency_seconds", "caravan_generation_tokens"):
        assert lines(ours, name) == lines(expected, name)
        assert len(lines(expected, name)) > 3
