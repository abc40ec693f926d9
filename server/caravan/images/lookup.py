"""Host names to addresses, in threads that nobody has to wait for.

`getaddrinfo` cannot be interrupted, and name servers may take half a minute not to answer. Lookups
in the event loop's own threads would take these from everybody else; those in a pool would hold up
the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence

MAX_THREADS = 64  # those whose caller has given up included


class HostLookup:
    """Asks the system's resolver. One event loop's."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_THREADS)

    async def __call__(self, host: str) -> Sequence[str]:
        """The addresses of a name, or of an address in any notation, best first. Raises OSError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def finish(found: Sequence[str] | OSError) -> None:
            self._places.release()
            if answer.done():
                return  # the caller has given up
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def work() -> None:
            found: Sequence[str] | OSError
            try:
                found = _addresses(host)
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, found)

        threading.Thread(target=work, name="image-dns", daemon=True).start()
        return await answer


def _addresses(host: str) -> list[str]:
    """Blocks. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
