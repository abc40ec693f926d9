"""Conversations to prompt tokens, in Llama 4's chat format.

    prompt   <|begin_of_text|> message ... <|header_start|>assistant<|header_end|>\\n\\n
    message  <|header_start|>ROLE<|header_end|>\\n\\n CONTENT <|eot|>

A tool's result has the role `ipython`. It ends with <|eom|> instead of <|eot|>, and so does an
assistant's message with tool calls: the assistant's turn goes on.

A picture of one tile, and one of several (the dots stand for a tile's patches):

    <|image_start|> <|image|> <|patch|>... <|image_end|>
    <|image_start|> <|patch|>... <|tile_x_separator|> <|patch|>... <|tile_y_separator|>
                    ... one line for each row ...
                    <|image|> <|patch|>... <|image_end|>

Source: llama-models, llama4/chat_format.py. What is said about tools: caravan.text.tool_prompt.

Only this module puts special tokens into a prompt. Text is encoded part by part, never after
joining, so it cannot spell one, nor merge with what stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from caravan.text.tokenizer import Tokenizer
from caravan.text.tool_prompt import Marker, Tool, ToolKind, explain_tools, render_call
from caravan.text.vocabulary import (
    END_OF_MESSAGE,
    END_OF_TURN,
    HEADER_END,
    HEADER_START,
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    PATCH,
    TILE_X_SEPARATOR,
    TILE_Y_SEPARATOR,
)
from caravan.tiles import TileGrid

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made earlier in the conversation."""

    name: str
    arguments: str  # a JSON object, of a custom tool its raw input
    kind: ToolKind = "function"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a message's content; what it shows is the engine's business."""

    grid: TileGrid
    tile_tokens: int  # patches of a tile


@dataclass(frozen=True, slots=True)
class Message:
    """One message. A message without text has no parts, or empty ones."""

    role: Role
    parts: tuple[str | Picture, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()  # an assistant's only

    def __post_init__(self) -> None:
        assert self.role == "assistant" or not self.tool_calls, self


@dataclass(slots=True)
class Prompt:
    """Tokens, and where among them the pictures are."""

    tokens: list[int]
    tile_starts: list[list[int]] = field(default_factory=list)  # of each picture, in order
    image_tokens: int = 0  # patches, separators and the tokens around them

    def show(self, tokenizer: Tokenizer, picture: Picture) -> None:
        """Appends a picture."""
        before = len(self.tokens)
        starts: list[int] = []
        self.tokens.append(tokenizer.special_id(IMAGE_START))
        grid = picture.grid
        if grid.num_tiles > 1:
            for _ in range(grid.rows):
                for column in range(grid.columns):
                    if column:
                        self.tokens.append(tokenizer.special_id(TILE_X_SEPARATOR))
                    starts.append(self._show_tile(tokenizer, picture.tile_tokens))
                self.tokens.append(tokenizer.special_id(TILE_Y_SEPARATOR))
        self.tokens.append(tokenizer.special_id(IMAGE))
        starts.append(self._show_tile(tokenizer, picture.tile_tokens))
        self.tokens.append(tokenizer.special_id(IMAGE_END))
        self.tile_starts.append(starts)
        self.image_tokens += len(self.tokens) - before

    def _show_tile(self, tokenizer: Tokenizer, tile_tokens: int) -> int:
        start = len(self.tokens)
        self.tokens += [tokenizer.special_id(PATCH)] * tile_tokens
        return start


def render_chat(
    tokenizer: Tokenizer,
    messages: Iterable[Message],
    *,
    tools: Sequence[Tool] = (),
    parallel_tool_calls: bool = True,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> Prompt:
    """A conversation.

    With `add_generation_prompt` it ends where the answer begins. With `continue_final_message` it
    ends inside the last message, which must have text and no calls: the answer goes on with it.
    With neither, it ends behind the last message.

    `tools` are explained at the end of the system message that begins the conversation; if none
    does, or it is to be continued, in one put before it.

    Raises KeyError if there is a custom tool or its call, and the vocabulary has no markers for it.
    """
    assert not (add_generation_prompt and continue_final_message), "one of them, or neither"
    messages = list(messages)
    assert not continue_final_message or _can_go_on(messages), messages[-1:]
    explanation = explain_tools(tools, parallel_calls=parallel_tool_calls) if tools else []
    if tools and not _begins_with_system(messages, continue_final_message):
        messages.insert(0, Message("system"))
    prompt = Prompt([tokenizer.bos_id])
    for number, message in enumerate(messages, 1):
        prompt.tokens += _header(tokenizer, message.role)
        parts: list[str | Picture | Marker] = list(message.parts)
        if explanation and number == 1:
            parts += ["\n\n", *explanation] if any(parts) else explanation
        for call in message.tool_calls:
            parts += render_call(call.name, call.arguments, call.kind)
        _append(prompt, tokenizer, parts)
        if number < len(messages) or not continue_final_message:
            goes_on = message.role == "tool" or message.tool_calls
            prompt.tokens.append(tokenizer.special_id(END_OF_MESSAGE if goes_on else END_OF_TURN))
    if add_generation_prompt:
        prompt.tokens += _header(tokenizer, "assistant")
    return prompt


def render_completion(tokenizer: Tokenizer, text: str) -> Prompt:
    """A raw prompt."""
    return Prompt([tokenizer.bos_id, *tokenizer.encode(text)])


def _can_go_on(messages: Sequence[Message]) -> bool:
    """Whether the last message has text and no calls behind it."""
    if not messages or messages[-1].tool_calls:
        return False
    return any(isinstance(part, str) and part for part in messages[-1].parts)


def _begins_with_system(messages: Sequence[Message], continue_final_message: bool) -> bool:
    """Whether the first message is a system message, and may have our text behind its own."""
    is_open = continue_final_message and len(messages) == 1
    return bool(messages) and messages[0].role == "system" and not is_open


def _append(prompt: Prompt, tokenizer: Tokenizer, parts: Iterable[str | Picture | Marker]) -> None:
    for part in parts:
        if isinstance(part, Picture):
            prompt.show(tokenizer, part)
        elif isinstance(part, Marker):
            prompt.tokens.append(tokenizer.special_id(part.value))
        else:
            prompt.tokens += tokenizer.encode(part)


@lru_cache(maxsize=16)
def _header(tokenizer: Tokenizer, role: Role) -> tuple[int, ...]:
    return (
        tokenizer.special_id(HEADER_START),
        *tokenizer.encode("ipython" if role == "tool" else role),
        tokenizer.special_id(HEADER_END),
        *tokenizer.encode("\n\n"),
    )
