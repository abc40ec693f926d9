"""Ends the work for a client that has left, with or without streaming.

Frameworks cancel a streaming answer when its reader leaves, but not a plain one; here both are
raced against the connection in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientDisconnect, `work` cancelled, if the client leaves first.

    The request's body must have been read: what `receive` gives then is the disconnect.
    """
    # A task of its own: waking one costs more the deeper it is, and under an application's layers
    # it would be woken for every token.
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    watching.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done() and not _is_cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()


def _is_cancelled() -> bool:
    """Whether somebody asked the current task itself to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
