"""String literals of Python and JSON, decoded while they arrive."""

from __future__ import annotations

import sys
from collections.abc import Callable

WHITE_SPACE = frozenset(" \t\n\r\f\v")

_WINDOW = 256  # characters that `find_any` looks at; without a bound it would be quadratic

_SINGLE = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "/": "/",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "\n": "",
}
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_OCTAL_DIGITS = frozenset("01234567")


def find_any(text: str, start: int, characters: str) -> int:
    """Where the first of the characters is; a place before it or the end, if it is far away."""
    end = min(len(text), start + _WINDOW)
    for character in characters:
        found = text.find(character, start, end)
        if found >= 0:
            end = found
    return end


def skip_white_space(text: str, start: int) -> int:
    """Where the first character is that is no white space, or the end."""
    while start < len(text) and text[start] in WHITE_SPACE:
        start += 1
    return start


class StringReader:
    r"""Decodes a string literal: "...", '...', or either in triple quotes.

    It may hold raw newlines. Escapes are those of Python and JSON, without \N{...}; two that name
    the halves of a surrogate pair give one character. Any other backslash is a backslash.
    """

    def __init__(self, quote: str) -> None:
        """The string's first quote has been read."""
        self.complete = False
        self.source = ""  # how the escapes were written that `step` returned last; "": plain text
        self._quote = quote
        self._triple = False
        self._num_quotes = 0  # read of the three that end the string
        self._escape = ""  # backslash included
        self._half = ""  # a surrogate that was written as an escape
        self._half_source = ""
        self._state: Callable[[str, int], tuple[str, int]] = self._after_first_quote

    def step(self, text: str, start: int) -> tuple[str, int]:
        """Decodes a little: returns what it says and where to go on."""
        return self._state(text, start)

    def close(self) -> str:
        """What has been read and could not be decoded yet, when the string ends too early."""
        return self._quote * self._num_quotes + self._half + self._escape

    def _after_first_quote(self, text: str, start: int) -> tuple[str, int]:
        if text[start] == self._quote:
            self._state = self._after_second_quote
            return "", start + 1
        self._state = self._inside
        return "", start

    def _after_second_quote(self, text: str, start: int) -> tuple[str, int]:
        if text[start] == self._quote:
            self._triple = True
            self._state = self._inside
            return "", start + 1
        self.complete = True  # an empty string
        return "", start

    def _inside(self, text: str, start: int) -> tuple[str, int]:
        character = text[start]
        if self._half and character != "\\":
            return self._decoded(""), start
        if character == self._quote:
            self._num_quotes += 1
            self.complete = self._num_quotes == (3 if self._triple else 1)
            return "", start + 1
        self.source = ""
        if self._num_quotes:  # fewer than three
            quotes = self._quote * self._num_quotes
            self._num_quotes = 0
            return quotes, start
        if character == "\\":
            self._escape = character
            self._state = self._in_escape
            return "", start + 1
        end = find_any(text, start, self._quote + "\\")
        return text[start:end], end

    def _in_escape(self, text: str, start: int) -> tuple[str, int]:
        character = text[start]
        longer = self._escape + character  # at most 10 characters
        kind = longer[1]
        if kind in _HEX_LENGTHS:
            return self._in_hex(longer, _HEX_LENGTHS[kind], start)
        if kind in _OCTAL_DIGITS:
            return self._in_octal(longer, start)
        self._escape = longer
        return self._decoded(_SINGLE.get(character, longer)), start + 1

    def _in_hex(self, longer: str, num_digits: int, start: int) -> tuple[str, int]:
        digits = longer[2:]
        if digits and digits[-1] not in _HEX_DIGITS:
            return self._decoded(self._escape), start
        self._escape = longer
        if len(digits) < num_digits:
            return "", start + 1
        code = int(digits, 16)
        return self._decoded(chr(code) if code <= sys.maxunicode else longer), start + 1

    def _in_octal(self, longer: str, start: int) -> tuple[str, int]:
        if longer[-1] not in _OCTAL_DIGITS:
            return self._decoded(chr(int(self._escape[1:], 8))), start
        self._escape = longer
        if len(longer) < len(r"\777"):
            return "", start + 1
        return self._decoded(chr(int(longer[1:], 8))), start + 1

    def _decoded(self, value: str) -> str:
        """Ends an escape, or the wait for a surrogate's second half: what may leave now."""
        half, self._half = self._half, ""
        source, self._half_source = self._half_source, ""
        if half and "\udc00" <= value <= "\udfff":
            value = (half + value).encode("utf-16", "surrogatepass").decode("utf-16")
            half = ""
        elif "\ud800" <= value <= "\udbff":
            self._half, self._half_source = value, self._escape
            value = self._escape = ""
        self.source = source + self._escape
        self._escape = ""
        self._state = self._inside
        return half + value
