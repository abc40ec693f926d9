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

Source: llama-models, llama4/chat_format.py and llama3/tool_utils.py, with ToolPromptFormat.json.

Only this module puts special tokens into a prompt. Text is encoded part by part, never after
joining, so it cannot spell one, nor merge with what stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from caravan.text.tokenizer import Tokenizer
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

# Tools that Llama was trained to call in a form of their own.
_QUERY_TOOLS = ("brave_search", "wolfram_alpha", "photogen")
_CODE_TOOL = "code_interpreter"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made earlier in the conversation."""

    name: str
    arguments: str  # a JSON object; anything else is shown to the model as a string


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
    tokenizer: Tokenizer, messages: Iterable[Message], *, add_generation_prompt: bool = True
) -> Prompt:
    """A conversation; with `add_generation_prompt`, up to where the answer begins."""
    prompt = Prompt([tokenizer.bos_id])
    tokens = prompt.tokens
    for message in messages:
        tokens += _header(tokenizer, message.role)
        for part in message.parts:
            if isinstance(part, Picture):
                prompt.show(tokenizer, part)
            else:
                tokens += tokenizer.encode(part)
        for call in message.tool_calls:
            tokens += tokenizer.encode(_tool_call_text(call))
        goes_on = message.role == "tool" or message.tool_calls
        tokens.append(tokenizer.special_id(END_OF_MESSAGE if goes_on else END_OF_TURN))
    if add_generation_prompt:
        tokens += _header(tokenizer, "assistant")
    return prompt


def render_completion(tokenizer: Tokenizer, text: str) -> Prompt:
    """A raw prompt."""
    return Prompt([tokenizer.bos_id, *tokenizer.encode(text)])


@lru_cache(maxsize=16)
def _header(tokenizer: Tokenizer, role: Role) -> tuple[int, ...]:
    return (
        tokenizer.special_id(HEADER_START),
        *tokenizer.encode("ipython" if role == "tool" else role),
        tokenizer.special_id(HEADER_END),
        *tokenizer.encode("\n\n"),
    )


def _tool_call_text(call: ToolCall) -> str:
    """The call as the model would have written it.

    >>> _tool_call_text(ToolCall("weather", '{"city":"Lima"}'))
    '{"type": "function", "name": "weather", "parameters": {"city": "Lima"}}'
    """
    try:
        arguments = json.loads(call.arguments)
        if isinstance(arguments, dict):
            if call.name in _QUERY_TOOLS and "query" in arguments:
                return f'{call.name}.call(query="{arguments["query"]}")'
            if call.name == _CODE_TOOL and isinstance(arguments.get("code"), str):
                return str(arguments["code"])
            return _function_text(call.name, arguments)
    except (ValueError, RecursionError):  # not JSON, or too deep to be worth reading
        pass
    return _function_text(call.name, call.arguments)


def _function_text(name: str, parameters: object) -> str:
    return json.dumps({"type": "function", "name": name, "parameters": parameters})
