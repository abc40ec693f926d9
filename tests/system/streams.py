"""What a client of a stream gets, as long as it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


async def follow(
    stream: Any, text_of: Callable[[Any], str | None], leave_after: int | None
) -> tuple[int, str, str]:
    """Completion tokens, finish reason and text of the SDK's stream with one choice and usage.

    After `leave_after` chunks the client leaves: no tokens, and "left".
    """
    count, finish, text, num_chunks = 0, "", "", 0
    async for chunk in stream:
        if chunk.usage:
            count = chunk.usage.completion_tokens
        for choice in chunk.choices:
            text += text_of(choice) or ""
            finish = choice.finish_reason or finish
        if num_chunks == leave_after:
            await stream.close()
            return 0, "left", text
        num_chunks += 1
    return count, finish, text
