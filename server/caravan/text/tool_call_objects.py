"""Calls that are JSON objects.

    {"type": "function", "name": NAME, "parameters": ARGUMENTS}
    {"type": "function", "function": {"name": NAME, "arguments": ARGUMENTS}}

Keys stand in any order, and "arguments" and "parameters" are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, Literal, TypeVar

from caravan.text.literals import LiteralReader
from caravan.text.tool_call_events import CallableTool
from caravan.text.tool_call_spellings import Spelled, Spellings
from caravan.text.tool_call_strings import StringReader, skip_white_space

T = TypeVar("T")
_Key = Literal["type", "name", "arguments", "function", "ignored"]

_INNER_KEYS: dict[str, _Key] = {
    "name": "name",
    "arguments": "arguments",
    "parameters": "arguments",
}
_OUTER_KEYS: dict[str, _Key] = {
    **_INNER_KEYS,
    "type": "type",
    "function": "function",
    "id": "ignored",
    "call_id": "ignored",
    "tool_call_id": "ignored",
    "index": "ignored",
}
_KEYS = (Spellings(_OUTER_KEYS), Spellings(_INNER_KEYS))  # by depth
_TYPES: Spellings[_Key] = Spellings({"function": "function"})
_NULLS = Spellings({"null": None, "None": None})
_QUOTES = frozenset("\"'")


class _OneOf(Generic[T]):
    """Reads a string literal that says one of a few things."""

    def __init__(self, quote: str, spellings: Spellings[T]) -> None:
        """The quote has been read."""
        self.value: T | None = None  # when it is complete
        self.broken = False
        self._string = StringReader(quote)
        self._spelled = Spelled(spellings)

    def read(self, text: str, start: int) -> int:
        """Reads on: returns where it ends, where it is broken, or the text's end."""
        while start < len(text) and not self._string.complete:
            decoded, taken = self._string.step(text[start], 0)
            if not all(map(self._spelled.advance, decoded)):
                self.broken = True
                return start
            start += taken
        if self._string.complete:
            self.value = self._spelled.value
            self.broken = self.value is None
        return start


class _Arguments:
    """Reads the arguments: an object, or a string that holds one."""

    def __init__(self, opener: str) -> None:
        """The opener is where they begin: a brace or a quote. Only a quote has been read."""
        self.begun = False  # a brace has been read
        self.complete = False
        self.broken = False
        self.unread = ""
        self._value = LiteralReader()
        self._string = StringReader(opener) if opener in _QUOTES else None

    def read(self, text: str, start: int) -> int:
        """Reads on: returns where they end, where they are broken, or the text's end."""
        if self._string is None:
            self.begun = True
            start = self._value.read(text, start)
            self.complete, self.broken = self._value.complete, self._value.broken
            return start
        while start < len(text) and not self.complete and not self.broken:
            start = self._step(self._string, text, start)
        return start

    def take(self) -> str:
        """The JSON text since the last time."""
        return self._value.take()

    def close(self) -> None:
        """Ends them where they are."""
        self._value.close()

    def _step(self, string: StringReader, text: str, start: int) -> int:
        decoded, end = string.step(text, start)
        used = self._use(decoded)
        if used < len(decoded):
            self.broken = True
            self.unread = string.source
            return end if string.source else start + used
        if string.complete:
            self.complete = self._value.complete
            self.broken = not self.complete
            return start if self.broken else end
        return end

    def _use(self, decoded: str) -> int:
        """Reads what the string says: how many of its characters can stand there."""
        used = 0
        if not self.begun:
            used = skip_white_space(decoded, used)
            self.begun = decoded[used : used + 1] == "{"
        if self.begun:
            used = self._value.read(decoded, used)
        if self._value.complete:
            used = skip_white_space(decoded, used)
        return used


