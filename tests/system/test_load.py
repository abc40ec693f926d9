"""64 concurrent streams, random lengths and disconnects, and a cache for a few of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from system.running_server import TIMEOUT_S, RunningServer, until
from system.streams import follow

CONTEXT = 400  # tokens: the tiny model's chunks have 32
BLOCK = 4  # tokens
NUM_STREAMS = 64
NUM_REQUESTS = 160


@dataclass(frozen=True)
class Plan:
    """One request, and after how many chunks its client leaves (None: it stays)."""

    prompt: list[int]
    max_tokens: int
    leave_after: int | None


@pytest.fixture(scope="module", params=["--no-async-scheduling", "--async-scheduling"])
def server(
    request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]
) -> Iterator[RunningServer]:
    from caravan.model.architecture import Architecture

    directory = tiny_checkpoint("scout")
    layout = Architecture.from_directory(directory).kv_layout(BLOCK, itemsize=4)
    cache_bytes = 3 * layout.pages_needed(CONTEXT) * layout.page_bytes
    with RunningServer(
        str(directory),
        *("--max-model-len", str(CONTEXT), "--block-size", str(BLOCK)),
        *("--kv-cache-memory-bytes", str(cache_bytes), "--max-num-batched-tokens", "150"),
        *("--served-model-name", "tiny", request.param),
    ) as running:
        yield running.until_ready()


def plans() -> list[Plan]:
    source = random.Random(0)
    result = []
    for _ in range(NUM_REQUESTS):
        length = source.choice([1, 31, 32, 33, source.randrange(1, 200)])
        max_tokens = source.randrange(1, min(150, CONTEXT - length))
        leaves = source.random() < 0.3
        leave_after = source.randrange(max_tokens) if leaves else None
        prompt = [source.randrange(256) for _ in range(length)]
        result.append(Plan(prompt, max_tokens, leave_after))
    return result


async def run(client: AsyncOpenAI, plan: Plan, gate: asyncio.Semaphore) -> tuple[int, str, str]:
    """Completion tokens, finish reason and text, as far as the client has stayed."""
    async with gate:
        stream = await client.completions.create(
            model="tiny",
            prompt=plan.prompt,
            max_tokens=plan.max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        return await follow(stream, lambda choice: choice.text, plan.leave_after)


async def test_every_request_ends_as_it_should_and_every_page_comes_back(
    server: RunningServer,
) -> None:
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
        assert server.metric("caravan_requests_waiting") == 0
        assert server.metric('caravan_kv_pages{state="owned"}') == 0
        assert server.metric('caravan_kv_pages{state="free"}') == free_at_first
        assert server.metric("caravan_preemptions_total") > 0
        assert sum(finish == "left" for _, finish, _ in results) > 10

        # what the crowd got is what a request gets that has the server for itself
        stayed = [i for i, plan in enumerate(all_plans) if plan.leave_after is None]
        for i in random.Random(1).sample(stayed, 5):
            assert await run(client, all_plans[i], gate) == results[i]
