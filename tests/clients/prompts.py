"""A prompt's tokens, read back: who said what, and which tools were offered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from caravan.text.tokenizer import Tokenizer
from caravan.text.vocabulary import (
    BEGIN_OF_TEXT,
    END_OF_MESSAGE,
    END_OF_TURN,
    HEADER_END,
    HEADER_START,
    IMAGE_END,
    IMAGE_SPECIALS,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. A raw prompt is one turn without a role."""

    role: str
    text: str
    num_pictures: int = 0


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as the system message describes it; a custom one has no parameters."""

    name: str
    parameters: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """What a model would know before it answers."""

    turns: list[Turn]

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    @property
    def words(self) -> set[str]:
        """Of the last message, in lower case."""
        letters = (c if c.isalnum() else " " for c in self.last.text.lower())
        return set("".join(letters).split())

    @property
    def system(self) -> str:
        """All that system messages say."""
        return " | ".join(turn.text for turn in self.turns if turn.role == "system")

    @property
    def results(self) -> list[str]:
        """Of tools, behind the last message that is not one."""
        results: list[str] = []
        for turn in reversed(self.turns):
            if turn.role != "ipython":
                break
            results.insert(0, turn.text)
        return results

    @property
    def tools(self) -> list[OfferedTool]:
        """The prompt describes each in a line of JSON."""
        lines = [line for line in self.system.splitlines() if line.startswith('{"name":')]
        return [
            OfferedTool(tool["name"], tool.get("parameters")) for tool in map(json.loads, lines)
        ]


def read_prompt(tokenizer: Tokenizer, tokens: Sequence[int]) -> ReadPrompt:
    """The turns of a chat's prompt, or a raw prompt's text."""
    header = tokenizer.special_id(HEADER_START)
    if header not in tokens:
        return ReadPrompt([Turn("", _text(tokenizer, tokens))])
    starts = [place for place, token in enumerate(tokens) if token == header]
    ends = [*starts[1:], len(tokens)]
    turns = [_turn(tokenizer, tokens[a:b]) for a, b in zip(starts, ends, strict=True)]
    return ReadPrompt([turn for turn in turns if turn.role != "assistant" or turn.text])


def _turn(tokenizer: Tokenizer, tokens: Sequence[int]) -> Turn:
    middle = tokens.index(tokenizer.special_id(HEADER_END))
    content = tokens[middle + 1 :]
    pictures = content.count(tokenizer.special_id(IMAGE_END))
    role = _text(tokenizer, tokens[:middle])
    return Turn(role, _text(tokenizer, content).removeprefix("\n\n"), pictures)


def _text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Without special tokens, but for the markers of custom tools."""
    return b"".join(_visible(tokenizer, tokens)).decode()


def _visible(tokenizer: Tokenizer, tokens: Sequence[int]) -> Iterator[bytes]:
    framing = {BEGIN_OF_TEXT, HEADER_START, HEADER_END, END_OF_MESSAGE, END_OF_TURN}
    hidden = {tokenizer.special_id(name) for name in framing.union(IMAGE_SPECIALS)}
    for token in tokens:
        if token not in hidden:
            yield tokenizer.token_bytes(token)
