"""What `caravan chat` shows: answers on stdout, everything else on stderr.

Nothing that comes from a server reaches the terminal as it is: an escape sequence could move the
cursor, set the clipboard, or make the terminal type.
"""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.text import Text

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HARMLESS = {
    **{code: chr(0x2400 + code) for code in range(0x20)},  # Unicode's pictures of control codes
    0x7F: "\N{SYMBOL FOR DELETE}",
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),  # 0x9b begins escape sequences, too
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),  # no encoding has half a character
    ord("\n"): "\n",
    ord("\t"): "\t",
}


def harmless(text: str) -> str:
    """The text with signs in place of control characters, but for newlines and tabs.

    >>> harmless("\\x1b[2J\\ttext")
    '␛[2J\\ttext'
    """
    return text.translate(_HARMLESS)


class Screen:
    """Two streams: `answers` gets the model's words only."""

    def __init__(self, answers: TextIO, notes: Console) -> None:
        self.answers = answers
        self._notes = notes
        self._in_line = False  # an answer has begun a line and not ended it

    def answer(self, text: str) -> None:
        """The next piece of an answer, at once."""
        if text:
            self.answers.write(encodable(harmless(text), self.answers.encoding))
            self.answers.flush()
            self._in_line = not text.endswith("\n")

    def end_answer(self) -> None:
        """What comes next begins a line."""
        if self._in_line:
            self._in_line = False
            self.answers.write("\n")
            self.answers.flush()

    def note(self, text: str) -> None:
        """A line about the conversation."""
        self._line(text, "dim")

    def figures(self, text: str) -> None:
        """A line for people only: not shown where stderr is no terminal."""
        if self._notes.is_terminal:
            self._line(text, "dim")

    def error(self, text: str, *, prefix: str = "error:") -> None:
        """What went wrong, in one line."""
        self._line(f"{prefix} {text}", "red")

    def prompt(self, text: str) -> None:
        """A prompt where stdout has no place for one."""
        self._notes.print(Text(text), end="")

    def _line(self, text: str, style: str) -> None:
        self.end_answer()
        line = encodable(harmless(" ".join(text.split("\n"))), self._notes.encoding)
        self._notes.print(Text(line, style), soft_wrap=True)


def encodable(text: str, encoding: str | None) -> str:
    """The text with question marks for what a terminal without Unicode cannot show."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
