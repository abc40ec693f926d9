"""The engine process's life, seen from its parent: real processes without a model.

The interpreter that `launch` starts is replaced by one that runs the real loop with the fake
executor, so nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from caravan.config import ApiConfig, EngineConfig
from caravan.engine import launch
from caravan.engine.handle import Submission
from caravan.engine.launch import EngineProcess
from caravan.errors import ConfigError, EngineDead
from caravan.messages import Sampling
from reading import deltas_of

TIMEOUT_S = 20
TESTS = Path(__file__).parents[1]

SCRIPT = """#!{python}
import sys
sys.path.insert(0, {tests!r})
assert sys.argv[1:4] == ["-P", "-m", "caravan.engine"], sys.argv
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from caravan.engine import loop
from caravan.errors import ConfigError
from fake_executor import FakeExecutor

def load(config, directory, report):
{load}

sys.exit(loop.run(sys.argv[4], int(sys.argv[5]), load))
"""

STUCK = """def stick(plan):
        if plan.step == 1:
            (directory / "stuck").touch()
            signal.pause()
    return FakeExecutor(before_run=stick)"""


@pytest.fixture
def engine_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], EngineProcess]:
    """An engine process whose `load` has this body."""

    def prepare(load: str) -> EngineProcess:
        script = tmp_path / "python"
        script.write_text(
            SCRIPT.format(python=sys.executable, tests=str(TESTS), load=f"    {load}")
        )
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return EngineProcess(EngineConfig(), tmp_path, ApiConfig())

    return prepare


EngineWith = Callable[[str], EngineProcess]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


async def status_of(task: asyncio.Task[int]) -> int:
    return await asyncio.wait_for(task, TIMEOUT_S)


async def test_it_starts_serves_and_stops(engine_with: EngineWith, tmp_path: Path) -> None:
    engine = engine_with("return FakeExecutor()")
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.ready)
    (generation,) = engine.client.submit([Submission([1, 2], Sampling(max_tokens=3))])
    tokens = [token async for delta in deltas_of(generation) for token in delta.tokens]
    assert tokens == [2, 3, 4]
    await engine.stop()
    assert await status_of(task) == 0
    assert not engine.client.alive
    await engine.stop()


async def test_the_sockets_directory_is_private_and_gone_once_both_ends_have_met(
    engine_with: EngineWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders: list[tuple[str, int]] = []

    class SeenDirectory(tempfile.TemporaryDirectory):  # type: ignore[type-arg]
        def __enter__(self) -> str:
            name = str(super().__enter__())
            folders.append((name, Path(name).stat().st_mode & 0o777))
            return name

    monkeypatch.setattr(tempfile, "TemporaryDirectory", SeenDirectory)
    engine = engine_with("return FakeExecutor()")
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.ready)
    ((folder, mode),) = folders
    assert mode == 0o700
    await until(lambda: not Path(folder).exists())
    (generation,) = engine.client.submit([Submission([1], Sampling(max_tokens=1))])
    assert [delta.finish async for delta in deltas_of(generation)] == ["length"]
    await engine.stop()
    assert await status_of(task) == 0


async def test_a_configuration_error_arrives_with_its_text(engine_with: EngineWith) -> None:
    engine = engine_with('raise ConfigError("--dtype is odd")')
    assert await asyncio.wait_for(engine.run(), TIMEOUT_S) == 2
    assert engine.client.failure is not None
    assert engine.client.failure.user_error
    assert engine.client.failure.message == "--dtype is odd"


async def test_a_bug_at_the_start_ends_with_1(engine_with: EngineWith) -> None:
    engine = engine_with('raise RuntimeError("odd")')
    assert await asyncio.wait_for(engine.run(), TIMEOUT_S) == 1
    assert engine.client.failure is not None
    assert not engine.client.failure.user_error


async def test_a_process_that_dies_without_a_word_is_noticed(
    engine_with: EngineWith, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with("os = __import__('os'); os._exit(3)")
    assert await asyncio.wait_for(engine.run(), TIMEOUT_S) == 3
    assert not engine.client.alive
    assert "status 3 and no reason" in caplog.text


async def test_a_killed_engine_ends_open_requests(
    engine_with: EngineWith, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(STUCK)
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.ready)
    (generation,) = engine.client.submit([Submission([1], Sampling(max_tokens=100))])
    assert (await anext(deltas_of(generation))).tokens == [1]
    assert engine._process
    os.kill(engine._process.pid, 9)
    with pytest.raises(EngineDead):
        await asyncio.wait_for(anext(deltas_of(generation)), TIMEOUT_S)
    assert await status_of(task) == -9
    assert "killed by signal 9" in caplog.text


async def test_an_engine_that_does_not_stop_is_killed(
    engine_with: EngineWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "_EXIT_S", 0.2)
    engine = engine_with(STUCK)
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.ready)
    (generation,) = engine.client.submit([Submission([1], Sampling(max_tokens=100))])
    assert (await anext(deltas_of(generation))).tokens == [1]
    await until((tmp_path / "stuck").exists)
    await engine.stop()
    assert await status_of(task) == -9


async def test_while_it_loads_stopping_does_not_wait(
    engine_with: EngineWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_EXIT_S", 3600)
    engine = engine_with("signal.pause()")
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.loading)
    await asyncio.wait_for(engine.stop(), TIMEOUT_S)
    assert await status_of(task) == -9


async def test_cancelling_kills_the_process(engine_with: EngineWith) -> None:
    engine = engine_with("return FakeExecutor()")
    task = asyncio.create_task(engine.run())
    await until(lambda: engine.client.ready)
    process = engine._process
    assert process
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(process.wait(), TIMEOUT_S) == -9


async def test_a_temporary_directory_with_too_long_a_path_is_refused(
    engine_with: EngineWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    engine = engine_with("return FakeExecutor()")
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match="set TMPDIR to a shorter one"):
        await engine.run()
