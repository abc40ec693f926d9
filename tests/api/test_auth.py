"""With keys, every path needs one, but for the public few; tricks with names do not help."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import closing

import httpx
import openai
import pytest
from fastapi.routing import APIRoute

from api.conftest import MODEL
from caravan.api.app import ENDPOINTS
from caravan.api.auth import PUBLIC_PATHS
from caravan.config import ApiConfig

KEYS = ("first-key", "zweiter-schlüssel")
pytestmark = pytest.mark.parametrize("config", [ApiConfig(api_key=KEYS)])


def bearer(value: str) -> dict[bytes, bytes]:
    return {b"authorization": value.encode()}


@pytest.mark.parametrize("header", [f"Bearer {KEYS[0]}", f"bearer {KEYS[0]}", f"Bearer {KEYS[1]}"])
async def test_right_keys(http: httpx.AsyncClient, header: str) -> None:
    response = await http.get("/v1/models", headers=bearer(header))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic first-key", "first-key",
     "Bearer FIRST-KEY", "Bearer first-key2", "Bearer first-ke",
     "Bearer first-key,zweiter-schlüssel", "Bearer \xff"],
)  # fmt: skip
async def test_wrong_keys(http: httpx.AsyncClient, header: str | None) -> None:
    response = await http.get("/v1/models", headers={} if header is None else bearer(header))
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert "key" not in error["message"].replace("API key", "").replace("Bearer KEY", "")


async def test_two_headers_are_ambiguous(http: httpx.AsyncClient) -> None:
    headers = [("authorization", f"Bearer {KEYS[0]}"), ("authorization", "Bearer wrong")]
    assert (await http.get("/v1/models", headers=headers)).status_code == 401


async def test_every_route_but_the_public_ones_is_closed(http: httpx.AsyncClient) -> None:
    routes = [r for module in ENDPOINTS for r in module.router.routes if isinstance(r, APIRoute)]
    paths = {route.path for route in routes}
    assert paths > PUBLIC_PATHS
    for path in paths - PUBLIC_PATHS:
        for method in ("GET", "POST", "HEAD", "OPTIONS"):
            response = await http.request(method, path)
            assert response.status_code == 401, (method, path)
    for path in PUBLIC_PATHS:
        assert (await http.get(path)).status_code == 200, path


# As a client could write them on the wire; none is a public path.
TRICKS = [
    "//v1/models",
    "/v1/models/",
    "/health/../v1/models",
    "/health/%2e%2e/v1/models",
    "/%2e/v1/models",
    "/health/",
    "/health;/v1/models",
    "/HEALTH",
    "/v1/models?x=/health",
    "/v1/models%3F/health",
    "/metrics%2f..%2fv1/models",
    "/unknown",
    "http://test/v1/models",
]


HOSTS = ["test", "test/health?", "test/health#", "/health", "localhost:8000/health?x=", "@"]


def test_tricks_on_the_wire(address: tuple[str, int]) -> None:
    for target, host in itertools.product(TRICKS, HOSTS):
        with closing(socket.create_connection(address, timeout=5)) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status = connection.recv(1 << 16).split(b"\r\n")[0]
        assert status.split()[1] in (b"400", b"401"), (target, host, status)


def test_openai_raises_its_own_error(url: str) -> None:
    with (
        openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.retrieve(MODEL)
    assert caught.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=url + "/v1", api_key=KEYS[0], max_retries=0) as client:
        assert client.models.retrieve(MODEL).id == MODEL


async def test_a_large_body_without_a_key_is_not_read(http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        pytest.fail("the body was read on")

    response = await http.post("/v1/completions", content=body())
    assert response.status_code == 401
