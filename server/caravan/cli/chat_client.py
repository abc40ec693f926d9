"""The HTTP side of `caravan chat`: OpenAI's chat API, streamed, and what can go wrong with it."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
import msgspec

from caravan.cli.chat_events import EventReader
from caravan.errors import ConfigError

CONNECT_S = 10.0
SILENCE_S = 600.0  # a long prompt on a server that sends no pings may take minutes
MAX_RETRY_S = 30  # between two looks at a server that is loading
MAX_ERROR_BYTES = 1 << 16
DONE = "[DONE]"

Message = dict[str, Any]


class ChatFailed(Exception):
    """No answer, or the end of one; the message is a line for the user."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream adds to an answer."""

    text: str
    after_s: float  # since the request was sent
    finish: str | None = None
    num_tokens: int | None = None  # of the whole answer


Pieces = Generator[Piece, None, None]


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class ChatClient:
    """Talks to one server. `notify` is told why it waits, whenever that changes.

    `sampling` are the fields that go with every request. Raises ConfigError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        model: str | None,
        sampling: Mapping[str, float],
        *,
        notify: Callable[[str], None],
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._sampling = sampling
        self._notify = notify
        self._sleep = sleep
        self._clock = clock
        is_local = _is_local(self.url)
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
                transport=transport,
                trust_env=not is_local,  # a proxy does not lead to this machine
            )
        except (ValueError, ImportError, httpx.InvalidURL):  # ImportError: it speaks SOCKS
            raise ConfigError("the environment names a proxy that cannot be used") from None

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def model(self) -> str:
        """The model's name; if none was given, the server's first. Raises ChatFailed."""
        if self._model is None:
            with self._opened("GET", "/v1/models") as (response, _):
                self._model = _first_model(response.read())
        return self._model

    def answer(self, messages: Sequence[Message]) -> Pieces:
        """The next message, as it comes; closing the generator stops it. Raises ChatFailed."""
        body = {
            "model": self.model(),
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._sampling,
        }
        is_complete = False
        reader = EventReader()
        with self._opened("POST", "/v1/chat/completions", body) as (response, sent_s):
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise ChatFailed("the server does not stream; is --url that of a chat API?")
            for data in (each for chunk in response.iter_bytes() for each in reader.push(chunk)):
                if data == DONE:
                    return
                piece = _read_chunk(data, self._clock() - sent_s)
                is_complete = is_complete or piece.finish is not None
                yield piece
        if not is_complete:
            raise ChatFailed("the server ended the answer before it was complete")

    @contextmanager
    def _opened(
        self, method: str, path: str, body: object = None
    ) -> Iterator[tuple[httpx.Response, float]]:
        """The response with status 200, and when its request was sent; waits while it loads."""
        told = None
        try:
            while True:
                sent_s = self._clock()
                with self._http.stream(method, path, json=body) as response:
                    if response.status_code == httpx.codes.OK:
                        yield response, sent_s
                        return
                    reason = _reason(response)
                retry_s = _retry_s(response)
                if retry_s is None:
                    raise ChatFailed(reason)
                if reason != told:
                    self._notify(reason)
                told = reason
                self._sleep(retry_s)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise ChatFailed(
                f"cannot connect to {self.url}; start a server with `caravan serve`, or give the "
                "address of another with --url"
            ) from None
        except httpx.ReadTimeout:
            raise ChatFailed(f"the server was silent for {SILENCE_S:g} seconds") from None
        except httpx.HTTPError:
            raise ChatFailed("the connection to the server broke") from None


def _is_local(url: str) -> bool:
    """Whether the URL is this machine's. Raises ConfigError if it is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigError("--url is not a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("--url must begin with http:// or https:// and have a host")
    if parsed.userinfo or not 0 < (parsed.port or 1) <= 65535:
        raise ConfigError("--url must have no password, and a port that exists")
    try:
        return ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        pass  # it is a name
    try:
        parsed.host.encode("idna")  # as the resolver will; it would fail in the middle of a request
    except UnicodeError:
        raise ConfigError("--url has a host that no server can have") from None
    return parsed.host == "localhost"


def _retry_s(response: httpx.Response) -> int | None:
    """When to ask again; None: not at all."""
    if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return None
    after = response.headers.get("retry-after", "")
    if not (after.isascii() and after.isdigit()):
        return None
    return min(max(int(after[:9]), 1), MAX_RETRY_S)


def _reason(response: httpx.Response) -> str:
    """Why there is no answer, in the server's own words if it has some."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    try:
        said = _said(json.loads(body))
    except (ValueError, RecursionError):
        said = None
    reason = said or f"the server answers with status {response.status_code}"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"{reason} Give the key with --api-key, or in the variable CARAVAN_API_KEY."
    return reason


def _said(error: object) -> str | None:
    """The message in `{"error": {"message"}}` and in what servers make of that."""
    for name in ("error", "message", "detail"):
        if isinstance(error, dict):
            error = error.get(name) or error
    return error.strip() or None if isinstance(error, str) else None


def _read_chunk(data: str, after_s: float) -> Piece:
    """Raises ChatFailed for an error, and for what is no chunk."""
    try:  # msgspec's own decoder refuses half a surrogate pair, which Python's servers can send
        chunk = msgspec.convert(json.loads(data), _Chunk)
    except (ValueError, RecursionError, msgspec.ValidationError):
        raise ChatFailed("the server sent an event that is no part of an answer") from None
    if chunk.error is not None:
        said = _said({"error": chunk.error})
        raise ChatFailed(said or "the server broke the answer off with an error")
    text, finish = "", None
    for choice in chunk.choices[:1]:
        finish = choice.finish_reason
        if choice.delta is not None:
            text = (choice.delta.content or "") + (choice.delta.refusal or "")
    num_tokens = chunk.usage.completion_tokens if chunk.usage else None
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Piece(text, after_s, finish, num_tokens)


def _first_model(body: bytes) -> str:
    """Raises ChatFailed."""
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except msgspec.MsgspecError:
        raise ChatFailed("what is at --url does not list models as OpenAI's API does") from None
    if not models:
        raise ChatFailed("the server lists no model; name one with --model")
    return models[0].id
