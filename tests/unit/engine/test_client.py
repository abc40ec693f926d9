"""The API process's end of the socket, against an engine that the test plays."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import zmq

from caravan.config import ApiConfig, EngineConfig
from caravan.engine import wire
from caravan.engine.client import EngineClient
from caravan.engine.handle import Engine, Generation, ShownImage, Submission
from caravan.errors import (
    ApiError,
    Draining,
    EngineDead,
    GrammarTooComplex,
    Overloaded,
    StillLoading,
)
from caravan.messages import (
    Abort,
    Delta,
    Failed,
    FromEngine,
    Generate,
    Image,
    PlacedImage,
    Progress,
    Ready,
    Sampling,
    Shutdown,
    Stats,
    StepOutput,
    ToEngine,
    TokenLogprobs,
)
from caravan.tiles import TiledImage, TileGrid
from reading import deltas_of

TIMEOUT_S = 10
READY = Ready(
    max_model_len=1000,
    num_pages=10,
    page_bytes=64,
    block_len=4,
    vocab_size=500,
    dtype="float32",
    device="cpu",
    fingerprint="fp_fake",
    load_s=1.5,
    takes_images=True,
)
PROGRESS = Progress(phase="weights", done=3, total=9, unit="bytes")
SAMPLING = Sampling(max_tokens=10)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.002)


class PlayedEngine:
    """The engine's end of the socket."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self.socket = wire.pair(self._context)
        self.socket.bind(address)

    def receive_start(self) -> wire.Start:
        assert self.socket.poll(TIMEOUT_S * 1000)
        return wire.decode_start(self.socket.recv())

    def receive(self) -> ToEngine:
        assert self.socket.poll(TIMEOUT_S * 1000), "the client is silent"
        return wire.decode_to_engine(self.socket.recv())

    def send(self, message: FromEngine) -> None:
        self.socket.send(wire.encode(message))

    def step(self, *deltas: Delta, **stats: int) -> None:
        self.send(StepOutput(list(deltas), Stats(**stats)))

    def close(self) -> None:
        self._context.destroy(linger=0)


class Pair:
    """A client and the engine it talks to."""

    def __init__(self, folder: str, config: ApiConfig) -> None:
        self.reported: list[Progress | Ready] = []
        address = f"ipc://{folder}/engine"
        self.engine = PlayedEngine(address)
        self.client = EngineClient(config, self.reported.append)
        self.client.connect(address, wire.Start(EngineConfig(), "/models/demo"))

    async def sync(self) -> None:
        """Returns when the client has read everything that the engine has sent."""
        marker = self.client.stats.steps + 1
        self.engine.step(steps=marker, computed_tokens=self.client.stats.computed_tokens)
        await until(lambda: self.client.stats.steps == marker)

    async def make_ready(self) -> None:
        self.engine.send(READY)
        await until(lambda: self.client.ready)
        self.engine.receive_start()

    def close(self) -> None:
        self.client.disconnect()
        self.engine.close()


Connect = Callable[[ApiConfig], Pair]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory() as folder:

        def new_pair(config: ApiConfig) -> Pair:
            pairs.append(Pair(folder, config))
            return pairs[-1]

        yield new_pair
        for pair in pairs:
            pair.close()


@pytest.fixture
async def pair(connect: Connect) -> Pair:
    """A client whose engine is ready."""
    pair = connect(ApiConfig())
    await pair.make_ready()
    return pair


async def collect(generation: Generation) -> list[Delta]:
    async def iterate() -> list[Delta]:
        return [delta async for delta in deltas_of(generation)]

    return await asyncio.wait_for(iterate(), TIMEOUT_S)


async def raised(generation: Generation) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await collect(generation)
    return caught.value


async def test_while_it_loads_requests_are_refused_and_progress_is_known(
    connect: Connect,
) -> None:
    pair = connect(ApiConfig())
    assert pair.engine.receive_start() == wire.Start(EngineConfig(), "/models/demo")
    assert pair.client.alive
    assert pair.client.loading is None
    assert not pair.client.heard.is_set()
    with pytest.raises(StillLoading) as caught:
        pair.client.submit([Submission([1], SAMPLING)])
    assert caught.value.retry_after_s == 5
    pair.engine.send(PROGRESS)
    await until(lambda: pair.client.loading == PROGRESS)
    assert pair.client.ready is None
    assert pair.client.heard.is_set()
    pair.engine.send(READY)
    await until(lambda: pair.client.ready == READY)
    assert pair.reported == [PROGRESS, READY]


