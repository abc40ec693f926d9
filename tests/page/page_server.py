"""The real application over a fake engine, in a thread: what the page talks to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.fake_engine import FakeEngine, Script, Step
from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.cli.serving import local_url
from caravan.cli.web import WebServer, bound_socket
from caravan.config import ApiConfig, ImageConfig
from caravan.messages import Delta, Ready
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_model import PATTERN
from caravan.text.vocabulary import IMAGE_SPECIALS, REQUIRED_SPECIALS, Vocabulary
from caravan.tiles import TileLayout

MODEL = "meta-llama/Llama-4-Page"
MAX_MODEL_LEN = 16384
TIMEOUT_S = 30
LAYOUT = TileLayout(tile_size=8, tile_tokens=4, max_tiles=4)
T = TypeVar("T")


def until(condition: Callable[[], T | None]) -> T:
    """Polls until the condition gives something true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return result


def byte_tokenizer() -> Tokenizer:
    """Token i is byte i, as `fake_engine.say` has it."""
    specials = [*REQUIRED_SPECIALS, "<|python_start|>", "<|python_end|>", *IMAGE_SPECIALS]
    return Tokenizer(
        Vocabulary(
            source=Path("page"),
            ranks={bytes([byte]): byte for byte in range(256)},
            special_ids={name: 256 + index for index, name in enumerate(specials)},
            pattern=PATTERN,
        )
    )


def ready() -> Ready:
    (facts,) = {FakeEngine().ready}
    assert facts
    return msgspec.structs.replace(facts, max_model_len=MAX_MODEL_LEN)


class Gate:
    """Holds an answer where a test wants to look at it."""

    def __init__(self) -> None:
        self.is_open = False

    def script(self, before: list[Step], after: list[Step]) -> Script:
        """Some steps, then nothing until the gate is open, then the others."""

        def steps() -> Any:
            yield from before
            while not self.is_open:
                yield 0.01
            yield from after

        return lambda index, sampling: steps()


def paced(steps: list[Step], seconds: float) -> list[Step]:
    """With so many seconds before each delta."""
    return [part for step in steps for part in (seconds, step)]


def unfinished(steps: list[Step]) -> list[Step]:
    """Without the end of the turn."""
    last = steps[-1]
    assert isinstance(last, Delta)
    return steps[:-1]


class Recorder:
    """ASGI middleware that keeps the bodies of chat requests, and their headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/chat/completions":
            await self._app(scope, receive, send)
            return
        received = b""

        async def receive_kept() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request" and "body" in message:
                received += message["body"]
                if not message.get("more_body"):
                    self.bodies.append(json.loads(received))
            return message

        self.headers.append({k.decode(): v.decode("latin-1") for k, v in scope["headers"]})
        await self._app(scope, receive_kept, send)


class PageServer:
    """Serves until its block ends."""

    def __init__(self, config: ApiConfig) -> None:
        self.engine = FakeEngine(ready=ready())
        self.url = ""
        self._config = config
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._web: WebServer | None = None
        self.recorder = Recorder(self._nothing)

    @property
    def keys(self) -> tuple[str, ...]:
        """That a client needs one of."""
        return self._config.api_key

    def reset(self) -> None:
        """As it was at first."""
        fresh = FakeEngine(ready=ready())
        for name, value in vars(fresh).items():
            setattr(self.engine, name, value)
        self.recorder.bodies.clear()
        self.recorder.headers.clear()

    @property
    def body(self) -> dict[str, Any]:
        """Of the last chat request."""
        return until(lambda: self.recorder.bodies)[-1]

    def __enter__(self) -> PageServer:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._web
        self._web.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    async def _nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("not started yet")

    async def _serve(self) -> None:
        async with ImageLoader(ImageConfig(), LAYOUT) as images:
            self.recorder = Recorder(
                create_app(
                    self.engine,
                    byte_tokenizer(),
                    GenerationDefaults(),
                    self._config,
                    model_name=MODEL,
                    images=images,
                )
            )
            self._web = WebServer(self.recorder)
            with contextlib.closing(bound_socket("127.0.0.1", 0)) as listener:
                self.url = local_url("127.0.0.1", listener)
                self._started.set()
                await self._web.serve([listener])
