"""The forms of calls that are not JSON objects: f(a=1), and the content of a block.

A call reads characters until it is complete or broken. It has begun as soon as its tool is known;
before that its text may still turn out to be no call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from caravan.text.literals import LiteralReader
from caravan.text.tool_call_events import CallableTool
from caravan.text.tool_call_json import json_text
from caravan.text.tool_call_spellings import Spelled, Spellings
from caravan.text.tool_call_strings import skip_white_space


class Call(Protocol):
    """A call that is being read."""

    tool: CallableTool | None  # None: not known yet
    complete: bool
    broken: bool  # the character where reading stopped cannot stand there
    unread: str  # when broken or closed: what stands before it and has not been used
    markers: Collection[str]  # those that are characters like any other here

    def read(self, text: str, start: int) -> int:
        """Reads on: returns where the call ends, where it is broken, or the text's end."""

    def take(self) -> str:
        """The arguments, or the input, since the last time; "" while no tool is known."""

    def close(self) -> None:
        """Ends a call that has begun too early: what `take` gives becomes JSON."""


class PythonCall:
    """NAME(arguments). What Llama's built-in tools are called by is the same: NAME.call(...)."""

    markers: Collection[str] = ()

    def __init__(self, functions: Spellings[CallableTool]) -> None:
        """The functions as `python_spellings` gives them."""
        self.tool: CallableTool | None = None
        self.complete = False
        self.broken = False
        self.unread = ""
        self._name = Spelled(functions)
        self._arguments: LiteralReader | None = None
        self._state: Callable[[str, int], int] = self._in_name

    def read(self, text: str, start: int) -> int:
        """See `Call`."""
        while start < len(text) and not self.complete and not self.broken:
            start = self._state(text, start)
        return start

    def take(self) -> str:
        """See `Call`."""
        return self._arguments.take() if self._arguments else ""

    def close(self) -> None:
        """See `Call`."""
        if self._arguments:
            self._arguments.close()
            self.unread = self._arguments.unread

    def _in_name(self, text: str, start: int) -> int:
        while start < len(text) and self._name.advance(text[start]):
            start += 1
        if start < len(text):
            self._state = self._behind_name
        return start

    def _behind_name(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        tool = self._name.value
        if tool is None or text[start] != "(":
            self.broken = True
            return start
        self.tool = tool
        self._arguments = LiteralReader.of_arguments(tool.parameters)
        self._state = self._in_arguments
        return start + 1

    def _in_arguments(self, text: str, start: int) -> int:
        arguments = self._arguments
        assert arguments is not None
        end = arguments.read(text, start)
        self.complete, self.broken = arguments.complete, arguments.broken
        return end


def python_spellings(tools: Iterable[CallableTool]) -> Spellings[CallableTool]:
    """How functions are written in front of a parenthesis."""
    tools = list(tools)
    table = {f"{tool.name}.call": tool for tool in tools}
    return Spellings({**table, **{tool.name: tool for tool in tools}})


class InputCall:
    """A custom tool's input: what stands in a block, as it is."""

    def __init__(self, tool: CallableTool, markers: Collection[str] = ()) -> None:
        self.tool: CallableTool | None = tool
        self.complete = False
        self.broken = False
        self.unread = ""
        self.markers = markers
        self._out: list[str] = []

    def read(self, text: str, start: int) -> int:
        """See `Call`."""
        self._out.append(text[start:])
        return len(text)

    def take(self) -> str:
        """See `Call`."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def close(self) -> None:
        """See `Call`."""


class CodeCall:
    """A call of the code interpreter: what stands in a block is its argument."""

    markers: Collection[str] = ()

    def __init__(self, tool: CallableTool) -> None:
        self.tool: CallableTool | None = tool
        self.complete = False
        self.broken = False
        self.unread = ""
        self._out = ['{"code":"']

    def read(self, text: str, start: int) -> int:
        """See `Call`."""
        self._out.append(json_text(text[start:]))
        return len(text)

    def take(self) -> str:
        """See `Call`."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def close(self) -> None:
        """See `Call`."""
        self._out.append('"}')
