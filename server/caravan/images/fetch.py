"""Downloads images without letting a URL reach what its author could not reach directly.

One parser reads a URL, and what it says is what is checked and connected to. We resolve the name
ourselves, check every address, and connect to a checked address by number, so that no second
answer of the DNS can move the connection. Each redirect starts over. Below httpx's client, which
would keep cookies, follow redirects and read proxies from the environment, only its transport is
used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Sequence

import httpx

from caravan.config import ImageConfig
from caravan.errors import (
    ConfigError,
    EmptyImageFile,
    FailedToDownloadImage,
    ImageFileTooLarge,
    InvalidImageUrl,
)
from caravan.images.addresses import is_public
from caravan.images.lookup import HostLookup

logger = logging.getLogger(__name__)

# From a host name, or an address in any notation, to the addresses to connect to, best first.
Resolve = Callable[[str], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 3
MAX_URL_CHARACTERS = 8192
_CONNECT_S = 5.0  # for one address, TLS included

# A server that sends its bytes one by one would hold up the event loop, by a second at a time, and
# use a core for the whole time limit.
_FREE_PIECES = 1024
_MIN_PIECE_BYTES = 256  # on average, once the free ones are used up

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_HEADERS = {
    "Accept": "image/jpeg, image/png, image/webp, image/gif",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "caravan",
}


class _Refused(Exception):
    """Why a download was given up; for the log."""


class ImageFetcher:
    """Downloads images over http and https. Use one for all, on one event loop."""

    def __init__(self, config: ImageConfig, resolve: Resolve | None = None) -> None:
        self._config = config
        self._allowed = _host_names(config, "allowed_media_domains")
        self._private = _host_names(config, "allowed_private_hosts")
        self._resolve = resolve or HostLookup()
        # No connection is used twice: the next name that has this address was not verified on it.
        self._transport = httpx.AsyncHTTPTransport(
            # SSL_CERT_FILE and SSL_CERT_DIR are obeyed: private certificate authorities need them.
            verify=httpx.create_ssl_context(trust_env=True),
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        # Half of the limit at most, so that a second address has its chance.
        connect_s = min(_CONNECT_S, config.image_timeout / 2)
        self._timeouts = httpx.Timeout(config.image_timeout, connect=connect_s).as_dict()

    async def fetch(self, url: str) -> bytes:
        """The file at `url`, an http or https URL; at least one byte, whatever they mean.

        It takes at most `image_timeout` seconds from the lookup to the last byte, and holds at most
        `max_image_bytes`; how many are under way at once is for the caller to bound. Raises
        InvalidImageUrl, EmptyImageFile, ImageFileTooLarge, and for everything else
        FailedToDownloadImage with one message that does not say why.
        """
        target = self._checked(url)
        try:
            async with asyncio.timeout(self._config.image_timeout):
                return await self._follow(target)
        except (_Refused, InvalidImageUrl, httpx.HTTPError, OSError) as error:
            # OSError: lookups, and TimeoutError. InvalidImageUrl: a redirect to one.
            logger.info(
                "no image from %a: %s %a", target.host, type(error).__name__, str(error)[:500]
            )
            raise FailedToDownloadImage(
                "could not be downloaded; the image must be at a public http or https address "
                f"that answers with status 200, after at most {MAX_REDIRECTS} redirects, and "
                f"sends the whole file within {self._config.image_timeout:g} seconds; or send it "
                "as a data URL"
            ) from None

    async def aclose(self) -> None:
        """Closes what is open; `fetch` must not be called any more."""
        await self._transport.aclose()

    def _checked(self, text: str) -> httpx.URL:
        """Raises InvalidImageUrl."""
        url = _parsed(text)
        if self._allowed and _host_name(url) not in self._allowed:
            raise InvalidImageUrl(
                "names a host that this server does not download images from; send the image as a "
                "data URL, or have the host allowed with --allowed-media-domains"
            )
        return url

    async def _follow(self, url: httpx.URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._get(url)
            try:
                if response.status_code not in _REDIRECTS:
                    return await self._read(response)
                url = self._checked(_redirected(url, response.headers.get_list("location")))
            finally:
                await response.aclose()
        raise _Refused(f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: httpx.URL) -> httpx.Response:
        """The answer, its body not read yet, of the first address that can be connected to."""
        failure: httpx.TransportError | None = None
        for address in await self._vetted(url):
            request = httpx.Request(
                "GET",
                url.copy_with(host=address),
                headers={"Host": url.netloc.decode("ascii"), **_HEADERS},
                # The name, not the address, is what the certificate must be for.
                extensions={"sni_hostname": _host_name(url), "timeout": self._timeouts},
            )
            try:
                return await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or _Refused("the name has no address")

    async def _vetted(self, url: httpx.URL) -> Sequence[str]:
        """All addresses of the URL's host; one that is not public condemns them all."""
        addresses = await self._resolve(url.raw_host.decode("ascii"))
        if _host_name(url) not in self._private:
            for address in addresses:
                if not is_public(address):
                    raise _Refused(f"{address} is not public")
        return list(dict.fromkeys(addresses))

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise _Refused(f"status {response.status_code}")
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise _Refused(f"content encoding {encoding}")
        declared = response.headers.get("content-length", "")
        if declared.isdecimal():
            self._require_size(int(declared))
        data = bytearray()
        pieces = 0
        async for piece in response.aiter_raw():
            self._require_size(len(data) + len(piece))
            data += piece
            pieces += 1
            if pieces > _FREE_PIECES and len(data) < pieces * _MIN_PIECE_BYTES:
                raise _Refused(f"{len(data)} bytes came in {pieces} pieces")
        if not data:
            raise EmptyImageFile("is empty")
        return bytes(data)

    def _require_size(self, size: int) -> None:
        limit = self._config.max_image_bytes
        if size > limit:
            raise ImageFileTooLarge(f"has {size} bytes or more; the limit is {limit}")


