"""A small Internet on the loopback interface, for tests of downloads.

`Internet` stands in for routing: connections to an address end at the local server that it was
given, and it remembers which addresses were dialled. Names are answered by `Names`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

from caravan.images.fetch import ImageFetcher

PICTURE = b"\x89PNG" + bytes(range(256)) * 300
PUBLIC = "93.184.216.34"
OTHER_PUBLIC = "2606:4700::1111"

Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes = PICTURE, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"elsewhere", f"Location: {location}", status=status)


class Server:
    """Sends fixed bytes for each path, or whatever a function writes; keeps the requests' heads."""

    def __init__(self, pages: dict[str, bytes] | bytes | Answer) -> None:
        self.pages = pages
        self.heads: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, context: ssl.SSLContext | None = None) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            path = head.split(" ")[1]
            if callable(self.pages):
                await self.pages(path, writer)
            else:
                writer.write(self.pages if isinstance(self.pages, bytes) else self.pages[path])
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class Internet:
    """Which local port stands behind an address; whoever dials another is refused."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.dialled: list[tuple[str, int]] = []
        self._connect = anyio.connect_tcp

    async def connect_tcp(
        self, remote_host: str, remote_port: int, **_: Any
    ) -> anyio.abc.SocketStream:
        self.dialled.append((remote_host, remote_port))
        if remote_host not in self.ports:
            raise OSError("no route")
        return await self._connect("127.0.0.1", self.ports[remote_host])

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.dialled]


class Names:
    """Answers each name with its lists in turn, the last one for ever; counts the questions."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        lists = self.answers.get(host, [])
        if not lists:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return lists.pop(0) if len(lists) > 1 else list(lists[0])


Start = Callable[..., Awaitable[Server]]
Make = Callable[..., ImageFetcher]


async def hang(_path: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()
