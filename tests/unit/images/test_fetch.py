"""Where downloads may go: names, addresses, URLs, redirects, certificates."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from caravan.config import ImageConfig
from caravan.errors import (
    ConfigError,
    FailedToDownloadImage,
    InvalidImageUrl,
)
from caravan.images import fetch
from caravan.images.fetch import ImageFetcher
from unit.images.played_internet import (
    OTHER_PUBLIC,
    PICTURE,
    PUBLIC,
    Internet,
    Make,
    Names,
    Server,
    Start,
    redirect,
    response,
)

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