async def test_no_request_is_no_trouble(pair: Pair) -> None:
    engine: Engine = pair.client  # the type checker's half of this test
    generations: list[Generation] = engine.submit([])
    assert generations == []
    await asyncio.wait_for(pair.client.wait_idle(), TIMEOUT_S)


async def test_requests_cross_and_their_deltas_come_back_each_to_its_own(pair: Pair) -> None:
    sampling = Sampling(max_tokens=3, stop_token_ids=(7, 8), logit_bias=((5, -1.5),), logprobs=2)
    first, second = pair.client.submit([Submission([1, 2], sampling), Submission([3], SAMPLING)])
    assert pair.engine.receive() == Generate(0, [1, 2], sampling)
    assert pair.engine.receive() == Generate(1, [3], SAMPLING)
    pair.engine.step(Delta(1, [10]), Delta(0, [20]))
    pair.engine.step(Delta(0, [21], finish="stop"))
    pair.engine.step(Delta(1, [11], finish="length", cached_tokens=1))
    assert await collect(first) == [Delta(0, [20]), Delta(0, [21], finish="stop")]
    assert await collect(second) == [
        Delta(1, [10]),
        Delta(1, [11], finish="length", cached_tokens=1),
    ]
    assert first.take() == [], "there is nothing after the end"


async def test_ids_are_never_used_again(pair: Pair) -> None:
    for rid in range(3):
        (generation,) = pair.client.submit([Submission([1], SAMPLING)])
        message = pair.engine.receive()
        assert isinstance(message, Generate)
        assert message.rid == rid
        pair.engine.step(Delta(rid, [1], finish="stop"))
        await collect(generation)


async def test_closing_aborts_once_and_later_deltas_are_dropped(pair: Pair) -> None:
    closed, other = pair.client.submit([Submission([1], SAMPLING), Submission([1], SAMPLING)])
    pair.engine.receive()
    pair.engine.receive()
    pair.engine.step(Delta(0, [1]), Delta(1, [1]))
    await pair.sync()
    closed.close()
    closed.close()
    assert pair.engine.receive() == Abort(0)
    pair.engine.step(Delta(0, [2]), Delta(1, [2], finish="stop"))
    assert await collect(other) == [Delta(1, [1]), Delta(1, [2], finish="stop")]
    assert closed.take() == []
    assert not pair.engine.socket.poll(50), "a second message about a closed request"


async def test_closing_a_finished_request_aborts_nothing(pair: Pair) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    pair.engine.receive()
    pair.engine.step(Delta(0, [1], finish="stop"))
    await pair.sync()
    generation.close()
    assert not pair.engine.socket.poll(50)


async def test_news_are_told_once_there_are_some_and_never_after_closing(pair: Pair) -> None:
    early, late = pair.client.submit([Submission([1], SAMPLING), Submission([1], SAMPLING)])
    pair.engine.step(Delta(1, [1]))
    await pair.sync()
    told: list[str] = []
    early.watch(lambda: told.append("early"))
    late.watch(lambda: told.append("late"))
    assert told == ["late"], "what came before is told at once"
    assert late.take() == [Delta(1, [1])]
    pair.engine.step(Delta(0, [1]), Delta(1, [2]))
    await pair.sync()
    assert told == ["late", "early", "late"]
    early.close()
    pair.engine.step(Delta(0, [2]), Delta(1, [3], finish="stop"))
    await pair.sync()
    assert told == ["late", "early", "late", "late"]
    assert early.take() == []
    assert late.take() == [Delta(1, [2]), Delta(1, [3], finish="stop")]


