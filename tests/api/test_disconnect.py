"""A client that leaves takes its generations with it, streaming or not. Real sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from api.conftest import MODEL
from api.fake_engine import HANG, FakeEngine, say
from caravan.config import ApiConfig

PROMPTLY_S = 1.0


def post(address: tuple[str, int], path: str, **body: object) -> socket.socket:
    """Sends a request and reads nothing."""
    data = json.dumps({"model": MODEL, **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    connection = socket.create_connection(address, timeout=5)
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PROMPTLY_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_the_client_leaves(
    address: tuple[str, int], engine: FakeEngine, stream: bool, started: bool
) -> None:
    engine.script = lambda index, sampling: [*(say("abc")[:1] if started else []), HANG]
    with closing(post(address, "/v1/completions", prompt=["a", "b"], n=2, stream=stream)) as client:
        wait_for(lambda: len(engine.generations) == 4)
        if stream and started:
            assert b"200 OK" in client.recv(4096)
        assert not any(generation.closed for generation in engine.generations)
    wait_for(lambda: engine.all_closed)


@pytest.mark.parametrize("config", [ApiConfig(ping_interval=0.01)])
def test_the_client_leaves_among_pings(address: tuple[str, int], engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [HANG]
    messages = [{"role": "user", "content": "Hi"}]
    with closing(post(address, "/v1/chat/completions", messages=messages, stream=True)) as client:
        received = b""
        while received.count(b": ping") < 3:
            received += client.recv(4096)
    wait_for(lambda: engine.all_closed)


def test_aborted_requests_are_counted(address: tuple[str, int], engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [HANG]
    with closing(post(address, "/v1/completions", prompt="a")):
        wait_for(lambda: len(engine.generations) == 1)
    wait_for(lambda: engine.all_closed)

    def page() -> bytes:
        with closing(socket.create_connection(address, timeout=5)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            received = b""
            while part := connection.recv(1 << 16):
                received += part
            return received

    wait_for(lambda: b'route="/v1/completions",status="499"} 1.0' in page())
    assert b'caravan_requests_finished_total{reason="abort"} 1.0' in page()
    assert b"caravan_requests_rejected_total{" not in page()
