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
from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from caravan.api.answer import Answer, Json
from caravan.api.choices import Choice, Choices, Piece
from caravan.api.disconnect import unless_disconnected
from caravan.api.edge import SEND_BODY, internal_error
from caravan.api.schema.sampling import StreamOptions
from caravan.errors import ApiError

log = logging.getLogger(__name__)

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
MARK = "\0"  # where a text goes
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
        self._only_text = self._plain and answer.only_text
        self._around: dict[int, tuple[bytes, bytes]] = {}  # by the index of the choice

    def openings(self) -> bytes:
        """The first chunks; what stands beside the choices is in the very first."""
        choices = list(self._answer.openings())
        beside = self._answer.beside()
        if not beside:
            return b"".join(map(self._event, choices))
        first = self._object(choices[:1]) | beside
        return _data(first) + b"".join(map(self._event, choices[1:]))

    def chunks(self, changed: Sequence[Choice]) -> bytes:
        """What is new in some choices."""
        if len(changed) == 1:
            return self._chunk(changed[0])
        return b"".join(map(self._chunk, changed))

    def usage(self) -> bytes:
        """The last chunk, for clients that asked for the usage."""
        if not self._options.include_usage:
            return b""
        return _data({**self._object([]), "usage": self._answer.usage()})

    def _chunk(self, choice: Choice) -> bytes:
        if self._only_text and choice.finish is None:
            text = choice.take_text()
            if not text:
                return b""
            before, after = self._around.get(choice.index) or self._learn_around(choice.index)
            return before + _encode(text) + after
        chunk = self._answer.chunk(choice.take())
        return b"" if chunk is None else self._event(chunk)

    def _learn_around(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and behind the text in a choice's chunks that have only text."""
        choice = _encode(self._answer.chunk(Piece(index, MARK)))
        before, after = choice.split(_encode(MARK))
        self._around[index] = around = self._before + before, after + self._after
        return around

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
        silence = _Silence(self._answer.choices, self._ping_interval_s)
        try:
            await unless_disconnected(receive, self._write(send, scope[SEND_BODY], silence))
        finally:
            silence.end()
            self._answer.choices.close()

    async def _write(self, send: Send, send_body: Send, silence: _Silence) -> None:
        choices, events = self._answer.choices, self._events
        changed = await choices.changed()
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        head = events.openings()
        try:
            while True:
                body = head + (events.chunks(changed) if changed else PING)
                if body:
                    await send_body({"type": "http.response.body", "body": body, "more_body": True})
                    silence.broken()
                head = b""
                if choices.finished:
                    break
                changed = await choices.changed()
            end = events.usage()
        except ApiError as error:
            end = _data(error.body())
        except Exception:  # headers are gone: an error event is the only way left to tell
            log.exception("the stream failed")
            end = _data(internal_error().body())
        await send_body({"type": "http.response.body", "body": end + DONE, "more_body": False})


class _Silence:
    """Nudges choices whenever nothing was sent for an interval.

    One timer for a stream: a timeout for each wait would take longer than a token's whole way.
    """

    def __init__(self, choices: Choices, interval_s: float) -> None:
        self._choices = choices
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._timer = self._loop.call_later(interval_s, self._look)

    def broken(self) -> None:
        """Something was sent."""
        self._began_s = self._loop.time()

    def end(self) -> None:
        """There are no more nudges."""
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._began_s + self._interval_s - self._loop.time()
        if left_s <= 0:
            self._choices.nudge()
            left_s = self._interval_s
        self._timer = self._loop.call_later(left_s, self._look)


def _data(value: Json) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
