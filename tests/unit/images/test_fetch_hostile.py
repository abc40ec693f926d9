"""What hostile servers answer, how long they take, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Any

import pytest

from caravan.config import ImageConfig
from caravan.errors import (
    EmptyImageFile,
    FailedToDownloadImage,
    ImageFileTooLarge,
)
from caravan.images.fetch import ImageFetcher
from unit.images.played_internet import (
    PICTURE,
    PUBLIC,
    Answer,
    Make,
    Names,
    Start,
    hang,
    redirect,
    response,
)

# Hostile answers

BAD_ANSWERS = {
    "not found": response(b"x", status="404 Not Found"),
    "server error": response(b"x", status="500 Oops"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "partial": response(status="206 Partial Content"),
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "multiple choices": redirect("/2", "300 Multiple Choices"),
    "redirect to nowhere": response(b"x", status="302 Found"),
    "redirect to two": response(b"x", "Location: /1", "Location: /2", status="302 Found"),
    "gzip": response(PICTURE, "Content-Encoding: gzip"),
    "twice encoded": response(PICTURE, "Content-Encoding: identity, gzip"),
    "unknown encoding": response(PICTURE, "Content-Encoding: rot13"),
    "garbage": b"\x00\xff garbage\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "truncated": response()[:-1],
    "truncated chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx",
    "large head": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"x" * 300_000 + b"\r\n\r\nx",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 30_000 + b"\r\nx",
    "long status": b"HTTP/1.1 200 " + b"x" * 300_000,
    "byte by byte": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answers(start: Start, make: Make, name: str) -> None:
    server = await start(BAD_ANSWERS[name])
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("http://pictures.test/")
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        response(b""),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_an_empty_file(start: Start, make: Make, answer: bytes) -> None:
    await start(answer)
    with pytest.raises(EmptyImageFile):
        await make().fetch("http://pictures.test/")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", b"ab"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
         b"abc"),
        (response(b"abc", "Content-Encoding: Identity"), b"abc"),
        (response(b"abc", "Content-Type: text/html", "X: \xff"), b"abc"),
    ],
)  # fmt: skip
async def test_odd_but_good_answers(
    start: Start, make: Make, answer: bytes, expected: bytes
) -> None:
    await start(answer)
    assert await make().fetch("http://pictures.test/") == expected


@pytest.mark.parametrize("size", [0, 1, 2])
async def test_the_size_limit_is_exact(start: Start, make: Make, size: int) -> None:
    body = bytes(100_000 + size)
    server = await start(response(body))
    heads = [response(body), b"HTTP/1.1 200 OK\r\n\r\n" + body]  # with and without its length
    for head in heads:
        server.pages = head
        fetcher = make(max_image_bytes=100_001)
        if size < 2:
            assert await fetcher.fetch("http://pictures.test/") == body
        else:
            with pytest.raises(ImageFileTooLarge, match=r"bytes or more; the limit is 100001$"):
                await fetcher.fetch("http://pictures.test/")


async def test_a_huge_length_is_refused_at_once(start: Start, make: Make) -> None:
    async def announce(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        await asyncio.Event().wait()

    await start(announce)
    with pytest.raises(ImageFileTooLarge, match="has 99999999999 bytes"):
        await make().fetch("http://pictures.test/")


async def test_a_body_without_end(start: Start, make: Make) -> None:
    sent = 0

    async def pour(_path: str, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(50_000))
            sent += 50_000
            await writer.drain()

    await start(pour)
    with pytest.raises(ImageFileTooLarge):
        await make(max_image_bytes=1_000_000).fetch("http://pictures.test/")
    assert sent < 50_000_000  # what the socket's buffers took, too


# Time


async def drip(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_headers(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def continue_for_ever(_path: str, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def redirect_slowly(_path: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.2)
    writer.write(redirect("/again"))


@pytest.mark.parametrize("answer", [hang, drip, drip_headers, continue_for_ever, redirect_slowly])
async def test_the_time_limit(start: Start, make: Make, answer: Answer) -> None:
    await start(answer)
    with pytest.raises(FailedToDownloadImage, match=r"within 0\.3 seconds"):
        await make(image_timeout=0.3).fetch("http://pictures.test/")


async def test_a_name_server_that_does_not_answer() -> None:
    async def resolve(_host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    fetcher = ImageFetcher(ImageConfig(image_timeout=0.1), resolve)
    with pytest.raises(FailedToDownloadImage):
        await fetcher.fetch("http://pictures.test/")
    await fetcher.aclose()


async def test_slow_lookups_leave_the_loop_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def look_up(*_arguments: Any, **_named: Any) -> list[Any]:
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    fetcher = ImageFetcher(ImageConfig(image_timeout=0.2))
    try:
        results = await asyncio.gather(
            *(fetcher.fetch(f"http://{n}.test/") for n in range(50)), return_exceptions=True
        )
        assert {type(result) for result in results} == {FailedToDownloadImage}
        await asyncio.wait_for(asyncio.to_thread(int), 30)
    finally:
        answered.set()
        await fetcher.aclose()


@pytest.mark.parametrize("answer", [hang, drip])
async def test_others_go_on_while_one_hangs_and_cancelling_ends_it(
    start: Start, make: Make, answer: Answer
) -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/hang":
            await answer(path, writer)
        writer.write(response())

    server = await start(serve)
    fetcher = make()
    hanging = asyncio.create_task(fetcher.fetch("http://pictures.test/hang"))
    while not server.heads:
        await asyncio.sleep(0.01)
    for _ in range(20):
        assert await fetcher.fetch("http://pictures.test/") == PICTURE
    assert not hanging.done()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


# What is said


async def test_all_failures_look_the_same_and_the_log_has_the_reason(
    start: Start, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "caravan.images.fetch")
    server = await start(hang)
    names = Names(
        pictures_test=[[PUBLIC]], closed_test=[["8.8.8.8"]], private_test=[["10.11.12.13"]]
    )
    fetcher = make(names, image_timeout=0.5)
    messages = set()
    reasons = []
    for url in (
        "http://pictures.test/", "http://closed.test/", "http://private.test/",
        "http://unknown.test/", "https://pictures.test/",
    ):  # fmt: skip
        with pytest.raises(FailedToDownloadImage) as caught:
            await fetcher.fetch(url)
        messages.add(caught.value.message)
    for name in ("not found", "redirect to two", "garbage", "gzip", "truncated"):
        server.pages = BAD_ANSWERS[name]
        with pytest.raises(FailedToDownloadImage) as caught:
            await fetcher.fetch("http://pictures.test/")
        messages.add(caught.value.message)
    (message,) = messages
    assert message.startswith("could not be downloaded; the image must be at a public http")
    assert "within 0.5 seconds" in message
    assert not message.endswith(".")
    reasons = [r.getMessage() for r in caplog.records if r.name == "caravan.images.fetch"]
    assert len(reasons) == 10
    assert "10.11.12.13 is not public" in reasons[2]
    assert "TimeoutError" in reasons[0]
    assert "status 404" in reasons[5]


async def test_the_log_stays_one_plain_line(
    start: Start, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "caravan.images.fetch")
    await start(response(PICTURE, "Content-Encoding: \x80\x9b31m" + "x" * 9000))
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("http://pictures.test/?signature=secret")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "caravan.images.fetch"]
    assert line.isprintable()
    assert line.isascii()
    assert len(line) < 1500
    assert "secret" not in line
