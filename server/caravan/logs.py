"""One line per event on stderr, with the request it belongs to.

    2026-11-23T10:15:00.123Z INFO api caravan.api.chat request_id=req-81 rejected: prompt too long

Off a terminal a line break inside a message (a traceback, or a client's text) is written as `\\n`,
so that one event stays one line and nobody can forge another.
"""

from __future__ import annotations

import logging
import sys
import time
from contextvars import ContextVar
from typing import TextIO

request_id: ContextVar[str] = ContextVar("request_id", default="")

# Control characters, the line breaks of Unicode among them, become visible.
_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in _CONTROLS}


class LineFormatter(logging.Formatter):
    """Formats a record as one line. `process` names the process: api, engine.

    >>> record = logging.makeLogRecord({"name": "caravan", "levelname": "INFO", "msg": "a\\nb"})
    >>> record.created = 0.25
    >>> LineFormatter("api").format(record)
    '1970-01-01T00:00:00.250Z INFO api caravan a\\\\nb'
    """

    def __init__(self, process: str, *, multi_line: bool = False) -> None:
        super().__init__()
        self._process = process
        self._multi_line = multi_line

    def format(self, record: logging.LogRecord) -> str:
        """The record, its request and its traceback."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        milliseconds = int(record.created % 1 * 1000)
        request = request_id.get()
        parts = [
            f"{seconds}.{milliseconds:03}Z",
            record.levelname,
            self._process,
            record.name,
            *([f"request_id={request}"] if request else []),
            record.getMessage(),
        ]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._multi_line:
            return line
        return line.translate(_ESCAPES)


def configure(process: str, stream: TextIO | None = None) -> None:
    """Sends everything from INFO up to `stream` (default: stderr). Call once, at the start."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(process, multi_line=stream.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for chatty in ("httpx", "uvicorn"):  # one line per request or per start that ours replace
        logging.getLogger(chatty).setLevel(logging.WARNING)
