"""Downloads from hostile servers and names. Everything stays on the loopback interface.

`Internet` stands in for routing: connections to an address end at the local server that it was
given, and it remembers which addresses were dialled. Names are answered by `Names`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from caravan.config import ImageConfig
from caravan.errors import (
    ConfigError,
    EmptyImageFile,
    FailedToDownloadImage,
    ImageFileTooLarge,
    InvalidImageUrl,
)
from caravan.images import fetch
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


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    made = Internet()
    monkeypatch.setattr(anyio, "connect_tcp", made.connect_tcp)
    return made


Start = Callable[..., Awaitable[Server]]
Make = Callable[..., ImageFetcher]


@pytest.fixture
async def start(internet: Internet) -> AsyncIterator[Start]:
    """Starts servers; the first is behind the public addresses."""
    servers: list[Server] = []

    async def start_one(
        pages: dict[str, bytes] | bytes | Answer,
        *addresses: str,
        context: ssl.SSLContext | None = None,
    ) -> Server:
        server = Server(pages)
        port = await server.start(context)
        servers.append(server)
        for address in addresses or (PUBLIC, OTHER_PUBLIC):
            internet.ports[address] = port
        return server

    yield start_one
    for server in servers:
        await server.stop()


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes fetchers that know the name pictures.test."""
    fetchers: list[ImageFetcher] = []

    def make_one(names: Names | None = None, **settings: Any) -> ImageFetcher:
        names = names or Names(pictures_test=[[PUBLIC]])
        fetchers.append(ImageFetcher(ImageConfig(**settings), names))
        return fetchers[-1]

    yield make_one
    for fetcher in fetchers:
        await fetcher.aclose()


async def hang(_path: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# What a good server gets to see


async def test_the_file_comes_back(start: Start, make: Make, internet: Internet) -> None:
    server = await start(response())
    url = "HTTP://Pictures.TEST:8080/a%20b/\u00fc.png?x=%2F&y=a+b&z#fragment"
    assert await make().fetch(url) == PICTURE
    assert internet.dialled == [(PUBLIC, 8080)]
    request_line, *headers = server.heads[0].split("\r\n")
    assert request_line == "GET /a%20b/%C3%BC.png?x=%2F&y=a+b&z HTTP/1.1"
    assert "Host: pictures.test:8080" in headers
    assert "Accept-Encoding: identity" in headers
    assert "Connection: close" in headers
    assert not [h for h in headers if h.lower().startswith(("cookie", "authorization", "referer"))]


async def test_default_ports(start: Start, make: Make, internet: Internet) -> None:
    server = await start(response())
    fetcher = make()
    await fetcher.fetch("http://pictures.test")
    await fetcher.fetch("http://pictures.test:80/")
    with pytest.raises(FailedToDownloadImage):  # the server knows no TLS
        await make(image_timeout=0.5).fetch("https://pictures.test/")
    assert internet.dialled == [(PUBLIC, 80), (PUBLIC, 80), (PUBLIC, 443)]
    assert ["Host: pictures.test" in head.split("\r\n") for head in server.heads] == [True, True]


async def test_over_real_sockets_and_the_real_resolver() -> None:
    server = Server(response())
    port = await server.start()
    fetcher = ImageFetcher(ImageConfig(allowed_private_hosts=("127.0.0.1",)))
    try:
        assert await fetcher.fetch(f"http://127.0.0.1:{port}/x") == PICTURE
        with pytest.raises(FailedToDownloadImage):
            await fetcher.fetch(f"http://127.1:{port}/x")  # the same place, but not its name
    finally:
        await fetcher.aclose()
        await server.stop()
    assert len(server.heads) == 1


async def test_no_connection_and_no_cookie_is_used_twice(start: Start, make: Make) -> None:
    server = await start(response(PICTURE, "Set-Cookie: a=b; Path=/", "Connection: keep-alive"))
    fetcher = make()
    assert await fetcher.fetch("http://pictures.test/1") == PICTURE
    assert await fetcher.fetch("http://pictures.test/2") == PICTURE  # a server answers only once
    assert len(server.heads) == 2
    assert "cookie" not in server.heads[1].lower()


async def test_proxies_of_the_environment_are_not_used(
    start: Start, make: Make, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://10.0.0.1:3128")
    await start(response())
    assert await make().fetch("http://pictures.test/") == PICTURE
    assert internet.hosts == [PUBLIC]


# Names and addresses


async def test_the_next_address_is_tried(start: Start, make: Make, internet: Internet) -> None:
    await start(response(), OTHER_PUBLIC)
    names = Names(pictures_test=[[PUBLIC, PUBLIC, "8.8.8.8", OTHER_PUBLIC, "1.1.1.1"]])
    assert await make(names).fetch("http://pictures.test/") == PICTURE
    assert internet.hosts == [PUBLIC, "8.8.8.8", OTHER_PUBLIC]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, OTHER_PUBLIC, "::1"],
        ["::ffff:127.0.0.1"], ["169.254.169.254"], ["fe80::1%eth0"], [""], ["pictures.test"], [],
    ],
)  # fmt: skip
async def test_one_address_that_is_not_public_condemns_a_name(
    make: Make, internet: Internet, addresses: list[str]
) -> None:
    with pytest.raises(FailedToDownloadImage):
        await make(Names(pictures_test=[addresses])).fetch("http://pictures.test/")
    assert internet.dialled == []


