"""Pictures through a real server: the README's example, and a web full of hostile ones."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from caravan.cli.serving import ModelFiles
from caravan.model.source import DEMO
from system.running_server import TIMEOUT_S, RunningServer, children, completion, events, until

ROOT = Path(__file__).parents[2]
MAX_BYTES = 2 << 20
MAX_PIXELS = 4_000_000
TIME_LIMIT_S = 2.0
AROUND = ("<|image_start|>", "<|image|>", "<|image_end|>")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer(
        *("--allowed-private-hosts", "localhost", "--image-timeout", str(TIME_LIMIT_S)),
        *("--max-image-bytes", str(MAX_BYTES), "--max-image-pixels", str(MAX_PIXELS)),
    ) as running:
        yield running.until_ready()


@pytest.mark.exam
def test_the_readmes_picture_is_described(server: RunningServer) -> None:
    result = run_readme_example(server)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "A red circle left of a blue square.\n"


def test_the_readmes_picture_is_answered(server: RunningServer) -> None:
    result = run_readme_example(server)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def run_readme_example(server: RunningServer) -> subprocess.CompletedProcess[str]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "ImageDraw" in block]
    code = example.replace("http://127.0.0.1:8000", server.url)
    assert server.url in code
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=2 * TIMEOUT_S
    )


def test_photographs_are_cut_into_the_models_tiles(server: RunningServer) -> None:
    folder = Path(importlib.import_module("llama_models").__path__[0]) / "resources"
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Compare the pictures."}]
    for name in ("dog.jpg", "pasta.jpeg"):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        url = f"data:image/jpeg;base64,{data}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    body = {
        "model": "caravan-demo",
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 30,
    }
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json=body, timeout=TIMEOUT_S).json()
    assert answer["choices"][0]["message"]["content"]
    layout = ModelFiles.from_directory(DEMO).tiles
    expected = 0
    for name in ("dog.jpg", "pasta.jpeg"):
        with Image.open(folder / name) as picture:
            grid = layout.grid(*picture.size)
        num_local = grid.num_tiles - 1
        assert num_local > 1, "they are large"
        expected += grid.num_tiles * layout.tile_tokens + num_local + len(AROUND)
    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == expected


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


PICTURE = png(40, 40)

# Bodies by path. What has none here is played by `HostileWeb._play`.
FILES: dict[str, bytes] = {
    "/ok": PICTURE,
    "/octets": PICTURE,
    "/largest": png(2000, 2000),
    "/empty": b"",
    "/page": b"<!doctype html><title>not a picture</title>",
    "/svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "/cut": png(300, 300)[:200],
    "/noise": b"\xff\xd8\xff" + bytes(range(256)) * 100,
    "/bomb": png_that_claims(50_000, 50_000),
    "/long-bomb": png_that_claims(1_000_000, 1),
}


class HostileWeb:
    """A web server on loopback, in a thread of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.port = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> HostileWeb:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, "localhost", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # connections are let go of a moment later

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split()[1].decode()
                self.asked.append(path)
                async for part in self._play(path):
                    writer.write(part)
                    await writer.drain()
        finally:
            writer.close()

    async def _play(self, path: str) -> AsyncIterator[bytes]:
        if path.startswith("/to/"):
            yield f"HTTP/1.1 302 Found\r\nLocation: {path[4:]}\r\n\r\n".encode()
        elif path == "/endless":
            yield b"HTTP/1.1 200 OK\r\n\r\n\x89PNG\r\n\x1a\n"
            while True:
                yield bytes(1 << 16)
        elif path == "/slow":
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            for byte in PICTURE:
                yield bytes([byte])
                await asyncio.sleep(0.2)
        elif path == "/silent":
            await asyncio.sleep(3600)
        elif path == "/lies":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" + PICTURE
        elif path == "/gzip":
            yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + zlib.compress(PICTURE)
        elif path in FILES:
            kind = "text/html" if path == "/page" else "application/octet-stream"
            headers = f"Content-Type: {kind}\r\nContent-Length: {len(FILES[path])}"
            yield f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode()
            yield FILES[path]
        else:
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def web() -> Iterator[HostileWeb]:
    with HostileWeb() as running:
        yield running


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


