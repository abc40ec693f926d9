"""Every field is obeyed or refused by name, with one short error."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
STRING_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
UNKNOWN, UNSUPPORTED = "unknown_parameter", "unsupported_parameter"
GRAMMAR = "invalid_grammar"


async def error_of(http: httpx.AsyncClient, path: str, body: object) -> dict[str, Any]:
    response = await http.post(path, json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 400
    assert isinstance(error, dict)
    return error


# (fields beside model and messages, code, param, part of the message)
SHARED = [
    ({"n": 0}, VALUE, "n", "is 0; it must be at least 1"),
    ({"n": 129}, VALUE, "n", "is 129; it must be at most 128"),
    ({"n": True}, TYPE, "n", "must be an integer, not a boolean"),
    ({"n": "1"}, TYPE, "n", "must be an integer, not a string"),
    ({"n": 1.0}, TYPE, "n", "must be an integer, not a number"),
    ({"max_tokens": 0}, VALUE, "max_tokens", "is 0; "),
    ({"max_tokens": -1}, VALUE, "max_tokens", "is -1; it must be at least 0"),
    ({"max_tokens": 10**300}, VALUE, "max_tokens", "at most 9223372036854775807"),
    ({"min_tokens": -1}, VALUE, "min_tokens", "at least 0"),
    ({"min_tokens": 5, "max_tokens": 4}, VALUE, "min_tokens", "at most `max_tokens`, which is 4"),
    ({"temperature": -0.1}, VALUE, "temperature", "is -0.1; it must be at least 0"),
    ({"temperature": 2.1}, VALUE, "temperature", "is 2.1; it must be at most 2"),
    ({"temperature": False}, TYPE, "temperature", "must be a number, not a boolean"),
    ({"temperature": 10**400}, VALUE, "temperature", "too large"),
    ({"top_p": 0}, VALUE, "top_p", "is 0; it must be above 0"),
    ({"top_p": 1.01}, VALUE, "top_p", "at most 1"),
    ({"top_k": -2}, VALUE, "top_k", "at least -1"),
    ({"min_p": 1.5}, VALUE, "min_p", "at most 1"),
    ({"seed": 2**63}, VALUE, "seed", "at most 9223372036854775807"),
    ({"seed": -(2**63) - 1}, VALUE, "seed", "at least -9223372036854775808"),
    ({"seed": 1.5}, TYPE, "seed", "must be an integer"),
    ({"repetition_penalty": 0}, VALUE, "repetition_penalty", "at least 0.01"),
    ({"frequency_penalty": 2.5}, VALUE, "frequency_penalty", "at most 2"),
    ({"presence_penalty": -2.5}, VALUE, "presence_penalty", "at least -2"),
    ({"logit_bias": []}, TYPE, "logit_bias", "must be an object"),
    ({"logit_bias": {"x": 1}}, VALUE, "logit_bias.x", "is not a token id"),
    ({"logit_bias": {"05": 1}}, VALUE, "logit_bias.05", "is not a token id"),
    ({"logit_bias": {"-5": 1}}, VALUE, "logit_bias.-5", "is not a token id"),
    ({"logit_bias": {"٣": 1}}, VALUE, "logit_bias.٣", "is not a token id"),
    ({"logit_bias": {"9" * 5000: 1}}, VALUE, None, "is not a token id"),
    ({"logit_bias": {"270": 1}}, VALUE, "logit_bias", "the token id 270; ids go from 0 to 269"),
    ({"logit_bias": {"5": 101}}, VALUE, "logit_bias.5", "is 101; it must be at most 100"),
    ({"logit_bias": {"5": None}}, TYPE, "logit_bias.5", "must be a number, not null"),
    ({"stop": 5}, TYPE, "stop", "must be a string or a list of strings"),
    ({"stop": ""}, VALUE, "stop[0]", "has 0 characters; it must have at least 1"),
    ({"stop": ["a", ""]}, VALUE, "stop[1]", "has 0 characters; it must have at least 1"),
    ({"stop": ["a", None]}, TYPE, "stop[1]", "must be a string, not null"),
    ({"stop": ["a"] * 17}, VALUE, "stop", "has 17 entries; it must have at most 16"),
    ({"stop": "x" * 257}, VALUE, "stop[0]", "has 257 characters; it must have at most 256"),
    ({"stop_token_ids": [5, 270]}, VALUE, "stop_token_ids", "the token id 270"),
    ({"stop_token_ids": [-1]}, VALUE, "stop_token_ids", "the token id -1"),
    ({"stop_token_ids": ["5"]}, TYPE, "stop_token_ids[0]", "must be an integer"),
    ({"stop_token_ids": 5}, TYPE, "stop_token_ids", "must be a list, not an integer"),
    ({"ignore_eos": 1}, TYPE, "ignore_eos", "must be true or false, not an integer"),
    ({"stream": "true"}, TYPE, "stream", "must be true or false, not a string"),
    ({"stream_options": {}}, VALUE, "stream_options", "only allowed when `stream` is true"),
    ({"stream": True, "stream_options": []}, TYPE, "stream_options", "must be an object"),
    (
        {"stream": True, "stream_options": {"foo": 1}},
        UNKNOWN, "stream_options.foo", "not a known field",
    ),
    (
        {"stream": True, "prompt_logprobs": 1},
        VALUE, "prompt_logprobs", "only allowed when `stream` is false",
    ),
    ({"model": 5}, TYPE, "model", "must be a string"),
    ({"model": None}, MISSING, "model", "is required"),
    ({"user": ""}, VALUE, "user", "has 0 characters; it must have at least 1"),
    ({"cache_salt": "x" * 513}, VALUE, "cache_salt", "has 513 characters"),
    ({"priority": -1}, VALUE, "priority", "is -1; it must be at least 0"),
    ({"priority": 1001}, VALUE, "priority", "at most 1000"),
    ({"truncate_prompt_tokens": 0}, VALUE, "truncate_prompt_tokens", "at least 1"),
    ({"prompt_logprobs": 21}, VALUE, "prompt_logprobs", "at most 20"),
    ({"return_token_ids": 1}, TYPE, "return_token_ids", "must be true or false"),
    ({"guided_json": {}}, UNSUPPORTED, "guided_json", "send `structured_outputs.json`"),
    ({"guided_regex": "a"}, UNSUPPORTED, "guided_regex", "send `structured_outputs.regex`"),
    ({"bad_words": []}, UNSUPPORTED, "bad_words", "is not supported by this server"),
    ({"chat_template_kwargs": {}}, UNSUPPORTED, "chat_template_kwargs", "has no options"),
    ({"structured_outputs": {}}, VALUE, "structured_outputs", "has 0 of `json`"),
    (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        VALUE, "structured_outputs", "must have exactly one",
    ),
    (
        {"structured_outputs": {"choice": []}},
        VALUE, "structured_outputs", "must have exactly one",
    ),
    (
        {"structured_outputs": {"json": "{"}},
        VALUE, "structured_outputs.json", "not the text of a JSON schema",
    ),
    (
        {"structured_outputs": {"json_object": False}},
        VALUE, "structured_outputs.json_object", "send true",
    ),
    (
        {"structured_outputs": {"structural_tag": "x"}},
        UNSUPPORTED, "structured_outputs.structural_tag", "is not supported",
    ),
    (
        {"structured_outputs": {"regex": "("}},
        GRAMMAR, "structured_outputs.regex", "a group is not closed",
    ),
    (
        {"structured_outputs": {"grammar": "start: nothing"}},
        GRAMMAR, "structured_outputs.grammar", "a name has no definition",
    ),
    (
        {"structured_outputs": {"json": {"not": {}}}},
        GRAMMAR, "structured_outputs.json", "`not`",
    ),
    (
        {"structured_outputs": {"choice": ["a"]}, "min_tokens": 2},
        VALUE, "min_tokens", "contradicts `structured_outputs.choice`",
    ),
    (
        {"structured_outputs": {"choice": ["a"]}, "ignore_eos": True},
        VALUE, "ignore_eos", "contradicts `structured_outputs.choice`",
    ),
    ({"x" * 1000: 1}, UNKNOWN, "x" * 61 + "...", "is not a known field"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["chat", "completions"])
@pytest.mark.parametrize(("fields", "code", "param", "part"), SHARED)
async def test_shared_fields(
    http: httpx.AsyncClient,
    engine: FakeEngine,
    kind: str,
    fields: dict[str, Any],
    code: str,
    param: str | None,
    part: str,
) -> None:
    path = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
    base = {"messages": [USER]} if kind == "chat" else {"prompt": "Hi"}
    error = await error_of(http, path, {"model": MODEL, **base, **fields})
    assert error["code"] == code
    assert error["param"] == param or param is None
    assert part in error["message"]
    assert not engine.submits


CHAT = [
    ({"messages": None}, MISSING, "messages"),
    ({"messages": []}, VALUE, "messages"),
    ({"messages": "Hi"}, TYPE, "messages"),
    ({"messages": ["Hi"]}, TYPE, "messages[0]"),
    ({"messages": [USER, {"content": "Hi"}]}, MISSING, "messages[1].role"),
    ({"messages": [{"role": "function", "content": "x"}]}, VALUE, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, VALUE, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, MISSING, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, MISSING, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, TYPE, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, VALUE, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, TYPE, "messages[0].content[0]"),
    ({"messages": [{**USER, "foo": 1}]}, UNKNOWN, "messages[0].foo"),
    ({"messages": [{**USER, "name": "me"}]}, UNSUPPORTED, "messages[0].name"),
    ({"messages": [{**USER, "tool_calls": [CALL]}]}, VALUE, "messages[0].tool_calls"),
    ({"messages": [{**USER, "tool_call_id": "c"}]}, VALUE, "messages[0].tool_call_id"),
    ({"messages": [{"role": "tool", "content": "x"}]}, MISSING, "messages[0].tool_call_id"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        MISSING, "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}]},
        UNKNOWN, "messages[0].content[0].foo",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        MISSING, "messages[0].content[0].image_url.url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "video", "text": "x"}]}]},
        VALUE, "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}]},
        VALUE, "messages[0].tool_calls[0].function",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "custom": {}}]}]},
        MISSING, "messages[0].tool_calls[0].custom.name",
    ),
    (
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
        VALUE, "messages[0].tool_call_id",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]},
        VALUE, "messages[0].content[0]",
    ),
    ({"messages": [{**USER, "refusal": "x"}]}, VALUE, "messages[0].refusal"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f"}}]}]},
        MISSING, "messages[0].tool_calls[0].function.arguments",
    ),
    ({"max_completion_tokens": 3, "max_tokens": 4}, VALUE, "max_tokens"),
    ({"max_completion_tokens": 0}, VALUE, "max_completion_tokens"),
    ({"logprobs": 1}, TYPE, "logprobs"),
    ({"top_logprobs": 1}, VALUE, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, VALUE, "top_logprobs"),
    ({"tools": {}}, TYPE, "tools"),
    ({"tools": [TOOL] * 129}, VALUE, "tools"),
    ({"tools": [TOOL, TOOL]}, VALUE, "tools[1].function.name"),
    ({"tools": [{"type": "function"}]}, MISSING, "tools[0].function"),
    ({"tools": [{**TOOL, "type": "web_search"}]}, VALUE, "tools[0].type"),
    ({"tools": [{**TOOL, "custom": {"name": "c"}}]}, VALUE, "tools[0].custom"),
    ({"tools": [{"type": "function", "function": {}}]}, MISSING, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        VALUE, "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "x" * 65}}]},
        VALUE, "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar"}}}]},
        MISSING, "tools[0].custom.format.grammar",
    ),
    ({"tool_choice": "auto"}, VALUE, "tool_choice"),
    ({"tool_choice": "required"}, VALUE, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, VALUE, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": 5}, TYPE, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, VALUE, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, MISSING, "tool_choice.function"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        VALUE, "tool_choice",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
        VALUE, "tool_choice",
    ),
    (
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []},
            },
        },
        VALUE, "tool_choice.allowed_tools.tools",
    ),
    (
        {"tools": [{"type": "function", "function": {
            "name": "f", "strict": True, "parameters": {"type": "object", "not": {}},
        }}]},
        GRAMMAR, "tools",
    ),
    ({"tools": [STRING_TOOL], "tool_choice": "required"}, GRAMMAR, "tools"),
    ({"tools": [TOOL], "structured_outputs": {"regex": "a"}}, VALUE, "structured_outputs"),
    (
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        VALUE, "structured_outputs",
    ),
    ({"response_format": "json_object"}, TYPE, "response_format"),
    ({"response_format": {"type": "xml"}}, VALUE, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, MISSING, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_object", "json_schema": {"name": "a"}}},
        VALUE, "response_format.json_schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        MISSING, "response_format.json_schema.name",
    ),
    (
        {"response_format": {
            "type": "json_schema", "json_schema": {"name": "a", "schema": {"not": {}}},
        }},
        GRAMMAR, "response_format.json_schema.schema",
    ),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        VALUE, "continue_final_message",
    ),
    (
        {"continue_final_message": True, "messages": [
            USER, {"role": "assistant", "tool_calls": [CALL]},
        ]},
        VALUE, "continue_final_message",
    ),
    ({"service_tier": "gold"}, VALUE, "service_tier"),
    ({"prompt_cache_key": ""}, VALUE, "prompt_cache_key"),
    ({"prompt_cache_retention": "24h"}, UNSUPPORTED, "prompt_cache_retention"),
    ({"prompt_cache_options": {}}, UNSUPPORTED, "prompt_cache_options"),
    ({"modalities": ["audio"]}, UNSUPPORTED, "modalities"),
    ({"audio": {}}, UNSUPPORTED, "audio"),
    ({"reasoning_effort": "high"}, UNSUPPORTED, "reasoning_effort"),
    ({"verbosity": "low"}, UNSUPPORTED, "verbosity"),
    ({"store": True}, UNSUPPORTED, "store"),
    ({"metadata": {}}, UNSUPPORTED, "metadata"),
    ({"prediction": {"type": "content", "content": "x"}}, UNSUPPORTED, "prediction"),
    ({"functions": []}, UNSUPPORTED, "functions"),
    ({"function_call": "auto"}, UNSUPPORTED, "function_call"),
    ({"web_search_options": {}}, UNSUPPORTED, "web_search_options"),
    ({"moderation": {}}, UNSUPPORTED, "moderation"),
    ({"safety_identifier": ""}, VALUE, "safety_identifier"),
    ({"prompt": "x"}, UNKNOWN, "prompt"),
    ({"echo": True}, UNSUPPORTED, "echo"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), CHAT)
async def test_chat_fields(
    http: httpx.AsyncClient, fields: dict[str, Any], code: str, param: str
) -> None:
    body = {"model": MODEL, "messages": [USER], **fields}
    error = await error_of(http, "/v1/chat/completions", body)
    assert (error["code"], error["param"]) == (code, param)
    assert f"`{param}`" in error["message"]


COMPLETIONS = [
    ({"prompt": None}, MISSING, "prompt"),
    ({"prompt": 5}, TYPE, "prompt"),
    ({"prompt": {}}, TYPE, "prompt"),
    ({"prompt": []}, VALUE, "prompt"),
    ({"prompt": [[]]}, VALUE, "prompt[0]"),
    ({"prompt": ["a", []]}, VALUE, "prompt[1]"),
    ({"prompt": ["a", 5]}, TYPE, "prompt[1]"),
    ({"prompt": [5, "a"]}, TYPE, "prompt[0]"),
    ({"prompt": [True]}, TYPE, "prompt[0]"),
    ({"prompt": [[1, 2.5]]}, TYPE, "prompt[0]"),
    ({"prompt": [None]}, TYPE, "prompt[0]"),
    ({"prompt": [270]}, VALUE, "prompt"),
    ({"prompt": [10**30]}, VALUE, "prompt"),
    ({"prompt": [[1], [-1]]}, VALUE, "prompt[1]"),
    ({"prompt": ["a"] * 129}, VALUE, "prompt"),
    ({"prompt": ["a"] * 2, "n": 65}, VALUE, "prompt"),
    ({"logprobs": 6}, VALUE, "logprobs"),
    ({"logprobs": True}, TYPE, "logprobs"),
    ({"suffix": "x"}, UNSUPPORTED, "suffix"),
    ({"best_of": 0}, VALUE, "best_of"),
    ({"best_of": 129}, VALUE, "best_of"),
    ({"best_of": 2, "n": 3}, VALUE, "best_of"),
    ({"best_of": 3, "n": 2, "stream": True}, VALUE, "best_of"),
    ({"best_of": 65, "prompt": ["a", "b"]}, VALUE, "prompt"),
    ({"response_format": {"type": "text"}}, UNSUPPORTED, "response_format"),
    ({"messages": [USER]}, UNKNOWN, "messages"),
    ({"max_completion_tokens": 5}, UNKNOWN, "max_completion_tokens"),
]


@pytest.mark.parametrize(("fields", "code", "param"), COMPLETIONS)
async def test_completion_fields(
    http: httpx.AsyncClient, fields: dict[str, Any], code: str, param: str
) -> None:
    error = await error_of(http, "/v1/completions", {"model": MODEL, "prompt": "Hi", **fields})
    assert (error["code"], error["param"]) == (code, param)


async def test_null_is_absent(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Whatever the field, known or not: some clients send every one they know."""
    names = ["max_tokens", "n", "stop", "seed", "logit_bias", "stream_options", "tools", "whatever"]
    message = {**USER, "name": None, "tool_calls": None, "tool_call_id": None}
    response = await http.post(
        "/v1/chat/completions",
        json={"model": MODEL, "messages": [message], **dict.fromkeys(names)},
    )
    assert response.status_code == 200, response.text
    assert engine.sampling.temperature == 1.0