async def test_a_name_that_moves(start: Start, make: Make, internet: Internet) -> None:
    """DNS rebinding: what is connected to is what was checked, whatever a second answer says."""
    await start({"/1": redirect("/2"), "/2": response()})
    await start(response(b"a secret"), "127.0.0.1")
    names = Names(pictures_test=[[PUBLIC], ["127.0.0.1"]])
    with pytest.raises(FailedToDownloadImage):  # the redirect asks again, and is denied
        await make(names).fetch("http://pictures.test/1")
    assert internet.hosts == [PUBLIC]
    names = Names(pictures_test=[[PUBLIC], [OTHER_PUBLIC], ["127.0.0.1"]])
    assert await make(names).fetch("http://pictures.test/1") == PICTURE
    assert names.asked == ["pictures.test"] * 2, "once per hop"
    assert internet.hosts == [PUBLIC, PUBLIC, OTHER_PUBLIC]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0",
        "0.0.0.0", "localhost", "LOCALHOST.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]", "[fe80::1]", "[fd00:ec2::254]", "169.254.169.254", "2852039166",
        "0xA9FEA9FE", "100.100.100.200", "10.0.0.1", "192.168.1.1", "224.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
async def test_addresses_in_any_notation_are_vetted(host: str, internet: Internet) -> None:
    fetcher = ImageFetcher(ImageConfig())  # the real resolver; none of these needs the network
    try:
        with pytest.raises(FailedToDownloadImage):
            await fetcher.fetch(f"http://{host}/latest/meta-data")
    finally:
        await fetcher.aclose()
    assert internet.dialled == []


async def test_private_hosts_that_are_allowed(start: Start, make: Make, internet: Internet) -> None:
    await start({"/": response(), "/away": redirect("http://other.test/")}, "10.0.0.1")
    names = Names(pictures_test=[["10.0.0.1"]], other_test=[["10.0.0.1"]])
    names.answers["pictures.test."] = [["10.0.0.1"]]
    fetcher = make(names, allowed_private_hosts=("PICTURES.test",))
    assert await fetcher.fetch("http://pictures.test/") == PICTURE
    assert await fetcher.fetch("http://Pictures.Test./") == PICTURE
    for url in ("http://other.test/", "http://pictures.test/away", "http://10.0.0.1/"):
        with pytest.raises(FailedToDownloadImage):
            await fetcher.fetch(url)
    assert len(internet.dialled) == 3