FAILED, TOO_LARGE = "failed_to_download_image", "image_file_too_large"
HOSTILE: dict[str, tuple[str, str]] = {  # the URL, in which PORT is the web's, and the code
    "missing": ("http://localhost:PORT/none", FAILED),
    "private by number": ("http://127.0.0.1:PORT/private", FAILED),
    "private as decimal": ("http://2130706433:PORT/private", FAILED),
    "private as hexadecimal": ("http://0x7f000001:PORT/private", FAILED),
    "private in IPv6": ("http://[::1]:PORT/private", FAILED),
    "private mapped to IPv6": ("http://[::ffff:127.0.0.1]:PORT/private", FAILED),
    "any address": ("http://0.0.0.0:PORT/private", FAILED),
    "metadata": ("http://169.254.169.254/latest/meta-data/", FAILED),
    "redirect to private": ("http://localhost:PORT/to/http://127.0.0.1:PORT/private", FAILED),
    "redirect to metadata": ("http://localhost:PORT/to/http://169.254.169.254/", FAILED),
    "redirect to a file": ("http://localhost:PORT/to/file:///etc/passwd", FAILED),
    "redirects for ever": ("http://localhost:PORT/to//to//to//to//to//to/", FAILED),
    "nobody listens": ("http://localhost:9/x.png", FAILED),
    "slow": ("http://localhost:PORT/slow", FAILED),
    "silent": ("http://localhost:PORT/silent", FAILED),
    "compressed": ("http://localhost:PORT/gzip", FAILED),
    "endless": ("http://localhost:PORT/endless", TOO_LARGE),
    "a length that lies": ("http://localhost:PORT/lies", TOO_LARGE),
    "huge base64": (data_url(bytes(20 << 20)), TOO_LARGE),
    "a file": ("file:///etc/passwd", "invalid_image_url"),
    "another scheme": ("ftp://localhost/x.png", "invalid_image_url"),
    "a password": ("http://a:b@localhost:PORT/ok", "invalid_image_url"),
    "a backslash": ("http://localhost:PORT\\@evil.test/ok", "invalid_image_url"),
    "no base64": ("data:image/png;base64,%%%", "invalid_base64_image"),
    "another media type": (data_url(PICTURE, "text/html"), "unsupported_image_media_type"),
    "empty": ("http://localhost:PORT/empty", "empty_image_file"),
    "a page": ("http://localhost:PORT/page", "unsupported_image_media_type"),
    "SVG": ("http://localhost:PORT/svg", "unsupported_image_media_type"),
    "cut off": ("http://localhost:PORT/cut", "image_parse_error"),
    "noise": ("http://localhost:PORT/noise", "image_parse_error"),
    "bomb": ("http://localhost:PORT/bomb", "image_too_large"),
    "long bomb": (data_url(png_that_claims(1_000_000, 5)), "image_too_large"),
}
GOOD = [
    data_url(PICTURE),
    data_url(PICTURE, "image/jpeg"),  # the content decides
    "http://localhost:PORT/ok",
    "http://localhost:PORT/octets",
    "http://localhost:PORT/to//ok",
    "http://localhost:PORT/largest",
]


def ask(server: RunningServer, url: str) -> httpx.Response:
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    body = {
        "model": "caravan-demo",
        "messages": [{"role": "user", "content": [part]}],
        "max_tokens": 1,
    }
    with server.client() as client:
        return client.post("/v1/chat/completions", json=body)


def peak_bytes(pid: int) -> int:
    """Most memory that a process has had so far."""
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024


class Listener(threading.Thread):
    """A client with a long stream."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__()
        self.server = server
        self.num_chunks = 0
        self.stop = False
        self.last: Any = None

    def run(self) -> None:
        with (
            self.server.client() as client,
            client.stream("POST", "/v1/completions", json=completion(4000)) as response,
        ):
            for event in events(response):
                self.last = event
                self.num_chunks += 1
                if self.stop:
                    break


def test_hostile_pictures_hurt_nobody(server: RunningServer, web: HostileWeb) -> None:
    def local(url: str) -> str:
        return url.replace("PORT", str(web.port))

    for url in GOOD:
        answer = ask(server, local(url))
        assert answer.status_code == 200, (url[:80], answer.text)
    before = peak_bytes(server.process.pid)
    listener = Listener(server)
    listener.start()
    until(lambda: listener.num_chunks > 5)
    first = listener.num_chunks
    with ThreadPoolExecutor(16) as pool:
        urls = [local(url) for url, _ in HOSTILE.values()]
        answers = dict(zip(HOSTILE, pool.map(lambda url: ask(server, url), urls), strict=True))
    heard = listener.num_chunks - first
    listener.stop = True
    listener.join(TIMEOUT_S)
    assert heard > 10, "the stream stood still"
    assert "error" not in listener.last
    for name, answer in answers.items():
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, HOSTILE[name][1]), (name, error)
        assert error["param"] == "messages[0].content[0].image_url.url"
        assert len(error["message"]) < 500
    assert "/private" not in web.asked
    # A failed download does not say why: it would tell what is inside the network.
    assert (
        len({answers[n].json()["error"]["message"] for n in HOSTILE if HOSTILE[n][1] == FAILED})
        == 1
    )
    # 16 at once: their bodies (one of 27 MB, read and parsed), and MAX_BYTES of each download.
    assert peak_bytes(server.process.pid) - before < 300 << 20
    decoders = [pid for pid in children(server.process.pid) if is_decoder(pid)]
    assert 1 <= len(decoders) <= 2
    assert all(peak_bytes(pid) < 300 << 20 for pid in decoders)
    for url in GOOD:
        assert ask(server, local(url)).status_code == 200


def is_decoder(pid: int) -> bool:
    return b"caravan.images" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_no_decoder_survives_the_server() -> None:
    with RunningServer() as running:
        assert ask(running.until_ready(), data_url(PICTURE)).status_code == 200
        decoders = [pid for pid in children(running.process.pid) if is_decoder(pid)]
        assert decoders
        running.process.kill()
        running.wait()
        until(
            lambda: not any(Path(f"/proc/{pid}").exists() and is_decoder(pid) for pid in decoders)
        )


def test_a_host_that_is_none_stops_the_start() -> None:
    with RunningServer("--allowed-private-hosts", "http://localhost") as running:
        assert running.wait() == 2
        assert "--allowed-private-hosts is 'http://localhost'" in running.output
