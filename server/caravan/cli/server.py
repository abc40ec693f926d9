"""The API process: uvicorn, the engine process, and which of them ends when.

SIGTERM, SIGINT     new requests get 503; open ones have --shutdown-timeout seconds; status 0
a second signal     everything ends now; status 128 + its number
the engine ends     open requests get an error; status 2 if the user can mend it, else 1
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket

from starlette.types import ASGIApp

from caravan.cli.web import WebServer
from caravan.engine.launch import EngineProcess
from caravan.errors import ConfigError

logger = logging.getLogger(__name__)


class Server:
    """Serves `app` on `listener` and runs the engine until a signal, or either of them ends."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, engine: EngineProcess, shutdown_timeout: float
    ) -> None:
        self._listener = listener
        self._engine = engine
        self._shutdown_timeout = shutdown_timeout
        self._signalled = asyncio.Event()
        self._web = WebServer(app)

    async def run(self) -> int:
        """Returns the exit status. Raises ConfigError if the engine cannot start with its flags."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        web = asyncio.create_task(self._web.serve([self._listener]))
        engine = asyncio.create_task(self._engine.run())
        signalled = asyncio.create_task(self._signalled.wait())
        try:
            await asyncio.wait({web, engine, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if signalled.done() and not engine.done():
                await self._drain(engine)
            engine_died = engine.done()
            self._web.should_exit = True
            await web
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
        self._web.close_connections()
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
