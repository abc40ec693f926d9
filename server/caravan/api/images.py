"""Pictures of a request, from their URLs to tiles, a bounded number at a time.

What is held at once: of MAX_REQUESTS requests the body and the tiles (6 MB for a picture at most),
of MAX_DOWNLOADS pictures the file, and what the decoder's own processes hold. Pictures that came
with their request never wait for a slow server elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from caravan.config import ImageConfig
from caravan.errors import InvalidImage, Overloaded
from caravan.images.data_url import decode_data_url
from caravan.images.decoder import ImageDecoder
from caravan.images.fetch import ImageFetcher
from caravan.tiles import TiledImage, TileLayout

MAX_REQUESTS = 32
MAX_DOWNLOADS = 32
MAX_WAIT_S = 60.0  # for a place; clients wait longer
RETRY_S = 5


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One picture of a request."""

    url: str
    low_detail: bool  # one tile, however large it is
    param: str  # the field that has the URL


class ImageLoader:
    """One per server. `layout` is the model's."""

    def __init__(
        self, config: ImageConfig, layout: TileLayout, fetcher: ImageFetcher | None = None
    ) -> None:
        """`fetcher` downloads; by default it obeys `config`. Raises ConfigError for its hosts."""
        self.config = config
        self.layout = layout
        self._fetcher = fetcher or ImageFetcher(config)
        self._decoder = ImageDecoder(config, layout)
        self._requests = asyncio.Semaphore(MAX_REQUESTS)
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._fetcher.aclose()
        await self._decoder.aclose()

    async def load(self, sources: Sequence[ImageSource]) -> list[TiledImage]:
        """All pictures of one request, in order.

        Raises a subclass of InvalidImage for the first that fails, or Overloaded if too many
        requests with pictures are on their way.
        """
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await self._requests.acquire()
        except TimeoutError:
            raise Overloaded(
                f"{MAX_REQUESTS} requests with images are being read and none of them ended within "
                f"{MAX_WAIT_S:g} s. Try again in {RETRY_S} s.",
                retry_after_s=RETRY_S,
            ) from None
        try:
            return await self._load_all(sources)
        finally:
            self._requests.release()

    async def _load_all(self, sources: Sequence[ImageSource]) -> list[TiledImage]:
        tasks = [asyncio.create_task(self._load(source)) for source in sources]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, source: ImageSource) -> TiledImage:
        try:
            if source.url[:5].lower() == "data:":
                limit = self.config.max_image_bytes
                data = await asyncio.to_thread(decode_data_url, source.url, limit)
                return await self._tiles(data, source)
            async with self._downloads:
                return await self._tiles(await self._fetcher.fetch(source.url), source)
        except InvalidImage as error:
            raise type(error)(f"`{source.param}` {error.message}.", param=source.param) from None

    async def _tiles(self, data: bytes, source: ImageSource) -> TiledImage:
        max_tiles = 1 if source.low_detail else self.layout.max_tiles
        return await self._decoder.decode(data, max_tiles)
