"""Server-sent events: an answer, chunk by chunk.

    role chunks         one per choice, ascending; with the first tokens, or the first `: ping`
    data: {...}         chunks as tokens arrive
    : ping              whenever nothing came for a while
    data: {usage}       if asked for
    data: {"error"}     instead, if something failed on the way: never a silent end
    data: [DONE]        always

The 200 is held back until the first token or the first ping, so that an engine that fails before
still gets its own status, which SDKs repeat the request on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from caravan.api.answer import Answer, Json
from caravan.api.choices import Choice
from caravan.api.disconnect import unless_disconnected
from caravan.api.edge import internal_error
from caravan.errors import ApiError

log = logging.getLogger(__name__)

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """An ASGI response that writes an answer while it grows, and closes its choices at the end."""

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, *, include_usage: bool, ping_interval_s: float) -> None:
        self.status_code = 200
        self.background = None
        self._answer = answer
        self._include_usage = include_usage
        self._ping_interval_s = ping_interval_s
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError only while no header is sent; ClientDisconnect."""
        try:
            await unless_disconnected(receive, self._write(send))
        finally:
            self._answer.choices.close()

    async def _write(self, send: Send) -> None:
        changed = await self._changed()
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        head = self._events(self._answer.openings())
        try:
            while True:
                body = PING if changed is None else self._events(self._answer.chunks(changed))
                if head or body:
                    await _send_body(send, head + body)
                head = b""
                if self._answer.choices.finished:
                    break
                changed = await self._changed()
            end = self._event(self._answer.usage_chunk()) if self._include_usage else b""
        except ApiError as error:
            end = _data(error.body())
        except Exception:  # headers are gone: an error event is the only way left to tell
            log.exception("the stream failed")
            end = _data(internal_error().body())
        await _send_body(send, end + DONE, more=False)

    async def _changed(self) -> list[Choice] | None:
        """Choices with new tokens; None after a ping interval without any."""
        try:
            async with asyncio.timeout(self._ping_interval_s):
                return await self._answer.choices.changed()
        except TimeoutError:
            return None

    def _events(self, chunks: Iterable[Json]) -> bytes:
        return b"".join(self._event(chunk) for chunk in chunks)

    def _event(self, chunk: Json) -> bytes:
        """With usage, every chunk but the last says that it has none."""
        if self._include_usage and "usage" not in chunk:
            chunk = {**chunk, "usage": None}
        return _data(chunk)


def _data(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def _send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
