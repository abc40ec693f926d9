"""GET /openapi.json is valid, complete and true: what it allows is served, and nothing else is."""

from __future__ import annotations

from typing import Any, get_args

import httpx
import msgspec
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.conftest import MODEL
from api.described import DOCUMENT, SCHEMAS, complaints, events
from api.fake_engine import FakeEngine, Script, Step, say, scored
from caravan import errors
from caravan.api import openapi, openapi_schemas
from caravan.api.app import ENDPOINTS
from caravan.api.auth import PUBLIC_PATHS
from caravan.api.schema.base import Body, Typed
from caravan.api.schema.conversation import ContentPart, MessageItem
from caravan.api.schema.tools import ToolChoice
from caravan.config import ApiConfig
from caravan.errors import ApiError
from caravan.messages import Delta, Progress, Sampling, TokenLogprobs

KEYED = pytest.mark.parametrize("config", [ApiConfig(api_key=("key",))])
PATHS = {
    "ChatBody": "/v1/chat/completions",
    "CompletionBody": "/v1/completions",
    "TokenizeBody": "/tokenize",
    "DetokenizeBody": "/detokenize",
}


@pytest.fixture
def engine() -> FakeEngine:
    """With room for the description of tools."""
    engine = FakeEngine()
    assert engine.ready
    engine.ready = msgspec.structs.replace(engine.ready, max_model_len=4096)
    return engine


@pytest.mark.parametrize("keyed", [True, False])
def test_it_is_valid_openapi(keyed: bool) -> None:
    OpenAPIV31SpecValidator(openapi.document(keyed=keyed)).validate()


