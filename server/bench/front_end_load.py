"""Clients over plain sockets, in one thread: they read bytes, and parse no more than they must.

They look for answers by the clock instead of waiting for them: a write that has to wake its reader
takes twice as long, so a server that is too fast for its readers would seem faster still.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from front_end_server import Recording

TIMEOUT_S = 60
LOOK_S = 0.0005  # between two looks
_HEADERS = (
    "Host: 127.0.0.1",
    "Accept: application/json",
    "Accept-Encoding: gzip, deflate",
    "Connection: keep-alive",
    "Content-Type: application/json",
    "User-Agent: OpenAI/Python 2.54.0",
    "Authorization: Bearer none",
)
_OWN_HEADERS = ("date", "transfer-encoding")  # uvicorn adds them itself
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


def post(path: str, body: str) -> bytes:
    """A request as the official client sends it."""
    data = body.encode()
    head = "\r\n".join([f"POST {path} HTTP/1.1", *_HEADERS, f"Content-Length: {len(data)}"])
    return head.encode() + b"\r\n\r\n" + data


class Client:
    """One connection, which is kept: it asks, reads all of the answer, and asks again."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._answer = bytearray()

    def ask(self, request: bytes) -> None:
        """Sends a request; the last answer is forgotten."""
        self._answer.clear()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Reads what is there; returns whether the answer is complete."""
        try:
            part = self.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        assert part, "the server closed the connection"
        self._answer += part
        return self._is_complete()

    def head_and_body(self) -> tuple[bytes, bytes]:
        """Of a complete answer; the body may be in chunks."""
        head, _, body = self._answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), bytes(self._answer)
        return bytes(head), bytes(body)

    def _is_complete(self) -> bool:
        if self._answer.endswith(b"\r\n0\r\n\r\n"):
            return True
        head_len = self._answer.find(b"\r\n\r\n") + 4
        found = _CONTENT_LENGTH.search(self._answer, 0, head_len)
        return found is not None and len(self._answer) == head_len + int(found[1])


class Load(NamedTuple):
    """What some clients got."""

    answers: int
    events: int


def drive(clients: Sequence[Client], request: bytes, rounds: int) -> Load:
    """Every client asks `rounds` times, one after the other; all of them at once."""
    for client in clients:
        client.ask(request)
    left = dict.fromkeys(clients, rounds)
    events = 0
    deadline = time.monotonic() + TIMEOUT_S
    while left:
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(LOOK_S)
        for client in [client for client in left if client.receive()]:
            events += client.head_and_body()[1].count(b"\n\n")
            left[client] -= 1
            if left[client]:
                client.ask(request)
            else:
                del left[client]
    return Load(len(clients) * rounds, events)


def record(port: int, path: str, body: str) -> Recording:
    """Asks once, and keeps the answer piece by piece as the server sent it."""
    client = Client(port)
    client.ask(post(path, body))
    while not client.receive():
        time.sleep(LOOK_S)
    head, content = client.head_and_body()
    client.socket.close()
    pairs = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    headers = [(name, value) for name, value in pairs if name not in _OWN_HEADERS]
    is_chunked = b"\r\ntransfer-encoding: chunked" in head
    pieces = _chunks(content) if is_chunked else [content]
    return Recording(body, headers, [piece.decode() for piece in pieces])


def _chunks(content: bytes) -> list[bytes]:
    """The chunks of a body in chunks."""
    chunks = []
    size_line, _, content = content.partition(b"\r\n")
    while size := int(size_line, 16):
        chunks.append(content[:size])
        size_line, _, content = content[size + 2 :].partition(b"\r\n")
    return chunks
