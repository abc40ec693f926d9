"""Server-sent events, as far as chat streams use them: the data of each, whatever the chunks are.

Source: the HTML standard, section 9.2.6. Comments and every field but `data` are skipped.
"""

from __future__ import annotations

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventReader:
    """Reads one stream. Lines may end with CR, LF or both; text is decoded in whole lines."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a line
        self._data: list[str] = []  # of the event that is not complete yet
        self._after_cr = False  # the last chunk ended with a CR, whose LF may follow
        self._is_first = True

    def push(self, chunk: bytes) -> list[str]:
        """The data of the events that this chunk completes; of one without data, none."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        *lines, self._rest = (self._rest + chunk + b"x").splitlines()
        self._rest = self._rest[:-1]
        self._after_cr = chunk.endswith(b"\r")
        return [data for line in lines if (data := self._read(line)) is not None]

    def _read(self, line: bytes) -> str | None:
        """The event's data if the line ends it."""
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            data = "\n".join(self._data) if self._data else None
            self._data.clear()
            return data
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))
        return None
