"""`caravan serve --device cuda` as a real process, as a user starts it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from system.running_server import TIMEOUT_S, RunningServer, until
from system.streams import follow

pytestmark = pytest.mark.gpu

LENGTHS = [1, 31, 32, 33, 100, 5, 64, 7]  # the tiny model's chunks have 32 tokens
MAX_TOKENS = 60


@pytest.fixture(scope="module", params=[(), ("--enforce-eager", "--no-async-scheduling")], ids=str)
def server(
    request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]
) -> Iterator[RunningServer]:
    directory = tiny_checkpoint("scout")
    flags = ("--device", "cuda", "--max-num-seqs", "16", "--served-model-name", "tiny")
    with RunningServer(str(directory), *flags, *request.param) as running:
        yield running.until_ready()
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.output


async def test_streams_side_by_side_are_what_they_are_alone(server: RunningServer) -> None:
    assert "cuda" in server.output
    async with AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0
    ) as client:

        async def run(length: int, leave_after: int | None = None) -> tuple[int, str, str]:
            stream = await client.completions.create(
                model="tiny",
                prompt=[(7 * i + length) % 250 + 1 for i in range(length)],
                max_tokens=MAX_TOKENS,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            return await follow(stream, lambda choice: choice.text, leave_after)

        alone = [await run(length) for length in LENGTHS]
        leaving = [run(length, leave_after=9) for length in LENGTHS]
        together = await asyncio.gather(*map(run, LENGTHS), *leaving)
    assert [result[:2] for result in alone] == [(MAX_TOKENS, "length")] * len(LENGTHS)
    assert list(together[: len(LENGTHS)]) == alone
    until(lambda: server.metric("caravan_requests_running") == 0)
    assert server.metric('caravan_kv_pages{state="owned"}') == 0