def test_it_has_every_route_and_no_other() -> None:
    routes = {
        (method.lower(), route.path.replace(":path}", "}"))
        for module in ENDPOINTS
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    described = {(method, path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == routes


async def test_it_is_built_once_and_sent(http: httpx.AsyncClient) -> None:
    response = await http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == openapi.document(keyed=False)
    assert openapi.encoded(False) is openapi.encoded(False)


@KEYED
async def test_with_keys_it_needs_one_and_says_so(http: httpx.AsyncClient) -> None:
    assert (await http.get("/openapi.json")).status_code == 401
    response = await http.get("/openapi.json", headers={"authorization": "Bearer key"})
    assert response.json() == DOCUMENT
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            public = path in PUBLIC_PATHS
            assert operation["security"] == ([] if public else [{"ApiKey": []}])
            assert ("401" in operation["responses"]) is not public


def test_without_keys_it_asks_for_none() -> None:
    for item in openapi.document(keyed=False)["paths"].values():
        for operation in item.values():
            assert operation["security"] == []
            assert "401" not in operation["responses"]


def test_every_error_is_described_under_its_status() -> None:
    found, families = set(), ApiError.__subclasses__()
    for kind in families:
        families += kind.__subclasses__()
        fields = SCHEMAS[f"Error{kind.status}"]["properties"]["error"]["properties"]
        assert kind.type in fields["type"]["enum"]
        assert kind.code in fields["code"]["enum"]
        found.add(kind.code)
    named = {
        code
        for name, schema in SCHEMAS.items()
        if name.startswith("Error")
        for code in schema["properties"]["error"]["properties"]["code"]["enum"]
    }
    assert named == found
    assert errors.GrammarTooComplex.code in named


def test_every_error_of_every_route_is_there() -> None:
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            assert "500" in operation["responses"]
            for response in operation["responses"].values():
                if "$ref" in response:
                    name = response["$ref"].removeprefix("#/components/responses/")
                    assert name in DOCUMENT["components"]["responses"]


def bodies() -> list[type[Body]]:
    """All kinds of objects in bodies; `Typed` is what several of them have in common."""
    found: list[type[Body]] = Body.__subclasses__()
    for kind in found:
        found += [child for child in kind.__subclasses__() if child not in found]
    return [kind for kind in found if kind is not Typed]


@pytest.mark.parametrize("kind", bodies(), ids=lambda kind: kind.__name__)
def test_objects_with_a_type_are_described_type_by_type(kind: type[Body]) -> None:
    field = kind.model_fields.get("type")
    types = openapi_schemas.TYPED.get(kind)
    if field is None:
        assert types is None
        return
    assert types is not None, "each type needs its own fields: add it to TYPED"
    words = set() if kind is not ToolChoice else {"none", "auto", "required"}
    assert set(types) | words == set(get_args(field.annotation))


def test_messages_are_described_role_by_role() -> None:
    described = [role for roles, *_ in openapi_schemas.ROLES for role in roles]
    assert described == list(get_args(MessageItem.model_fields["role"].annotation))
    fields = {name for _, _, others, _ in openapi_schemas.ROLES for name in others}
    assert fields | {"role", "content"} == MessageItem.names()
    parts = {part for _, parts, *_ in openapi_schemas.ROLES for part in parts}
    assert parts == set(get_args(ContentPart.model_fields["type"].annotation))


def test_objects_in_bodies_are_closed() -> None:
    def walk(schema: Any, where: str) -> None:
        if isinstance(schema, list):
            for item in schema:
                walk(item, where)
        if isinstance(schema, dict):
            if schema.get("type") == "object" and "properties" in schema:
                assert schema.get("additionalProperties") is False, where
            for key, value in schema.items():
                walk(value, f"{where}.{key}")

    names = {kind.__name__ for kind in bodies()} & SCHEMAS.keys()
    assert len(names) > 15
    for name in names:
        walk(SCHEMAS[name], name)


def test_limits_are_those_of_the_fields() -> None:
    fields = SCHEMAS["ChatBody"]["properties"]
    assert (fields["n"]["minimum"], fields["n"]["maximum"]) == (1, 128)
    assert (fields["top_p"]["exclusiveMinimum"], fields["top_p"]["maximum"]) == (0, 1)
    assert fields["logit_bias"]["maxProperties"] == 1024
    assert fields["seed"]["minimum"] == -(2**63)
    assert fields["tools"]["maxItems"] == 128
    assert fields["messages"]["minItems"] == 1
    assert fields["n"]["default"] == 1
    assert "default" not in fields["stop"]


CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
RAW: dict[str, Any] = {"model": MODEL, "prompt": "Hi"}
TOOL = {"type": "function", "function": {"name": "f"}}
CUSTOM = {"type": "custom", "custom": {"name": "c"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = [
    CHAT["messages"][0],
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "4"},
]
SCHEMA = {"name": "s", "schema": {"type": "object"}}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def text(words: object) -> dict[str, Any]:
    return {"type": "text", "text": words}


def said(**fields: Any) -> dict[str, Any]:
    return {"messages": [CHAT["messages"][0], {"role": "assistant", **fields}]}


Named = tuple[str, dict[str, Any]]  # a body and its schema's name


def chats(changes: list[dict[str, Any]]) -> list[Named]:
    return [("ChatBody", {**CHAT, **fields}) for fields in changes]


def prompts(*values: object) -> list[Named]:
    return [("CompletionBody", {**RAW, "prompt": value}) for value in values]


SERVED: list[Named] = [
    ("ChatBody", CHAT),
    *chats(
        [
            {"n": None, "stop": None, "tools": None, "seed": None, "store": None},
            {"stop": "a"},
            {"stop": ["a", "b"]},
            {"stop": []},
            {"logit_bias": {"5": 1, "0": -100}},
            user(text("a"), text("")),
            {"messages": CALLED},
            {"messages": CALLED, "tools": [TOOL, CUSTOM]},
            said(content="a"),
            said(refusal="no"),
            said(content=None, tool_calls=[CALL]),
            said(content=[{"type": "refusal", "refusal": "no"}]),
            {"messages": [{"role": "developer", "content": [text("a")]}]},
            {"tools": [TOOL], "tool_choice": "required"},
            {"tools": [TOOL], "tool_choice": "none"},
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {
                "tools": [TOOL, CUSTOM],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [TOOL]},
                },
            },
            {"response_format": {"type": "text"}},
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
            {"structured_outputs": {"json": "{}"}},
            {"structured_outputs": {"json": {}}},
            {"structured_outputs": {"json_object": True}},
            {"structured_outputs": {"choice": ["a"]}},
            {"structured_outputs": {"regex": "a"}},
            {"modalities": ["text"], "verbosity": "medium", "reasoning_effort": "none"},
            {"store": False, "prompt_cache_retention": "in-memory", "service_tier": "flex"},
            {"stream": True, "stream_options": {"include_usage": True}},
        ],
    ),
    *prompts("", "a", ["a", "b"], [1, 2], [[1], [2]], ["a", [2]]),
    ("TokenizeBody", {"prompt": ""}),
    ("TokenizeBody", {"messages": CALLED, "tools": [TOOL]}),
    ("DetokenizeBody", {"tokens": []}),
    ("DetokenizeBody", {"tokens": [1]}),
]

REFUSED: list[Named] = [
    ("ChatBody", {"model": MODEL}),
    ("ChatBody", {**CHAT, "model": None}),
    *chats(
        [
            {"foo": 1},
            {"audio": {}},
            {"n": 0},
            {"n": 129},
            {"n": "1"},
            {"n": True},
            {"top_p": 0},
            {"stop": ""},
            {"stop": 5},
            {"stop": ["a"] * 17},
            {"logit_bias": {"05": 1}},
            {"logit_bias": {"-5": 1}},
            {"logit_bias": {"5": None}},
            {"stop_token_ids": [-1]},
            {"messages": []},
            user(),
            user(text(None)),
            user({**text("a"), "foo": 1}),
            user({"type": "refusal", "refusal": "no"}),
            user({"type": "text", "refusal": "no"}),
            user({"type": "image_url"}),
            said(),
            said(content=None),
            said(content=[{"type": "image_url", "image_url": {"url": "data:,"}}]),
            said(tool_calls=[{**CALL, "type": "custom"}]),
            said(content="a", tool_call_id="1"),
            {"messages": [{"role": "system", "content": None}]},
            {"messages": [{"role": "tool", "content": "a"}]},
            {"messages": [{"role": "function", "content": "a"}]},
            {"tools": [{"type": "function"}]},
            {"tools": [{"type": "function", "custom": {"name": "c"}}]},
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            {"tools": [TOOL], "tool_choice": "any"},
            {"tools": [TOOL], "tool_choice": {"type": "auto"}},
            {"tools": [TOOL], "tool_choice": {"type": "function"}},
            {"response_format": {"type": "json_schema"}},
            {"response_format": {"type": "text", "json_schema": SCHEMA}},
            {"response_format": {"type": "json_schema", "json_schema": {**SCHEMA, "name": ""}}},
            {"structured_outputs": {}},
            {"structured_outputs": {"regex": "a", "json_object": True}},
            {"structured_outputs": {"json_object": False}},
            {"modalities": ["text", "audio"]},
            {"verbosity": "low"},
            {"store": True},
            {"stream": True, "stream_options": {"foo": True}},
        ],
    ),
    *prompts(None, [], [[]], [-1], [None], 5, {}, ["a"] * 129),
    ("TokenizeBody", {}),
    ("TokenizeBody", {"prompt": "a", "messages": CALLED}),
    ("DetokenizeBody", {}),
    ("DetokenizeBody", {"tokens": [-1]}),
    ("DetokenizeBody", {"tokens": "a"}),
]


@pytest.mark.parametrize(("name", "body"), SERVED)
async def test_what_is_served_is_described(
    http: httpx.AsyncClient, name: str, body: dict[str, Any]
) -> None:
    assert complaints(name, body) == []
    response = await http.post(PATHS[name], json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("name", "body"), REFUSED)
async def test_what_is_refused_is_not_described(
    http: httpx.AsyncClient, name: str, body: dict[str, Any]
) -> None:
    assert complaints(name, body)
    response = await http.post(PATHS[name], json=body)
    assert response.status_code == 400
    assert complaints("Error400", response.json()) == []


def scored_script(engine: FakeEngine, words: str) -> Script:
    """Says something, with log-probabilities of everything that is asked for."""
    top = [(97, -0.1), (256, -2.0)]

    def script(index: int, sampling: Sampling) -> list[Step]:
        first, *rest = scored(say(words), top) if sampling.logprobs is not None else say(words)
        assert isinstance(first, Delta)
        if sampling.prompt_logprobs is None:
            return [first, *rest]
        num_scored = len(engine.submits[-1][index].prompt) - 1
        scores = [TokenLogprobs(-1.0, top)] * num_scored
        return [Delta(0, first.tokens, first.logprobs, first.finish, 1, scores), *rest]

    return script


EVERYTHING: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"logprobs": True, "top_logprobs": 2, "return_token_ids": True}),
    ("chat", {"prompt_logprobs": 2, "service_tier": "auto", "n": 2}),
    ("chat", {"tools": [TOOL]}),
    ("chat", {"tools": [TOOL, CUSTOM], "service_tier": "flex"}),
    ("chat", {"max_tokens": 1}),
    ("raw", {"logprobs": 2, "echo": True, "return_token_ids": True}),
    ("raw", {"prompt_logprobs": 2, "n": 2}),
    ("raw", {"max_tokens": 0, "echo": True, "logprobs": 1}),
]


