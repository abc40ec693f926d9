"""The bytes of a stream, event by event."""

from __future__ import annotations

import gc
import json
from typing import Any

import httpx
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine, say, scored
from caravan.config import ApiConfig
from caravan.errors import EngineDead

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
PROMPT = {"model": MODEL, "prompt": "Hi", "stream": True}


async def events(http: httpx.AsyncClient, body: dict[str, Any]) -> list[Any]:
    """The data of each event; `[DONE]` and comments as they are."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    found: list[Any] = []
    for block in blocks:
        assert "\n" not in block
        data = block.removeprefix("data: ")
        found.append(json.loads(data) if data.startswith("{") else data)
    return found


async def test_chat_to_the_letter(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [*say("ab", by=2)[:1], 0.001, *say("")]
    first, text, end, done = await events(http, CHAT)
    head = {
        "id": first["id"],
        "object": "chat.completion.chunk",
        "created": first["created"],
        "model": MODEL,
        "system_fingerprint": "fp-test",
    }
    empty = {"index": 0, "logprobs": None, "finish_reason": None}
    assert first == {
        **head, "choices": [{**empty, "delta": {"role": "assistant", "content": ""}}]
    }  # fmt: skip
    assert text == {**head, "choices": [{**empty, "delta": {"content": "ab"}}]}
    assert end == {**head, "choices": [{**empty, "delta": {}, "finish_reason": "stop"}]}
    assert done == "[DONE]"


async def test_completions_to_the_letter(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: say("ab", by=3)
    only, done = await events(http, PROMPT)
    assert only["object"] == "text_completion"
    assert only["choices"] == [
        {"index": 0, "text": "ab", "logprobs": None, "finish_reason": "stop"}
    ]
    assert "usage" not in only
    assert done == "[DONE]"


async def test_usage_is_null_until_the_end(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    *chunks, usage, done = await events(http, {**PROMPT, "stream_options": {"include_usage": True}})
    assert chunks
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 3 + len("Hello there!") + 1
    assert done == "[DONE]"


async def test_usage_refused_is_usage_absent(http: httpx.AsyncClient) -> None:
    *chunks, _ = await events(
        http,
        {**PROMPT, "stream_options": {"include_usage": False, "include_obfuscation": False}},
    )
    assert all("usage" not in chunk for chunk in chunks)


async def test_roles_ascend_before_any_text(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [0.01 * (2 - index), *say(f"{index}")]
    *chunks, _ = await events(http, {**CHAT, "n": 3})
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["index"] for choice in choices[:3]] == [0, 1, 2]
    assert all(choice["delta"].get("role") for choice in choices[:3])
    assert not any(choice["delta"].get("role") for choice in choices[3:])
    assert choices[3]["index"] == 2
    assert sorted(c["index"] for c in choices if c["finish_reason"]) == [0, 1, 2]


@pytest.mark.parametrize("config", [ApiConfig(ping_interval=0.02)])
async def test_pings_while_there_are_no_tokens(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [0.07, *say("a")[:1], 0.07, *say("b")]
    found = await events(http, CHAT)
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    text = [i for i, event in enumerate(found) if isinstance(event, dict) and "a" in str(event)]
    assert found[1] == ": ping"
    assert found.count(": ping") >= 4
    assert found[text[1] + 1] == ": ping"
    assert found[-1] == "[DONE]"


async def test_characters_are_never_split(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [
        part for step in say("é€🙂") for part in (step, 0.0005)
    ]
    *chunks, _ = await events(http, CHAT)
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-1]]
    assert texts == ["é", "€", "🙂"]


async def test_tokens_that_arrive_together_are_one_chunk(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = lambda index, sampling: say("abcdef", by=100)
    *chunks, _ = await events(http, PROMPT)
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["abcdef"]


async def test_logprobs_ride_with_their_text(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [
        part for step in scored(say("xSTay€")) for part in (step, 0.0005)
    ]
    *chunks, _ = await events(http, {**CHAT, "logprobs": True, "stop": "STOP"})
    text, data = "", b""
    for chunk in chunks[1:]:
        [choice] = chunk["choices"]
        text += choice["delta"].get("content", "")
        for entry in (choice["logprobs"] or {"content": []})["content"]:
            data += bytes(entry["bytes"])
        assert data == text.encode()
    assert text == "xSTay€"


async def test_headers_keep_proxies_from_buffering(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/completions", json=PROMPT)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert response.headers["x-request-id"]


async def test_a_failure_before_the_first_token_has_its_own_status(
    http: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = lambda index, sampling: [EngineDead("gone", retry_after_s=5)]
    response = await http.post("/v1/chat/completions", json={**CHAT, "n": 2})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_dead"
    assert response.headers["retry-after"] == "5"
    assert engine.all_closed
    engine.generations.clear()  # they hold the errors, and those everything else
    gc.collect()
    assert "never retrieved" not in caplog.text  # of the second choice's error


async def test_a_failure_on_the_way_is_an_event(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = lambda index, sampling: [*say("ab")[:1], 0.001, EngineDead("gone")]
    *chunks, error, done = await events(http, {**CHAT, "n": 2})
    assert chunks
    assert error == {
        "error": {"message": "gone", "type": "server_error", "param": None, "code": "engine_dead"}
    }
    assert done == "[DONE]"
    assert engine.all_closed


async def test_a_bug_on_the_way_is_an_opaque_event(
    http: httpx.AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.script = lambda index, sampling: [*say("a")[:1], 0.001, ZeroDivisionError("secret")]
    *_, error, done = await events(http, {**CHAT, "stream_options": {"include_usage": True}})
    assert error["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(error)
    assert done == "[DONE]"
    assert "secret" in caplog.text
    assert engine.all_closed
