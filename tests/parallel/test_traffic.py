"""What ranks send in a step, counted, equals what the formulas say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist

from caravan.messages import Admission, Launch, Sampling, Segment, StepPlan
from caravan.model.architecture import Architecture
from caravan.worker.channel import FRAME_BYTES, Channel
from caravan.worker.leading import LeadingRunner
from parallel.split import split

SIZE = 2
FP32 = 4  # bytes
COLLECTIVES = ("all_reduce", "all_gather", "all_to_all_single", "broadcast")


class Counter:
    """Bytes that rank 0 hands to each collective."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_bytes = dict.fromkeys(COLLECTIVES, 0)
        for name in COLLECTIVES:
            monkeypatch.setattr(dist, name, self._counting(name, getattr(dist, name)))

    def _counting(self, name: str, real: Any) -> Callable[..., Any]:
        def counted(first: Any, *rest: Any, **options: Any) -> Any:
            sent = first if name in ("all_reduce", "broadcast") else rest[0]
            self.num_bytes[name] += sent.nbytes
            return real(first, *rest, **options)

        return counted


@pytest.fixture(scope="module")
def directory(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("scout", vocab_size=280, num_key_value_heads=4)


@pytest.fixture(scope="module")
def runner(directory: Path) -> Iterator[LeadingRunner]:
    with split(directory, SIZE) as found:
        yield found


def plan(runner: LeadingRunner, rid: int, length: int, sampling: Sampling) -> StepPlan:
    """A prompt in one step, on the first pages."""
    full, chunked = runner.layout.new_pages(0, length)
    pages = list(range(full + chunked))
    segment = Segment(rid, 0, length, pages[:full], pages[full:], samples=True)
    return StepPlan(0, [], [Admission(rid, list(range(length)), length, sampling)], [segment])


@pytest.mark.parametrize("length", [1, 30])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_step(
    runner: LeadingRunner,
    directory: Path,
    length: int,
    greedy: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    architecture = Architecture.from_directory(directory)
    counter = Counter(monkeypatch)
    rid = 2 * length + greedy
    sampling = Sampling(max_tokens=1, temperature=0.0 if greedy else 1.0)
    runner.launch(plan(runner, rid, length, sampling)).result()
    # embeddings, and two sums in each layer
    rows = length * (1 + 2 * architecture.num_layers)
    part = architecture.vocab_size // SIZE
    assert counter.num_bytes == {
        "broadcast": FRAME_BYTES,
        "all_reduce": rows * architecture.hidden_size * FP32,
        # the best word and its logit, or a part of each row to each rank, and the token back
        "all_to_all_single": 0 if greedy else SIZE * part * FP32,
        "all_gather": 2 * 8 if greedy else 8,
    }
    runner.launch(StepPlan(0, [rid], [], []))


class Played:
    """A group whose other end is a list."""

    def __init__(self) -> None:
        self.frames: list[torch.Tensor] = []

    def broadcast(self, frame: torch.Tensor) -> None:
        self.frames.append(frame.clone())


class Replayed(Played):
    def broadcast(self, frame: torch.Tensor) -> None:
        frame.copy_(self.frames.pop(0))


@pytest.mark.parametrize("length", [0, 10, FRAME_BYTES // 2, FRAME_BYTES, 10 * FRAME_BYTES])
def test_orders_of_any_length_arrive(length: int) -> None:
    group = Played()
    channel = Channel(group)  # type: ignore[arg-type]  # only broadcasts
    tokens = [i % 100 for i in range(length)]
    order = Launch(
        StepPlan(1, [], [Admission(1, tokens, length, Sampling(max_tokens=1))], []), masked=True
    )
    for _ in range(2):
        channel.send(order)
    body = len(msgspec.msgpack.encode(order))
    rest = max(0, body - (FRAME_BYTES - 8))
    assert channel.broadcast_bytes == 2 * (FRAME_BYTES + rest)
    assert len(group.frames) == (4 if rest else 2)
    other = Replayed()
    other.frames = group.frames
    follower = Channel(other)  # type: ignore[arg-type]  # only broadcasts
    assert [follower.receive(), follower.receive()] == [order, order]


def test_a_step_of_many_single_tokens_is_one_frame() -> None:
    segments = [
        Segment(10_000 + i, 100_000 + i, 1, [i] if i % 64 == 0 else [], [], samples=True)
        for i in range(512)
    ]
    assert len(msgspec.msgpack.encode(Launch(StepPlan(9, [], [], segments), False))) < FRAME_BYTES