async def test_large_values_are_not_echoed(http: httpx.AsyncClient) -> None:
    for fields in ({"stop": ["x" * 100_000]}, {"messages": [{"role": "x" * 100_000}]}):
        error = await error_of(
            http, "/v1/chat/completions", {"model": MODEL, "messages": [USER], **fields}
        )
        assert "xxxxxxxxx" * 10 not in error["message"]


@pytest.mark.parametrize(
    ("body", "requested", "prompt", "completion"),
    [
        ({"prompt": [1] * 100, "max_tokens": 101}, 201, 100, 101),
        ({"prompt": [1] * 200}, 201, 200, 1),
        ({"prompt": [1] * 250}, 251, 250, 1),
    ],
)
async def test_too_long_for_the_context(
    http: httpx.AsyncClient, body: dict[str, Any], requested: int, prompt: int, completion: int
) -> None:
    error = await error_of(http, "/v1/completions", {"model": MODEL, **body})
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "prompt"
    assert error["message"] == (
        f"This model's maximum context length is 200 tokens. However, you requested {requested} "
        f"tokens ({prompt} in the prompt, {completion} in the completion). Please reduce the "
        "length of the prompt or completion (context_length_exceeded)."
    )


async def test_chat_too_long_for_the_context(http: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "x" * 300}]
    error = await error_of(
        http, "/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 7}
    )
    assert error["code"] == "context_length_exceeded"
    assert "This model's maximum context length is 200 tokens. However, you" in error["message"]
    assert "in the messages, 7 in the completion)" in error["message"]


async def test_the_whole_context_can_be_used(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"model": MODEL, "prompt": [1] * 100, "max_tokens": 100}
    assert (await http.post("/v1/completions", json=body)).status_code == 200
    assert engine.sampling.max_tokens == 100


async def test_wrong_model(http: httpx.AsyncClient) -> None:
    body = {"model": "gpt-\n" + "x" * 200, "prompt": "Hi"}
    response = await http.post("/v1/completions", json=body)
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert MODEL in error["message"]
    assert "\n" not in error["message"]
    assert "x" * 100 not in error["message"]