async def test_hosts_that_are_allowed(start: Start, make: Make, internet: Internet) -> None:
    await start({"/": response(), "/away": redirect("http://other.test/")})
    names = Names(other_test=[[PUBLIC]])
    for host in ("pictures.test", "pictures.test.", "xn--bcher-kva.test"):
        names.answers[host] = [[PUBLIC]]
    fetcher = make(names, allowed_media_domains=("Pictures.test.", "b\u00fccher.test"))
    good = ["pictures.test", "PICTURES.TEST.", "b\u00fccher.test", "XN--BCHER-KVA.test"]
    for host in good:
        assert await fetcher.fetch(f"http://{host}/") == PICTURE
    bad = ["other.test", "a.pictures.test", "pictures.test.other.test", "pictures.testing", "test"]
    for host in bad:
        with pytest.raises(InvalidImageUrl, match="--allowed-media-domains"):
            await fetcher.fetch(f"http://{host}/")
    with pytest.raises(FailedToDownloadImage):
        await fetcher.fetch("http://pictures.test/away")
    assert len(internet.dialled) == len(good) + 1
    assert "other.test" not in names.asked


@pytest.mark.parametrize("host", ["a?b", "a#b", "a..b", "-\u00fc", "a\\b", "a%2eb", "01.2.3.4"])
@pytest.mark.parametrize("setting", ["allowed_media_domains", "allowed_private_hosts"])
def test_a_host_that_could_never_match_is_refused(setting: str, host: str) -> None:
    settings: dict[str, Any] = {setting: (host,)}
    with pytest.raises(ConfigError, match="--" + setting.replace("_", "-")):
        ImageFetcher(ImageConfig(**settings))


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "", "/etc/passwd", "pictures.test/x", "file:///etc/passwd", "ftp://pictures.test/",
        "gopher://pictures.test/", "javascript:alert(1)", "data:,x", "//pictures.test/",
        "http:pictures.test", "http:/pictures.test", "http:///pictures.test", "http://", "http://?x",
        "http://:80/", "ws://pictures.test/", "http+unix://pictures.test/", "httpx://pictures.test",
        "http://user:pass@pictures.test/", "http://user@pictures.test/", "http://:@pictures.test/",
        "http://good\\@pictures.test/", "http://pictures.test\\@10.0.0.1/", "http:\\\\x.test",
        "http://pictures.test/\\", "http://pictures.test/a b", " http://pictures.test/",
        "http://pictures.test/\n", "http://pictures.test/\r\nHost: x", "http://pictures.test/\x00",
        "http://pictures.test/\x7f", "http://pictures.test/\u2028", "http://pictures.test/\u00a0",
        "http://pictures.test/\u200b", "http://pictures.test/\ud800", "http://pictures\t.test/",
        "http://pictures.test:0/", "http://pictures.test:65536/", "http://pictures.test:-1/",
        "http://pictures.test:x/", "http://pictures.test:80:80/", "http://[::1/", "http://::1/",
        "http://[fe80::1%25eth0]/", "http://[pictures.test]/", "http://1.2.3.4.5.256.1..2/",
        "http://0177.0.0.1/", "http://256.1.1.1/", "http://a..test/", "http://.test/", "http://./",
        "http://%6c%6fcalhost/", "http://pictures.test%00.x/", "http://a,b/", "http://a;b/",
        "http://\uff11\uff12\uff17.0.0.1/", "http://\u24d0.test/", "http://" + "a" * 64 + ".test/",
        "http://" + "a." * 127 + "test/",
    ],
)  # fmt: skip
async def test_urls_that_are_refused(make: Make, internet: Internet, url: str) -> None:
    names = Names(pictures_test=[[PUBLIC]])
    with pytest.raises(InvalidImageUrl) as caught:
        await make(names).fetch(url)
    assert names.asked == []
    message = caught.value.message
    assert message.startswith(("is ", "has ", "must ", "names "))
    assert not message.endswith(".")
    assert "pictures.test" not in message


async def test_the_longest_url(start: Start, make: Make) -> None:
    await start(response())
    fetcher = make()
    url = "http://pictures.test/".ljust(fetch.MAX_URL_CHARACTERS, "x")
    assert await fetcher.fetch(url) == PICTURE
    with pytest.raises(InvalidImageUrl, match="8193 characters; the limit is 8192"):
        await fetcher.fetch(url + "x")


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/2?x", "2?x", "../2?x", "http://pictures.test/2?x", "//pictures.test/2?x"]
)
async def test_a_redirect(start: Start, make: Make, status: int, location: str) -> None:
    server = await start({"/a/1": redirect(location, f"{status} x"), "/2?x": response(),
                          "/a/2?x": response()})  # fmt: skip
    assert await make().fetch("http://pictures.test/a/1") == PICTURE
    assert len(server.heads) == 2


