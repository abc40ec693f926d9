"""What the model reads about tools: which there are, how to call them, and its earlier calls.

The form of a function's call is Meta's (llama-models, llama3/tool_utils.py, ToolPromptFormat.json):

    {"type": "function", "name": NAME, "parameters": ARGUMENTS}

A custom tool takes text instead of JSON; its calls stand between Llama's markers of code:

    <|python_start|>NAME
    INPUT<|python_end|>
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

ToolKind = Literal["function", "custom"]

# Tools that Llama was trained to call in a form of their own.
_QUERY_TOOLS = ("brave_search", "wolfram_alpha", "photogen")
_CODE_TOOL = "code_interpreter"


class Marker(Enum):
    """A special token around a custom tool's call."""

    START = "<|python_start|>"
    END = "<|python_end|>"


Part = str | Marker


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call."""

    name: str
    kind: ToolKind = "function"
    description: str = ""
    parameters: Mapping[str, Any] | None = None  # a function's JSON schema; None: no parameters
    syntax: Literal["text", "regex", "lark"] = "text"  # of a custom tool's input
    definition: str | None = None  # of the syntax, unless it is text

    def __post_init__(self) -> None:
        assert self.kind == "function" or self.parameters is None, self.name
        assert self.kind == "custom" or self.syntax == "text", self.name
        assert (self.definition is None) == (self.syntax == "text"), self.name


_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}

_FUNCTIONS = "You can call these functions. Each line describes one in JSON:\n\n"

_FUNCTION_CALL = """
A call of a function is written exactly like this:

{"type": "function", "name": NAME, "parameters": ARGUMENTS}

NAME is the function's name in double quotes. ARGUMENTS is a JSON object that fits the JSON schema \
in the function's "parameters".

"""

_CUSTOM_TOOLS = "You can call these tools, whose input is text:\n\n"

_SYNTAXES = {
    "regex": "Its whole input must match this regular expression:",
    "lark": "Its whole input must match this Lark grammar:",
}

_CUSTOM_CALL = """
A call of such a tool is written exactly like this, with its name alone on the first line:

"""

_RULES = """\
Rules:
- Call only when it helps with what the user asks. Otherwise answer in plain text.
- Write nothing else around a call: no other text and no code fence.
{count}
- Results come back in `ipython` messages. Never make up a result.
- Never make up a value for an argument. Take it from the conversation, or ask the user for it."""

_SEVERAL_CALLS = "- Several calls may follow each other, each on its own line."
_ONE_CALL = "- Write at most one call, then wait for its result."


def explain_tools(tools: Sequence[Tool], *, parallel_calls: bool) -> list[Part]:
    """What a system message says about `tools`: functions first, each kind in the given order.

    Schemas keep their keys' order, which may mean something to the model. All of it is text but
    the markers, so what a description spells does not matter.
    """
    functions = [tool for tool in tools if tool.kind == "function"]
    custom_tools = [tool for tool in tools if tool.kind == "custom"]
    parts: list[Part] = []
    if functions:
        parts += [_FUNCTIONS, *map(_function_line, functions), _FUNCTION_CALL]
    if custom_tools:
        parts += [_CUSTOM_TOOLS, *map(_custom_tool_lines, custom_tools), _CUSTOM_CALL]
        parts += [*_custom_call("NAME", "INPUT"), "\n\n"]
    return [*parts, _RULES.format(count=_SEVERAL_CALLS if parallel_calls else _ONE_CALL)]


def _function_line(tool: Tool) -> str:
    parameters = _NO_PARAMETERS if tool.parameters is None else tool.parameters
    return _description({**_named(tool), "parameters": dict(parameters)})


def _custom_tool_lines(tool: Tool) -> str:
    line = _description(_named(tool))
    if tool.definition is None:
        return line
    return f"{line}{_SYNTAXES[tool.syntax]}\n{tool.definition}\n"


def _named(tool: Tool) -> dict[str, Any]:
    named = {"name": tool.name, "description": tool.description}
    return named if tool.description else {"name": tool.name}


def _description(tool: dict[str, Any]) -> str:
    return json.dumps(tool, ensure_ascii=False, separators=(",", ":")) + "\n"


def render_call(name: str, arguments: str, kind: ToolKind) -> list[Part]:
    """A call that the assistant made. `arguments` of a custom tool are its raw input.

    A function's are a JSON object; anything else is shown to the model as a string.
    """
    return _custom_call(name, arguments) if kind == "custom" else [_call_text(name, arguments)]


def _custom_call(name: str, raw_input: str) -> list[Part]:
    return [Marker.START, f"{name}\n{raw_input}", Marker.END]


def _call_text(name: str, arguments: str) -> str:
    """The call of a function as the model would have written it.

    >>> _call_text("weather", '{"city":"Lima"}')
    '{"type": "function", "name": "weather", "parameters": {"city": "Lima"}}'
    """
    try:
        parsed = json.loads(arguments)
        if isinstance(parsed, dict):
            if name in _QUERY_TOOLS and "query" in parsed:
                return f'{name}.call(query="{parsed["query"]}")'
            if name == _CODE_TOOL and isinstance(parsed.get("code"), str):
                return str(parsed["code"])
            return _function_text(name, parsed)
    except (ValueError, RecursionError):  # not JSON, or too deep to be worth reading
        pass
    return _function_text(name, arguments)


def _function_text(name: str, parameters: object) -> str:
    return json.dumps({"type": "function", "name": name, "parameters": parameters})
