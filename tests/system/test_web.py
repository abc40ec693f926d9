"""uvicorn under real sockets: bounds, and ports that are lost between binding and listening."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from caravan.cli.web import MAX_HEAD_BYTES, WebServer, bound_socket
from caravan.errors import ConfigError

TIMEOUT_S = 20


async def echo_path(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body and answers with the path."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """Of a server that runs for one test."""
    with bound_socket("127.0.0.1", 0) as listener:
        name: Any = listener.getsockname()
        server = WebServer(echo_path)
        task = asyncio.create_task(server.serve([listener]))
        deadline = time.monotonic() + TIMEOUT_S
        while not server.started:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        yield name
        server.should_exit = True
        await asyncio.wait_for(task, TIMEOUT_S)


async def exchange(address: tuple[str, int], *parts: bytes) -> bytes:
    """Sends parts until the server has had enough; its answer, or nothing if it hung up first."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), TIMEOUT_S)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_requests_on_one_connection(address: tuple[str, int]) -> None:
    head = b"GET /a HTTP/1.1\r\nHost: x\r\n"
    answer = await exchange(address, head + b"\r\n", head + b"Connection: close\r\n\r\n")
    assert answer.count(b"200 OK") == 2


async def test_a_long_head_is_fine_up_to_the_bound(address: tuple[str, int]) -> None:
    value = b"v" * (MAX_HEAD_BYTES - 200)
    head = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + value + b"\r\n\r\n"
    pieces = [head[i : i + 1000] for i in range(0, len(head), 1000)]
    assert b"200 OK" in await exchange(address, *pieces)


@pytest.mark.parametrize(
    "endless", [b"x: " + b"v" * 997, b"x" * 1000, b"x: " + b"v" * 95 + b"\r\n"]
)
async def test_a_head_without_an_end_is_refused(address: tuple[str, int], endless: bytes) -> None:
    answer = await exchange(address, b"GET / HTTP/1.1\r\n", *[endless] * 5000)
    assert answer == b"" or b" 400 " in answer.split(b"\r\n")[0]


async def test_a_long_body_is_not_a_long_head(address: tuple[str, int]) -> None:
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
    assert b"200 OK" in await exchange(address, head, b"b" * 300000)


async def test_a_port_that_another_server_took_meanwhile_is_refused() -> None:
    """Both have bound it, which Linux allows until one listens."""
    with bound_socket("127.0.0.1", 0) as mine:
        port = mine.getsockname()[1]
        with bound_socket("127.0.0.1", port) as other:
            other.listen()
            with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
                await asyncio.wait_for(WebServer(echo_path).serve([mine]), TIMEOUT_S)


async def test_while_it_drains_every_response_closes_its_connection() -> None:
    with bound_socket("127.0.0.1", 0) as listener:
        name: Any = listener.getsockname()
        server = WebServer(echo_path)
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        server.close_connections()
        answer = await exchange(name, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        server.should_exit = True
        await asyncio.wait_for(task, TIMEOUT_S)


def test_bound_sockets_do_not_accept_before_they_listen() -> None:
    with (
        bound_socket("127.0.0.1", 0) as listener,
        pytest.raises(ConnectionRefusedError),
    ):
        socket.create_connection(listener.getsockname(), timeout=1)
