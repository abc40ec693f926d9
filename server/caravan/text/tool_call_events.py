"""What a model's output says: content, and calls of tools while they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ToolKind = Literal["function", "custom"]


@dataclass(frozen=True, slots=True)
class CallableTool:
    """A tool that the model may call. Its name holds no white space, quotes or brackets."""

    name: str
    kind: ToolKind = "function"
    parameters: tuple[str, ...] = ()  # a function's, in the schema's order


@dataclass(frozen=True, slots=True)
class Text:
    """A further part of the content, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins. Calls follow each other; their indices count from 0."""

    index: int
    tool: CallableTool


@dataclass(frozen=True, slots=True)
class CallPart:
    """A further part of a function's arguments, which are JSON, or of a custom tool's input."""

    index: int
    text: str  # never empty


Event = Text | CallStart | CallPart


class EventWriter:
    """Collects events, and joins neighbours that say one thing."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._num_calls = 0
        self._pieces: list[str] = []  # of the content, or of the last call
        self._of_call = False

    def text(self, text: str) -> None:
        """Adds content."""
        self._add(text, of_call=False)

    def start(self, tool: CallableTool) -> None:
        """Begins the next call."""
        self._flush()
        self._events.append(CallStart(self._num_calls, tool))
        self._num_calls += 1

    def part(self, text: str) -> None:
        """Goes on with the last call."""
        self._add(text, of_call=True)

    def take(self) -> list[Event]:
        """The events since the last time."""
        self._flush()
        events, self._events = self._events, []
        return events

    def _add(self, text: str, *, of_call: bool) -> None:
        if text:
            if of_call != self._of_call:
                self._flush()
                self._of_call = of_call
            self._pieces.append(text)

    def _flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._events.append(
                CallPart(self._num_calls - 1, text) if self._of_call else Text(text)
            )
