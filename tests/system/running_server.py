"""`caravan serve` as a real process on a free port, with the demo model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

TIMEOUT_S = 60  # the test machine may be busy; nothing here takes a tenth of it
T = TypeVar("T")


def until(condition: Callable[[], T | None], timeout_s: float = TIMEOUT_S) -> T:
    """Polls until the condition gives something true."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


def children(pid: int) -> list[int]:
    """Pids of the processes that any thread of `pid` started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class RunningServer:
    """The process, what it has printed, and a client for it."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "caravan", "serve", "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=[pipe])
            for lines, pipe in (
                (self.stdout, self.process.stdout),
                (self.stderr, self.process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def output(self) -> str:
        return "".join([*self.stdout, *self.stderr])

    @property
    def url(self) -> str:
        """Available before the model is loaded."""
        return f"http://127.0.0.1:{until(self._port)}"

    @property
    def engine_pid(self) -> int:
        (pid,) = until(lambda: children(self.process.pid))
        return pid

    def until_ready(self) -> RunningServer:
        until(lambda: "Try it:\n" in self.stdout or self.process.poll() is not None)
        assert self.process.poll() is None, self.output
        return self

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """The exit status, after all output was read."""
        status = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        assert self.process.stdout
        assert self.process.stderr
        self.process.stdout.close()
        self.process.stderr.close()
        return status

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)

    def metric(self, name: str) -> float:
        """The value on the metrics page, by its name with its labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith(name + " "))
        return float(value)

    def _port(self) -> int | None:
        """Of the listening socket, as the kernel knows it."""
        inodes = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue  # closed meanwhile
            if match := re.match(r"socket:\[(\d+)\]", target):
                inodes.add(match[1])
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # LISTEN
                return int(fields[1].split(":")[1], 16)
        return None


def completion(max_tokens: int, *, stream: bool = True) -> dict[str, Any]:
    """A request body that gives exactly so many tokens, each with a text of its own."""
    return {
        "model": "caravan-demo",
        "prompt": "Once upon a time",
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "stream": stream,
    }


def events(response: httpx.Response) -> Iterator[Any]:
    """The data of server-sent events; the string [DONE] as it is.

    Hold the iterator as long as the stream shall live: with it, httpx closes the connection.
    """
    for line in response.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)