async def test_nothing_is_left_of_ended_requests(pair: Pair) -> None:
    finished, closed_early, closed_late, failed = pair.client.submit(
        [Submission([1, 2], SAMPLING)] * 4
    )
    assert pair.client.num_open == 4
    closed_early.close()
    pair.engine.step(Delta(0, [1], finish="stop"), Delta(2, [1]))
    await pair.sync()
    closed_late.close()
    pair.engine.send(Failed("gone", user_error=False))
    await until(lambda: not pair.client.alive)
    assert pair.client.num_open == 0
    assert pair.client._queue.tokens == pair.client._queue.requests == 0
    await collect(finished)
    await raised(failed)


async def test_the_queue_holds_prompts_until_their_first_token(connect: Connect) -> None:
    pair = connect(ApiConfig(max_queued_tokens=100))
    await pair.make_ready()
    first, second = pair.client.submit(
        [Submission([1] * 60, SAMPLING), Submission([1] * 40, SAMPLING)]
    )
    with pytest.raises(Overloaded):
        pair.client.submit([Submission([1], SAMPLING)])
    pair.engine.step(Delta(0, [1]))
    await pair.sync()
    (third,) = pair.client.submit([Submission([1] * 60, SAMPLING)])
    with pytest.raises(Overloaded):
        pair.client.submit([Submission([1], SAMPLING)])
    second.close()
    pair.client.submit([Submission([1] * 40, SAMPLING)])
    first.close()
    with pytest.raises(Overloaded):
        pair.client.submit([Submission([1], SAMPLING)])
    third.close()


async def test_all_prompts_of_a_call_are_queued_or_none(connect: Connect) -> None:
    pair = connect(ApiConfig(max_queued_tokens=100))
    await pair.make_ready()
    pair.client.submit([Submission([1] * 50, SAMPLING)])
    with pytest.raises(Overloaded) as caught:
        pair.client.submit([Submission([1] * 30, SAMPLING), Submission([1] * 30, SAMPLING)])
    assert caught.value.retry_after_s is not None
    assert isinstance(pair.engine.receive(), Generate)
    assert not pair.engine.socket.poll(50), "a part of a refused call was sent"
    assert pair.client.num_open == 1


async def test_retry_after_counts_prompt_tokens_not_generated_ones(connect: Connect) -> None:
    """One request decodes while prompts wait; only the prompts' share of a step is the rate."""
    now = 0.0
    pair = connect(ApiConfig(max_queued_tokens=1000))
    await pair.make_ready()
    pair.client._clock = pair.client._queue._clock = lambda: now
    pair.client.submit([Submission([1], SAMPLING)])
    now = 1.0
    pair.engine.step(Delta(0, [1]), computed_tokens=1)  # the prompt's one token: leaves the queue
    await until(lambda: pair.client.stats.computed_tokens == 1)
    pair.client.submit([Submission([1] * 900, SAMPLING), Submission([1] * 100, SAMPLING)])
    now = 3.0
    pair.engine.step(Delta(0, [2]), computed_tokens=42)  # 40 prompt tokens and one generated
    await until(lambda: pair.client.stats.computed_tokens == 42)
    with pytest.raises(Overloaded) as caught:
        pair.client.submit([Submission([1] * 990, SAMPLING)])
    # The first second's one token has decayed with exp(-2 / 10).
    rate = (0.8187 * 1 + 40) / (0.8187 * 1 + 2)
    assert caught.value.retry_after_s == math.ceil(990 / rate) == 69


@pytest.mark.parametrize(
    ("prompt", "max_tokens"), [([], 1), ([1], 0), ([1], 1000), ([500], 1), ([-1], 1)]
)
async def test_what_would_break_the_engine_breaks_one_request(
    pair: Pair, prompt: list[int], max_tokens: int
) -> None:
    with pytest.raises(AssertionError):
        pair.client.submit(
            [Submission([1], SAMPLING), Submission(prompt, Sampling(max_tokens=max_tokens))]
        )
    assert pair.client.num_open == 0
    assert not pair.engine.socket.poll(20)


