"""uvicorn, as Caravan runs it: one bound socket, a bounded request head, no signals of its own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from caravan.errors import ConfigError

# A load balancer must be the one that closes an idle connection, or it sends a request into a
# closing one and answers 502. AWS closes after 60 s, nginx after 75.
KEEP_ALIVE_S = 80
LAST_BYTES_S = 2  # for responses that are complete, and for clients that read them slowly
MAX_HEAD_BYTES = 1 << 16  # request line and headers; what is received with their last part is extra


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that has the address; it accepts once uvicorn listens on it. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"--host is {host}, which is no address: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    reason = os.strerror(error.errno or 0)  # asyncio's own text repeats the address
    return ConfigError(
        f"cannot listen on {host} port {port}: {reason}; choose another address with --host and "
        "--port (0: a free one)"
    )


class BoundedHeadProtocol(HttpToolsProtocol):
    """Refuses a head that does not end: httptools alone would collect it for ever."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Answers 400 and closes the connection when a head has become too long."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The request's head is over {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """The parser saw the first byte of a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The parser saw the empty line."""
        self._in_head = False
        super().on_headers_complete()


class WebServer(uvicorn.Server):
    """Serves an application until `should_exit`."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHeadProtocol,
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_BYTES_S,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signal handlers alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises ConfigError if another server was faster to listen on the same address."""
        assert sockets, "there is no default address"
        host, port, *_ = sockets[0].getsockname()
        try:
            await super().startup(sockets)
        except OSError as error:
            raise _cannot_listen(host, port, error) from None

    def close_connections(self) -> None:
        """Every response from now on says `Connection: close`."""
        header = (b"connection", b"close")
        self.config.encoded_headers.append(header)
        self.server_state.default_headers.append(header)  # it is rebuilt once a second
