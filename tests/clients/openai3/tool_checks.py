"""OpenAI's Python SDK: tools."""

from __future__ import annotations

import json
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from clients.checklist import MODEL, SAMPLES, failure, feature, said, same
from clients.openai3.sdk import Weather, chat, client

FUNCTIONS = [SAMPLES["weather_tool"], SAMPLES["time_tool"]]
PARIS = {"city": "Paris"}


def calls(answer: ChatCompletion) -> list[tuple[str, Any]]:
    """Names and arguments of the first choice's calls."""
    found = answer.choices[0].message.tool_calls or []
    assert len({call.id for call in found}) == len(found), found
    return [
        (c.function.name, json.loads(c.function.arguments)) for c in found if c.type == "function"
    ]


@feature("tools_auto")
def check_tools_auto() -> None:
    answer = chat("How is the weather?", tools=FUNCTIONS)
    same(calls(answer), [("get_weather", PARIS)])
    same((answer.choices[0].finish_reason, answer.choices[0].message.content), ("tool_calls", None))
    answer = chat("Hello", tools=FUNCTIONS, tool_choice="auto")
    same(answer.choices[0].message.content, "You said: Hello")
    same((calls(answer), answer.choices[0].finish_reason), ([], "stop"))


@feature("tools_pythonic")
def check_tools_pythonic() -> None:
    same(calls(chat("The weather, pythonic", tools=FUNCTIONS)), [("get_weather", PARIS)])


@feature("tools_required")
def check_tools_required() -> None:
    answer = chat("Hello", tools=FUNCTIONS, tool_choice="required")
    same(calls(answer), [("get_weather", PARIS)])
    same(answer.choices[0].finish_reason, "tool_calls")


@feature("tools_named")
def check_tools_named() -> None:
    choice: Any = {"type": "function", "function": {"name": "get_time"}}
    answer = chat("How is the weather?", tools=FUNCTIONS, tool_choice=choice)
    same(calls(answer), [("get_time", {"zone": "Europe/Paris"})])


@feature("tools_allowed")
def check_tools_allowed() -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "required",
            "tools": [{"type": "function", "function": {"name": "get_time"}}],
        },
    }
    answer = chat("How is the weather?", tools=FUNCTIONS, tool_choice=allowed)
    same([name for name, _ in calls(answer)], ["get_time"])


@feature("tools_none")
def check_tools_none() -> None:
    answer = chat("How is the weather?", tools=FUNCTIONS, tool_choice="none")
    same((calls(answer), answer.choices[0].finish_reason), ([], "stop"))
    assert answer.choices[0].message.content


@feature("tools_parallel")
def check_tools_parallel() -> None:
    both = chat("The weather and the time?", tools=FUNCTIONS)
    same(calls(both), [("get_weather", PARIS), ("get_time", {"zone": "Europe/Paris"})])
    one = chat("The weather and the time?", tools=FUNCTIONS, parallel_tool_calls=False)
    same(calls(one), [("get_weather", PARIS)])


@feature("tools_stream")
def check_tools_stream() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=said("The weather and the time?"), tools=FUNCTIONS
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    found = final.choices[0].message.tool_calls or []
    same([call.function.name for call in found], ["get_weather", "get_time"])
    same([json.loads(c.function.arguments) for c in found], [PARIS, {"zone": "Europe/Paris"}])
    same(final.choices[0].finish_reason, "tool_calls")
    parts = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert len(parts) > 4, parts


@feature("tools_results")
def check_tools_results() -> None:
    asked: Any = said("How is the weather?")[0]
    message: Any = chat("How is the weather?", tools=FUNCTIONS).choices[0].message
    result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    answer = client.chat.completions.create(
        model=MODEL, messages=[asked, message, result], tools=FUNCTIONS
    )
    same(answer.choices[0].message.content, "The result is sunny.")


@feature("tools_custom")
def check_tools_custom() -> None:
    message = chat("Use the calculator", tools=[SAMPLES["custom_tool"]]).choices[0].message
    (call,) = message.tool_calls or []
    assert call.type == "custom", call
    same((call.custom.name, call.custom.input), ("calculator", "2 + 2"))


@feature("tools_custom_stream")
def check_tools_custom_stream() -> str:
    fields: Any = {"messages": said("Use the calculator"), "tools": [SAMPLES["custom_tool"]]}
    names, parts = [], []
    for chunk in client.chat.completions.create(model=MODEL, stream=True, **fields):
        for call in chunk.choices[0].delta.tool_calls or ():
            custom = call.to_dict()["custom"]
            names += [custom["name"]] if "name" in custom else []
            parts.append(custom["input"])
    same((names, "".join(parts)), (["calculator"], "2 + 2"))
    with client.chat.completions.stream(model=MODEL, **fields) as stream:
        failure(AttributeError, stream.get_final_completion)
    return "chunk by chunk; the SDK's `.stream()` has no types for them, and fails at the end"


@feature("tools_strict")
def check_tools_strict() -> None:
    tool = openai.pydantic_function_tool(Weather, name="report_weather")
    answer = client.chat.completions.parse(
        model=MODEL, messages=said("Report the weather"), tools=[tool]
    )
    (call,) = answer.choices[0].message.tool_calls or []
    same(call.function.parsed_arguments, Weather(city="Paris", temperature_c=21))
