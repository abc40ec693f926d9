"""The tools of a request as each part of the server takes them.

    body.tools, tool_choice, parallel_tool_calls
        -> Tool            what the prompt says of them
        -> CallableTool    what the parser knows of them
        -> ToolRule        what a grammar holds calls to

The model is shown the tools that it may call, and no others. A grammar holds its output wherever
that promises something: a call that must come, one call at most, a `strict` schema, a custom tool
with a grammar of its own. Otherwise it writes as it was trained to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caravan.api.schema.chat import ChatBody
from caravan.api.schema.tools import ToolItem
from caravan.grammars.tools import ToolRule
from caravan.text.tool_calls import CallableTool
from caravan.text.tool_prompt import Tool

Choice = Literal["auto", "required", "named"]


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools that the model may call; there is at least one."""

    items: Sequence[ToolItem]
    choice: Choice
    parallel: bool
    beside_json: bool = False  # where nothing is called, the answer is JSON

    @property
    def enforced(self) -> bool:
        """Whether a grammar holds the calls."""
        return self.choice != "auto" or not self.parallel or any(map(_promises, self.items))

    @property
    def exact(self) -> bool:
        """Whether calls are spelled in one way only; beside a JSON answer they are any JSON."""
        return self.enforced and not (self.choice == "auto" and self.beside_json)

    @property
    def shown(self) -> list[Tool]:
        """For the prompt."""
        return shown_tools(self.items)

    @property
    def callable(self) -> list[CallableTool]:
        """For the parser."""
        return [_callable(item) for item in self.items]

    @property
    def rules(self) -> list[ToolRule]:
        """For a grammar."""
        return [_rule(item) for item in self.items]


def toolset(body: ChatBody) -> Toolset | None:
    """None: the model has no tools, or must not call them."""
    choice = body.tool_choice
    if not body.tools or (choice is not None and choice.type == "none"):
        return None
    parallel = body.parallel_tool_calls
    beside_json = body.response_format.type != "text"
    if choice is None or choice.type == "auto":
        return Toolset(body.tools, "auto", parallel, beside_json)
    if choice.type == "required":
        return Toolset(body.tools, "required", parallel)
    wanted = set(choice.references)
    items = [item for item in body.tools if (item.type, item.name) in wanted]
    if choice.allowed_tools is None:
        return Toolset(items, "named", parallel=False)
    return Toolset(items, choice.allowed_tools.mode, parallel, beside_json)


def shown_tools(items: Sequence[ToolItem]) -> list[Tool]:
    """What the prompt says of tools."""
    return [_shown(item) for item in items]


def _promises(item: ToolItem) -> bool:
    if item.function is not None:
        return item.function.strict
    return item.custom is not None and item.custom.format.grammar is not None


def _shown(item: ToolItem) -> Tool:
    if item.function is not None:
        function = item.function
        return Tool(function.name, "function", function.description, function.parameters)
    assert item.custom is not None, item
    custom, grammar = item.custom, item.custom.format.grammar
    return Tool(
        custom.name,
        "custom",
        custom.description,
        syntax="text" if grammar is None else grammar.syntax,
        definition=None if grammar is None else grammar.definition,
    )


def _callable(item: ToolItem) -> CallableTool:
    if item.function is None:
        return CallableTool(item.name, "custom")
    properties: Any = (item.function.parameters or {}).get("properties")
    names = tuple(properties) if isinstance(properties, dict) else ()
    return CallableTool(item.name, "function", names)


def _rule(item: ToolItem) -> ToolRule:
    if item.function is not None:
        function = item.function
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        return ToolRule(
            function.name,
            "function",
            schema=schema if function.parameters is None else function.parameters,
            strict=function.strict,
        )
    assert item.custom is not None, item
    grammar = item.custom.format.grammar
    return ToolRule(
        item.name,
        "custom",
        syntax="text" if grammar is None else grammar.syntax,
        definition=None if grammar is None else grammar.definition,
    )