async def test_a_redirect_to_another_host_says_its_name(start: Start, make: Make) -> None:
    await start({"/": redirect("http://other.test:81/x")})
    other = await start({"/x": response()}, "8.8.8.8")
    names = Names(pictures_test=[[PUBLIC]], other_test=[["8.8.8.8"]])
    assert await make(names).fetch("http://pictures.test/") == PICTURE
    assert "Host: other.test:81\r\n" in other.heads[0]


async def test_three_redirects_and_no_more(start: Start, make: Make) -> None:
    pages = {f"/{n}": redirect(f"/{n + 1}") for n in range(4)}
    server = await start({**pages, "/4": response()})
    assert await make().fetch("http://pictures.test/1") == PICTURE
    server.heads.clear()
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("http://pictures.test/0")
    assert len(server.heads) == 4
    server.pages = redirect("/round")
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("http://pictures.test/round")
    assert len(server.heads) == 8


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/", "http://private.test/", "//10.0.0.1/", "http://[::ffff:10.0.0.1]/",
        "file:///etc/passwd", "ftp://pictures.test/", "data:image/png;base64,aGk=", "http:///x\\",
        "http://user:pass@pictures.test/2", "\\\\private.test/", "/\\private.test/", "/a b",
        "http://[::1", "http://pictures.test:99999/", "http://a..b/", "//[x]/", "/\u00a0",
        "/" + "x" * 8192,
    ],
)  # fmt: skip
async def test_every_hop_is_checked(
    start: Start, make: Make, internet: Internet, location: str
) -> None:
    await start({"/": redirect(location), "/2": response()})
    await start(response(b"a secret"), "127.0.0.1", "10.0.0.1")
    names = Names(pictures_test=[[PUBLIC]], private_test=[["10.0.0.1"]])
    names.answers["127.0.0.1"] = [["127.0.0.1"]]
    names.answers["10.0.0.1"] = [["10.0.0.1"]]
    with pytest.raises(FailedToDownloadImage):
        await make(names).fetch("http://pictures.test/")
    assert internet.hosts == [PUBLIC]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate for pictures.test in one file, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=pictures.test", "-addext",
         "subjectAltName=DNS:pictures.test", "-keyout", path / "key", "-out", path / "certificate"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = path / "both"
    both.write_bytes((path / "key").read_bytes() + (path / "certificate").read_bytes())
    return both


@pytest.fixture
async def tls(
    start: Start, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Server, list[str | None]]:
    """A server for pictures.test that is trusted, and the names that clients asked it for."""
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pages = {"/": response(), "/down": redirect("http://pictures.test/"), "/on": redirect("/")}
    return await start(pages, context=context), asked


async def test_the_certificate_must_be_for_the_name(
    tls: tuple[Server, list[str | None]], make: Make, internet: Internet
) -> None:
    server, asked = tls
    names = Names(pictures_test=[[PUBLIC]], other_test=[[PUBLIC]])
    names.answers |= {"pictures.test.": [[PUBLIC]], PUBLIC: [[PUBLIC]]}
    fetcher = make(names)
    assert await fetcher.fetch("https://pictures.test/") == PICTURE
    assert await fetcher.fetch("https://PICTURES.test.:444/on") == PICTURE
    assert asked == ["pictures.test"] * 3
    assert "Host: pictures.test.:444\r\n" in server.heads[1]
    heads = len(server.heads)
    for host in ("other.test", PUBLIC):
        with pytest.raises(FailedToDownloadImage):
            await fetcher.fetch(f"https://{host}/")
    assert internet.hosts == [PUBLIC] * 5
    assert len(server.heads) == heads, "nothing was sent to whom it was not meant for"


async def test_a_certificate_that_nobody_vouches_for(
    tls: tuple[Server, list[str | None]], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("https://pictures.test/")
    assert tls[0].heads == []


async def test_no_redirect_from_https_to_http(
    tls: tuple[Server, list[str | None]], make: Make, internet: Internet
) -> None:
    with pytest.raises(FailedToDownloadImage):
        await make().fetch("https://pictures.test/down")
    assert internet.dialled == [(PUBLIC, 443)]


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
