"""The outermost layer: every request gets an id, every error one shape, every answer is counted.

    Edge            x-request-id, the error funnel, HTTP metrics
    └── Authentication     auth.py
        └── BodyLimit      413
            └── the router

Middleware and endpoints raise ApiErrors; only here do they become responses.
"""

from __future__ import annotations

import logging
import secrets
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caravan import logs
from caravan.api.body import json_response
from caravan.api.validation import shown
from caravan.errors import (
    ApiError,
    InternalError,
    InvalidApiKey,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
)
from caravan.metrics import Metrics

log = logging.getLogger(__name__)

MAX_REQUEST_ID_CHARACTERS = 128
# In the scope: sends parts of a body. The layers' own `send`s look at the start of an answer only,
# and together they would take as long as the rest of a token's way.
SEND_BODY = "caravan.send_body"
CLIENT_CLOSED_REQUEST = 499  # never sent: nobody is there to read it


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, whatever happens inside."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # there are none here: the handshake gets a 403
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        context = logs.request_id.set(request_id)
        status: int | None = None

        async def send_tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        scope[SEND_BODY] = send
        try:
            error = await self._run(scope, receive, send_tagged)
            if error is not None and status is None:
                self._metrics.rejected.labels(code=error.code or "invalid_request").inc()
                await error_response(error)(scope, receive, send_tagged)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.count_http(route, scope["method"], status or CLIENT_CLOSED_REQUEST)
            logs.request_id.reset(context)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> ApiError | None:
        try:
            await self._app(scope, receive, send)
        except ApiError as error:
            return error
        except ClientDisconnect:
            log.info("the client left")
        except Exception:  # the last resort: whatever it is, the client gets an answer
            log.exception("the request failed")
            return internal_error()
        return None


class BodyLimit:
    """ASGI middleware: raises RequestTooLarge once a body is longer than `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what is received: Content-Length may be absent, or lie."""
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                self._require(received)
            return message

        for name, value in scope.get("headers", ()):
            if name == b"content-length" and value.isdigit():
                self._require(int(value[:20]))
        await self._app(scope, receive_counted, send)

    def _require(self, size: int) -> None:
        if size > self._limit:
            raise RequestTooLarge(
                f"The body has {size} bytes or more; this server reads at most {self._limit}."
            )


async def on_http_exception(request: Request, error: Exception) -> NoReturn:
    """The router's own refusals: no such path, or not with this method."""
    assert isinstance(error, HTTPException), type(error)
    if error.status_code == MethodNotAllowed.status:
        allow = (error.headers or {})["Allow"]
        raise MethodNotAllowed(
            f"`{shown(request.method)}` is not allowed here; use {allow}.", allow=allow
        )
    assert error.status_code == RouteNotFound.status, error.status_code
    raise RouteNotFound(f"There is nothing at `{shown(request.scope['path'])}`.")


def error_response(error: ApiError, **details: object) -> Response:
    """An error as its HTTP answer; `details` stand beside the error in its body."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, InvalidApiKey):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    return json_response({**error.body(), **details}, error.status, headers)


def internal_error() -> InternalError:
    """A bug of ours, as the client sees it."""
    return InternalError(
        f"Something went wrong on the server; its log knows it as {logs.request_id.get()}."
    )


def _request_id(scope: Scope) -> str:
    """The client's own id if it is sane, else a fresh one."""
    for name, value in scope["headers"]:
        if (
            name == b"x-request-id"
            and 0 < len(value) <= MAX_REQUEST_ID_CHARACTERS
            and all(0x20 <= byte <= 0x7E for byte in value)
        ):
            return str(value, "ascii")
    return f"req-{secrets.token_hex(16)}"
