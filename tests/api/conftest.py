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
from caravan.config import ApiConfig
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.tokenizer_model import PATTERN
from caravan.text.vocabulary import REQUIRED_SPECIALS, Vocabulary

MODEL = "meta-llama/Llama-4-Test"

MakeApp = Callable[[ApiConfig], FastAPI]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Token i is byte i; after them the special tokens, so <|eot|> is 261. Vocabulary: 264."""
    specials = [*REQUIRED_SPECIALS, "<|python_start|>", "<|python_end|>"]
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
def make_app(engine: FakeEngine, tokenizer: Tokenizer) -> MakeApp:
    def make(config: ApiConfig) -> FastAPI:
        return create_app(engine, tokenizer, GenerationDefaults(), config, model_name=MODEL)

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