@pytest.mark.parametrize(("kind", "fields"), EVERYTHING)
async def test_answers_have_the_described_fields_and_no_others(
    http: httpx.AsyncClient, engine: FakeEngine, kind: str, fields: dict[str, Any]
) -> None:
    engine.script = scored_script(engine, '[f(a="b")]' if "tools" in fields else "a€b")
    path, body = ("/v1/chat/completions", CHAT) if kind == "chat" else ("/v1/completions", RAW)
    response = await http.post(path, json={**body, **fields})
    assert response.status_code == 200, response.text
    name = "ChatCompletion" if kind == "chat" else "Completion"
    assert complaints(name, response.json()) == []
    if "prompt_logprobs" in fields:
        return
    for options in (
        {},
        {"include_usage": True, "include_obfuscation": True, "continuous_usage_stats": True},
    ):
        streamed = {**body, **fields, "stream": True, "stream_options": options}
        response = await http.post(path, json=streamed)
        assert response.status_code == 200, response.text
        for event in events(response.text):
            assert complaints("ChatChunk" if kind == "chat" else "CompletionChunk", event) == []


async def test_other_answers_are_as_described(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    for name, path in (
        ("ModelList", "/v1/models"),
        ("Model", f"/v1/models/{MODEL}"),
        ("Health", "/health"),
        ("Readiness", "/ready"),
        ("Version", "/version"),
    ):
        assert complaints(name, (await http.get(path)).json()) == []
    answer = await http.post("/tokenize", json={"prompt": "a"})
    assert complaints("Tokenized", answer.json()) == []
    answer = await http.post("/detokenize", json={"tokens": [97]})
    assert complaints("Detokenized", answer.json()) == []
    engine.ready, engine.loading = None, Progress("weights", 1, 2, "tensors")
    answer = await http.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["progress"]
    assert complaints("Error503", answer.json()) == []


@pytest.mark.parametrize(("name", "wrong"), [("ChatCompletion", {"foo": 1}), ("Model", {"id": 5})])
def test_other_answers_are_not_as_described(name: str, wrong: dict[str, Any]) -> None:
    """The checks above can fail."""
    right = {"id": "a", "object": "model", "created": 1, "owned_by": "b", "max_model_len": 1}
    assert complaints("Model", right) == []
    assert complaints(name, right | wrong)
