"""The real application over the scripted engine: `python -m clients.server` prints its URL."""

from __future__ import annotations

import asyncio
import signal
import sys

from caravan.api.app import create_app
from caravan.api.images import ImageLoader
from caravan.cli.serving import local_url
from caravan.cli.web import WebServer, bound_socket
from caravan.config import ApiConfig, ImageConfig
from caravan.text.defaults import GenerationDefaults
from caravan.tiles import TileLayout
from clients.scripted_engine import ScriptedEngine, byte_tokenizer
from clients.servers import API_KEY, MODEL

LAYOUT = TileLayout(tile_size=8, tile_tokens=4, max_tiles=4)


async def serve() -> None:
    """Serves until SIGTERM."""
    tokenizer = byte_tokenizer()
    config = ApiConfig(port=0, api_key=(API_KEY,))
    async with ImageLoader(ImageConfig(), LAYOUT) as images:
        app = create_app(
            ScriptedEngine(tokenizer),
            tokenizer,
            GenerationDefaults(),
            config,
            model_name=MODEL,
            images=images,
        )
        server = WebServer(app)

        def stop() -> None:
            server.should_exit = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        with bound_socket(config.host, config.port) as listener:
            sys.stdout.write(local_url(config.host, listener) + "\n")
            sys.stdout.flush()
            await server.serve([listener])


if __name__ == "__main__":
    asyncio.run(serve())
