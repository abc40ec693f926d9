"""Graphs of decode steps, and steps launched ahead of the tokens of the last: nothing changes.

The graph here is a function that runs again on the same memory, so what is tested is everything
that a CUDA graph relies on: addresses, padding, tables that change under it. `tests/on_gpu`
captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caravan.messages import Generate, Sampling
from caravan.worker.runner import Runner
from in_process import Completion, complete, load, new_engine

# The tiny models' chunks have 32 tokens: most of these cross several
PROMPTS = [
    [(7 * i + j) % 120 + 1 for j in range(length)] for i, length in enumerate((3, 31, 32, 70))
]
SAMPLINGS = [
    Sampling(max_tokens=80, temperature=0.0, logprobs=2),
    Sampling(max_tokens=80, seed=5, temperature=0.8, top_p=0.9, frequency_penalty=0.4),
    Sampling(max_tokens=33, seed=6, top_k=9, min_p=0.01, repetition_penalty=1.2, logprobs=0),
    Sampling(max_tokens=50, seed=7, logit_bias=((3, 2.0),), min_tokens=20, stop_token_ids=(3, 4)),
]


@pytest.fixture(scope="module", params=["scout", "odd"])
def runner(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Runner:
    return load(tiny_checkpoint(request.param))


@pytest.fixture
def graphs(runner: Runner) -> Iterator[list[int]]:
    """Captures decode steps; counts replays."""
    replays: list[int] = []

    def capture(run: Callable[[], object]) -> Callable[[], object]:
        def replay() -> None:
            replays.append(1)
            run()

        return replay

    runner.capture_decode(capture)
    yield replays
    runner._graphs = None


def assert_same(ours: list[Completion], plain: list[Completion]) -> None:
    for one, other in zip(ours, plain, strict=True):
        assert one.tokens == other.tokens
        assert one.finish == other.finish
        for a, b in zip(one.logprobs, other.logprobs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
            assert [token for token, _ in a.top] == [token for token, _ in b.top]


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_graphs_past_chunk_boundaries(
    runner: Runner, graphs: list[int], async_scheduling: bool
) -> None:
    ours = complete(new_engine(runner, async_scheduling=async_scheduling), PROMPTS, SAMPLINGS)
    assert len(graphs) > 60
    runner._graphs = None
    assert_same(ours, complete(new_engine(runner), PROMPTS, SAMPLINGS))


def test_steps_ahead_under_preemption(runner: Runner) -> None:
    plain = complete(new_engine(runner), PROMPTS, SAMPLINGS)
    pages = int(1.3 * runner.layout.pages_needed(150))
    engine = new_engine(runner, num_pages=pages, budget=23, async_scheduling=True)
    assert_same(complete(engine, PROMPTS, SAMPLINGS), plain)
    assert engine.stats.preemptions > 0


def test_steps_ahead_of_requests_that_leave(runner: Runner) -> None:
    """Who stays is not disturbed by those that leave while steps with them are under way."""
    (alone,) = complete(new_engine(runner), PROMPTS[:1], SAMPLINGS[0])
    engine = new_engine(runner, async_scheduling=True)
    tokens: list[int] = []
    base = 10**6
    engine.add(Generate(base, PROMPTS[0], SAMPLINGS[0]))
    step = 0
    while engine.has_work:
        step += 1
        if step % 5 == 0 and step < 60:
            engine.add(Generate(base + step, PROMPTS[step % 4], SAMPLINGS[1]))
        if step % 7 == 0:
            engine.abort(base + 5 * (step // 7))
        output = engine.step()
        for delta in output.deltas if output else []:
            if delta.rid == base:
                tokens += delta.tokens
        if step > 200:
            for rid in range(base + 1, base + 61):
                engine.abort(rid)
    assert tokens == alone.tokens
    assert engine.stats.pages_owned == 0
