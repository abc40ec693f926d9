"""What the start shows: lines off a terminal, a bar on one."""

from __future__ import annotations

import io

from rich.console import Console

from caravan.cli.progress import StartDisplay
from caravan.messages import Progress


def shown(messages: list[Progress], *, terminal: bool) -> str:
    stream = io.StringIO()
    with StartDisplay(Console(file=stream, force_terminal=terminal, width=80)) as display:
        for message in messages:
            display.show(message)
        display.close()
    return stream.getvalue()


def weights(done: int, total: int = 1000) -> Progress:
    return Progress(phase="weights", done=done, total=total, unit="bytes")


def test_off_a_terminal_a_phase_is_a_few_lines() -> None:
    start = Progress(phase="start", done=0, total=1, unit="process")
    lines = shown([start, *(weights(done) for done in range(1001))], terminal=False).splitlines()
    assert lines == [
        "start: 0%",
        "weights: 0%",
        "weights: 25%",
        "weights: 50%",
        "weights: 75%",
        "weights: 100%",
    ]


def test_a_phase_of_nothing_is_done() -> None:
    assert shown([weights(0, 0)], terminal=False) == "weights: 100%\n"


def test_on_a_terminal_there_is_a_bar_per_phase() -> None:
    text = shown([weights(0), weights(500), weights(1000)], terminal=True)
    assert "weights" in text
    assert "100%" in text