def _parsed(text: str) -> httpx.URL:
    """The http or https URL. Raises InvalidImageUrl."""
    _require_plain(text)
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise InvalidImageUrl("is not a valid URL") from None
    if url.scheme not in ("http", "https"):
        raise InvalidImageUrl("must be a URL that starts with https:, http: or data:")
    if url.userinfo:
        raise InvalidImageUrl("has a user name or a password in the URL; leave them out")
    if not _is_host(url.raw_host.decode("ascii")):
        raise InvalidImageUrl("names no valid host")
    if url.port is not None and not 0 < url.port <= 65535:
        raise InvalidImageUrl(f"names port {url.port}; it must be between 1 and 65535")
    return url


def _require_plain(text: str) -> None:
    """Refuses what parsers disagree about. Raises InvalidImageUrl."""
    if len(text) > MAX_URL_CHARACTERS:
        raise InvalidImageUrl(
            f"is a URL of {len(text)} characters; the limit is {MAX_URL_CHARACTERS}"
        )
    if "\\" in text or " " in text or not text.isprintable():  # other spaces are not printable
        raise InvalidImageUrl(
            "has a backslash, white space or a control character in the URL; percent-encode it"
        )


def _is_host(host: str) -> bool:
    """Whether it is an IPv6 literal without a scope, or a name; an IPv4 literal is one, too."""
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).scope_id is None
        except ValueError:
            return False
    return _HOST_NAME.fullmatch(host.removesuffix(".")) is not None


def _host_name(url: httpx.URL) -> str:
    """In lower case, IDNA, without the final dot: the form in which names are compared."""
    return url.raw_host.decode("ascii").removesuffix(".")


def _host_names(config: ImageConfig, setting: str) -> frozenset[str]:
    """The hosts of a setting, in the form of `_host_name`. Raises ConfigError."""
    names = set()
    for host in getattr(config, setting):
        try:
            # As a component, so that a ? or a # is part of the name, and makes it no name.
            names.add(_host_name(_parsed(str(httpx.URL(scheme="http", host=host, path="/")))))
        except (InvalidImageUrl, httpx.InvalidURL):
            flag = "--" + setting.replace("_", "-")
            raise ConfigError(f"{flag} is {host!r}; it must be a host name or address") from None
    return frozenset(names)


def _redirected(url: httpx.URL, locations: Sequence[str]) -> str:
    """The absolute URL that the Location headers of the answer from `url` lead to, not checked."""
    if len(locations) != 1:
        raise _Refused(f"a redirect with {len(locations)} locations")
    _require_plain(locations[0])
    try:
        target = url.join(locations[0])
    except (httpx.InvalidURL, ValueError):
        raise _Refused("a redirect to no valid URL") from None
    if url.scheme == "https" and target.scheme != "https":
        raise _Refused("a redirect from https to less")
    return str(target)
