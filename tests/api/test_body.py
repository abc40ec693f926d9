"""Bodies that are not what they seem: every one gets a 400-something, none a 500."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from api.conftest import MODEL
from api.fake_engine import FakeEngine
from caravan.api.body import OFF_LOOP_BYTES, prepared
from caravan.config import ApiConfig

JSON = {"content-type": "application/json"}


async def post(http: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    return await http.post("/v1/completions", content=body, headers=headers or JSON)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not valid JSON: line 1, column 1"),
        (b"{", "not valid JSON"),
        (b'{"model": "x",}', "not valid JSON"),
        (b"\xff\xfe{}", "not valid UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"prompt": "\\ud800"}', "not valid UTF-8"),
        (b'{"\\uDEAD": 1}', "not valid UTF-8"),
        (b'"prompt"', "must be a JSON object, not a string"),
        (b"[]", "must be a JSON object, not a list"),
        (b"null", "must be a JSON object, not null"),
        (b'{"top_p": NaN}', "NaN"),
        (b'{"top_p": Infinity}', "Infinity"),
        (b'{"top_p": -Infinity}', "-Infinity"),
        (b'{"top_p": 1e400}', "1e400 is too large"),
        (b'{"top_p": -1e400}', "-1e400 is too large"),
        (b'{"n": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"prompt": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply"),
        (b'{"model": "a", "model": "b"}', "names `model` twice"),
        (b'{"prompt": "a", "stream_options": {"a": 1, "a": 1}}', "names `a` twice"),
        (b'{"model": "\x00"}', "not valid JSON"),
    ],
)
async def test_what_is_not_one_json_object(http: httpx.AsyncClient, body: bytes, part: str) -> None:
    response = await post(http, body)
    assert response.status_code == 400
    assert part in response.json()["error"]["message"]


async def test_a_surrogate_pair_is_a_character(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = json.dumps({"model": MODEL, "prompt": "🙂"}).encode()
    assert b"\\ud83d\\ude42" in body
    assert (await post(http, body)).status_code == 200
    assert bytes(engine.submits[0][0][0][1:]).decode() == "🙂"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 400),
        ("Application/JSON; charset=UTF-8", 400),
        ("application/problem+json", 400),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("text/json", 415),
        ("", 415),
    ],
)
async def test_content_types(http: httpx.AsyncClient, content_type: str, status: int) -> None:
    response = await post(http, b"{}", **{"content-type": content_type})
    assert response.status_code == status
    code = {400: "missing_required_parameter", 415: "unsupported_media_type"}[status]
    assert response.json()["error"]["code"] == code


async def test_no_content_type_is_taken_for_json(http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/completions", content=b"{}")
    assert "content-type" not in response.request.headers
    assert response.json()["error"]["code"] == "missing_required_parameter"


@pytest.mark.parametrize("config", [ApiConfig(max_body_bytes=1000)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_size_limit(http: httpx.AsyncClient, engine: FakeEngine, chunked: bool) -> None:
    def body(size: int) -> bytes:
        start = json.dumps({"model": MODEL, "prompt": [1] * 150}).encode()
        return start[:-1] + b" " * (size - len(start)) + b"}"

    async def parts(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 300):
            yield data[start : start + 300]

    for size, status in ((1000, 200), (1001, 413)):
        data = body(size)
        response = await http.post(
            "/v1/completions", content=parts(data) if chunked else data, headers=JSON
        )
        assert ("content-length" in response.request.headers) != chunked
        assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == "request_too_large"
    assert "at most 1000" in error["message"]
    assert len(engine.submits) == 1


@pytest.mark.parametrize("config", [ApiConfig(max_body_bytes=1000)])
def test_a_length_that_is_announced_is_not_waited_for(address: tuple[str, int]) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n"
    with closing(socket.create_connection(address, timeout=5)) as connection:
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("size", "in_loop"), [(OFF_LOOP_BYTES, True), (OFF_LOOP_BYTES + 1, False)])
async def test_a_large_body_does_not_hold_up_the_loop(size: int, in_loop: bool) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}".ljust(size)}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    thread = await prepared(request, lambda body: threading.current_thread())
    assert (thread is threading.current_thread()) == in_loop


async def test_a_large_body_is_read_like_a_small_one(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    padding = " " * OFF_LOOP_BYTES
    data = json.dumps({"model": MODEL, "prompt": "Hi"}) + padding
    assert (await post(http, data.encode())).status_code == 200
    bad = json.dumps({"model": MODEL, "prompt": "Hi", "n": 0}) + padding
    response = await post(http, bad.encode())
    assert response.json()["error"]["param"] == "n"


NAMES = st.sampled_from(
    ["model", "messages", "prompt", "n", "stop", "logit_bias", "stream", "stream_options", "seed",
     "temperature", "top_k", "logprobs", "top_logprobs", "max_tokens", "min_tokens", "role",
     "content", "type", "text", "tool_calls", "stop_token_ids", "function", "arguments", "name"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**63, 10**400, 1e308, 5e-324])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
    | st.sampled_from(["user", "assistant", "tool", "text", MODEL]),
    lambda children: st.lists(children) | st.dictionaries(NAMES | st.text(), children),
    max_leaves=8,
)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields=st.dictionaries(NAMES, VALUES), raw=st.none() | st.binary(max_size=40))
async def test_whatever_comes_gets_an_answer(
    app: FastAPI, path: str, fields: dict[str, Any], raw: bytes | None
) -> None:
    fields.setdefault("model", MODEL)
    body = json.dumps(fields).encode("utf-8", "surrogatepass") if raw is None else raw
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        response = await http.post(path, content=body, headers=JSON)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert len(error["message"]) < 400