async def test_the_engines_end_reaches_every_open_request_after_its_deltas(pair: Pair) -> None:
    first, second = pair.client.submit([Submission([1], SAMPLING), Submission([1], SAMPLING)])
    pair.engine.step(Delta(0, [1]))
    pair.engine.send(Failed("the engine failed", user_error=False))
    await until(lambda: not pair.client.alive)
    assert pair.client.failure == Failed("the engine failed", user_error=False)
    assert await anext(deltas_of(first)) == Delta(0, [1])
    for generation in (first, second):
        error = await raised(generation)
        assert isinstance(error, EngineDead)
        assert error.message == "the engine failed"
    with pytest.raises(EngineDead):
        pair.client.submit([Submission([1], SAMPLING)])
    first.close()


async def test_a_process_that_ended_without_a_word_counts_as_dead(pair: Pair) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    task = asyncio.create_task(raised(generation))
    await asyncio.sleep(0)
    pair.engine.close()
    pair.client.end()
    assert isinstance(await task, EngineDead)
    assert not pair.client.alive
    assert pair.client.failure is None


async def test_last_words_that_were_not_read_yet_are(pair: Pair) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    pair.engine.step(Delta(0, [1], finish="stop"))
    deadline = time.monotonic() + TIMEOUT_S
    while not pair.client._socket.poll(0):
        assert time.monotonic() < deadline
    pair.client.end()  # the event loop had no turn to read
    assert await collect(generation) == [Delta(0, [1], finish="stop")]


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x81\xa4type\xa7unknown"])
async def test_nonsense_from_the_engine_ends_it(
    pair: Pair, frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    pair.engine.socket.send(frame)
    assert isinstance(await raised(generation), EngineDead)
    assert pair.client.failed.is_set()
    assert "not a message" in caplog.text


async def test_draining_refuses_new_requests_and_finishes_open_ones(pair: Pair) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    assert not pair.client.draining
    pair.client.drain()
    assert pair.client.draining
    with pytest.raises(Draining) as caught:
        pair.client.submit([Submission([1], SAMPLING)])
    assert caught.value.retry_after_s == 5
    idle = asyncio.create_task(pair.client.wait_idle())
    await pair.sync()
    assert not idle.done()
    pair.engine.step(Delta(0, [1], finish="stop"))
    await asyncio.wait_for(idle, TIMEOUT_S)
    assert await collect(generation) == [Delta(0, [1], finish="stop")]


async def test_abandoned_requests_are_aborted_and_told(pair: Pair) -> None:
    (generation,) = pair.client.submit([Submission([1], SAMPLING)])
    assert isinstance(pair.engine.receive(), Generate)
    pair.client.drain()
    pair.client.abandon()
    await asyncio.wait_for(pair.client.wait_idle(), TIMEOUT_S)
    assert isinstance(await raised(generation), Draining)
    assert pair.engine.receive() == Abort(0)
    pair.client.shut_down()
    assert pair.engine.receive() == Shutdown()


async def test_silence_grows_until_the_engine_speaks(pair: Pair) -> None:
    now = pair.client._clock()
    pair.client._clock = lambda: now + 60
    assert pair.client.silence_s == pytest.approx(60, abs=5)
    await pair.sync()
    assert pair.client.silence_s == 0


async def test_many_requests_at_once_get_exactly_their_tokens(pair: Pair) -> None:
    """The reader sees the socket's edge only: whatever piles up between two turns must arrive."""
    num_requests, num_steps = 50, 40
    generations = pair.client.submit([Submission([1], SAMPLING)] * num_requests)
    tasks = [asyncio.create_task(collect(generation)) for generation in generations]
    for step in range(num_steps):
        finish: dict[str, Any] = {"finish": "length"} if step == num_steps - 1 else {}
        pair.engine.step(*(Delta(rid, [rid, step], **finish) for rid in range(num_requests)))
        if step % 3 == 0:
            pair.client.submit([Submission([2], SAMPLING)])[0].close()  # sends in between
        if step % 7 == 0:
            await asyncio.sleep(0)
    for rid, deltas in enumerate(await asyncio.gather(*tasks)):
        assert [delta.tokens for delta in deltas] == [[rid, step] for step in range(num_steps)]
    assert pair.client.num_open == 0


def picture(key: bytes) -> TiledImage:
    return TiledImage(key, TileGrid(1, 1), (b"pixels of " + key,))


async def test_pictures_go_ahead_of_the_requests_that_share_them(pair: Pair) -> None:
    a, b = picture(b"a"), picture(b"b")
    both = [ShownImage(a, [1]), ShownImage(b, [9]), ShownImage(picture(b"a"), [20])]
    pair.client.submit(
        [
            Submission([1] * 30, SAMPLING, both),
            Submission([2] * 30, SAMPLING, both[:1]),
            Submission([3], SAMPLING),
        ]
    )
    pair.client.submit([Submission([4] * 30, SAMPLING, both[:1])])
    received = [pair.engine.receive() for _ in range(7)]
    assert received[:2] == [
        Image(0, b"a", [b"pixels of a"], num_requests=2),
        Image(1, b"b", [b"pixels of b"], num_requests=1),
    ]
    placed = [PlacedImage(0, [1]), PlacedImage(1, [9]), PlacedImage(0, [20])]
    assert received[2:5] == [
        Generate(0, [1] * 30, SAMPLING, placed),
        Generate(1, [2] * 30, SAMPLING, placed[:1]),
        Generate(2, [3], SAMPLING),
    ]
    assert received[5:] == [
        Image(2, b"a", [b"pixels of a"], num_requests=1),
        Generate(3, [4] * 30, SAMPLING, [PlacedImage(2, [1])]),
    ]


async def test_a_refused_request_sends_no_picture(connect: Connect) -> None:
    pair = connect(ApiConfig(max_queued_tokens=10))
    await pair.make_ready()
    pair.client.submit([Submission([1] * 10, SAMPLING)])
    assert pair.engine.receive() == Generate(0, [1] * 10, SAMPLING)
    with pytest.raises(Overloaded):
        pair.client.submit([Submission([1] * 10, SAMPLING, [ShownImage(picture(b"a"), [1])])])
    assert not pair.engine.socket.poll(20)


async def test_requests_with_one_prompt_cross_as_a_group_and_queue_it_once(pair: Pair) -> None:
    pair.client.submit([Submission([9], SAMPLING)])
    pair.client.submit(
        [
            Submission([1] * 10, SAMPLING),
            Submission([1] * 10, SAMPLING, prompt_of=0, priority=3),
            Submission([2], SAMPLING, grammar="start: /a/"),
            Submission([1] * 10, SAMPLING, prompt_of=0),
        ]
    )
    sent = [pair.engine.receive() for _ in range(5)]
    assert all(isinstance(message, Generate) for message in sent)
    assert [message.group for message in sent if isinstance(message, Generate)] == [
        None, 1, 1, None, 1,
    ]  # fmt: skip
    assert sent[2] == Generate(2, [1] * 10, SAMPLING, group=1, priority=3)
    assert sent[3] == Generate(3, [2], SAMPLING, grammar="start: /a/")
    assert pair.client._queue.tokens == 1 + 10 + 1 + 1 + 1


async def test_a_failure_ends_one_request_alone(pair: Pair) -> None:
    failing, other = pair.client.submit([Submission([1], SAMPLING), Submission([2], SAMPLING)])
    pair.engine.step(Delta(0, [5]), Delta(1, [6]))
    pair.engine.step(Delta(0, [], failure="it became too complex"), Delta(1, [7], finish="length"))
    assert [delta.tokens for delta in await collect(other)] == [[6], [7]]
    assert await anext(deltas_of(failing)) == Delta(0, [5])
    error = await raised(failing)
    assert (type(error), error.message, error.retry_after_s) == (
        GrammarTooComplex, "it became too complex", None,
    )  # fmt: skip
    assert pair.client.num_open == 0
    failing.close()


async def test_a_request_leaves_the_queue_with_its_first_token_not_with_its_prompt(
    pair: Pair,
) -> None:
    pair.client.submit([Submission([1] * 10, SAMPLING)])
    pair.engine.step(Delta(0, [], prompt_logprobs=[TokenLogprobs(-1.0, [])]))
    await pair.sync()
    assert pair.client._queue.tokens == 10
    pair.engine.step(Delta(0, [5]))
    await pair.sync()
    assert pair.client._queue.tokens == 0
