"""Tools, and who chooses among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from caravan.api.schema.base import Body, Items, Typed, refuse

MAX_NAME = 64
MAX_DEFINITION = 1 << 16  # characters of a custom tool's grammar


def _name(value: str) -> str:
    """OpenAI's rule; it also keeps names apart from what surrounds them in a call."""
    plain = value.isascii() and value.replace("_", "a").replace("-", "a").isalnum()
    if not plain or len(value) > MAX_NAME:
        refuse(
            "invalid_value",
            f"must have 1 to {MAX_NAME} characters, each a letter, a digit, `_` or `-`",
        )
    return value


ToolName = Annotated[
    str,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": f"^[a-zA-Z0-9_-]{{1,{MAX_NAME}}}$"}),
]


class FunctionItem(Body):
    """A function that the model may call."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool = False


class GrammarItem(Body):
    """The grammar of a custom tool's input."""

    syntax: Literal["lark", "regex"]
    definition: Annotated[str, Field(min_length=1, max_length=MAX_DEFINITION)]


class CustomFormat(Typed):
    """How a custom tool's input looks."""

    choices = ("grammar",)

    type: Literal["text", "grammar"]
    grammar: GrammarItem | None = None


class CustomItem(Body):
    """A tool whose input is text."""

    name: ToolName
    description: str = ""
    format: CustomFormat = CustomFormat(type="text")


class ToolItem(Typed):
    """A tool."""

    choices = ("function", "custom")

    type: Literal["function", "custom"]
    function: FunctionItem | None = None
    custom: CustomItem | None = None

    @property
    def name(self) -> str:
        """Of the function or the custom tool."""
        item = self.function or self.custom
        assert item is not None, self
        return item.name


class Named(Body):
    """A tool by its name."""

    name: ToolName


class ToolReference(Typed):
    """A tool of `tools`."""

    choices = ("function", "custom")

    type: Literal["function", "custom"]
    function: Named | None = None
    custom: Named | None = None

    @property
    def name(self) -> str:
        """Of the tool."""
        named = self.function if self.type == "function" else self.custom
        assert named is not None, self
        return named.name


class AllowedTools(Body):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[Items[ToolReference], Field(min_length=1)]


class ToolChoice(Typed):
    """`tool_choice` as an object; its three words become one as well."""

    choices = ("function", "custom", "allowed_tools")

    type: Literal["none", "auto", "required", "function", "custom", "allowed_tools"]
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None

    @property
    def references(self) -> list[tuple[str, str]]:
        """(type, name) of the tools that are named."""
        if self.allowed_tools is not None:
            return [(tool.type, tool.name) for tool in self.allowed_tools.tools]
        named = self.function or self.custom
        return [] if named is None else [(self.type, named.name)]


ChoiceWord = Literal["none", "auto", "required"]

_WORDS = ("none", "auto", "required")


def choice_words(value: object) -> object:
    """`"auto"` as an object."""
    if isinstance(value, str):
        if value not in _WORDS:
            refuse("invalid_value", "must be `none`, `auto`, `required` or an object")
        return {"type": value}
    if isinstance(value, dict) and value.get("type") in _WORDS:
        refuse("invalid_value", "must be `function`, `custom` or `allowed_tools`", "type")
    return value


def check_tools(tools: Sequence[ToolItem]) -> None:
    """Refuses two tools of one name."""
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            where = f"tools[{index}].{tool.type}.name"
            refuse("invalid_value", "is the name of an earlier tool; each needs its own", where)
        seen.add(tool.name)


def check_choice(tools: Sequence[ToolItem], choice: ToolChoice) -> None:
    """Refuses a choice among tools that there are not."""
    if not tools and choice.type != "none":
        refuse("invalid_value", "is only allowed when there are `tools`", "tool_choice")
    known = {(tool.type, tool.name) for tool in tools}
    for kind, name in choice.references:
        if (kind, name) not in known:
            refuse("invalid_value", f"names a {kind} tool that is not in `tools`", "tool_choice")
