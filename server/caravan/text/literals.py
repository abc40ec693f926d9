"""Literals of Python and JSON to compact JSON text, while they arrive.

    value       string | word | [value, ...] | (value, ...) | {key: value, ...}
    arguments   name=value, value, **{key: value, ...}      up to the parenthesis that closes them
    key         string | word; what follows it may also be `=`, as Meta writes dictionaries

Strings are read by `StringReader`. A word is whatever stands between white space, quotes,
brackets, commas, colons, semicolons and equals signs: a number, a constant, or else a string.
White space may stand between all of these, and a comma behind the last member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from caravan.text.tool_call_json import json_key, json_string, json_text, json_word
from caravan.text.tool_call_strings import WHITE_SPACE, StringReader, skip_white_space

MAX_DEPTH = 128  # of brackets

_WHITE_SPACE = "".join(WHITE_SPACE)
_QUOTES = frozenset("\"'")
_DELIMITERS = WHITE_SPACE | _QUOTES | frozenset("[](){},:;=")


class _Kind(NamedTuple):
    """A kind of brackets."""

    closer: str
    json_opener: str
    json_closer: str


_LIST = _Kind("]", "[", "]")
_TUPLE = _Kind(")", "[", "]")  # or a value in parentheses
_DICT = _Kind("}", "{", "}")
_ARGUMENTS = _Kind(")", "{", "}")
_MERGED = _Kind("}", "", "")  # a dictionary behind `**`
_KIND_OF_OPENER = {"[": _LIST, "(": _TUPLE, "{": _DICT}


@dataclass(slots=True)
class _Brackets:
    """Brackets that are open."""

    kind: _Kind
    num_members: int = 0  # complete ones
    has_comma: bool = False


class _Role(Enum):
    """What the string or word is that is being read."""

    VALUE = auto()
    KEY = auto()
    ARGUMENT = auto()  # a word: a value, or an argument's name


class LiteralReader:
    """Reads one value and writes it as JSON.

    What has been written so far is always the beginning of JSON text, which `close` completes.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False  # the character where reading stopped cannot stand there
        self.unread = ""  # when broken or closed: what stands before it and has not been used
        self._out: list[str] = []
        # Where "[" goes into the output, if a comma shows that parentheses are a tuple.
        self._undecided: list[int] = []
        self._open: list[_Brackets] = []
        self._names: Iterator[str] = iter(())  # of positional arguments
        self._lead = ""  # written in front of the next value
        self._needs_value = False  # a key has been written
        self._role = _Role.VALUE
        self._string: StringReader | None = None
        self._word: list[str] = []  # its pieces, then those of the white space behind it
        self._state: Callable[[str, int], int] = self._at_value

    @classmethod
    def of_arguments(cls, parameters: Sequence[str]) -> LiteralReader:
        """Reads a call's arguments; its parenthesis has been read."""
        reader = cls()
        reader._names = iter(parameters)
        reader._push(_ARGUMENTS)
        return reader

    @classmethod
    def of_remaining_members(cls, depth: int) -> LiteralReader:
        """Reads on in that many dictionaries within each other, behind a member."""
        reader = cls()
        for _ in range(depth):
            reader._push(_DICT)
        reader._end_value()
        return reader

    def read(self, text: str, start: int) -> int:
        """Reads on: returns where the value ends, where it is broken, or the text's end."""
        while start < len(text) and not self.complete and not self.broken:
            start = self._state(text, start)
        return start

    def take(self) -> str:
        """The JSON text that has become certain since the last time."""
        end = self._undecided[0] if self._undecided else len(self._out)
        text = "".join(self._out[:end])
        if end:
            del self._out[:end]
            self._undecided = [index - end for index in self._undecided]
        return text

    def close(self) -> None:
        """Ends what is open, so that the output is JSON."""
        if self._string is not None:
            self._out.append(json_text(self._string.close()))
            self._end_string()
        elif self._word:
            self._end_word()
            if self._role is _Role.ARGUMENT:
                self._end_positional()
        if self._needs_value:
            self._begin_value()
            self._out.append("null")
            self._end_value()
        while self._open:
            self._pop()

    def _push(self, kind: _Kind) -> None:
        if len(self._open) == MAX_DEPTH:
            self.broken = True
            return
        self._begin_value()
        if kind is _TUPLE:
            self._undecided.append(len(self._out))
            self._out.append("")
        else:
            self._out.append(kind.json_opener)
        num_members = self._open[-1].num_members if kind is _MERGED else 0
        self._open.append(_Brackets(kind, num_members))
        self._state = self._at_member

    def _pop(self) -> None:
        brackets = self._open.pop()
        if brackets.kind is _TUPLE and not brackets.has_comma:
            index = self._undecided.pop()
            if not brackets.num_members:
                self._out[index] = "["
                self._out.append("]")
        else:
            self._out.append(brackets.kind.json_closer)
        if brackets.kind is _MERGED:
            self._open[-1].num_members = brackets.num_members
            self._state = self._behind_value
        else:
            self._end_value()

    def _begin_value(self) -> None:
        self._out.append(self._lead)
        self._lead = ""
        self._needs_value = False

    def _end_value(self) -> None:
        self._state = self._behind_value
        if self._open:
            self._open[-1].num_members += 1
        else:
            self.complete = True

    def _comma(self) -> str:
        return "," if self._open[-1].num_members else ""

    def _write_key(self, json_key: str) -> None:
        self._out.append(f"{self._comma()}{json_key}:")
        self._needs_value = True

    def _at_member(self, text: str, start: int) -> int:
        """Where brackets go on or end."""
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        kind = self._open[-1].kind
        if text[start] == kind.closer:
            self._pop()
            return start + 1
        if kind in (_DICT, _MERGED):
            self._state = self._at_key
        elif kind is _ARGUMENTS:
            self._state = self._at_argument
        else:
            self._lead = self._comma()
            self._state = self._at_value
        return start

    def _at_value(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        character = text[start]
        if character in _QUOTES:
            self._begin_value()
            self._begin_string(character, _Role.VALUE)
        elif character in _KIND_OF_OPENER:
            self._push(_KIND_OF_OPENER[character])
            return start if self.broken else start + 1
        elif character in _DELIMITERS:
            self.broken = True
            return start
        else:
            self._role = _Role.VALUE
            self._state = self._in_word
            return start
        return start + 1

    def _at_key(self, text: str, start: int) -> int:
        character = text[start]
        if character in _QUOTES:
            self._out.append(self._comma())
            self._begin_string(character, _Role.KEY)
            return start + 1
        if character in _DELIMITERS:
            self.broken = True
        else:
            self._role = _Role.KEY
            self._state = self._in_word
        return start

    def _at_argument(self, text: str, start: int) -> int:
        character = text[start]
        if character in _QUOTES or character in _KIND_OF_OPENER:
            name = next(self._names, None)
            if name is None:
                self.broken = True
            else:
                self._write_key(json_string(name))
                self._state = self._at_value
        elif character in _DELIMITERS:
            self.broken = True
        else:
            self._role = _Role.ARGUMENT
            self._state = self._in_word
        return start

    def _begin_string(self, quote: str, role: _Role) -> None:
        self._out.append('"')
        self._string = StringReader(quote)
        self._role = role
        self._state = self._in_string

    def _in_string(self, text: str, start: int) -> int:
        assert self._string is not None
        decoded, end = self._string.step(text, start)
        if decoded:
            self._out.append(json_text(decoded))
        if self._string.complete:
            self._end_string()
        return end

    def _end_string(self) -> None:
        self._string = None
        self._out.append('"')
        if self._role is _Role.KEY:
            self._out.append(":")
            self._needs_value = True
            self._state = self._behind_key
        else:
            self._end_value()

    def _in_word(self, text: str, start: int) -> int:
        end = start
        while end < len(text) and text[end] not in _DELIMITERS:
            end += 1
        self._word.append(text[start:end])
        if end < len(text):
            self._end_word()
        return end

    def _end_word(self) -> None:
        if self._role is _Role.ARGUMENT:
            self._state = self._behind_argument
            return
        word = "".join(self._word)
        self._word.clear()
        if self._role is _Role.KEY:
            self._write_key(json_key(word))
            self._state = self._behind_key
        else:
            self._begin_value()
            self._out.append(json_word(word))
            self._end_value()

    def _behind_argument(self, text: str, start: int) -> int:
        """Behind a word that is an argument's value, its name, or `**`."""
        end = skip_white_space(text, start)
        self._word.append(text[start:end])
        if end == len(text):
            return end
        word = "".join(self._word).rstrip(_WHITE_SPACE)
        if text[end] == "=":
            self._word.clear()
            self._write_key(json_string(word))
            self._state = self._at_value
            return end + 1
        if text[end] == "{" and word == "**":
            self._word.clear()
            self._push(_MERGED)
            return end if self.broken else end + 1
        self._end_positional()
        self.broken = bool(self.unread)
        return end

    def _end_positional(self) -> None:
        """The word was an argument's value, if a name is left for it."""
        source = "".join(self._word)
        self._word.clear()
        name = next(self._names, None)
        if name is None:
            self.unread = source
            return
        self._write_key(json_string(name))
        self._begin_value()
        self._out.append(json_word(source.rstrip(_WHITE_SPACE)))
        self._end_value()

    def _behind_key(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        if text[start] not in ":=":
            self.broken = True
            return start
        self._state = self._at_value
        return start + 1

    def _behind_value(self, text: str, start: int) -> int:
        start = skip_white_space(text, start)
        if start == len(text):
            return start
        brackets = self._open[-1]
        if text[start] == brackets.kind.closer:
            self._pop()
        elif text[start] == ",":
            if brackets.kind is _TUPLE and not brackets.has_comma:
                self._out[self._undecided.pop()] = "["
            brackets.has_comma = True
            self._state = self._at_member
        else:
            self.broken = True
            return start
        return start + 1
