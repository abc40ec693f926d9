"""Calls in the one form that a grammar lets the model write, with arguments by the letter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from caravan.text.literals import MAX_DEPTH
from caravan.text.tool_call_events import CallableTool
from caravan.text.tool_call_json import json_number, json_string, json_text
from caravan.text.tool_call_markers import MARKERS
from caravan.text.tool_call_spellings import Spelled, Spellings
from caravan.text.tool_call_strings import find_any, skip_white_space

_WHITE_SPACE = frozenset(" \t\n\r")
_DELIMITERS = _WHITE_SPACE | frozenset('[]{}",:')
_ESCAPES = frozenset('"\\/bfnrt')
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_CLOSERS = {"[": "]", "{": "}"}
_CONSTANTS = ("true", "false", "null")


class JsonReader:
    """Reads one JSON object and passes it on as it is written.

    What has been written so far is always the beginning of JSON text, which `close` completes.
    """

    def __init__(self) -> None:
        """The object's brace is the first character to be read."""
        self.complete = False
        self.broken = False  # the character where reading stopped cannot stand there
        self.unread = ""  # when broken or closed: what stands before it and has not been used
        self._out: list[str] = []
        self._closers: list[str] = []  # of the brackets that are open
        self._lead: list[str] = []  # a comma or colon, and white space, in front of what comes next
        self._needs_value = False  # a key has been written
        self._in_key = False
        self._escape: list[str] = []
        self._word: list[str] = []
        self._state: Callable[[str, int], int] = self._at_value

    def read(self, text: str, start: int) -> int:
        """Reads on: returns where the object ends, where it is broken, or the text's end."""
        while start < len(text) and not self.complete and not self.broken:
            start = self._state(text, start)
        return start

    def take(self) -> str:
        """The text that has become certain since the last time."""
        text = "".join(self._out)
        self._out.clear()
        return text

    def close(self) -> None:
        """Ends what is open, so that the output is JSON."""
        if self._state in (self._in_string, self._in_escape):
            self._write(json_string("".join(self._escape))[1:])
            self._needs_value = self._in_key
        elif self._word:
            self._end_word()
        if self._needs_value:
            self._out.append(":null")
        self._out.extend(reversed(self._closers))

    def _write(self, text: str) -> None:
        self._out += self._lead
        self._lead.clear()
        self._out.append(text)

    def _break(self, start: int) -> int:
        self.broken = True
        return start

    def _skip(self, text: str, start: int) -> int:
        end = start
        while end < len(text) and text[end] in _WHITE_SPACE:
            end += 1
        self._lead.append(text[start:end])
        return end

    def _at_value(self, text: str, start: int) -> int:
        start = self._skip(text, start)
        if start == len(text):
            return start
        character = text[start]
        if character == '"':
            self._begin_string(is_key=False)
        elif character in _CLOSERS:
            if len(self._closers) == MAX_DEPTH:
                return self._break(start)
            self._write(character)
            self._needs_value = False
            self._closers.append(_CLOSERS[character])
            self._state = self._at_first_member
        elif character in _DELIMITERS:
            return self._break(start)
        else:
            self._state = self._in_word
            return start
        return start + 1

    def _at_first_member(self, text: str, start: int) -> int:
        start = self._skip(text, start)
        if start == len(text):
            return start
        if text[start] == self._closers[-1]:
            self._pop()
            return start + 1
        self._begin_member()
        return start

    def _begin_member(self) -> None:
        self._state = self._at_key if self._closers[-1] == "}" else self._at_value

    def _pop(self) -> None:
        self._write(self._closers.pop())
        self._end_value()

    def _end_value(self) -> None:
        self._state = self._behind_value
        self.complete = not self._closers

    def _at_key(self, text: str, start: int) -> int:
        start = self._skip(text, start)
        if start == len(text):
            return start
        if text[start] != '"':
            return self._break(start)
        self._begin_string(is_key=True)
        return start + 1

    def _begin_string(self, *, is_key: bool) -> None:
        self._write('"')
        self._needs_value = False
        self._in_key = is_key
        self._state = self._in_string

    def _in_string(self, text: str, start: int) -> int:
        character = text[start]
        if character == '"':
            self._write(character)
            self._needs_value = self._in_key
            if self._in_key:
                self._state = self._behind_key
            else:
                self._end_value()
            return start + 1
        if character == "\\":
            self._escape = [character]
            self._state = self._in_escape
            return start + 1
        end = find_any(text, start, '"\\')
        plain = text[start:end]
        if json_text(plain) != plain:  # control characters, or lone surrogates
            end = next(i for i in range(start, end) if json_text(text[i]) != text[i])
            self.broken = True
        self._write(text[start:end])
        return end

    def _in_escape(self, text: str, start: int) -> int:
        character = text[start]
        allowed = _ESCAPES | {"u"} if len(self._escape) == 1 else _HEX_DIGITS
        if character not in allowed:
            return self._break(start)
        self._escape.append(character)
        if self._escape[1] != "u" or len(self._escape) == len(r"\u0000"):
            self._write("".join(self._escape))
            self._escape.clear()
            self._state = self._in_string
        return start + 1

    def _in_word(self, text: str, start: int) -> int:
        end = start
        while end < len(text) and text[end] not in _DELIMITERS:
            end += 1
        self._word.append(text[start:end])
        if end < len(text):
            self._end_word()
        return end

    def _end_word(self) -> None:
        word = "".join(self._word)
        self._word.clear()
        if word in _CONSTANTS or json_number(word) == word:
            self._write(word)
            self._needs_value = False
            self._end_value()
        else:
            self.broken = True
            self.unread = word

    def _behind_key(self, text: str, start: int) -> int:
        start = self._skip(text, start)
        if start == len(text):
            return start
        if text[start] != ":":
            return self._break(start)
        self._lead.append(":")
        self._state = self._at_value
        return start + 1

    def _behind_value(self, text: str, start: int) -> int:
        start = self._skip(text, start)
        if start == len(text):
            return start
        if text[start] == self._closers[-1]:
            self._pop()
        elif text[start] == ",":
            self._lead.append(",")
            self._begin_member()
        else:
            return self._break(start)
        return start + 1


