"""The engine process's loop, run in a thread: the test holds the other end of its socket."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from caravan.config import EngineConfig, ModelConfig, SchedulerConfig
from caravan.engine import loop, wire
from caravan.engine.executor import Executor
from caravan.errors import CheckpointError
from caravan.messages import (
    Abort,
    Failed,
    FromEngine,
    Generate,
    Progress,
    Ready,
    Sampling,
    Shutdown,
    StepOutput,
    StepPlan,
)
from fake_executor import LAYOUT, FakeExecutor

TIMEOUT_S = 10


class EngineThread:
    """`loop.run` in a thread, and the API process's end of the socket."""

    def __init__(self, folder: str, load: loop.Load) -> None:
        self.status: int | None = None
        self._address = f"ipc://{folder}/engine"
        self._load = load
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self.socket = wire.pair(self._context)
        self.socket.connect(self._address)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.status = loop.run(self._address, os.getppid(), self._load)

    def send(self, message: wire.Message) -> None:
        self.socket.send(wire.encode(message))

    def receive(self) -> FromEngine:
        assert self.socket.poll(TIMEOUT_S * 1000), "the engine is silent"
        return wire.decode_from_engine(self.socket.recv())

    def receive_ready(self) -> Ready:
        while not isinstance(message := self.receive(), Ready):
            assert isinstance(message, Progress), message
        return message

    def receive_step(self) -> StepOutput:
        message = self.receive()
        assert isinstance(message, StepOutput), message
        return message

    def receive_until(self, stop: Callable[[StepOutput], bool]) -> list[StepOutput]:
        outputs = [self.receive_step()]
        while not stop(outputs[-1]):
            outputs.append(self.receive_step())
        return outputs

    def join(self) -> int | None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.status

    def close(self) -> None:
        if self._thread.is_alive():
            self.send(Shutdown())
        self._thread.join(TIMEOUT_S)
        self._context.destroy(linger=0)


def loading(executor: FakeExecutor) -> loop.Load:
    def load(config: EngineConfig, directory: Path, report: Callable[[Progress], None]) -> Executor:
        report(Progress(phase="weights", done=1, total=2, unit="tensors"))
        return executor

    return load


def failing(error: Exception) -> loop.Load:
    def load(config: EngineConfig, directory: Path, report: Callable[[Progress], None]) -> Executor:
        raise error

    return load


@pytest.fixture
def started() -> Iterator[Callable[[loop.Load], EngineThread]]:
    """Starts an engine in a thread; ends it after the test."""
    engines: list[EngineThread] = []
    with tempfile.TemporaryDirectory() as folder:

        def start(load: loop.Load) -> EngineThread:
            engines.append(EngineThread(folder, load))
            engines[-1].send(wire.Start(EngineConfig(), "/models/demo"))
            return engines[-1]

        yield start
        for engine in engines:
            engine.close()


Started = Callable[[loop.Load], EngineThread]


def test_the_configuration_arrives_as_it_was_sent(started: Started) -> None:
    seen: list[object] = []

    def load(config: EngineConfig, directory: Path, report: Callable[[Progress], None]) -> Executor:
        seen.extend([config, directory])
        return FakeExecutor()

    with tempfile.TemporaryDirectory() as folder:
        engine = EngineThread(folder, load)
        config = EngineConfig(
            model=ModelConfig(model="some/model", max_model_len=77, dtype="float16"),
            scheduler=SchedulerConfig(max_num_seqs=3),
        )
        engine.send(wire.Start(config, "/some where/ü"))
        engine.receive_ready()
        engine.close()
    assert seen == [config, Path("/some where/ü")]


def test_progress_then_ready_with_the_facts(started: Started) -> None:
    executor = FakeExecutor()
    engine = started(loading(executor))
    assert engine.receive() == Progress(phase="start", done=0, total=1, unit="process")
    assert engine.receive() == Progress(phase="weights", done=1, total=2, unit="tensors")
    ready = engine.receive()
    assert isinstance(ready, Ready)
    assert ready.load_s >= 0
    assert msgspec.structs.replace(ready, load_s=0) == Ready(
        max_model_len=200,
        num_pages=256,
        page_bytes=LAYOUT.page_bytes,
        block_len=LAYOUT.block_len,
        vocab_size=1000,
        dtype="float32",
        device="cpu",
        fingerprint="fp_fake",
        load_s=0,
    )
    first = engine.receive_step()
    assert first.stats.pages_free == 256, "metrics know the pages from the start"


def test_a_request_runs_to_its_end_and_the_engine_exits_with_0(started: Started) -> None:
    engine = started(loading(FakeExecutor()))
    engine.receive_ready()
    engine.send(Generate(1, [5, 6], Sampling(max_tokens=4)))
    outputs = engine.receive_until(lambda output: any(delta.finish for delta in output.deltas))
    assert [token for output in outputs for delta in output.deltas for token in delta.tokens] == [
        2, 3, 4, 5,
    ]  # fmt: skip
    assert outputs[-1].stats.pages_owned == 0
    engine.send(Shutdown())
    assert engine.join() == 0


