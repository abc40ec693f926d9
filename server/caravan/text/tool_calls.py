"""Finds the tool calls in a model's text while it arrives.

Llama 4 writes calls in many forms, alone or several together, text before and behind them:

    [f(a="x", b=1), g()]                                    see `literals` for the values
    {"type": "function", "name": "f", "parameters": {...}}  see `tool_call_objects`
    [{...}, {...}]
    <|python_start|> ... <|python_end|>                     around the forms above, or f(a=1)
    <|python_start|>NAME\\nINPUT<|python_end|>               a custom tool's
    <|python_start|>CODE<|python_end|>                      the code interpreter's, if it is offered

Calls without brackets also stand at the beginning of the output, and behind such calls. Output
that is held to a grammar has three forms only: the list, the object spelled as above, and the
custom tool's.

Only the names of the given tools make a call. White space, commas and semicolons between calls
vanish, and so do markers, and white space at the end behind a call. Everything else is content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from caravan.text.tool_call_events import (
    CallableTool,
    CallPart,
    CallStart,
    Event,
    EventWriter,
    Text,
    ToolKind,
)
from caravan.text.tool_call_exact import ExactCall, exact_heads
from caravan.text.tool_call_forms import Call, CodeCall, InputCall, PythonCall, python_spellings
from caravan.text.tool_call_markers import MARKERS, PYTHON_START, MarkerSplitter
from caravan.text.tool_call_objects import ObjectCall
from caravan.text.tool_call_spellings import Spelled, Spellings
from caravan.text.tool_call_strings import WHITE_SPACE, find_any, skip_white_space

__all__ = [
    "CallPart",
    "CallStart",
    "CallableTool",
    "Event",
    "Text",
    "ToolCallParser",
    "ToolKind",
]

_SEPARATORS = WHITE_SPACE | frozenset(",;")
_CODE_TOOL = "code_interpreter"


class ToolCallParser:
    """Parses one output. However it is cut into pieces, the events say the same.

    A call begins as soon as its tool is certain, and its arguments leave while they are read; a
    function's are one JSON object in the end. Where its syntax is broken they are closed, and the
    text goes on as content from there. Text waits only while it could begin a call.

    It never raises, and time is linear in the text, whatever it is.
    """

    def __init__(self, tools: Sequence[CallableTool], *, enforced: bool = False) -> None:
        """Enforced: the output is held to a grammar."""
        functions = [tool for tool in tools if tool.kind == "function"]
        self._enforced = enforced
        self._openers = "[{" if functions else ""
        self._names = Spellings({tool.name: tool for tool in functions})
        self._python_names = self._names if enforced else python_spellings(functions)
        self._heads = exact_heads(functions)
        self._lines = Spellings({f"{tool.name}\n": tool for tool in tools if tool.kind == "custom"})
        self._code_tool = None if enforced else self._names.table.get(_CODE_TOOL)

        self._splitter = MarkerSplitter()
        self._events = EventWriter()
        self._held: list[str] = []  # what could begin a call
        self._gap: list[str] = []  # white space and separators between the last call and here
        self._line: Spelled[CallableTool] | None = None  # the first one of a block
        self._call: Call | None = None
        self._begun = False  # the call has been reported
        self._bare = not enforced  # calls without brackets may stand here
        self._in_list = False
        self._fresh = False  # a block has begun, and nothing of it has been reported
        self._state: Callable[[str, int], int] = self._in_text if enforced else self._at_start
        self._outside: Callable[[str, int], int] = self._state  # where to go on if a block is empty

    def push(self, text: str) -> list[Event]:
        """Reads on: what is certain now."""
        for part in self._splitter.split(text):
            if part in MARKERS:
                self._read_marker(part)
            else:
                self._read(part)
        return self._events.take()

    def finish(self, *, cut: bool) -> list[Event]:
        """The rest, when no more text comes. Cut: the model had not come to an end.

        A call that is cut is not closed. It may lack a word, an escape or what could have become
        a marker at its end.
        """
        rest = self._splitter.flush()
        if cut:
            self._end(cut=True)
        if not (cut and self._begun):
            self._read(rest)
        self._end(cut=cut)
        gap = "".join(self._gap)
        if skip_white_space(gap, 0) < len(gap):
            self._events.text(gap)
        return self._events.take()

    def _read(self, text: str) -> None:
        position = 0
        while position < len(text):
            position = self._state(text, position)

    def _read_marker(self, marker: str) -> None:
        """A marker ends what is open, as the end of the output would."""
        if self._call is not None and self._begun and marker in self._call.markers:
            self._read(marker)
            return
        self._end(cut=False)
        self._in_list = False
        self._fresh = marker == PYTHON_START
        self._bare = not self._enforced and (self._fresh or self._state == self._at_start)
        if self._fresh:
            self._outside = self._state
            self._state = self._at_block
            if self._lines:
                self._line = Spelled(self._lines)
                self._state = self._in_line

    def _end(self, *, cut: bool) -> None:
        """Ends what is open, where the output, a block, or what stands before one ends."""
        if cut:
            self._fresh = False  # then a block that is still uncertain is no code
        if self._line is not None:
            if not self._enforced and not cut and self._line.advance("\n"):
                self._begin_input(self._line)
            else:
                self._leave_line()
        if self._state == self._at_block:
            self._leave_empty_block()
        elif self._held or (self._call is not None and not self._begun):
            self._refuse()
        if self._call is not None and not cut:
            self._close(self._call)

    def _in_text(self, text: str, start: int) -> int:
        end = find_any(text, start, self._openers)
        self._events.text(text[start:end])
        if end < len(text) and text[end] in self._openers:
            return self._open(text[end], end)
        return end

    def _at_start(self, text: str, start: int) -> int:
        """At the beginning of the output, behind white space at most."""
        end = skip_white_space(text, start)
        self._events.text(text[start:end])
        return self._open(text[end], end) if end < len(text) else end

    def _at_block(self, text: str, start: int) -> int:
        """At the beginning of a block, behind white space at most."""
        end = skip_white_space(text, start)
        self._held.append(text[start:end])
        return self._open(text[end], end) if end < len(text) else end

    def _in_line(self, text: str, start: int) -> int:
        """In a block's first line, while it could be a custom tool's name."""
        line = self._line
        assert line is not None
        end = start
        while end < len(text) and line.advance(text[end]):
            end += 1
            if line.complete:
                self._begin_input(line)
                return end
        self._held.append(text[start:end])
        if end < len(text):
            self._leave_line()
        return end

    def _behind_call(self, text: str, start: int) -> int:
        end = start
        while end < len(text) and text[end] in _SEPARATORS:
            end += 1
        self._gap.append(text[start:end])
        if end == len(text):
            return end
        character = text[end]
        if self._in_list and character == "]":
            self._in_list = False
            self._gap.clear()
            return end + 1
        if character in self._openers or self._bare or self._in_list:
            return self._open(character, end)
        self._refuse()
        return end

    def _open(self, character: str, start: int) -> int:
        """Begins to read what could be a call, or several in brackets."""
        if character == "[" and self._openers:
            self._held.append(character)
            self._state = self._in_brackets
            return start + 1
        self._try(character)
        return start

    def _in_brackets(self, text: str, start: int) -> int:
        """Behind the bracket of a list, where its first call must follow."""
        end = skip_white_space(text, start)
        self._held.append(text[start:end])
        if end < len(text):
            self._in_list = True
            self._try(text[end])
        return end

    def _try(self, character: str) -> None:
        """Takes what begins with the character for a call."""
        if character == "{" and self._openers:
            self._enter(ExactCall(self._heads) if self._enforced else ObjectCall(self._names))
        else:
            self._enter(PythonCall(self._python_names))

    def _enter(self, call: Call) -> None:
        self._call = call
        self._begun = False
        self._state = self._in_call

    def _in_call(self, text: str, start: int) -> int:
        call = self._call
        assert call is not None
        end = call.read(text, start)
        if call.tool is None:
            self._held.append(text[start:end])
            if call.broken:
                self._refuse()
            return end
        self._report(call)
        if call.broken:
            self._close(call)
        elif call.complete:
            self._leave_call()
        return end

    def _report(self, call: Call) -> None:
        """Passes on what is certain of a call that has begun."""
        assert call.tool is not None
        if not self._begun:
            self._events.start(call.tool)
            self._begun = True
            self._fresh = False
            self._gap.clear()
            self._held.clear()
        self._events.part(call.take())

    def _close(self, call: Call) -> None:
        """Ends a call too early."""
        call.close()
        self._report(call)
        self._leave_call()
        self._bare = self._in_list = False
        if call.unread:
            self._say(call.unread)

    def _leave_call(self) -> None:
        self._call = None
        self._begun = False
        self._state = self._behind_call

    def _begin_input(self, line: Spelled[CallableTool]) -> None:
        """The block is a custom tool's."""
        assert line.value is not None
        self._line = None
        self._enter(InputCall(line.value, [PYTHON_START] if self._enforced else []))
        assert self._call is not None
        self._report(self._call)

    def _leave_line(self) -> None:
        """The block is no custom tool's: its beginning is read again."""
        held = "".join(self._held)
        self._held.clear()
        self._line = None
        self._state = self._at_block
        if self._enforced:  # then blocks of other kinds are nothing special
            self._fresh = False
            self._state = self._outside
        self._read(held)

    def _leave_empty_block(self) -> None:
        """White space alone is neither code nor a reason to forget the call before it."""
        if self._outside == self._behind_call:
            self._gap += self._held
        else:
            self._events.text("".join(self._held))
        self._held.clear()
        self._state = self._outside

    def _refuse(self) -> None:
        """What is held is no call of a form that begins like this."""
        self._call = None
        held = "".join(self._held)
        if self._fresh and self._code_tool is not None:
            call = CodeCall(self._code_tool)
            self._enter(call)
            call.read(held, 0)
            self._report(call)
        else:
            self._say("".join(self._gap) + held)

    def _say(self, text: str) -> None:
        """Passes on content, after which no call goes on."""
        self._events.text(text)
        self._gap.clear()
        self._held.clear()
        self._bare = self._in_list = self._fresh = False
        self._state = self._in_text
