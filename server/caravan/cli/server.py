"""The API process: uvicorn, the engine process, and which of them ends when.

SIGTERM, SIGINT     new requests get 503; open ones have --shutdown-timeout seconds; status 0
a second signal     everything ends now; status 128 + its number
the engine ends     open requests get an error; status 2 if the user can mend it, else 1
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from caravan.engine.launch import EngineProcess
from caravan.errors import ConfigError

logger = logging.getLogger(__name__)

# A load balancer must be the one that closes an idle connection, or it sends a request into a
# closing one and answers 502. AWS closes after 60 s, nginx after 75.
KEEP_ALIVE_S = 80
_LAST_BYTES_S = 2  # for responses that are complete, and for clients that read them slowly


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


class _Http(uvicorn.Server):
    """uvicorn without its signal handlers: `Server` decides when it ends."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the process's signal handlers alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises ConfigError if another server was faster to listen on the same address."""
        assert sockets, "Server gives it one"
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


class Server:
    """Serves `app` on `listener` and runs the engine until a signal, or either of them ends."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, engine: EngineProcess, shutdown_timeout: float
    ) -> None:
        self._listener = listener
        self._engine = engine
        self._shutdown_timeout = shutdown_timeout
        self._signalled = asyncio.Event()
        config = uvicorn.Config(
            app,
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_BYTES_S,
        )
        self._http = _Http(config)

    async def run(self) -> int:
        """Returns the exit status. Raises ConfigError if the engine cannot start with its flags."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        http = asyncio.create_task(self._http.serve([self._listener]))
        engine = asyncio.create_task(self._engine.run())
        signalled = asyncio.create_task(self._signalled.wait())
        try:
            await asyncio.wait({http, engine, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if signalled.done() and not engine.done():
                await self._drain(engine)
            engine_died = engine.done()
            self._http.should_exit = True
            await http
            await self._engine.stop()
            await engine
        finally:
            self._engine.kill()
            signalled.cancel()
        return self._exit_status() if engine_died or not signalled.done() else 0

    async def _drain(self, engine: asyncio.Task[int]) -> None:
        """Lets open requests finish, for a while."""
        client = self._engine.client
        client.drain()
        self._http.close_connections()
        logger.info("draining: %d open requests have %g s", client.num_open, self._shutdown_timeout)
        idle = asyncio.create_task(client.wait_idle())
        await asyncio.wait(
            {idle, engine}, timeout=self._shutdown_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        idle.cancel()
        if client.num_open:
            logger.warning("--shutdown-timeout is over: %d requests are cut", client.num_open)
            client.abandon()

    def _exit_status(self) -> int:
        failure = self._engine.client.failure
        if failure is not None and failure.user_error:
            raise ConfigError(failure.message)
        logger.error("the engine has ended, and so does the server")
        return 1

    def _on_signal(self, number: int) -> None:
        if self._signalled.is_set():
            self._engine.kill()
            os._exit(128 + number)
        self._signalled.set()
