"""Bodies as nobody should send them: valid ones, changed in a few places, and their bytes."""

from __future__ import annotations

import copy
import json

from hypothesis import strategies as st

from fuzz.hostile_values import DEEP, LARKS, NAMES, REGEXES, SCHEMAS, VALUES, Json
from fuzz.played import MODEL

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Does it.",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}
STRICT: Json = {"type": "function", "function": {**TOOL["function"], "name": "s", "strict": True}}
CUSTOM = {
    "type": "custom",
    "custom": {
        "name": "c",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "x"'}},
    },
}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
CUSTOM_CALL = {"id": "2", "type": "custom", "custom": {"name": "c", "input": "x"}}
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
HISTORY = [
    SYSTEM,
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL, CUSTOM_CALL]},
    {"role": "tool", "tool_call_id": "2", "content": "3"},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "4"}]},
    {"role": "assistant", "content": "Five."},
    USER,
]
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR4nGMQYGTCihiGlgQA"
    "31cEwfxSBsYAAAAASUVORK5CYII="
)
SEEN = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ],
}
OPTIONS = {"include_usage": True, "include_obfuscation": True, "continuous_usage_stats": True}

CHATS: list[Json] = [
    {"messages": [USER]},
    {"messages": HISTORY, "tools": [TOOL, STRICT, CUSTOM], "parallel_tool_calls": False},
    {"messages": [USER], "tools": [TOOL, CUSTOM], "tool_choice": "required", "n": 2},
    {
        "messages": [USER],
        "tools": [TOOL, CUSTOM],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "custom", "custom": {"name": "c"}}],
            },
        },
    },
    {
        "messages": [USER],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    {"messages": [USER], "tools": [TOOL], "response_format": {"type": "json_object"}},
    {
        "messages": [USER],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "strict": True, "schema": {"type": "object"}},
        },
    },
    {"messages": [SEEN], "max_completion_tokens": 5, "seed": -1, "service_tier": "flex"},
    {"messages": [USER], "logprobs": True, "top_logprobs": 3, "return_token_ids": True, "n": 3},
    {"messages": [USER], "prompt_logprobs": 2, "truncate_prompt_tokens": 3, "priority": 3},
    {"messages": [USER], "structured_outputs": {"regex": "[ab]{1,5}"}},
    {"messages": [*HISTORY[:-1]], "continue_final_message": True, "stop": ["a", "bc"]},
]
COMPLETIONS: list[Json] = [
    {"prompt": "Hi"},
    {"prompt": ["a", [97, 98]], "n": 2, "best_of": 3, "echo": True, "logprobs": 2},
    {"prompt": [1, 2, 3], "max_tokens": 0, "echo": True, "logprobs": 5},
    {"prompt": "Hi", "stop": ["é", "<|eot|>"], "min_tokens": 2, "skip_special_tokens": False},
    {
        "prompt": "Hi",
        "logit_bias": {"97": -100, "5": 3.5},
        "stop_token_ids": [99],
        "temperature": 0,
    },
    {"prompt": "Hi", "structured_outputs": {"json": {"type": "array"}}, "user": "u"},
    {"prompt": "Hi", "structured_outputs": {"choice": ["a", "b"]}, "prompt_logprobs": 1},
]
TOKENIZE: list[Json] = [
    {"prompt": "Hi"},
    {"messages": HISTORY, "tools": [TOOL, CUSTOM], "add_generation_prompt": False},
    {"messages": [SEEN]},
]
DETOKENIZE: list[Json] = [{"tokens": [1, 2, 260]}]

BASES: dict[str, list[Json]] = {
    "/v1/chat/completions": CHATS,
    "/v1/completions": COMPLETIONS,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}

hostile_values = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(SCHEMAS),
    st.sampled_from(REGEXES),
    st.sampled_from(LARKS),
    st.sampled_from([*SCHEMAS, *VALUES]).map(json.dumps),  # a schema may be sent as its text
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)


def places(value: Json) -> list[tuple[Json, Json]]:
    """Every container in a value with each of its keys or indices."""
    found: list[tuple[Json, Json]] = []
    if isinstance(value, dict):
        found += [(value, name) for name in value]
    elif isinstance(value, list):
        found += [(value, index) for index in range(len(value))]
    for container, key in list(found):
        found += places(container[key])
    return found


