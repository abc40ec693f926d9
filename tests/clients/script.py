"""What the scripted engine answers: a prompt goes in, candidate answers come out.

The user's words choose. A tool is called if the user says a word of its name: "weather" calls
`get_weather`, "weather and time" calls `get_time` behind it.

    pythonic   the calls are a Python list, as Llama 4 likes to write them
    json       a JSON object
    count      ten number words
    seed       the seed that the request was sampled with
    system     what the system messages said
    (pictures) how many there are
    (results)  what the tools returned
    (else)     the user's text, repeated
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from clients.prompts import OfferedTool, ReadPrompt

NUMBERS = "one two three four five six seven eight nine ten"
WEATHER = '{"city": "Paris", "temperature_c": 21}'
CUSTOM_INPUT = "2 + 2"
MIN_WORD = 4  # characters of a word in a tool's name; "get" names nothing

_STRINGS = {"city": "Paris", "zone": "Europe/Paris", "unit": "celsius"}
_SCALARS: dict[str, Any] = {"integer": 21, "number": 21.5, "boolean": True, "null": None}


def candidates(prompt: ReadPrompt, seed: int) -> Iterator[str]:
    """Answers, the likeliest first; a request's grammar may rule out some."""
    called = [tool for tool in prompt.tools if prompt.words & _name_words(tool)]
    if prompt.results:
        yield f"The result is {' and '.join(prompt.results)}."
    elif called and "pythonic" in prompt.words:
        yield _pythonic(called)
    elif called:
        yield _calls(called)
    if not prompt.results:
        yield from map(_call, called)
    yield _text(prompt, seed)
    yield from map(_call, prompt.tools)
    yield WEATHER
    yield CUSTOM_INPUT


def instance(schema: dict[str, Any], name: str = "", root: dict[str, Any] | None = None) -> Any:
    """A value that a simple schema allows; `name` is the property's."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return instance(target, name, root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if "anyOf" in schema:
        return instance(schema["anyOf"][0], name, root)
    kind = schema.get("type", "object")
    if kind == "array":
        return [instance(schema["items"], name, root)]
    if kind == "string":
        return _STRINGS.get(name, "something")
    if kind == "object":
        members = schema.get("properties", {}).items()
        return {key: instance(member, key, root) for key, member in members}
    return _SCALARS[kind]


def _text(prompt: ReadPrompt, seed: int) -> str:
    if prompt.last.num_pictures:
        return f"Pictures: {prompt.last.num_pictures}."
    if "json" in prompt.words:
        return WEATHER
    if "count" in prompt.words:
        return NUMBERS
    if "seed" in prompt.words:
        return f"The seed is {seed}."
    if "system" in prompt.words:
        return f"I was told: {prompt.system}"
    return f"You said: {prompt.last.text}"


def _name_words(tool: OfferedTool) -> set[str]:
    return {word for word in tool.name.lower().split("_") if len(word) >= MIN_WORD}


def _calls(tools: list[OfferedTool]) -> str:
    return "\n".join(map(_call, tools))


def _call(tool: OfferedTool) -> str:
    if tool.parameters is None:
        return f"<|python_start|>{tool.name}\n{CUSTOM_INPUT}<|python_end|>"
    arguments = instance(tool.parameters)
    return json.dumps({"type": "function", "name": tool.name, "parameters": arguments})


def _pythonic(tools: list[OfferedTool]) -> str:
    calls = []
    for tool in tools:
        arguments = instance(tool.parameters or {}).items()
        calls.append(f"{tool.name}({', '.join(f'{key}={value!r}' for key, value in arguments)})")
    return f"[{', '.join(calls)}]"
