"""Waiting for tokens, and for a client to leave: nothing is lost, and who is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from caravan.api.choices import AskedPrompt, Choice, Choices, Wishes
from caravan.api.disconnect import unless_disconnected
from caravan.messages import Delta, Stats
from caravan.metrics import Metrics
from caravan.text.detokenizer import Detokenizer
from caravan.text.tokenizer import Tokenizer


class Spoken:
    """A generation that says what it is told to, in the same turn of the loop."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._news: Callable[[], None] = lambda: None

    def say(self, text: str) -> None:
        self._deltas.append(Delta(0, list(text.encode())))
        self._news()

    def watch(self, news: Callable[[], None]) -> None:
        self._news = news

    def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def close(self) -> None:
        self._deltas.clear()


@pytest.fixture
def spoken() -> Spoken:
    return Spoken()


@pytest.fixture
async def choices(tokenizer: Tokenizer, spoken: Spoken) -> Choices:
    timer = Metrics(Stats, "0").start(0.0, 1)
    return Choices([Choice(0, spoken, Detokenizer(tokenizer), timer, AskedPrompt([1]), Wishes())])


async def turns(count: int = 3) -> None:
    """Lets everybody go on who can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_tokens_before_the_wait_end_it_at_once(choices: Choices, spoken: Spoken) -> None:
    spoken.say("a")
    spoken.say("b")
    [choice] = await choices.changed()
    assert choice.take().text == "ab"


async def test_a_token_that_comes_as_the_wait_is_cancelled_is_not_lost(
    choices: Choices, spoken: Spoken
) -> None:
    """Nor may the engine's callback fail: it has the tokens of others, too."""
    waiting = asyncio.create_task(choices.changed())
    await turns()
    waiting.cancel()
    spoken.say("a")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    [choice] = await choices.changed()
    assert choice.take().text == "a"


async def test_a_nudge_ends_one_wait(choices: Choices) -> None:
    choices.nudge()  # nobody waits
    waiting = asyncio.create_task(choices.changed())
    await turns()
    assert not waiting.done()
    choices.nudge()
    choices.nudge()
    assert await waiting == []
    waiting = asyncio.create_task(choices.changed())
    await turns()
    assert not waiting.done()
    waiting.cancel()


async def test_a_nudge_takes_no_token_away(choices: Choices, spoken: Spoken) -> None:
    waiting = asyncio.create_task(choices.changed())
    await turns()
    choices.nudge()
    spoken.say("a")
    [choice] = await waiting
    assert choice.take().text == "a"


class Connection:
    """What `receive` reads from."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.readers = 0

    async def receive(self) -> Message:
        self.readers += 1
        try:
            await self.left.wait()
        finally:
            self.readers -= 1
        return {"type": "http.disconnect"}


class Work:
    """Something that takes its time, and notices that it is cancelled."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended = False

    async def run(self) -> str:
        try:
            await self.go.wait()
        finally:
            await asyncio.sleep(0)
            self.ended = True
        return "done"


async def test_work_is_done_while_the_client_stays() -> None:
    connection, work = Connection(), Work()
    running = asyncio.create_task(unless_disconnected(connection.receive, work.run()))
    await turns()
    assert connection.readers == 1
    work.go.set()
    assert await running == "done"
    await turns()
    assert connection.readers == 0


async def test_work_has_ended_when_the_client_left() -> None:
    connection, work = Connection(), Work()
    running = asyncio.create_task(unless_disconnected(connection.receive, work.run()))
    await turns()
    connection.left.set()
    with pytest.raises(ClientDisconnect):
        await running
    assert work.ended


async def test_what_is_done_counts_although_the_client_left() -> None:
    connection, work = Connection(), Work()
    running = asyncio.create_task(unless_disconnected(connection.receive, work.run()))
    await turns()
    work.go.set()
    await turns(2)
    assert work.ended
    connection.left.set()
    assert await running == "done"


async def test_who_cancels_the_request_does_not_hear_of_its_client() -> None:
    """Whether or not the client leaves at the same time."""
    for leaves in (False, True):
        connection, work = Connection(), Work()
        running = asyncio.create_task(unless_disconnected(connection.receive, work.run()))
        await turns()
        if leaves:
            connection.left.set()
            await turns(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert work.ended
        await turns()
        assert connection.readers == 0


@pytest.mark.parametrize("kind", [ZeroDivisionError, asyncio.CancelledError])
async def test_what_the_work_raises_is_its_own(kind: type[BaseException]) -> None:
    connection = Connection()

    async def fail() -> None:
        raise kind

    with pytest.raises(kind):
        await unless_disconnected(connection.receive, fail())
