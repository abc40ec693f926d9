"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine

MESSAGES = [{"role": "developer", "content": "Hé"}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "Grüße <|eot|>"}),
        ("/v1/chat/completions", {"messages": MESSAGES}),
    ],
)
async def test_tokens_are_those_of_the_request(
    http: httpx.AsyncClient, engine: FakeEngine, path: str, fields: dict[str, Any]
) -> None:
    answer = (await http.post(path, json={"model": MODEL, **fields})).json()
    for body in (fields, {"model": MODEL, **fields}):
        tokens = (await http.post("/tokenize", json=body)).json()
        assert tokens == {
            "tokens": engine.submits[0][0][0],
            "count": answer["usage"]["prompt_tokens"],
            "max_model_len": 200,
        }


async def test_there_and_back(http: httpx.AsyncClient) -> None:
    text = "Grüße, 🙂 <|eot|>\n"
    tokens = (await http.post("/tokenize", json={"prompt": text})).json()["tokens"]
    answer = await http.post("/detokenize", json={"tokens": tokens})
    assert answer.json() == {"prompt": text}


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/tokenize", {}, "missing_required_parameter", "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "invalid_value", "prompt"),
        ("/tokenize", {"prompt": 5}, "invalid_type", "prompt"),
        ("/tokenize", {"messages": []}, "invalid_value", "messages"),
        ("/tokenize", {"prompt": "a", "foo": 1}, "unknown_parameter", "foo"),
        ("/tokenize", {"prompt": "a", "model": "b"}, "model_not_found", "model"),
        ("/detokenize", {}, "missing_required_parameter", "tokens"),
        ("/detokenize", {"tokens": "a"}, "invalid_type", "tokens"),
        ("/detokenize", {"tokens": [1, True]}, "invalid_type", "tokens[1]"),
        ("/detokenize", {"tokens": [270]}, "invalid_value", "tokens"),
        ("/detokenize", {"tokens": [-1]}, "invalid_value", "tokens"),
    ],
)
async def test_refusals(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    error = (await http.post(path, json=body)).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


async def test_no_tokens_are_no_text(http: httpx.AsyncClient) -> None:
    assert (await http.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}
    assert (await http.post("/tokenize", json={"prompt": ""})).json()["tokens"] == [256]


async def test_while_it_loads(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.ready = None
    response = await http.post("/tokenize", json={"prompt": "a"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "loading"
