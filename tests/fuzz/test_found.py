"""What the fuzzing of this folder has found, so that it is found at once the next time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from caravan.config import ApiConfig
from fuzz.played import MODEL, PlayedApp
from fuzz.soundness import error_problems

RAW = "/v1/completions"
CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
HUGE = 10**4000
BOTH = {"type": "function", "function": {"name": "f"}, "custom": {"name": "c"}}


@pytest.fixture
def config() -> ApiConfig:
    """Tests override it by parametrisation."""
    return ApiConfig()


@pytest.fixture
async def app(config: ApiConfig) -> AsyncIterator[PlayedApp]:
    app = PlayedApp(config, lambda index, prompt: [b"Hello!"])
    async with app.images:
        yield app
    assert app.forget(), "a generation is open"


@pytest.fixture
async def http(app: PlayedApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (RAW, {"prompt": [HUGE]}, "prompt"),
        (RAW, {"prompt": "a", "stop_token_ids": [HUGE]}, "stop_token_ids"),
        ("/detokenize", {"tokens": [-HUGE]}, "tokens"),
        (
            RAW,
            {"prompt": "a", "structured_outputs": {"json": {"properties": {"x" * 5000: 5}}}},
            "structured_outputs.json",
        ),
        # Half a surrogate pair, which JSON inside of JSON can hide.
        (
            RAW,
            {"prompt": "a", "structured_outputs": {"json": r'{"properties": {"\ud800": 5}}'}},
            "structured_outputs.json",
        ),
        (RAW, {"prompt": "a", "structured_outputs": {"json": "5"}}, "structured_outputs.json"),
        (RAW, {"prompt": "a", "structured_outputs": {"json": 5}}, "structured_outputs.json"),
        (
            CHAT,
            {
                "messages": [USER],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": [1]},
                },
            },
            "response_format.json_schema.schema",
        ),
        (
            CHAT,
            {
                "messages": [USER],
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [BOTH]},
                },
            },
            "tool_choice.allowed_tools.tools[0].custom",
        ),
    ],
)
async def test_refused_in_few_words(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    model = {"model": MODEL} if path != "/detokenize" else {}
    response = await http.post(path, content=json.dumps({**model, **body}).encode())
    assert response.status_code == 400
    assert error_problems(response.status_code, response.headers, response.content) == []
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("config", [ApiConfig(ignore_unknown_fields=True)])
@pytest.mark.parametrize("stream", [False, True])
async def test_names_of_ignored_fields_may_be_anything(
    http: httpx.AsyncClient, stream: bool
) -> None:
    body = {"model": MODEL, "messages": [{**USER, "日": 1}], "a, b": 1, "stream": stream}
    response = await http.post(CHAT, json=body)
    assert response.status_code == 200
    names = response.headers["x-caravan-ignored-fields"].split(", ")
    assert sorted(names) == ["a%2C%20b", "messages[0].%E6%97%A5"]
