"""Starts the engine process, watches it, and makes sure that it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

import zmq

from caravan.config import ApiConfig, EngineConfig
from caravan.engine.client import EngineClient, Report
from caravan.engine.wire import Start
from caravan.errors import ConfigError

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0  # between the process's exit and the arrival of what it sent before
_EXIT_S = 5.0  # for an engine that was told to exit, or said that it failed


class EngineProcess:
    """One engine process and the client that talks to it."""

    def __init__(
        self, config: EngineConfig, directory: Path, api: ApiConfig, report: Report | None = None
    ) -> None:
        self.client = EngineClient(api, report)
        self._start = Start(config, str(directory))
        self._process: asyncio.subprocess.Process | None = None
        self._was_killed = False

    async def run(self) -> int:
        """Starts the process and returns its exit status when it has ended.

        By then every open request has its EngineDead, and `client.failure` has the reason if the
        engine gave one. Cancelled, it kills the process.
        """
        try:
            # Private (0700). The path is needed until both ends have met; gone by then, it cannot
            # be left behind, however this process ends.
            with tempfile.TemporaryDirectory(prefix="caravan-") as folder:
                address = f"ipc://{folder}/engine"
                if len(os.fsencode(folder)) + len("/engine") > zmq.IPC_PATH_MAX_LEN:
                    raise ConfigError(
                        f"the path of a temporary directory, {folder}, is too long for a socket; "
                        "set TMPDIR to a shorter one"
                    )
                self.client.connect(address, self._start)
                # -P: the working directory is not a place to import from.
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "caravan.engine", address, str(os.getpid()),
                    stdin=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                await self._first_of(self.client.heard)
            await self._first_of(self.client.failed)
            return await self._exit_status()
        finally:
            self.kill()
            self.client.end()
            self.client.disconnect()

    async def stop(self) -> None:
        """Asks the engine to exit, and kills it if it does not. `run` returns then."""
        if self._process is None or self._process.returncode is not None:
            return
        if self.client.ready is None:
            self.kill()  # it would listen only after loading, and it holds nothing worth saving
            return
        self.client.shut_down()
        try:
            await asyncio.wait_for(self._process.wait(), _EXIT_S)
        except TimeoutError:
            logger.warning("the engine did not exit within %s s of being told to", _EXIT_S)
            self.kill()

    def kill(self) -> None:
        """Ends the process now. It ignores SIGTERM, so there is no gentler signal."""
        if self._process is not None and self._process.returncode is None:
            self._was_killed = True
            self._process.kill()

    async def _first_of(self, event: asyncio.Event) -> None:
        """Waits for the event or the end of the process."""
        assert self._process
        tasks = [asyncio.create_task(event.wait()), asyncio.create_task(self._process.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _exit_status(self) -> int:
        """The status of a process that has ended, or has said that it will."""
        assert self._process
        try:
            status = await asyncio.wait_for(self._process.wait(), _EXIT_S)
        except TimeoutError:
            self.kill()
            status = await self._process.wait()
        if status > 0 and not self.client.failed.is_set():
            try:
                await asyncio.wait_for(self.client.failed.wait(), _LAST_WORDS_S)
            except TimeoutError:
                logger.error("the engine process ended with status %d and no reason", status)
        elif status < 0 and not self._was_killed:
            logger.error("the engine process was killed by signal %d", -status)
        return status
