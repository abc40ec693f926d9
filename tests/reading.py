"""A generation's deltas as an iterator, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from caravan.engine.handle import Generation
from caravan.messages import Delta


async def deltas_of(generation: Generation) -> AsyncIterator[Delta]:
    """Ends with the delta that has a finish. Raises what `Generation.take` raises."""
    news = asyncio.Event()
    generation.watch(news.set)
    while True:
        await news.wait()
        news.clear()
        for delta in generation.take():
            yield delta
            if delta.finish:
                return
