"""The servers that `front_end.py` compares, each a process of its own on the same uvicorn.

    caravan    the whole application over an engine that plays tokens
    raw        no framework: reads the body and writes the bytes that `caravan` answered to the same
               body, with one `send` for each of its own; an event for every turn of the loop, since
               tokens come one by one
    burst      the same, all of it in one turn: uvloop then joins what was sent into few writes

The first line of the output is the port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec
import uvloop
from played_engine import PlayedEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.cli.web import WebServer, bound_socket
from caravan.config import ApiConfig, ImageConfig
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.tiles import TileLayout

MODEL = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
KINDS = ("caravan", "raw", "burst")

# What every answer says: words, code, numbers, characters of several bytes.
TEXT = """The lighthouse keeper's daughter kept a ledger of every ship that passed: its name, its \
flag and the hour. "Nobody will read it," her brother said, and he was wrong by 117 years.

```python
def ships(ledger: list[str]) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[-1]) for line in ledger}
```

In 1903 she wrote: «La mer était calme, 12 °C, vent d'ouest». Two pages further on there is a \
drawing of a whale 🐋 — and under it, in another hand, the word 灯台.
"""


class Recording(msgspec.Struct):
    """An answer, as it was sent."""

    request: str  # its body
    headers: list[tuple[str, str]]
    pieces: list[str]  # one for each `send`


class RawApp:
    """An ASGI application that knows what to answer."""

    def __init__(self, recordings: list[Recording], *, turns: bool) -> None:
        """`turns`: the event loop has a turn between two pieces."""
        self._answers = {
            recording.request.encode(): (
                [(name.encode(), value.encode()) for name, value in recording.headers],
                [piece.encode() for piece in recording.pieces],
            )
            for recording in recordings
        }
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        assert scope["type"] == "http", scope["type"]
        request = b""
        more = True
        while more:
            message = await receive()
            request += message["body"]
            more = message["more_body"]
        headers, pieces = self._answers[request]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": index != last})
            if self._turns and index != last:
                await asyncio.sleep(0)


async def serve(app: ASGIApp) -> None:
    """Serves on a free port until the process is ended."""
    with bound_socket("127.0.0.1", 0) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await WebServer(app).serve([listener])


async def serve_caravan(directory: Path) -> None:
    """Serves the whole application with the tokenizer in `directory`."""
    tokenizer = Tokenizer.from_directory(directory)
    engine = PlayedEngine(tokenizer.encode(TEXT), tokenizer.vocab_size)
    async with ImageLoader(ImageConfig(), TileLayout()) as images:
        app = create_app(
            engine, tokenizer, GenerationDefaults(), ApiConfig(), model_name=MODEL, images=images
        )
        await serve(app)


def main() -> None:
    """Runs one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--tokenizer", type=Path, help="directory with tokenizer.model or .json")
    parser.add_argument("--recordings", type=Path, help="what the raw servers answer")
    parser.add_argument("--core", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.kind == "caravan":
            runner.run(serve_caravan(arguments.tokenizer))
        else:
            content = arguments.recordings.read_bytes()
            recordings = msgspec.json.decode(content, type=list[Recording])
            runner.run(serve(RawApp(recordings, turns=arguments.kind == "raw")))


if __name__ == "__main__":
    main()
