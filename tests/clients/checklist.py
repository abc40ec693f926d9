"""A client's checks, by the feature they check. Runs inside the client's own environment.

A check is a function that raises where the client does not do what it should. It may return a note
for the table. `run` runs all of them, or those named on the command line, and prints a line of JSON
for each. Only Python's own library is used here.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Check = Callable[[], str | None]
E = TypeVar("E", bound=Exception)

URL = os.environ.get("CARAVAN_SCRIPTED_URL", "")
DEMO_URL = os.environ.get("CARAVAN_DEMO_URL", "")
KEY = os.environ.get("CARAVAN_KEY", "")
MODEL = os.environ.get("CARAVAN_MODEL", "")
SAMPLES = json.loads(Path(__file__).with_name("samples.json").read_text(encoding="utf-8"))

TIMEOUT_S = 30.0
MAX_NOTE_CHARACTERS = 400

_checks: dict[str, Check] = {}


def feature(name: str) -> Callable[[Check], Check]:
    """Registers a check."""

    def register(check: Check) -> Check:
        assert name not in _checks, name
        _checks[name] = check
        return check

    return register


def run() -> None:
    """One line for each check: {"feature", "ok", "note"}. Tracebacks go to stderr."""
    for name in sys.argv[1:] or _checks:
        ok, note = _outcome(_checks[name])
        line = json.dumps({"feature": name, "ok": ok, "note": note[:MAX_NOTE_CHARACTERS]})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def same(actual: object, expected: object) -> None:
    """Raises AssertionError unless they are equal."""
    assert actual == expected, f"{actual!r} is not {expected!r}"


def failure(kind: type[E], call: Callable[[], object]) -> E:
    """The error that a call ends with. Raises AssertionError if it returns."""
    try:
        value = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {value!r}")


def said(text: str) -> list[Any]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def _outcome(check: Check) -> tuple[bool, str]:
    try:
        return True, check() or ""
    except Exception as error:  # noqa: BLE001 - whatever the client raises belongs in the table
        traceback.print_exc()
        line = traceback.extract_tb(error.__traceback__)[1].lineno
        return False, f"line {line}: {type(error).__name__}: {error}"
