"""What the HTTP side needs of an engine: the protocol that `client.EngineClient` fulfils.

Tests of the API put a fake in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from caravan.messages import Delta, Progress, Ready, Sampling, Stats
from caravan.tiles import TiledImage


class ShownImage(NamedTuple):
    """A picture, and where the prompt shows it."""

    image: TiledImage
    tile_starts: list[int]  # position of each tile's first patch


class Submission(NamedTuple):
    """One request for the engine."""

    prompt: list[int]  # token ids
    sampling: Sampling
    images: Sequence[ShownImage] = ()
    prompt_of: int | None = None  # an earlier submission of the same call, with the same prompt
    priority: int = 0  # lower ones go first
    grammar: str | None = None  # what the output must match; see `caravan.grammars`


class Generation(Protocol):
    """One request in flight. Always `close` it: in a `finally`, whatever happened.

    It is watched by a callback and read without waiting, so that a stream's token costs one switch
    of tasks, however many choices the stream has.
    """

    def watch(self, news: Callable[[], None]) -> None:
        """From now on `news` is called, on the event loop, when there is something to take."""

    def take(self) -> list[Delta]:
        """Its deltas since the last call; the last one of all has a `finish`.

        When those before are taken, raises EngineDead if the engine has ended too early, or
        GrammarTooComplex if this request alone cannot go on.
        """

    def close(self) -> None:
        """Aborts the request unless it has finished. May be called again."""


class Engine(Protocol):
    """The engine, as the HTTP side sees it."""

    @property
    def ready(self) -> Ready | None:
        """Facts about the loaded model; None while it loads."""

    @property
    def loading(self) -> Progress | None:
        """The last progress message of the start-up."""

    @property
    def stats(self) -> Stats:
        """Of the last step."""

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server is shutting down."""

    @property
    def silence_s(self) -> float:
        """Seconds since the engine's last message: its heartbeat's age."""

    @property
    def alive(self) -> bool:
        """Whether the engine process runs."""

    def submit(self, requests: Sequence[Submission]) -> list[Generation]:
        """Queues all of them or none. Pictures that they share are sent once, and a prompt that
        several have is computed once.

        Raises StillLoading, Draining, Overloaded (with `retry_after_s`) or EngineDead, always
        before anything is sent, so an HTTP status can still say so.
        """
