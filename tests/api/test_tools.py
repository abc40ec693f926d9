"""Tools with OpenAI's own client: what the model is shown, what its calls become, who may call."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletion

from api.conftest import MODEL
from api.fake_engine import FakeEngine, Script, Step, say, scored
from caravan.messages import Delta
from caravan.text.tokenizer import Tokenizer

USER = {"role": "user", "content": "Hi"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
RUN = {"type": "custom", "custom": {"name": "run"}}
DIGITS = {
    "type": "custom",
    "custom": {
        "name": "digits",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[0-9]+"}},
    },
}
PYTHON_START, PYTHON_END = 262, 263  # see conftest.tokenizer

CALL = '{"type": "function", "name": "weather", "parameters": {"city": "Paris"}}'


@pytest.fixture
def engine() -> FakeEngine:
    """With a context that the explanation of tools fits: here a token is a byte."""
    engine = FakeEngine()
    assert engine.ready
    engine.ready = msgspec.structs.replace(engine.ready, max_model_len=5000)
    return engine


def create(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    body: dict[str, Any] = {"model": MODEL, "messages": [USER], **fields}
    answer: ChatCompletion = client.chat.completions.create(**body)
    return answer


def streamed(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    """What the SDK's own helper makes of a stream."""
    body: dict[str, Any] = {"model": MODEL, "messages": [USER], "tools": [WEATHER, TIME], **fields}
    with client.chat.completions.stream(**body) as stream:
        answer: ChatCompletion = stream.get_final_completion()
    return answer


def says(text: str, *, by: int = 1, finish: Any = "stop") -> Script:
    """Text with the markers of code as the special tokens that they are."""
    parts = text.replace("<|python_end|>", "<|python_start|>").split("<|python_start|>")
    tokens: list[int] = list(parts[0].encode())
    for index, part in enumerate(parts[1:]):
        tokens += [PYTHON_END if index % 2 else PYTHON_START, *part.encode()]
    return lambda index, sampling: say(tokens, by=by, finish=finish)


def calls_of(answer: ChatCompletion) -> list[tuple[str, str]]:
    """(name, arguments or input)."""
    found = []
    for call in answer.choices[0].message.tool_calls or []:
        assert call.id.startswith("call_")
        if call.type == "function":
            found.append((call.function.name, call.function.arguments))
        else:
            found.append((call.custom.name, call.custom.input))
    return found