texts = st.one_of(
    st.sampled_from([value for value in VALUES if isinstance(value, str)]),
    st.sampled_from([*SCHEMAS, *VALUES]).map(json.dumps),
    st.text(max_size=30),
)
integers = st.one_of(
    st.integers(0, 20),
    st.integers(),
    st.sampled_from([value for value in VALUES if isinstance(value, int)]),
)
numbers = st.one_of(
    integers,
    st.floats(0, 2),
    st.floats(allow_nan=False),
    st.sampled_from([value for value in VALUES if isinstance(value, float)]),
)
schemas = st.sampled_from(SCHEMAS)
patterns = st.sampled_from([*REGEXES, *LARKS])
outputs = st.one_of(
    st.fixed_dictionaries({"json": st.one_of(schemas, schemas.map(json.dumps), texts)}),
    st.fixed_dictionaries({"regex": patterns}),
    st.fixed_dictionaries({"grammar": patterns}),
    st.fixed_dictionaries({"choice": st.lists(texts, max_size=3)}),
)
INTEGERS = [
    "n", "best_of", "max_tokens", "max_completion_tokens", "min_tokens", "seed", "top_k",
    "logprobs", "prompt_logprobs", "truncate_prompt_tokens", "priority",
]  # fmt: skip
NUMBERS = [
    "temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
]  # fmt: skip

# By the name of a field, what is of its type and hostile all the same.
AIMED: dict[str, st.SearchStrategy[Json]] = {
    **dict.fromkeys(INTEGERS, integers),
    **dict.fromkeys(NUMBERS, numbers),
    **dict.fromkeys(
        ["text", "arguments", "input", "content", "description", "prompt", "id"], texts
    ),
    **dict.fromkeys(["schema", "parameters"], schemas),
    **dict.fromkeys(["regex", "definition", "grammar"], patterns),
    **dict.fromkeys(["url", "user", "name"], texts),
    "json": st.one_of(schemas, schemas.map(json.dumps), texts),
    "structured_outputs": outputs,
    "stop": st.lists(texts, max_size=4),
    "tokens": st.lists(integers, max_size=3),
    "stop_token_ids": st.lists(integers, max_size=3),
    "logit_bias": st.dictionaries(integers.map(str), numbers, max_size=3),
}
ADDED = [*INTEGERS, *NUMBERS, "structured_outputs", "stop", "stop_token_ids", "logit_bias", "user"]


@st.composite
def bodies(draw: st.DrawFn, path: str) -> Json:
    """A body for this path: something aimed at what its fields mean, and wild changes."""
    body = copy.deepcopy(draw(st.sampled_from(BASES[path])))
    if path.startswith("/v1"):
        body["model"] = MODEL
        if draw(st.booleans()):
            body["stream"] = True
            if draw(st.booleans()):
                body["stream_options"] = dict(OPTIONS)
    for _ in range(draw(st.integers(0, 2))):
        _aim(draw, body, added=ADDED if path.startswith("/v1") else [])
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        _change(draw, body)
    return body


def _aim(draw: st.DrawFn, body: Json, added: list[str]) -> None:
    """Sets a field that is there, or adds one."""
    targets = [(container, key) for container, key in places(body) if key in AIMED]
    targets += [(body, name) for name in added]
    if targets:
        container, key = draw(st.sampled_from(targets))
        container[key] = copy.deepcopy(draw(AIMED[key]))


def _change(draw: st.DrawFn, body: Json) -> None:
    container, key = draw(st.sampled_from(places(body)) if body else st.just((body, "")))
    kind = draw(st.sampled_from(["set", "set", "set", "drop", "add", "copy", "swap", "wrap"]))
    if kind == "set" or not body:
        container[key] = copy.deepcopy(draw(hostile_values))
    elif kind == "drop":
        del container[key]
    elif kind == "add" and isinstance(container, dict):
        container[draw(st.sampled_from(NAMES))] = copy.deepcopy(draw(hostile_values))
    elif kind == "wrap":
        container[key] = draw(st.sampled_from([[container[key]], {"type": container[key]}]))
    else:
        other, name = draw(st.sampled_from(places(body)))
        taken = copy.deepcopy(other[name])
        if kind == "copy" and isinstance(container, list):
            container.append(taken)
        else:
            container[key] = taken


@st.composite
def contents(draw: st.DrawFn, path: str) -> bytes:
    """The bytes of a body; of one in ten they are changed, too."""
    text = json.dumps(draw(bodies(path)), ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    depth = draw(st.sampled_from([10, 60, 900, 30_000]))
    data = data.replace(json.dumps(DEEP).encode(), b"[" * depth + b"]" * depth)
    if draw(st.integers(0, 9)) < 9:
        return data
    where = draw(st.integers(0, len(data)))
    return draw(
        st.sampled_from(
            [
                data[:where],
                data[:where] + b"\xff" + data[where:],
                data[:where] + b"\x00" + data[where:],
                data[:where] + b"," + data[where:],
                data + data,
                data[:-1] + b"," + data[1:],  # every name twice
                b"[" + data + b"]",
                b"\xef\xbb\xbf" + data,
                text.encode("utf-16", "surrogatepass"),
                data.replace(b": 1", b": NaN"),
                data.replace(b": 1", b": -1e999"),
                data.replace(b"true", b"True"),
                data.replace(b'"', b"'"),
                data[::-1],
                b"",
                b"null",
            ]
        )
    )
