"""Looks over a regular expression before llguidance reads it.

llguidance obeys the syntax of Rust's `regex`, in which a few spellings mean something else than in
Python and JavaScript; these are refused. So is what would be too large with its repetitions
written out: llguidance finds that out only when the output has already begun.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from caravan.grammars.errors import TOO_COMPLEX, GrammarError
from caravan.grammars.limits import MAX_REGEX_CHARACTERS, MAX_REGEX_ITEMS, Budget

_COUNT = re.compile(r"\{(\d{1,9})(,?)(\d{0,9})\}")
_BRACED = re.compile(r"\{[^{}]*\}")
_FLAGS = re.compile(r"\?[a-zA-Z]*(?:-[a-zA-Z]*)?[:)]")
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_SET_OPERATIONS = ("&&", "--", "~~")

# In a JSON string these have escapes of their own; other control characters only \u0000 and so on.
_ESCAPED_CONTROLS = frozenset("\b\t\n\f\r")


def is_unwritable(character: str) -> bool:
    """Whether a character cannot stand in the JSON strings that a grammar lets the model write.

    Those hold no \\u escapes: with them a name could be spelled in two ways, and so come twice.
    """
    return (character < " " and character not in _ESCAPED_CONTROLS) or character == "\x7f"


@dataclass(slots=True)
class _Group:
    total: int = 0  # items, repetitions written out
    last: int = 0  # of them in the last one, which a repetition would repeat


def check_regex(pattern: str, budget: Budget, *, in_json: bool = False) -> None:
    """Raises GrammarError. `in_json`: it describes the content of a JSON string."""
    _Scan(pattern, budget, in_json)


class _Scan:
    """One pass over a regular expression."""

    def __init__(self, pattern: str, budget: Budget, in_json: bool) -> None:
        if len(pattern) > MAX_REGEX_CHARACTERS:
            raise GrammarError(f"has more than {MAX_REGEX_CHARACTERS} characters")
        self._pattern = pattern
        self._in_json = in_json
        self._at = 0
        self._groups = [_Group()]
        self._budget = budget
        while self._at < len(pattern):
            self._item()

    def _item(self) -> None:
        character = self._pattern[self._at]
        if character == "(":
            self._open()
        elif character == ")" and len(self._groups) > 1:
            self._at += 1
            self._add(max(1, self._groups.pop().total))
        elif character == "[":
            self._class()
        elif character in "*+?":
            self._at += 1
            self._budget.spend("repetitions")
        elif count := _COUNT.match(self._pattern, self._at):
            self._at = count.end()
            self._repeat(max(1, int(count[1]), int(count[3] or 0)))
        elif character == "|":
            self._at += 1
        else:
            self._literal()
            self._add(1)

    def _open(self) -> None:
        self._at += 1
        flags = _FLAGS.match(self._pattern, self._at)
        if flags and "x" in flags[0]:
            raise self._error("the flag `x` is not supported")
        if flags:
            self._at = flags.end() - flags[0].endswith(")")
        elif self._pattern.startswith("?", self._at):
            self._at += 1
        self._groups.append(_Group())

    def _add(self, items: int) -> None:
        group = self._groups[-1]
        group.total += items
        group.last = items
        if group.total > MAX_REGEX_ITEMS:
            raise GrammarError(TOO_COMPLEX)

    def _repeat(self, times: int) -> None:
        group = self._groups[-1]
        items = group.last * times
        group.total -= group.last
        self._add(items)

    def _literal(self) -> None:
        """Reads a character that no class contains."""
        start = self._at
        if self._unwritable():
            self._at = start
            raise self._error("control characters cannot be written")

    def _class(self) -> None:
        start = self._at
        self._at += 1
        negated = self._pattern.startswith("^", self._at)
        self._at += negated
        items, unwritable = 0, False
        while items == 0 or not self._pattern.startswith("]", self._at):
            if self._at >= len(self._pattern):
                self._at = start
                raise self._error("a character class is not closed")
            if self._pattern[self._at] == "[":
                raise self._error("`[` in a character class is written `\\[`")
            if self._pattern.startswith(_SET_OPERATIONS, self._at):
                raise self._error("`&`, `-` and `~` in a character class are written with a `\\`")
            unwritable = self._unwritable()
            items += 1
        self._at += 1
        if items == 1 and unwritable and not negated:
            self._at = start
            raise self._error("control characters cannot be written")
        self._add(1)

    def _unwritable(self) -> bool:
        """Reads a character or an escape; whether it is a character that JSON cannot hold."""
        character = self._pattern[self._at]
        self._at += 1
        if character == "\\":
            if self._at == len(self._pattern):
                self._at -= 1
                raise self._error("an escape is incomplete")
            character = self._escape()
        return self._in_json and is_unwritable(character)

    def _escape(self) -> str:
        """The character that an escape stands for, as far as it may be a control character."""
        name = self._pattern[self._at]
        self._at += 1
        braced = _BRACED.match(self._pattern, self._at) if name in "xuUpPb" else None
        if braced:
            self._at = braced.end()
            digits = braced[0][1:-1]
        else:
            digits = self._pattern[self._at : self._at + _HEX_DIGITS.get(name, 0)]
            self._at += len(digits)
        if name in _HEX_DIGITS:
            try:
                return chr(int(digits, 16))
            except (ValueError, OverflowError):
                return " "  # llguidance refuses it
        return {"a": "\a", "v": "\v"}.get(name, " ")

    def _error(self, problem: str) -> GrammarError:
        return GrammarError(
            f"is not a regular expression that can be obeyed at character {self._at + 1}: {problem}"
        )
