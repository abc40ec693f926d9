"""The engine process: receive, schedule, execute, reply, until told to stop or left alone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import zmq

from caravan.config import EngineConfig
from caravan.engine import wire
from caravan.engine.constraints import Constraints
from caravan.engine.engine import Engine
from caravan.engine.executor import Executor
from caravan.errors import ConfigError, RankError
from caravan.grammars.matchers import Compiler
from caravan.messages import (
    Abort,
    Failed,
    FromEngine,
    Generate,
    Image,
    Progress,
    Ready,
    Shutdown,
    StepOutput,
    ToEngine,
)
from caravan.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)

HEARTBEAT_MS = 1000
COMPILE_POLL_MS = 2  # while the only work is a grammar that is being compiled

Report = Callable[[Progress | Failed], None]
Load = Callable[[EngineConfig, Path, Report], Executor]
LoadCompiler = Callable[[Path, int], Compiler]


class ParentGone(Exception):
    """The API process has ended: nobody is left to work for."""


class Mailbox:
    """The engine's end of the socket. `parent_pid` is the API process. Any thread may `send`."""

    def __init__(self, address: str, parent_pid: int) -> None:
        self._parent_pid = parent_pid
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._lock = threading.Lock()  # a socket is one thread's at a time
        self._socket = wire.pair(self._context)
        self._socket.bind(address)

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=wire.LINGER_MS)

    def receive_start(self) -> wire.Start:
        """The first message. Raises ParentGone if the API process has ended."""
        while not self._socket.poll(HEARTBEAT_MS):
            self._check_parent()
        return wire.decode_start(self._socket.recv())

    def receive(self, wait_ms: int) -> list[ToEngine]:
        """Every message that is there; waits up to `wait_ms` for the first.

        Raises ParentGone if the API process has ended.
        """
        messages = []
        with self._lock:
            self._socket.poll(wait_ms)
            while True:
                try:
                    messages.append(wire.decode_to_engine(self._socket.recv(zmq.NOBLOCK)))
                except zmq.Again:
                    break
        if not messages:
            self._check_parent()
        return messages

    def send(self, message: FromEngine) -> None:
        """Queues a message. Without a peer it is dropped: `receive` will notice."""
        try:
            with self._lock:
                self._socket.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            logger.debug("nobody listens; dropped %s", type(message).__name__)

    def _check_parent(self) -> None:
        if os.getppid() != self._parent_pid:
            raise ParentGone


def serve(engine: Engine, mailbox: Mailbox) -> None:
    """Runs steps until Shutdown. Messages that arrive during a step are handled before the next."""
    while True:
        wait_ms = COMPILE_POLL_MS if engine.compiling else HEARTBEAT_MS
        for message in mailbox.receive(0 if engine.has_work else wait_ms):
            match message:
                case Image():
                    engine.add_image(message)
                case Generate():
                    engine.add(message)
                case Abort(rid):
                    engine.abort(rid)
                case Shutdown():
                    engine.close()
                    return
        mailbox.send(engine.step() or StepOutput([], engine.stats))


def start(mailbox: Mailbox, load: Load, load_compiler: LoadCompiler | None = None) -> Engine:
    """Loads the model with the parent's configuration and says Ready.

    Without `load_compiler` no request may have a grammar.
    """
    began = time.monotonic()
    order = mailbox.receive_start()
    mailbox.send(Progress(phase="start", done=0, total=1, unit="process"))
    executor = load(order.config, Path(order.directory), mailbox.send)
    config = order.config.scheduler.resolved(executor.device)
    scheduler = Scheduler(executor.layout, executor.num_pages, config, executor.tile_slots)
    compiler = load_compiler and load_compiler(Path(order.directory), executor.vocab_size)
    constraints = Constraints(compiler, executor.vocab_size)
    ahead = bool(config.async_scheduling)
    engine = Engine(executor, scheduler, constraints, async_scheduling=ahead)
    ready = Ready(
        max_model_len=executor.max_model_len,
        num_pages=executor.num_pages,
        page_bytes=executor.layout.page_bytes,
        block_len=executor.layout.block_len,
        vocab_size=executor.vocab_size,
        dtype=executor.dtype,
        device=executor.device,
        fingerprint=executor.fingerprint,
        load_s=time.monotonic() - began,
        takes_images=executor.tile_slots is not None,
    )
    mailbox.send(ready)
    mailbox.send(StepOutput([], engine.stats))  # or metrics would show no pages for a second
    return engine


def run(
    address: str, parent_pid: int, load: Load, load_compiler: LoadCompiler | None = None
) -> int:
    """The life of the engine process; `parent_pid` is the API process. Returns its exit status.

    0: told to stop, or the API process is gone. 2: a ConfigError, whose message was sent. 1: a bug.
    """
    with Mailbox(address, parent_pid) as mailbox:
        try:
            serve(start(mailbox, load, load_compiler), mailbox)
        except ParentGone:
            logger.info("the API process is gone; so is the engine")
        except ConfigError as error:
            mailbox.send(Failed(str(error), user_error=True))
            return 2
        except RankError as error:
            logger.error("%s", error)
            mailbox.send(Failed(str(error), user_error=False))
            return 1
        except (
            Exception
        ):  # the process's outermost frame: whatever it is, the parent must hear of it
            logger.exception("the engine failed")
            mailbox.send(Failed("the engine failed; the server's log says why", user_error=False))
            return 1
    return 0
