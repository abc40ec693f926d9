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
import secrets
from collections.abc import Iterable, Mapping

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from caravan.api.answer import Answer, Json
from caravan.api.choices import Choice
from caravan.api.disconnect import unless_disconnected
from caravan.api.edge import internal_error
from caravan.api.schema.sampling import StreamOptions
from caravan.errors import ApiError

log = logging.getLogger(__name__)

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
PADDED_BYTES = 256  # with obfuscation, events have a multiple of so many bytes

_encode = msgspec.json.encode


class Events:
    """Chunks as bytes. What is the same in all of them is encoded once."""

    def __init__(self, answer: Answer, options: StreamOptions) -> None:
        self._answer = answer
        self._options = options
        head = _encode(answer.chunk_head)[:-1]
        self._before = b"data: " + head + b',"choices":['
        self._after = b'],"usage":null}\n\n' if options.include_usage else b"]}\n\n"
        self._plain = not (options.include_obfuscation or options.continuous_usage_stats)

    def openings(self) -> bytes:
        """The first chunks; what stands beside the choices is in the very first."""
        choices = list(self._answer.openings())
        beside = self._answer.beside()
        if not beside:
            return b"".join(map(self._event, choices))
        first = self._object(choices[:1]) | beside
        return _data(first) + b"".join(map(self._event, choices[1:]))

    def chunks(self, changed: Iterable[Choice]) -> bytes:
        """What is new in some choices."""
        return b"".join(map(self._event, self._answer.chunks(changed)))

    def usage(self) -> bytes:
        """The last chunk, for clients that asked for the usage."""
        if not self._options.include_usage:
            return b""
        return _data({**self._object([]), "usage": self._answer.usage()})

    def _event(self, choice: Json) -> bytes:
        if self._plain:
            return self._before + _encode(choice) + self._after
        event = self._object([choice])
        if self._options.continuous_usage_stats:
            event["usage"] = self._answer.usage()
        if self._options.include_obfuscation:
            event["obfuscation"] = ""
            missing = -len(_data(event)) % PADDED_BYTES
            event["obfuscation"] = secrets.token_hex(PADDED_BYTES // 2)[:missing]
        return _data(event)

    def _object(self, choices: list[Json]) -> Json:
        """With usage, every chunk but the last says that it has none."""
        usage = {"usage": None} if self._options.include_usage else {}
        return {**self._answer.chunk_head, "choices": choices, **usage}


class EventStream(Response):
    """An ASGI response that writes an answer while it grows, and closes its choices at the end."""

    media_type = "text/event-stream"

    def __init__(
        self,
        answer: Answer,
        options: StreamOptions,
        *,
        ping_interval_s: float,
        headers: Mapping[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self._answer = answer
        self._events = Events(answer, options)
        self._ping_interval_s = ping_interval_s
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

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
        head = self._events.openings()
        try:
            while True:
                body = PING if changed is None else self._events.chunks(changed)
                if head or body:
                    await _send_body(send, head + body)
                head = b""
                if self._answer.choices.finished:
                    break
                changed = await self._changed()
            end = self._events.usage()
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


def _data(value: Json) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


async def _send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
