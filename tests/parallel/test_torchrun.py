"""Two machines, played by two loopback addresses: torchrun starts one rank on each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from caravan.messages import Sampling
from caravan.text.tokenizer import Tokenizer
from in_process import complete, load, new_engine
from system.running_server import TIMEOUT_S, children, runs, until

PROMPT = list(b"What is a caravan? ") * 3  # past a chunk of 32
NEW_TOKENS = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(node: int, meeting: int) -> list[str]:
    options = {
        "nnodes": 2,
        "nproc-per-node": 1,
        "node-rank": node,
        "master-addr": "127.0.0.1",
        "master-port": meeting,
        "local-addr": f"127.0.0.{node + 1}",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "torch.distributed.run", *flags]


class Machines:
    """An agent of torchrun for each, and what they print."""

    def __init__(self, directory: Path, log: Path, sizes: tuple[int, int] = (2, 2)) -> None:
        self.port = free_port()
        self.log = log
        meeting = free_port()
        with log.open("wb") as output:
            self.agents = [
                subprocess.Popen(
                    [*_command(node, meeting), "-m", "caravan", "serve", str(directory), *flags],
                    stdout=output,
                    stderr=output,
                    env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
                )
                for node, flags in enumerate(self._flags(sizes))
            ]

    def _flags(self, sizes: tuple[int, int]) -> list[list[str]]:
        common = ["--port", str(self.port), "--dtype", "float32", "--tensor-parallel-size"]
        return [[*common, str(size)] for size in sizes]

    def child(self, node: int) -> int:
        """The process that the agent started."""
        (pid,) = until(lambda: children(self.agents[node].pid))
        return pid

    def kill(self) -> None:
        """An agent that is killed leaves what it started."""
        for agent in self.agents:
            for pid in children(agent.pid) if agent.poll() is None else []:
                os.kill(pid, signal.SIGKILL)
            agent.kill()
            agent.wait()

    def until_ready(self) -> None:
        until(self._is_ready, 2 * TIMEOUT_S)

    def wait(self) -> list[int]:
        return [agent.wait(TIMEOUT_S) for agent in self.agents]

    def _is_ready(self) -> bool:
        assert all(agent.poll() is None for agent in self.agents), self.log.read_text()
        try:
            status = httpx.get(f"http://127.0.0.1:{self.port}/ready", trust_env=False).status_code
        except httpx.TransportError:
            time.sleep(0.1)
            return False
        return status == 200


@pytest.fixture
def directory(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("scout", vocab_size=280, num_key_value_heads=4)


@pytest.fixture
def start(directory: Path, tmp_path: Path) -> Iterator[Callable[..., Machines]]:
    started: list[Machines] = []

    def make(*sizes: int) -> Machines:
        started.append(Machines(directory, tmp_path / "log", *([sizes] if sizes else [])))  # type: ignore[arg-type]  # two
        return started[-1]

    yield make
    for machines in started:
        machines.kill()


def test_the_tokens_of_one_machine_and_an_orderly_end(
    start: Callable[..., Machines], directory: Path
) -> None:
    machines = start()
    sampling = Sampling(max_tokens=NEW_TOKENS, temperature=0.0)
    (alone,) = complete(new_engine(load(directory)), [PROMPT], sampling)
    machines.until_ready()
    body = {
        "model": directory.name,
        "prompt": PROMPT,
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    url = f"http://127.0.0.1:{machines.port}/v1/completions"
    answer = httpx.post(url, json=body, timeout=TIMEOUT_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    text = Tokenizer.from_directory(directory, 280).decode(alone.tokens)
    assert answer.json()["choices"][0]["text"] == text
    os.kill(machines.child(0), signal.SIGTERM)
    assert machines.wait() == [0, 0], machines.log.read_text()


def test_the_end_of_one_machine_is_that_of_the_other(start: Callable[..., Machines]) -> None:
    machines = start()
    machines.until_ready()
    pids = [machines.child(0), machines.child(1)]
    os.kill(pids[1], signal.SIGKILL)
    assert all(machines.wait())
    assert "a process of the split model is gone" in machines.log.read_text()
    until(lambda: not any(map(runs, pids)))


@pytest.mark.parametrize(
    ("sizes", "message"), [((2, 4), "differ in model, flags"), ((4, 4), "they must be equal")]
)
def test_sizes_that_cannot_be(
    sizes: tuple[int, int], message: str, start: Callable[..., Machines]
) -> None:
    machines = start(*sizes)
    assert all(machines.wait())
    assert message in machines.log.read_text()
