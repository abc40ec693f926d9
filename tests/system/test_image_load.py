"""Concurrent chats with pictures, random disconnects, and a cache for a few of them."""

from __future__ import annotations

import asyncio
import base64
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from PIL import Image

from system.running_server import TIMEOUT_S, RunningServer, until
from system.streams import follow

CONTEXT = 400  # tokens: the tiny model's chunks have 32, its tiles 4 patches
NUM_REQUESTS = 60
NUM_STREAMS = 24
NUM_PICTURES = 6


@dataclass(frozen=True)
class Plan:
    """One chat, and after how many chunks its client leaves (None: it stays)."""

    content: list[dict[str, Any]]
    max_tokens: int
    leave_after: int | None


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Callable[..., Path]) -> Iterator[RunningServer]:
    from caravan.model.architecture import Architecture

    directory = tiny_checkpoint("scout", multimodal=True)
    layout = Architecture.from_directory(directory).kv_layout(4, itemsize=4)
    cache_bytes = int(1.2 * layout.pages_needed(CONTEXT)) * layout.page_bytes
    tile_bytes = 4 * 64 * 4
    with RunningServer(
        str(directory),
        *("--max-model-len", str(CONTEXT), "--block-size", "4", "--served-model-name", "tiny"),
        *("--kv-cache-memory-bytes", str(cache_bytes), "--max-num-batched-tokens", "100"),
        *("--image-cache-memory-bytes", str(9 * tile_bytes), "--max-num-batched-tiles", "2"),
    ) as running:
        yield running.until_ready()


def picture(source: random.Random) -> dict[str, Any]:
    size = source.randrange(20, 200), source.randrange(20, 200)
    coarse = Image.frombytes("RGB", (4, 3), source.randbytes(36))
    file = io.BytesIO()
    coarse.resize(size).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def plans() -> list[Plan]:
    source = random.Random(0)
    pictures = [picture(source) for _ in range(NUM_PICTURES)]  # many show the same
    result = []
    for _ in range(NUM_REQUESTS):
        content = [{"type": "text", "text": "x" * source.randrange(1, 60)}]
        content += source.sample(pictures, source.choice([0, 1, 1, 2]))
        source.shuffle(content)
        max_tokens = source.randrange(1, 160)
        leaves = source.random() < 0.3
        result.append(Plan(content, max_tokens, source.randrange(max_tokens) if leaves else None))
    return result


async def run(client: AsyncOpenAI, plan: Plan, gate: asyncio.Semaphore) -> tuple[int, str, str]:
    """Completion tokens, finish reason and text, as far as the client has stayed."""
    messages: Any = [{"role": "user", "content": plan.content}]
    async with gate:
        stream: Any = await client.chat.completions.create(
            model="tiny",
            messages=messages,
            max_tokens=plan.max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        return await follow(stream, lambda choice: choice.delta.content, plan.leave_after)


async def test_chats_with_pictures_end_as_they_should(server: RunningServer) -> None:
    all_plans = plans()
    free_at_first = until(lambda: server.metric('caravan_kv_pages{state="free"}'))
    async with AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", timeout=TIMEOUT_S * 5, max_retries=0
    ) as client:
        gate = asyncio.Semaphore(NUM_STREAMS)
        results = await asyncio.gather(*(run(client, plan, gate) for plan in all_plans))
        for plan, (count, finish, _) in zip(all_plans, results, strict=True):
            if plan.leave_after is None:
                assert (count, finish) == (plan.max_tokens, "length")
        until(lambda: server.metric("caravan_requests_running") == 0)
        assert server.metric('caravan_kv_pages{state="owned"}') == 0
        assert server.metric('caravan_kv_pages{state="free"}') == free_at_first
        assert server.metric("caravan_preemptions_total") > 0
        assert server.metric("caravan_reused_tiles_total") > 0
        shown = sum(part["type"] != "text" for plan in all_plans for part in plan.content)
        assert server.metric("caravan_images_total") == shown

        # what the crowd got is what a request gets that has the server for itself
        stayed = [i for i, plan in enumerate(all_plans) if plan.leave_after is None]
        for i in random.Random(1).sample(stayed, 6):
            assert await run(client, all_plans[i], gate) == results[i]