def test_an_idle_engine_says_once_a_second_that_it_lives(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop.HEARTBEAT_MS == 1000
    monkeypatch.setattr(loop, "HEARTBEAT_MS", 400)
    engine = started(loading(FakeExecutor()))
    engine.receive_ready()
    assert engine.receive_step().deltas == []
    assert not engine.socket.poll(200), "more often than asked"
    assert engine.receive_step() == engine.receive_step()


def test_an_abort_that_arrives_during_a_step_takes_effect_before_the_next(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is held until the abort lies in the engine's socket."""
    mailboxes: list[loop.Mailbox] = []
    in_step = threading.Event()

    class KnownMailbox(loop.Mailbox):
        def __init__(self, address: str, parent_pid: int) -> None:
            super().__init__(address, parent_pid)
            mailboxes.append(self)

    def hold(plan: StepPlan) -> None:
        if plan.step == 0:
            in_step.set()
            assert mailboxes[0]._socket.poll(TIMEOUT_S * 1000)

    monkeypatch.setattr(loop, "Mailbox", KnownMailbox)
    executor = FakeExecutor(before_run=hold)
    engine = started(loading(executor))
    engine.receive_ready()
    engine.send(Generate(1, [5] * 9, Sampling(max_tokens=100)))
    assert in_step.wait(TIMEOUT_S)
    engine.send(Abort(1))
    engine.send(Abort(12345))
    engine.send(Generate(2, [5], Sampling(max_tokens=1)))
    outputs = engine.receive_until(lambda output: any(d.rid == 2 for d in output.deltas))
    rids = [[delta.rid for delta in output.deltas] for output in outputs if output.deltas]
    assert rids == [[1], [2]]
    assert [segment.rid for plan in executor.plans for segment in plan.segments] == [1, 2]
    assert executor.plans[1].released == [1]
    assert outputs[-1].stats.pages_owned == 0


def test_a_configuration_error_is_passed_on_with_its_text(started: Started) -> None:
    engine = started(failing(CheckpointError("config.json is missing in /models/demo")))
    assert isinstance(engine.receive(), Progress)
    assert engine.receive() == Failed("config.json is missing in /models/demo", user_error=True)
    assert engine.join() == 2


def test_a_bug_is_logged_and_its_text_stays_here(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    engine = started(failing(RuntimeError("secret detail")))
    assert isinstance(engine.receive(), Progress)
    failure = engine.receive()
    assert isinstance(failure, Failed)
    assert not failure.user_error
    assert "secret" not in failure.message
    assert engine.join() == 1
    assert "secret detail" in caplog.text


def test_a_bug_in_a_step_ends_the_engine(started: Started) -> None:
    def explode(plan: StepPlan) -> None:
        raise ZeroDivisionError

    engine = started(loading(FakeExecutor(before_run=explode)))
    engine.receive_ready()
    engine.send(Generate(1, [5], Sampling(max_tokens=1)))
    while isinstance(message := engine.receive(), StepOutput):
        assert message.deltas == []
    assert isinstance(message, Failed)
    assert engine.join() == 1


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "generate", "rid": "one", "prompt": [], "sampling": {}}),
        msgspec.msgpack.encode({"type": "nonsense"}),
        msgspec.msgpack.encode({"type": "step", "deltas": [], "stats": []}),
    ],
)
def test_a_malformed_message_is_a_bug_and_ends_the_engine(started: Started, frame: bytes) -> None:
    engine = started(loading(FakeExecutor()))
    engine.receive_ready()
    engine.socket.send(frame)
    while isinstance(message := engine.receive(), StepOutput):
        pass
    assert isinstance(message, Failed)
    assert not message.user_error
    assert engine.join() == 1


def test_the_engine_exits_when_its_parent_has_ended(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = started(loading(FakeExecutor()))
    engine.receive_ready()
    monkeypatch.setattr("os.getppid", lambda: 1_000_000)
    assert engine.join() == 0


def test_a_busy_engine_exits_when_its_parent_has_ended(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = FakeExecutor(before_run=lambda plan: monkeypatch.setattr("os.getppid", lambda: -1))
    engine = started(loading(executor))
    engine.receive_ready()
    engine.send(Generate(1, [5], Sampling(max_tokens=100)))
    assert engine.join() == 0
    assert len(executor.plans) == 1


def test_an_engine_whose_parent_ended_before_it_ran_exits() -> None:
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/engine"
        assert loop.run(address, os.getppid() + 1, failing(AssertionError())) == 0