FORMS = [
    (CALL, [("weather", {"city": "Paris"})], None),
    (CALL + "; " + CALL, [("weather", {"city": "Paris"})] * 2, None),
    ('[weather(city="Paris"), time()]', [("weather", {"city": "Paris"}), ("time", {})], None),
    ('<|python_start|>[weather("Paris")]<|python_end|>', [("weather", {"city": "Paris"})], None),
    ('Let me see. [time()]', [("time", {})], "Let me see. "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected", "content"), FORMS)
@pytest.mark.parametrize("by", [1, 7, 1000])
def test_every_form_becomes_calls(
    client: openai.OpenAI,
    engine: FakeEngine,
    text: str,
    expected: list[tuple[str, Any]],
    content: str | None,
    by: int,
) -> None:
    engine.script = says(text, by=by)
    answer = create(client, tools=[WEATHER, TIME])
    message = answer.choices[0].message
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(answer)] == expected
    assert message.content == content
    assert answer.choices[0].finish_reason == "tool_calls"
    assert engine.submits[0][0].grammar is None


@pytest.mark.parametrize(("text", "expected", "content"), FORMS)
@pytest.mark.parametrize("by", [1, 5])
def test_a_stream_adds_up_to_the_answer_in_one_object(
    client: openai.OpenAI,
    engine: FakeEngine,
    text: str,
    expected: list[tuple[str, Any]],
    content: str | None,
    by: int,
) -> None:
    engine.script = says(text, by=by)
    answer = streamed(client)
    message = answer.choices[0].message
    assert [(name, json.loads(arguments)) for name, arguments in calls_of(answer)] == expected
    assert (message.content or None) == content
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_deltas_to_the_letter(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    """id, type and name come once, with empty arguments; then arguments only."""
    engine.script = says('Hm. {"name": "weather", "parameters": {"city": "Paris"}}', by=1)
    body = {"model": MODEL, "messages": [USER], "tools": [WEATHER], "stream": True}
    lines = (await http.post("/v1/chat/completions", json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice["delta"] for choice in choices]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert not any("role" in delta for delta in deltas[1:])
    calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert len(calls) > 5, "arguments are streamed"
    assert all(len(entries) == 1 for entries in calls)
    first, *others = (entries[0] for entries in calls)
    assert first["index"] == 0
    assert first["type"] == "function"
    assert first["function"]["name"] == "weather"
    for entry in others:
        assert entry.keys() == {"index", "function"}
        assert entry["function"].keys() == {"arguments"}
    assert "".join(delta.get("content", "") for delta in deltas) == "Hm. "
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [
        "tool_calls"
    ]
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert not any(value is None for delta in deltas for value in delta.values())


def test_a_custom_tool_gets_its_input_as_it_is(client: openai.OpenAI, engine: FakeEngine) -> None:
    code = 'print("[weather(1)]")\n'
    engine.script = says(f"<|python_start|>run\n{code}<|python_end|>")
    answer = create(client, tools=[RUN, WEATHER])
    assert calls_of(answer) == [("run", code)]
    assert answer.choices[0].message.content is None
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "custom"


async def test_a_custom_call_is_streamed(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = says("<|python_start|>run\nx = 1<|python_end|>")
    body = {"model": MODEL, "messages": [USER], "tools": [RUN], "stream": True}
    lines = (await http.post("/v1/chat/completions", json=body)).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    entries = [
        entry for chunk in chunks for entry in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert entries[0]["type"] == "custom"
    assert entries[0]["custom"]["name"] == "run"
    assert "".join(entry["custom"]["input"] for entry in entries) == "x = 1"


def test_text_stays_text(client: openai.OpenAI, engine: FakeEngine) -> None:
    text = "It is {sunny} in [Paris](x), not unknown(1)."
    engine.script = says(text)
    answer = create(client, tools=[WEATHER])
    assert answer.choices[0].message.content == text
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


def test_a_call_that_max_tokens_cut_ends_where_it_was_cut(
    client: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = says(CALL[:-10], finish="length")
    answer = create(client, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "length"
    [(name, arguments)] = calls_of(answer)
    assert name == "weather"
    assert '{"city":"Paris"}'.startswith(arguments.rstrip("}"))


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({}, "tool_calls"),
        ({"tool_choice": "auto"}, "tool_calls"),
        ({"tool_choice": "required"}, "tool_calls"),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "stop"),
    ],
)
def test_finish_reason(
    client: openai.OpenAI, engine: FakeEngine, fields: dict[str, Any], finish: str
) -> None:
    """A call that the client itself named is no reason to end."""
    engine.script = says(CALL)
    answer = create(client, tools=[WEATHER], **fields)
    assert calls_of(answer)
    assert answer.choices[0].finish_reason == finish


def test_tool_choice_none_shows_no_tools_and_parses_nothing(
    client: openai.OpenAI, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    engine.script = says(CALL)
    answer = create(client, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content == CALL
    assert answer.choices[0].finish_reason == "stop"
    assert "weather" not in tokenizer.decode(engine.submits[0][0].prompt)


GRAMMARS: list[tuple[dict[str, Any], list[str], list[str]]] = [
    # what is sent, what the grammar names, what it does not
    ({"tools": [WEATHER, TIME], "tool_choice": "required"}, ["weather", "time"], []),
    ({"tools": [WEATHER, TIME], "parallel_tool_calls": False}, ["weather", "time"], []),
    ({"tools": [DIGITS]}, ["digits", "[0-9]+"], []),
    (
        {
            "tools": [WEATHER, TIME],
            "tool_choice": {"type": "function", "function": {"name": "time"}},
        },
        ["time"],
        ["weather"],
    ),
    (
        {"tools": [WEATHER, RUN], "tool_choice": {"type": "custom", "custom": {"name": "run"}}},
        ["run"],
        ["weather"],
    ),
    (
        {
            "tools": [WEATHER, TIME],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
        },
        ["weather"],
        ["time"],
    ),
    (
        {
            "tools": [
                {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
            ]
        },
        ["weather", "city"],
        [],
    ),
]


@pytest.mark.parametrize(("fields", "named", "others"), GRAMMARS)
async def test_a_promise_about_calls_is_a_grammar(
    http: httpx.AsyncClient,
    engine: FakeEngine,
    tokenizer: Tokenizer,
    fields: dict[str, Any],
    named: list[str],
    others: list[str],
) -> None:
    """`tests/grammars` and `tests/system/test_structured.py` show that grammars are obeyed."""
    body = {"model": MODEL, "messages": [USER], **fields}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    grammar = engine.submits[0][0].grammar
    assert grammar is not None
    prompt = tokenizer.decode(engine.submits[0][0].prompt)
    for name in named:
        assert name in grammar
        assert name in prompt
    for name in others:
        assert name not in grammar
        assert name not in prompt, "the model is shown what it may call"


async def test_allowed_tools_hide_the_others(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    """With mode auto nothing is promised but that: the others are unknown to model and parser."""
    engine.script = says("[time()]")
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]}
    body = {
        "model": MODEL,
        "messages": [USER],
        "tools": [WEATHER, TIME],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed},
    }
    answer = (await http.post("/v1/chat/completions", json=body)).json()
    assert engine.submits[0][0].grammar is None
    assert '"time"' not in tokenizer.decode(engine.submits[0][0].prompt)
    assert answer["choices"][0]["message"]["content"] == "[time()]"


def test_results_are_shown_in_the_order_of_their_calls(
    client: openai.OpenAI, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    def called(call_id: str) -> dict[str, Any]:
        function = {"name": "time", "arguments": "{}"}
        return {"id": call_id, "type": "function", "function": function}

    history = [
        USER,
        {"role": "assistant", "tool_calls": [called("a"), called("b")]},
        {"role": "tool", "tool_call_id": "b", "content": "second"},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
        {"role": "user", "content": "And?"},
    ]
    create(client, messages=history)
    text = tokenizer.decode(engine.submits[0][0].prompt)
    assert text.index("first") < text.index("second") < text.index("And?")


async def test_logprobs_cover_calls_too(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    def script(index: int, sampling: object) -> list[Step]:
        return scored([step for step in say(CALL) if isinstance(step, Delta)])

    engine.script = script
    body = {"model": MODEL, "messages": [USER], "tools": [WEATHER], "logprobs": True}
    answer = (await http.post("/v1/chat/completions", json=body)).json()["choices"][0]
    listed = answer["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in listed).decode() == CALL
    streamed = await http.post("/v1/chat/completions", json={**body, "stream": True})
    chunks = [
        json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")
    ]
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    tokens = [token for part in parts if part for token in part["content"]]
    assert tokens == listed


def test_choices_do_not_mix_their_calls(client: openai.OpenAI, engine: FakeEngine) -> None:
    texts = ['[weather(city="A")]', "plain", '[time(), weather(city="C")]']
    engine.script = lambda index, sampling: say(texts[index])
    answer = streamed(client, n=3)
    calls = [choice.message.tool_calls or [] for choice in answer.choices]
    names = [[call.function.name for call in each if call.type == "function"] for each in calls]
    assert names == [["weather"], [], ["time", "weather"]]
    assert [choice.finish_reason for choice in answer.choices] == [
        "tool_calls", "stop", "tool_calls",
    ]  # fmt: skip
    assert answer.choices[1].message.content == "plain"


async def test_a_tokenizer_without_markers_has_no_custom_tools(
    http: httpx.AsyncClient, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name: id_ for name, id_ in tokenizer.special_ids.items() if "python" not in name}
    monkeypatch.setattr(tokenizer, "special_ids", names)
    body = {"model": MODEL, "messages": [USER], "tools": [RUN]}
    error = (await http.post("/v1/chat/completions", json=body)).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "tools")
    body["tools"] = [WEATHER]
    assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
