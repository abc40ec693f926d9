"""Log lines: one per event, whatever is in it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

import pytest

from caravan import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_has_time_level_process_logger_and_message() -> None:
    stream = io.StringIO()
    logs.configure("api", stream)
    logging.getLogger("caravan.x").warning("%d of %s", 3, "y")
    (line,) = logged(stream)
    time, rest = line.split(" ", 1)
    assert rest == "WARNING api caravan.x 3 of y"
    assert len(time) == len("2026-11-23T10:15:00.123Z")


def test_a_line_names_its_request() -> None:
    stream = io.StringIO()
    logs.configure("api", stream)
    token = logs.request_id.set("req-7")
    logging.getLogger("caravan").info("hello")
    logs.request_id.reset(token)
    logging.getLogger("caravan").info("hello")
    first, second = logged(stream)
    assert " caravan request_id=req-7 hello" in first
    assert "request_id" not in second


def test_no_text_forges_a_line() -> None:
    stream = io.StringIO()
    logs.configure("api", stream)
    hostile = "a\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i\x1b[2Jj"
    logging.getLogger("caravan").info("%s", hostile)
    (line,) = logged(stream)
    assert "\x1b" not in line
    assert line.endswith(r"a\nb\rc\x0bd\x0ce\x1cf\x85g\u2028h\u2029i\x1b[2Jj")


def log_error(stream: io.StringIO) -> None:
    logs.configure("engine", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("caravan").exception("it failed")


def test_a_traceback_is_one_line_in_a_file_and_many_on_a_terminal() -> None:
    file, terminal = io.StringIO(), Terminal()
    log_error(file)
    log_error(terminal)
    (line,) = logged(file)
    assert "it failed\\nTraceback" in line
    assert line.endswith("ValueError: odd")
    assert len(logged(terminal)) > 3


def test_debug_and_chatty_libraries_are_silent_and_warnings_are_lines() -> None:
    stream = io.StringIO()
    logs.configure("api", stream)
    logging.getLogger("caravan").debug("detail")
    logging.getLogger("httpx").info("GET")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("beware", stacklevel=1)
    (line,) = logged(stream)
    assert "beware" in line
