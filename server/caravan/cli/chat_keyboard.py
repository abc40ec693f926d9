"""Messages from a terminal: line editing, several lines in one, and what Ctrl-C and Ctrl-D mean."""

from __future__ import annotations

from collections.abc import Callable

from caravan.cli.chat_screen import Screen

try:
    import readline  # `input` has line editing and a history once it is imported
except ImportError:  # a Python that was built without it
    readline = None  # type: ignore[assignment]  # the module or nothing

FIRST = "> "
NEXT = ". "  # a line after one that ended with a backslash


def line_under_way() -> str:
    """What was typed when Ctrl-C came."""
    return readline.get_line_buffer() if readline else ""


class Keyboard:
    """Reads messages until the user has enough."""

    def __init__(
        self,
        screen: Screen,
        read_line: Callable[[str], str] = input,
        typed: Callable[[], str] = line_under_way,
    ) -> None:
        self._screen = screen
        self._read_line = read_line
        self._typed = typed

    def message(self) -> str | None:
        """The next one, which may be empty; None: Ctrl-D.

        Ctrl-C drops what was typed. At an empty prompt it says how to end, and the second one there
        ends: raises KeyboardInterrupt.
        """
        is_second = False
        while True:
            lines: list[str] = []
            try:
                while True:
                    line = self._line(NEXT if lines else FIRST)
                    if not line.endswith("\\"):
                        return "\n".join([*lines, line])
                    lines.append(line[:-1])
            except EOFError:
                self._end_line()
                return None
            except KeyboardInterrupt:
                self._end_line()
                if lines or self._typed():
                    is_second = False
                    continue
                if is_second:
                    raise
                is_second = True
                self._screen.note("Ctrl-C again or Ctrl-D ends")

    def _line(self, prompt: str) -> str:
        while True:
            try:
                if self._screen.answers.isatty():
                    return _whole(self._read_line(prompt))
                self._screen.prompt(prompt)  # stdout is a file, for answers
                return _whole(self._read_line(""))
            except UnicodeError:
                self._screen.error("what was typed is not text in the terminal's encoding")

    def _end_line(self) -> None:
        """The prompt's own line has no end after a key that is none."""
        if self._screen.answers.isatty():
            self._screen.answers.write("\n")
            self._screen.answers.flush()


def _whole(line: str) -> str:
    """Raises UnicodeEncodeError for bytes that Python let through."""
    line.encode()
    return line
