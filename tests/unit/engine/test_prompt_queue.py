"""The queue's bound and the arithmetic of Retry-After, on a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caravan.engine.prompt_queue import PromptQueue
from caravan.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(queue: PromptQueue, *lengths: int) -> Overloaded:
    before = queue.tokens, queue.requests
    with pytest.raises(Overloaded) as caught:
        queue.enter(lengths)
    assert (queue.tokens, queue.requests) == before
    return caught.value


def test_prompts_enter_up_to_the_bound_and_not_beyond() -> None:
    queue = PromptQueue(100, 10)
    queue.enter([60])
    queue.enter([40])
    error = refused(queue, 1)
    assert "holds 100 prompt tokens" in error.message
    assert "adds 1;" in error.message
    assert "limit is 100 (--max-queued-tokens)" in error.message
    queue.leave(60)
    queue.enter([60])


def test_requests_enter_up_to_the_bound_and_not_beyond() -> None:
    queue = PromptQueue(1000, 3)
    queue.enter([1, 1])
    error = refused(queue, 1, 1)
    assert "holds 2 requests" in error.message
    assert "adds 2;" in error.message
    assert "limit is 3 (--max-queued-requests)" in error.message
    queue.enter([1])


def test_a_call_beyond_the_bounds_enters_an_empty_queue() -> None:
    queue = PromptQueue(100, 2)
    queue.enter([5000])
    refused(queue, 1)
    queue.leave(5000)
    queue.enter([1, 1, 1])
    queue.leave(1)
    queue.leave(1)
    queue.leave(1)
    assert (queue.tokens, queue.requests) == (0, 0)


def test_retry_after_is_the_time_to_compute_what_is_too_much() -> None:
    clock = Clock()
    queue = PromptQueue(1000, 100, clock)
    queue.enter([1000])
    for _ in range(5):
        clock.now += 2
        queue.observe(100)  # 50 tokens per second
    assert refused(queue, 499).retry_after_s == 10
    assert refused(queue, 501).retry_after_s == 11
    assert refused(queue, 1).retry_after_s == 1
    assert refused(queue, 9000).retry_after_s in (20, 21), "all that waits, and no more"


def test_retry_after_for_too_many_requests_uses_the_mean_prompt() -> None:
    clock = Clock()
    queue = PromptQueue(10**6, 4, clock)
    queue.enter([100, 200, 300, 400])
    clock.now += 1
    queue.observe(50)
    assert refused(queue, 1).retry_after_s == 5  # one prompt of 250 tokens at 50 per second
    assert refused(queue, 1, 1).retry_after_s == 10


def test_retry_after_stays_within_what_clients_obey() -> None:
    clock = Clock()
    queue = PromptQueue(10, 100, clock)
    queue.enter([10**9])
    assert refused(queue, 1).retry_after_s == 1, "nothing measured yet"
    clock.now += 1
    queue.observe(0)
    assert refused(queue, 1).retry_after_s == 120, "nothing computed in a second"
    queue.observe(1)
    assert refused(queue, 1).retry_after_s == 120
    queue.observe(10**12)
    assert refused(queue, 1).retry_after_s == 1


def test_time_without_a_queue_does_not_count() -> None:
    clock = Clock()
    queue = PromptQueue(1000, 100, clock)
    queue.enter([1000])
    clock.now += 10
    queue.observe(1000)  # 100 tokens per second
    queue.leave(1000)
    clock.now += 3600
    queue.observe(0)
    queue.enter([1000])
    clock.now += 1
    queue.observe(100)
    assert refused(queue, 500).retry_after_s == 5


def test_the_rate_follows_a_change() -> None:
    clock = Clock()
    queue = PromptQueue(1000, 100, clock)
    queue.enter([1000])
    for rate, seconds in ((1000, 60), (10, 60)):
        for _ in range(seconds):
            clock.now += 1
            queue.observe(rate)
    assert 40 < (refused(queue, 500).retry_after_s or 0) <= 50


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10**9)), max_size=5),
)
def test_retry_after_is_a_whole_number_of_seconds_in_bounds(
    held: list[int], added: list[int], observed: list[tuple[float, int]]
) -> None:
    clock = Clock()
    queue = PromptQueue(1, 1, clock)
    queue.enter(held)
    for seconds, tokens in observed:
        clock.now += seconds
        queue.observe(tokens)
    retry_after_s = refused(queue, *added).retry_after_s
    assert isinstance(retry_after_s, int)
    assert 1 <= retry_after_s <= 120
