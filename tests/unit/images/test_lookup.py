from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from caravan.images.lookup import MAX_THREADS, HostLookup


async def test_names_and_numbers() -> None:
    look_up = HostLookup()
    assert "127.0.0.1" in await look_up("localhost")
    assert await look_up("2130706433") == ["127.0.0.1"]
    assert await look_up("::1") == ["::1"]


async def test_what_the_resolver_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror):
        await HostLookup()("none.test")


async def test_threads_are_bounded_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    running = 0

    def wait(*_arguments: Any, **_named: Any) -> list[Any]:
        nonlocal running
        running += 1
        answered.wait(60)
        return [(0, 0, 0, "", ("10.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    look_up = HostLookup()
    tasks = [asyncio.create_task(look_up("a.test")) for _ in range(3 * MAX_THREADS)]
    async with asyncio.timeout(30):
        while running < MAX_THREADS:
            await asyncio.sleep(0.01)
    tasks[0].cancel()  # its thread still counts
    await asyncio.sleep(0.05)
    assert running == MAX_THREADS
    answered.set()
    assert await asyncio.gather(*tasks[1:]) == [["10.0.0.1"]] * (len(tasks) - 1)
    assert running == 3 * MAX_THREADS


def test_a_resolver_that_does_not_answer_does_not_hold_up_the_exit() -> None:
    code = """
import asyncio, socket, time
from caravan.images.lookup import HostLookup
socket.getaddrinfo = lambda *arguments, **named: time.sleep(3600)
async def main():
    try:
        await asyncio.wait_for(HostLookup()("a.test"), 0.1)
    except TimeoutError:
        print("gave up")
asyncio.run(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, "gave up\n"), result.stderr
