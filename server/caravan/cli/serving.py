"""The start of `caravan serve`: model, tokenizer, application and engine, put together."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console

from caravan import __version__
from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.cli.progress import StartDisplay
from caravan.cli.server import Server
from caravan.cli.web import bound_socket
from caravan.config import ServeConfig
from caravan.engine.launch import EngineProcess
from caravan.messages import Progress, Ready
from caravan.model.architecture import Architecture
from caravan.model.source import resolve_model
from caravan.text.defaults import GenerationDefaults
from caravan.text.tokenizer import Tokenizer
from caravan.text.vocabulary import IMAGE_SPECIALS
from caravan.tiles import TileLayout

DEMO_NAME = "caravan-demo"
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what listens everywhere, and how to reach it


def serve(config: ServeConfig) -> int:
    """Serves until a signal; returns the exit status. Raises ConfigError."""
    with (
        bound_socket(config.api.host, config.api.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        model = config.engine.model
        directory = resolve_model(model.model, weights=model.load_format == "auto")
        files = ModelFiles.from_directory(directory)
        return runner.run(_serve(config, listener, directory, files))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What the API process reads of a model directory."""

    tokenizer: Tokenizer
    defaults: GenerationDefaults
    tiles: TileLayout

    @classmethod
    def from_directory(cls, directory: Path) -> ModelFiles:
        """Raises CheckpointError."""
        architecture = Architecture.from_directory(directory)
        tokenizer = Tokenizer.from_directory(directory, architecture.vocab_size)
        tiles = TileLayout()
        if architecture.vision is not None:
            tokenizer.require_special(IMAGE_SPECIALS)
            tiles = architecture.vision.tile_layout()
        return cls(tokenizer, GenerationDefaults.from_directory(directory), tiles)


async def _serve(
    config: ServeConfig, listener: socket.socket, directory: Path, files: ModelFiles
) -> int:
    api = config.api
    name = served_name(config.engine.model.model, api.served_model_name)
    url = local_url(api.host, listener)

    def report(message: Progress | Ready) -> None:
        if isinstance(message, Progress):
            display.show(message)
        else:
            display.close()
            text = announcement(message, name, url, needs_key=bool(api.api_key), has_page=api.ui)
            sys.stdout.write(text)
            sys.stdout.flush()

    engine = EngineProcess(config.engine, directory, api, report)
    async with ImageLoader(config.images, files.tiles) as images:
        app = create_app(
            engine.client, files.tokenizer, files.defaults, api, model_name=name, images=images
        )
        with StartDisplay(Console()) as display:
            return await Server(app, listener, engine, api.shutdown_timeout).run()


def served_name(model: str, name: str | None) -> str:
    """The model's name in the API: what the user chose, the Hub id, or the directory's name.

    >>> served_name("meta-llama/Llama-4-Scout", None)
    'meta-llama/Llama-4-Scout'
    """
    if name is not None:
        return name
    if not model:
        return DEMO_NAME
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


def announcement(
    ready: Ready, model: str, url: str, *, needs_key: bool, has_page: bool = False
) -> str:
    """What runs, in some lines, and a command that talks to it."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": model, "messages": messages, "max_tokens": 50}
    curl = [f"curl {url}/v1/chat/completions"]
    if needs_key:
        curl.append('-H "Authorization: Bearer $API_KEY"')
    curl.append("-H 'Content-Type: application/json'")
    curl.append(f"-d {shlex.quote(json.dumps(body))}")
    cache = f"{ready.num_pages} pages of {ready.page_bytes} bytes, {ready.block_len} tokens each"
    return "\n".join(
        [
            f"Caravan {__version__} serves {model}",
            f"  dtype    {ready.dtype} on {ready.device}",
            f"  input    {'text and images' if ready.takes_images else 'text'}",
            f"  cache    {cache}",
            f"  context  at most {ready.max_model_len} tokens",
            f"  loaded   in {ready.load_s:.1f} s",
            f"  URL      {url}/v1",
            *([f"  page     {url}/"] if has_page else []),
            "",
            "Try it:",
            "  " + " ".join(curl),
            "",
        ]
    )


def local_url(host: str, listener: socket.socket) -> str:
    """Where a client on this machine reaches the listener."""
    host = _ANYWHERE.get(host, host)
    port: int = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
