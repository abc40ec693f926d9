"""The API process's end of the engine: requests go out, deltas come back to whoever asked.

Everything runs on the event loop's thread: `submit` and `close` send at once and never wait; one
reader on the socket's descriptor hands every delta to its request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
import zmq

from caravan.config import ApiConfig
from caravan.engine import wire
from caravan.engine.handle import Generation, Submission
from caravan.engine.prompt_queue import PromptQueue
from caravan.errors import ApiError, Draining, EngineDead, GrammarTooComplex, StillLoading
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
    Shutdown,
    Stats,
    StepOutput,
)

logger = logging.getLogger(__name__)

RETRY_LATER_S = 5  # while it loads or drains: soon enough for another replica or the next start

Report = Callable[[Progress | Ready], None]


def _nobody() -> None:
    """Nobody watches yet."""


class _Generation:
    """See handle.Generation."""

    def __init__(self, rid: int, prompt_len: int, forget: Callable[[_Generation], None]) -> None:
        self.rid = rid
        self.queued_tokens = prompt_len  # 0 once it has left the queue
        self._forget = forget
        self._news = _nobody
        self._deltas: list[Delta] = []
        self._ended = False  # nothing comes any more
        self._error: tuple[type[ApiError], str] | None = None

    def put(self, delta: Delta) -> None:
        """A delta came from the engine."""
        if delta.failure is not None:
            self.fail(GrammarTooComplex, delta.failure)
            return
        self._deltas.append(delta)
        self._ended = delta.finish is not None
        self._news()

    def fail(self, kind: type[ApiError], message: str) -> None:
        """No delta comes any more: `take` raises."""
        self._error = (kind, message)
        self._ended = True
        self._news()

    def watch(self, news: Callable[[], None]) -> None:
        """See handle.Generation."""
        self._news = news
        if self._deltas or self._error:
            news()

    def take(self) -> list[Delta]:
        """See handle.Generation."""
        deltas, self._deltas = self._deltas, []
        if not deltas and self._error:
            kind, message = self._error
            retry_after_s = RETRY_LATER_S if kind.status >= 500 else None
            raise kind(message, retry_after_s=retry_after_s)
        return deltas

    def close(self) -> None:
        """Aborts the request unless it has finished; there is nothing more to take."""
        self._deltas.clear()
        self._error = None
        self._news = _nobody
        if not self._ended:
            self._ended = True
            self._forget(self)


class EngineClient:
    """The engine, as the HTTP side sees it. See handle.Engine for what it promises."""

    def __init__(
        self,
        config: ApiConfig,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` is told of the start-up; `clock` gives seconds."""
        self._report = report
        self._clock = clock
        self._queue = PromptQueue(config.max_queued_tokens, config.max_queued_requests, clock)
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._socket = wire.pair(self._context)
        self._open: dict[int, _Generation] = {}
        self._next_rid = 0
        self._next_image_id = 0
        self._ready: Ready | None = None
        self._loading: Progress | None = None
        self._stats = Stats()
        self._draining = False
        self._dead: str | None = None
        self._heard_at = clock()
        self.failure: Failed | None = None  # what the engine said before it ended
        self.heard = asyncio.Event()  # the engine has spoken
        self.failed = asyncio.Event()  # `failure` is there
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> Ready | None:
        """Facts about the loaded model; None while it loads."""
        return self._ready

    @property
    def loading(self) -> Progress | None:
        """The last progress message of the start-up."""
        return self._loading

    @property
    def stats(self) -> Stats:
        """Of the last step."""
        return self._stats

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server is shutting down."""
        return self._draining

    @property
    def silence_s(self) -> float:
        """Seconds since the engine's last message, or since there is a client."""
        return self._clock() - self._heard_at

    @property
    def alive(self) -> bool:
        """Whether the engine process runs, or is about to."""
        return self._dead is None

    @property
    def num_open(self) -> int:
        """Requests that have neither finished nor been closed."""
        return len(self._open)

    def connect(self, address: str, start: wire.Start) -> None:
        """Connects, sends `start` and reads from now on. Call it on the event loop, once."""
        self._socket.connect(address)
        self._heard_at = self._clock()
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        self._send(start)

    def disconnect(self) -> None:
        """Closes the socket, after the engine has had a moment to take what was sent."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._context.destroy(linger=0)

    def submit(self, requests: Sequence[Submission]) -> list[Generation]:
        """Queues all of them or none. See handle.Engine.submit."""
        self._check_accepting()
        for request in requests:
            self._check(request)
        lengths = [_queued_tokens(request) for request in requests]
        self._queue.enter(lengths)
        image_ids = self._send_images(requests)
        first_rid = self._next_rid
        self._next_rid += len(requests)
        generations: list[Generation] = []
        groups = _groups(requests)
        for index, (request, length) in enumerate(zip(requests, lengths, strict=True)):
            rid = first_rid + index
            generation = _Generation(rid, length, self._close)
            self._open[rid] = generation
            generations.append(generation)
            first = groups[index]
            group = None if first is None else first_rid + first
            self._send(_message(rid, request, image_ids, group))
        if generations:
            self._idle.clear()
        return generations

    def drain(self) -> None:
        """Refuses new requests from now on."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Returns when no request is open."""
        await self._idle.wait()

    def abandon(self) -> None:
        """Ends every open request with the error `draining`."""
        for generation in list(self._open.values()):
            self._send(Abort(generation.rid))
        self._fail_all(Draining, "the server shut down before the answer was complete")

    def shut_down(self) -> None:
        """Tells the engine to exit."""
        self._send(Shutdown())

    def end(self) -> None:
        """The engine process has ended: reads its last words; open requests get EngineDead."""
        self._read()
        self._die("the engine process ended; the server stops, so try another or try later")

    def _check_accepting(self) -> None:
        if self._dead is not None:
            raise EngineDead(self._dead, retry_after_s=RETRY_LATER_S)
        if self._draining:
            raise Draining("the server is shutting down", retry_after_s=RETRY_LATER_S)
        if self._ready is None:
            raise StillLoading("the model is still loading", retry_after_s=RETRY_LATER_S)

    def _check(self, request: Submission) -> None:
        """What the API layer must have refused: here it costs one request, in the engine all."""
        prompt, sampling, images = request[:3]
        assert self._ready, "not loaded"
        assert prompt, "empty prompt"
        assert sampling.max_tokens >= 1, sampling.max_tokens
        num_tokens = len(prompt) + sampling.max_tokens
        assert num_tokens <= self._ready.max_model_len, (num_tokens, self._ready.max_model_len)
        assert min(prompt) >= 0, min(prompt)
        assert max(prompt) < self._ready.vocab_size, max(prompt)
        assert self._ready.takes_images or not images, "the model sees no pictures"
        for image, starts in images:
            assert len(starts) == len(image.tiles), (starts, len(image.tiles))

    def _send_images(self, requests: Sequence[Submission]) -> dict[bytes, int]:
        """Sends each picture once; ids by their keys."""
        shown = {image.key: image for request in requests for image, _ in request.images}
        uses = Counter(
            key for request in requests for key in {image.key for image, _ in request.images}
        )
        image_ids = {}
        for key, image in shown.items():
            image_ids[key] = self._next_image_id
            self._next_image_id += 1
            self._send(Image(image_ids[key], key, list(image.tiles), uses[key]))
        return image_ids

    def _close(self, generation: _Generation) -> None:
        self._send(Abort(generation.rid))
        self._forget(generation)

    def _forget(self, generation: _Generation) -> None:
        """Leaves no trace of a generation that finished, failed or was closed."""
        del self._open[generation.rid]
        self._leave_queue(generation)
        if not self._open:
            self._idle.set()

    def _leave_queue(self, generation: _Generation) -> None:
        if generation.queued_tokens:
            self._queue.leave(generation.queued_tokens)
            generation.queued_tokens = 0

    def _send(self, message: wire.Message) -> None:
        self._socket.send(wire.encode(message), zmq.NOBLOCK)
        # Sending may consume the descriptor's edge that announced a message: look again.
        asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        """Handles every message that is there; the descriptor tells of new ones only."""
        while not self._socket.closed:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_at = self._clock()
            self.heard.set()
            try:
                message = wire.decode_from_engine(frame)
            except msgspec.DecodeError:
                logger.exception("the engine sent what is not a message")
                message = Failed("the engine spoke nonsense", user_error=False)
            self._handle(message)

    def _handle(self, message: FromEngine) -> None:
        match message:
            case StepOutput(deltas, stats):
                self._observe(deltas, stats)
                for delta in deltas:
                    self._dispatch(delta)
            case Progress():
                self._loading = message
                self._tell(message)
            case Ready():
                self._ready = message
                self._tell(message)
            case Failed(reason):
                self.failure = message
                self.failed.set()
                self._die(reason)

    def _tell(self, message: Progress | Ready) -> None:
        if self._report:
            self._report(message)

    def _observe(self, deltas: list[Delta], stats: Stats) -> None:
        """Of the tokens computed, all that did not make a later token are prompt tokens."""
        computed = stats.computed_tokens - self._stats.computed_tokens
        decoded = 0
        for delta in deltas:
            generation = self._open.get(delta.rid)
            if generation is None or not generation.queued_tokens:
                decoded += len(delta.tokens)
        self._queue.observe(max(0, computed - decoded))
        self._stats = stats

    def _dispatch(self, delta: Delta) -> None:
        generation = self._open.get(delta.rid)
        if generation is None:
            return  # closed while the delta was on its way
        generation.put(delta)
        if delta.finish or delta.failure:
            self._forget(generation)
        elif delta.tokens:
            self._leave_queue(generation)

    def _die(self, message: str) -> None:
        if self._dead is None:
            self._dead = message
            self._fail_all(EngineDead, message)

    def _fail_all(self, kind: type[ApiError], message: str) -> None:
        for generation in list(self._open.values()):
            generation.fail(kind, message)
            self._forget(generation)


def _queued_tokens(request: Submission) -> int:
    """What a request adds to the queue: a prompt that several have is computed once."""
    return len(request.prompt) if request.prompt_of is None else 1


def _groups(requests: Sequence[Submission]) -> list[int | None]:
    """The index of the first request with the same prompt; None for a prompt that only one has."""
    shared = {request.prompt_of for request in requests}
    return [
        index if index in shared else request.prompt_of for index, request in enumerate(requests)
    ]


def _message(
    rid: int, request: Submission, image_ids: Mapping[bytes, int], group: int | None
) -> Generate:
    """A request as the engine takes it."""
    placed = [PlacedImage(image_ids[image.key], starts) for image, starts in request.images]
    return Generate(
        rid,
        request.prompt,
        request.sampling,
        placed,
        group=group,
        priority=request.priority,
        grammar=request.grammar,
    )
