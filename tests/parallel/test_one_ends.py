"""Whichever rank ends, and whenever: all end, with one message, and the next start works."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from system.running_server import RunningServer, children, completion, events, runs, until

KILLS = int(os.environ.get("CARAVAN_KILLS", "4"))  # 50 for the whole proof
END_S = 10


def ranks(server: RunningServer) -> list[int]:
    """Pids of the engine (rank 0) and of the ranks that it started."""
    engine = server.engine_pid
    return [engine, *until(lambda: children(engine))]


def shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


class Load:
    """Streams without end, and how each of them ended."""

    def __init__(self, server: RunningServer, streams: int = 3) -> None:
        self.last: list[Any] = [None] * streams
        self._url = server.url
        self._threads = [threading.Thread(target=self._read, args=[i]) for i in range(streams)]
        for thread in self._threads:
            thread.start()

    def _read(self, index: int) -> None:
        with (
            httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client,
            client.stream("POST", "/v1/completions", json=completion(4000)) as response,
        ):
            for event in events(response):
                if event != "[DONE]":
                    self.last[index] = event

    def join(self) -> None:
        for thread in self._threads:
            thread.join(END_S)
            assert not thread.is_alive()


@pytest.mark.parametrize("number", range(KILLS))
def test_a_rank_is_killed_under_load(number: int) -> None:
    moment = random.Random(number)
    before = shared_memory()
    with RunningServer("--tensor-parallel-size", "2").until_ready() as server:
        pids = ranks(server)
        load = Load(server)
        until(lambda: all(load.last))
        time.sleep(moment.uniform(0, 0.5))
        victim = pids[number % 2]
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        status = server.wait(END_S)
        load.join()
        assert time.monotonic() - began < END_S
    assert status == 1, server.output
    assert "killed by signal 9" in server.output
    assert server.output.count("killed by signal 9") == 1, server.output
    assert [event.get("error", {}).get("code") for event in load.last] == ["engine_dead"] * 3
    until(lambda: not any(map(runs, pids)), END_S)
    assert shared_memory() <= before


def test_a_rank_that_hangs_ends_all_after_the_timeout() -> None:
    with RunningServer("--tensor-parallel-size", "2", "--rank-timeout", "2") as server:
        pids = ranks(server.until_ready())
        load = Load(server)
        until(lambda: all(load.last))
        os.kill(pids[1], signal.SIGSTOP)
        assert server.wait(END_S) == 1
        load.join()
    assert "did not answer within 2 s (--rank-timeout)" in server.output
    until(lambda: not any(map(runs, pids)), END_S)


def test_an_idle_server_stays_up_longer_than_the_timeout() -> None:
    with RunningServer("--tensor-parallel-size", "2", "--rank-timeout", "2") as server:
        server.until_ready()
        time.sleep(4)
        with server.client() as client:
            answer = client.post("/v1/completions", json=completion(5, stream=False))
        assert answer.status_code == 200, answer.text
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.output
    assert "Error" not in server.output, server.output


def test_a_rank_that_dies_while_it_loads_ends_the_start() -> None:
    with RunningServer("--tensor-parallel-size", "2") as server:
        pids = ranks(server)
        os.kill(pids[1], signal.SIGKILL)
        assert server.wait(END_S) == 1, server.output
    assert "rank 1 of the split model" in server.output
    assert "killed by signal 9" in server.output
    until(lambda: not any(map(runs, pids)), END_S)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["3"], "it must be 1, 2, 4 or 8"),
        (["4"], "it must divide the model's 2 key-value heads"),
    ],
)
def test_a_size_that_cannot_be(flags: list[str], message: str) -> None:
    with RunningServer("--tensor-parallel-size", *flags) as server:
        assert server.wait() == 2
    assert message in server.output, server.output
