"""Dialogues to tokens and tiles, through the server's own prompt renderer and image code."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from PIL import Image

from caravan.images.decode import tile_image
from caravan.text.prompt import Message, Picture, render_chat
from caravan.text.tokenizer import Tokenizer
from caravan.text.tool_prompt import Tool
from caravan.text.vocabulary import END_OF_MESSAGE, HEADER_END
from caravan.tiles import TileLayout
from demo_training.dialogue import Dialogue, Turn

_MAX_PIXELS = 1 << 24

Array = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(slots=True)
class Encoded:
    """A dialogue as the network reads it."""

    tokens: list[int]
    learned: list[bool]  # whether the model is trained to write this token
    tile_starts: list[int]  # index of each tile's first patch
    tiles: list[Array]  # uint8 [tile_size, tile_size, 3]


class Encoder:
    """Encodes dialogues for one tokenizer and tile layout."""

    def __init__(self, tokenizer: Tokenizer, layout: TileLayout) -> None:
        self._tokenizer = tokenizer
        self._layout = layout

    def encode(self, dialogue: Dialogue) -> Encoded:
        """The whole conversation, each message rendered by itself."""
        encoded = Encoded([self._tokenizer.bos_id], [False], [], [])
        turns = dialogue.turns
        tools = tuple(as_tool(definition) for definition in dialogue.tools)
        if tools and turns[0].role != "system":
            turns = [Turn("system"), *turns]
        for number, turn in enumerate(turns):
            self._append(encoded, turn, tools if number == 0 else ())
        return encoded

    def _append(self, encoded: Encoded, turn: Turn, tools: tuple[Tool, ...]) -> None:
        parts: list[str | Picture] = []
        for part in turn.parts if not turn.calls else (turn.text,):
            parts.append(part if isinstance(part, str) else self._show(encoded, part))
        prompt = render_chat(
            self._tokenizer,
            [Message(turn.role, tuple(parts))],
            tools=tools,
            add_generation_prompt=False,
        )
        tokens = prompt.tokens[1:]
        if turn.calls:
            tokens[-1] = self._tokenizer.special_id(END_OF_MESSAGE)
        base = len(encoded.tokens) - 1
        encoded.tile_starts += [base + start for starts in prompt.tile_starts for start in starts]
        encoded.tokens += tokens
        encoded.learned += self._learned(turn, tokens)

    def _show(self, encoded: Encoded, picture: Image.Image) -> Picture:
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        tiled = tile_image(file.getvalue(), self._layout, self._layout.max_tiles, _MAX_PIXELS)
        size = self._layout.tile_size
        encoded.tiles += [np.frombuffer(t, np.uint8).reshape(size, size, 3) for t in tiled.tiles]
        return Picture(tiled.grid, self._layout.tile_tokens)

    def _learned(self, turn: Turn, tokens: list[int]) -> list[bool]:
        if turn.role != "assistant" or not turn.learned:
            return [False] * len(tokens)
        header_end = tokens.index(self._tokenizer.special_id(HEADER_END))
        start = header_end + 1 + len(self._tokenizer.encode("\n\n"))
        learned = [i >= start for i in range(len(tokens))]
        if turn.values_only:
            _keep_values(learned, start, turn.text, self._tokenizer, tokens)
        return learned


def _keep_values(
    learned: list[bool], start: int, text: str, tokenizer: Tokenizer, tokens: list[int]
) -> None:
    """Only tokens that begin inside a value of the JSON object `text`, and the end."""
    inside = [False] * (len(text) + 1)
    at = 0
    for key, value in json.loads(text).items():
        at = text.index(json.dumps(key), at) + len(json.dumps(key)) + 2
        end = at + len(json.dumps(value))
        inside[at - 1 : end + 1] = [True] * (end + 2 - at)
        at = end
    ends = list(accumulate(len(tokenizer.text_bytes(token)) for token in tokens[start:-1]))
    for i, begin in enumerate([0, *ends[:-1]]):
        learned[start + i] = inside[min(begin, len(text))]


def as_tool(definition: object) -> Tool:
    """OpenAI's form of a function to the prompt renderer's."""
    assert isinstance(definition, dict), definition
    function = definition["function"]
    return Tool(
        function["name"], "function", function.get("description", ""), function.get("parameters")
    )