class ExactCall:
    """{"type": "function", "name": NAME, "parameters": ARGUMENTS}, spelled like this."""

    markers: Collection[str] = MARKERS  # a grammar never lets special tokens into JSON

    def __init__(self, heads: Spellings[CallableTool]) -> None:
        """The beginnings of calls as `exact_heads` gives them."""
        self.tool: CallableTool | None = None
        self.complete = False
        self.broken = False
        self.unread = ""
        self._head = Spelled(heads)
        self._arguments = JsonReader()
        self._state: Callable[[str, int], int] = self._in_head

    def read(self, text: str, start: int) -> int:
        """See `Call`."""
        while start < len(text) and not self.complete and not self.broken:
            start = self._state(text, start)
        return start

    def take(self) -> str:
        """See `Call`."""
        return self._arguments.take()

    def close(self) -> None:
        """See `Call`."""
        self._arguments.close()
        self.unread = self._arguments.unread

    def _in_head(self, text: str, start: int) -> int:
        while start < len(text) and self._head.advance(text[start]):
            start += 1
        if start < len(text):
            self._state = self._behind_head
            self.broken = not self._head.complete
        return start

    def _behind_head(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        if text[start] == "{":
            self.tool = self._head.value
            self._state = self._in_arguments
        else:
            self.broken = True
        return start

    def _in_arguments(self, text: str, start: int) -> int:
        end = self._arguments.read(text, start)
        self.broken = self._arguments.broken
        if self._arguments.complete:
            self._state = self._behind_arguments
        return end

    def _behind_arguments(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        self.complete = text[start] == "}"
        self.broken = not self.complete
        return start + self.complete


def exact_heads(tools: Iterable[CallableTool]) -> Spellings[CallableTool]:
    """What calls of functions begin with, up to their arguments."""
    return Spellings(
        {
            f'{{"type": "function", "name": {json_string(tool.name)}, "parameters": ': tool
            for tool in tools
        }
    )
