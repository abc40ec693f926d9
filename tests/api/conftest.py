"""One app over a fake engine, reached in memory or over a loopback socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from api.fake_engine import FakeEngine
from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.config import ApiConfig, ImageConfig
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_model import PATTERN
from caravan.text.vocabulary import IMAGE_SPECIALS, REQUIRED_SPECIALS, Vocabulary
from caravan.tiles import TileLayout

MODEL = "meta-llama/Llama-4-Test"

MakeApp = Callable[[ApiConfig], FastAPI]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Token i is byte i; after them the special tokens, so <|eot|> is 261. Vocabulary: 270."""
    specials = [*REQUIRED_SPECIALS, "<|python_start|>", "<|python_end|>", *IMAGE_SPECIALS]
    return Tokenizer(
        Vocabulary(
            source=Path("test"),
            ranks={bytes([byte]): byte for byte in range(256)},
            special_ids={name: 256 + index for index, name in enumerate(specials)},
            pattern=PATTERN,
        )
    )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def image_config() -> ImageConfig:
    """Tests override it by parametrisation."""
    return ImageConfig()


@pytest.fixture
async def images(image_config: ImageConfig) -> AsyncIterator[ImageLoader]:
    """Small tiles: 4 patches of 8 x 8 pixels' tiles, at most 4 of them."""
    layout = TileLayout(tile_size=8, tile_tokens=4, max_tiles=4)
    async with ImageLoader(image_config, layout) as loader:
        yield loader


@pytest.fixture
def make_app(engine: FakeEngine, tokenizer: Tokenizer, images: ImageLoader) -> MakeApp:
    def make(config: ApiConfig) -> FastAPI:
        return create_app(
            engine, tokenizer, GenerationDefaults(), config, model_name=MODEL, images=images
        )

    return make


@pytest.fixture
def config() -> ApiConfig:
    """Tests override it by parametrisation."""
    return ApiConfig()


@pytest.fixture
def app(make_app: MakeApp, config: ApiConfig) -> FastAPI:
    return make_app(config)


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """In memory. An exception that leaves the app fails the test."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def address(app: FastAPI) -> Iterator[tuple[str, int]]:
    """The app behind a real server on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = server.force_exit = True
    thread.join(timeout=10)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture
def url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client
