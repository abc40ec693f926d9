"""Fixtures: servers, names, and fetchers that reach nothing else."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from caravan.config import ImageConfig
from caravan.images.fetch import ImageFetcher
from unit.images.played_internet import (
    OTHER_PUBLIC,
    PUBLIC,
    Answer,
    Internet,
    Make,
    Names,
    Server,
    Start,
)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    made = Internet()
    monkeypatch.setattr(anyio, "connect_tcp", made.connect_tcp)
    return made


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
