"""Messages of a conversation, and how the prompt begins and ends."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from caravan.api.schema import refused
from caravan.api.schema.base import Body, Items, Typed, refuse
from caravan.api.schema.tools import ToolItem, check_tools


def _text_parts(value: object) -> object:
    if not isinstance(value, (str, list)):
        refuse("invalid_type", "must be a string or a list of content parts")
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class ImageUrl(Body):
    """Where a picture is: `data:` with its bytes in base64, `http:` or `https:`."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ContentPart(Typed):
    """One part of a message's content: a text, a picture, or an assistant's refusal."""

    choices = ("text", "image_url", "refusal")

    refused = refused.CONTENT_PART

    type: Literal["text", "image_url", "refusal"]
    text: str | None = None
    image_url: ImageUrl | None = None
    refusal: str | None = None

    @property
    def words(self) -> str | None:
        """What the part says; None: it is a picture."""
        return self.refusal if self.text is None else self.text


_PartList = Annotated[list[ContentPart], Field(min_length=1)]


class FunctionCall(Body):
    """The function of a tool call in the history."""

    name: Annotated[str, Field(min_length=1)]
    arguments: str


class CustomCall(Body):
    """The custom tool of a tool call in the history."""

    name: Annotated[str, Field(min_length=1)]
    input: str


class ToolCallItem(Typed):
    """A call that the assistant made earlier in the conversation."""

    choices = ("function", "custom")

    id: Annotated[str, Field(min_length=1)]
    type: Literal["function", "custom"]
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class MessageItem(Body):
    """One message of the conversation; which fields it needs depends on its role."""

    refused = refused.MESSAGE

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        Items[ContentPart],
        Field(min_length=1),
        BeforeValidator(_text_parts, json_schema_input_type=str | _PartList),
    ] = []
    refusal: str | None = None
    tool_calls: Items[ToolCallItem] = []
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_call_id is None and self.role == "tool":
            refuse("missing_required_parameter", "is required for role `tool`", "tool_call_id")
        for name, role in (
            ("tool_calls", "assistant"),
            ("refusal", "assistant"),
            ("tool_call_id", "tool"),
        ):
            if getattr(self, name) and self.role != role:
                refuse("invalid_value", f"belongs to messages of role `{role}`", name)
        if not self.content and not self.tool_calls and self.refusal is None:
            refuse("missing_required_parameter", "is required", "content")
        for index, part in enumerate(self.content):
            if part.image_url is not None and self.role != "user":
                refuse("invalid_value", "belongs to messages of role `user`", f"content[{index}]")
            if part.refusal is not None and self.role != "assistant":
                where = f"content[{index}]"
                refuse("invalid_value", "belongs to messages of role `assistant`", where)
        return self


class Conversation(Body):
    """What a prompt is made of, the same for /v1/chat/completions and /tokenize."""

    messages: Annotated[Items[MessageItem], Field(min_length=1)] = []
    tools: Annotated[Items[ToolItem], Field(max_length=128)] = []
    add_generation_prompt: bool | None = Field(
        None,
        description="Whether the prompt ends with the beginning of an answer; by default it does, "
        "unless the last message is continued.",
    )
    continue_final_message: bool = Field(
        False, description="The answer goes on with the last message, whatever its role."
    )

    @property
    def generation_prompt(self) -> bool:
        """Whether the prompt ends with the beginning of an answer."""
        if self.add_generation_prompt is None:
            return not self.continue_final_message
        return self.add_generation_prompt

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        check_tools(self.tools)
        _check_results(self.messages)
        if self.continue_final_message:
            self._check_continues()
        return self

    def _check_continues(self) -> None:
        field = "continue_final_message"
        if self.add_generation_prompt:
            refuse("invalid_value", "and `add_generation_prompt` exclude each other", field)
        if not self.messages:
            return
        last = self.messages[-1]
        if last.tool_calls or not any(part.words for part in last.content):
            refuse("invalid_value", "needs a last message that has text and no tool calls", field)


def _check_results(messages: list[MessageItem]) -> None:
    """A tool's result belongs to a call of the assistant's message before it, and comes once."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role != "tool":
            open_calls = {call.id for call in message.tool_calls}
        elif message.tool_call_id in open_calls:
            open_calls.remove(message.tool_call_id)
        else:
            refuse(
                "invalid_value",
                "must be the id of a call in the assistant's message before it, and no id twice",
                f"messages[{index}].tool_call_id",
            )
