"""Output held to grammars, over HTTP, by the demo model: whatever it wants to say, it is right."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from system.running_server import TIMEOUT_S, RunningServer

MODEL = "caravan-demo"
MESSAGES: Any = [{"role": "user", "content": "Tell me something."}]
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
BOOK: Any = {
    "type": "function",
    "function": {"name": "book", "parameters": PERSON, "strict": True},
}
PING: Any = {"type": "function", "function": {"name": "ping", "strict": True}}
PLATE: Any = {
    "type": "custom",
    "custom": {
        "name": "plate",
        "format": {
            "type": "grammar",
            "grammar": {"syntax": "regex", "definition": "[A-Z]{2}-[0-9]{3}"},
        },
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer() as server:
        yield server.until_ready()


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


class Answer(BaseModel):
    yes: bool
    why: str = Field(max_length=10)


def test_the_sdk_parses_its_own_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Answer, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("seed", range(3))
def test_json_of_a_schema(client: openai.OpenAI, seed: int) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        seed=seed,
        n=3,
        max_tokens=400,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}},
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), PERSON)


def test_a_required_call(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[BOOK, PING], tool_choice="required",
        parallel_tool_calls=False, max_tokens=400,
    )  # fmt: skip
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    arguments = json.loads(call.function.arguments)
    if call.function.name == "book":
        jsonschema.validate(arguments, PERSON)
    else:
        assert (call.function.name, arguments) == ("ping", {})


def test_a_named_call_in_a_stream(client: openai.OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "book"}}
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[BOOK, PING], tool_choice=choice, max_tokens=400
    ) as stream:
        answer = stream.get_final_completion()
    [call] = answer.choices[0].message.tool_calls or []
    assert call.function.name == "book"
    jsonschema.validate(json.loads(call.function.arguments), PERSON)
    assert answer.choices[0].finish_reason == "stop"


def test_a_custom_call_of_a_pattern(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=[PLATE, PING], max_tokens=100,
        tool_choice={"type": "custom", "custom": {"name": "plate"}},
    )  # fmt: skip
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert re.fullmatch("[A-Z]{2}-[0-9]{3}", call.custom.input)


def test_a_schema_beside_tools_gives_a_call_or_the_answer(client: openai.OpenAI) -> None:
    for seed in range(4):
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, tools=[PING], seed=seed, max_tokens=400,
            response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}},
        )  # fmt: skip
        message = answer.choices[0].message
        if message.tool_calls:
            assert answer.choices[0].finish_reason == "tool_calls"
        else:
            jsonschema.validate(json.loads(message.content or ""), PERSON)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": "[0-9]{2}:[0-9]{2}"}, "[0-9]{2}:[0-9]{2}"),
        ({"choice": ["red", "green", "dark blue"]}, "red|green|dark blue"),
        ({"grammar": 'start: "<" (start | /[a-c]{3}/) ">"'}, "<+[a-c]{3}>+"),
    ],
)
@pytest.mark.parametrize("chat", [False, True])
def test_structured_outputs(
    client: openai.OpenAI, constraint: dict[str, Any], pattern: str, chat: bool
) -> None:
    extra = {"structured_outputs": constraint}
    if chat:
        whole = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=200, extra_body=extra
        )
        said, finish = whole.choices[0].message.content or "", whole.choices[0].finish_reason
    else:
        raw = client.completions.create(model=MODEL, prompt="x", max_tokens=200, extra_body=extra)
        said, finish = raw.choices[0].text, raw.choices[0].finish_reason
    if finish == "stop":
        assert re.fullmatch(pattern, said), said
    else:
        assert finish == "length"  # the lark grammar may nest for ever


async def test_many_at_once_beside_free_ones_and_leavers(server: RunningServer) -> None:
    """64 requests, a third of whose clients leave; then no page is held."""
    schema = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 120}

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        fields: dict[str, Any] = {"seed": number}
        if number % 2:
            fields["response_format"] = schema
        timeout = 0.2 if number % 3 == 0 else TIMEOUT_S
        try:
            response = await client.post(
                "/v1/chat/completions", json=body | fields, timeout=timeout
            )
        except httpx.TimeoutException:
            return
        assert response.status_code == 200, response.text
        [choice] = response.json()["choices"]
        if number % 2 and choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), PERSON)

    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(ask(client, number) for number in range(64)))
    for _ in range(200):
        if server.metric('caravan_kv_pages{state="owned"}') == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("pages leak")


def test_a_hostile_grammar_is_refused_and_hurts_nobody(client: openai.OpenAI) -> None:
    hostile = {"regex": "((((a{1,999}){1,999}){1,999}){1,999})"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(
            model=MODEL, prompt="x", extra_body={"structured_outputs": hostile}
        )
    assert caught.value.code == "invalid_grammar"
    assert caught.value.param == "structured_outputs.regex"
    assert "999" not in caught.value.message.split("regex`")[-1]
    assert client.completions.create(model=MODEL, prompt="x", max_tokens=2).choices