class ObjectCall:
    """A call that is a JSON object.

    It has begun when the name is known and the arguments begin, or at its end without any. Before
    that only some keys may stand there, and behind the arguments any.
    """

    markers: Collection[str] = ()

    def __init__(self, functions: Spellings[CallableTool]) -> None:
        """The functions by their names."""
        self.tool: CallableTool | None = None
        self.complete = False
        self.broken = False
        self.unread = ""
        self._functions = functions
        self._named: CallableTool | None = None
        self._arguments: _Arguments | None = None
        self._depth = 0  # 1: inside the value of "function"
        self._key: _Key = "ignored"  # the last one
        self._word = _OneOf('"', _KEYS[0])  # a key, or the type
        self._name = _OneOf('"', functions)
        self._null = Spelled(_NULLS)
        self._other = LiteralReader()  # what does not matter
        self._state: Callable[[str, int], int] = self._at_brace

    def read(self, text: str, start: int) -> int:
        """See `Call`."""
        while start < len(text) and not self.complete and not self.broken:
            start = self._state(text, start)
        return start

    def take(self) -> str:
        """See `Call`."""
        return self._arguments.take() if self.tool and self._arguments else ""

    def close(self) -> None:
        """See `Call`."""
        if self._arguments:
            self._arguments.close()

    def _at_brace(self, text: str, start: int) -> int:
        assert text[start] == "{", text[start]
        self._state = self._at_key
        return start + 1

    def _at_key(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        if text[start] == "}":
            return self._end_object(start)
        if text[start] not in _QUOTES:
            return self._break(start)
        self._word = _OneOf(text[start], _KEYS[self._depth])
        self._state = self._in_key
        return start + 1

    def _in_key(self, text: str, start: int) -> int:
        start = self._word.read(text, start)
        self.broken = self._word.broken
        if self._word.value:
            self._key = self._word.value
            self._state = self._behind_key
        return start

    def _behind_key(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        if text[start] != ":":
            return self._break(start)
        self._state = self._at_value
        return start + 1

    def _at_value(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        character = text[start]
        is_quote = character in _QUOTES
        match self._key:
            case "ignored":
                self._other = LiteralReader()
                self._state = self._in_ignored
                return start
            case "type" if is_quote:
                self._word = _OneOf(character, _TYPES)
                self._state = self._in_type
            case "name" if is_quote and self._named is None:
                self._name = _OneOf(character, self._functions)
                self._state = self._in_name
            case "function" if character == "{":
                self._depth = 1
                self._state = self._at_key
            case "arguments" if self._arguments is None:
                return self._at_arguments(character, start)
            case _:
                return self._break(start)
        return start + 1

    def _at_arguments(self, character: str, start: int) -> int:
        is_quote = character in _QUOTES
        if is_quote or character == "{":
            self._arguments = _Arguments(character)
            self._state = self._in_arguments
            return start + is_quote
        self._null = Spelled(_NULLS)
        self._state = self._in_null
        return start

    def _in_ignored(self, text: str, start: int) -> int:
        end = self._other.read(text, start)
        self._other.take()
        self.broken = self._other.broken
        if self._other.complete:
            self._state = self._behind_value
        return end

    def _in_type(self, text: str, start: int) -> int:
        start = self._word.read(text, start)
        self.broken = self._word.broken
        if self._word.value:
            self._state = self._behind_value
        return start

    def _in_name(self, text: str, start: int) -> int:
        start = self._name.read(text, start)
        self.broken = self._name.broken
        if self._name.value:
            self._named = self._name.value
            self._state = self._behind_value
            if self._arguments is not None:
                self._begin_rest()
        return start

    def _in_null(self, text: str, start: int) -> int:
        """A null instead of arguments is as if there were none."""
        while start < len(text) and self._null.advance(text[start]):
            start += 1
        if start < len(text):
            self._state = self._behind_value
            self.broken = not self._null.complete
        return start

    def _in_arguments(self, text: str, start: int) -> int:
        arguments = self._arguments
        assert arguments is not None
        end = arguments.read(text, start)
        if arguments.begun:
            self.tool = self._named
        self.broken = arguments.broken
        self.unread = arguments.unread
        if arguments.complete:
            self._state = self._behind_value
            if self._named is not None:
                self._begin_rest()
        return end

    def _begin_rest(self) -> None:
        """Everything is known: what follows up to the last brace does not matter."""
        self.tool = self._named
        self._other = LiteralReader.of_remaining_members(self._depth + 1)
        self._state = self._in_rest

    def _in_rest(self, text: str, start: int) -> int:
        end = self._other.read(text, start)
        self._other.take()
        self.complete = self._other.complete
        self.broken = self._other.broken
        return end

    def _behind_value(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        if text[start] == "}":
            return self._end_object(start)
        if text[start] != ",":
            return self._break(start)
        self._state = self._at_key
        return start + 1

    def _end_object(self, start: int) -> int:
        if self._depth:
            self._depth = 0
            self._state = self._behind_value
        elif self._named is None:
            return self._break(start)
        else:
            self.tool = self._named
            self.complete = True
            self._arguments = _Arguments("{")
            self._arguments.read("{}", 0)
        return start + 1

    def _break(self, start: int) -> int:
        self.broken = True
        return start
