"""When a grammar's masks are made, and what becomes of requests whose grammar fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from caravan.config import SchedulerConfig
from caravan.engine import constraints
from caravan.engine.constraints import FAILED, Constraints
from caravan.engine.engine import Engine
from caravan.grammars.errors import GrammarError
from caravan.grammars.matchers import Compiler
from caravan.messages import (
    Delta,
    Generate,
    Image,
    PlacedImage,
    Sampling,
    StepPlan,
    StepResult,
    TokenMasks,
)
from caravan.scheduling.scheduler import Scheduler
from caravan.tiles import TileSlots
from fake_executor import LAYOUT, Drawn, FakeExecutor


class FakeMatcher:
    """Allows what its name says: one token."""

    def __init__(self, allows: int) -> None:
        self.allows = allows
        self.accepted: list[int] = []
        self.failed: str | None = None
        self.fails_at: int | None = None

    def accept(self, token: int) -> bool:
        self.accepted.append(token)
        if token == self.fails_at:
            self.failed = "is too complex"
        return self.failed is None


class FakeCompiler:
    """Gives what `results` has, when it is told to."""

    def __init__(self, results: dict[int, FakeMatcher | GrammarError]) -> None:
        self.results = results
        self.started: list[tuple[int, str]] = []
        self.is_done = True

    def start(self, key: int, grammar: str) -> None:
        self.started.append((key, grammar))

    def done(self) -> list[tuple[int, FakeMatcher | GrammarError]]:
        if not self.is_done:
            return []
        started, self.started = self.started, []
        return [(key, self.results[key]) for key, _ in started]


class Watched(FakeExecutor):
    """Notes the order of launches, masks and fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> Drawn:
        self.events.append(f"launch {plan.step}")
        super().launch(plan, masks)
        if masks:
            self.events.append(f"masks {plan.step}")
        events = self.events

        class Fetched(Drawn):
            def result(self) -> StepResult:
                events.append(f"fetch {plan.step}")
                return super().result()

        return Fetched(plan)


@pytest.fixture(autouse=True)
def fake_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(matchers: Sequence[FakeMatcher], out_RW: NDArray[np.int32]) -> None:
        for matcher, row in zip(matchers, out_RW, strict=True):
            row[0] = matcher.allows

    monkeypatch.setattr(constraints, "fill_masks", fill)


def new_engine(
    executor: FakeExecutor, compiler: FakeCompiler, *, ahead: bool = False, tiles: bool = False
) -> Engine:
    config = SchedulerConfig(max_num_batched_tokens=64)
    slots = TileSlots(num_slots=4, tile_tokens=2) if tiles else None
    scheduler = Scheduler(LAYOUT, executor.num_pages, config, slots)
    kept = Constraints(cast(Compiler, compiler), executor.vocab_size)
    return Engine(executor, scheduler, kept, async_scheduling=ahead)


def grammared(rid: int, max_tokens: int = 3, **fields: Any) -> Generate:
    return Generate(rid, [1, 2], Sampling(max_tokens=max_tokens), grammar=f"g{rid}", **fields)


def run(engine: Engine) -> list[Delta]:
    deltas: list[Delta] = []
    while engine.has_work or engine.compiling:
        output = engine.step()
        assert output is not None
        deltas += output.deltas
    return deltas


def test_a_mask_is_made_when_the_token_before_it_is_known() -> None:
    """Ahead, the step before is fetched between a step's launch and its draw."""
    executor, matcher = Watched(), FakeMatcher(7)
    engine = new_engine(executor, FakeCompiler({0: matcher}), ahead=True)
    engine.add(grammared(0))
    assert engine.compiling
    assert engine.step() is not None
    assert not engine.compiling
    assert [delta.tokens for delta in run(engine)] == [[2], [3], [4]]
    assert executor.events == [
        *("launch 0", "masks 0"),
        *("launch 1", "fetch 0", "masks 1"),
        *("launch 2", "fetch 1", "masks 2"),
        "fetch 2",
    ]
    assert matcher.accepted == [2, 3], "the last one ended the request"
    [first, *_] = executor.masks
    assert first is not None
    assert first.rids == [0]
    assert np.frombuffer(first.words, np.int32).tolist() == [7] + [0] * 31


def test_without_grammars_nothing_is_asked_for() -> None:
    executor = Watched()
    engine = new_engine(executor, FakeCompiler({}), ahead=True)
    engine.add(Generate(0, [1], Sampling(max_tokens=2)))
    run(engine)
    assert executor.masks == [None, None]
    assert executor.events == ["launch 0", "launch 1", "fetch 0", "fetch 1"]


def test_only_requests_with_a_grammar_have_masks() -> None:
    executor = Watched()
    compiler = FakeCompiler({1: FakeMatcher(5), 3: FakeMatcher(6)})
    engine = new_engine(executor, compiler)
    for rid in range(4):
        engine.add(grammared(rid) if rid % 2 else Generate(rid, [1, 2], Sampling(max_tokens=3)))
    run(engine)
    assert [masks.rids for masks in executor.masks if masks] == [[1, 3]] * 3


def test_a_prompt_that_is_cut_asks_for_its_mask_at_its_end_only() -> None:
    executor = Watched()
    engine = new_engine(executor, FakeCompiler({0: FakeMatcher(5)}))
    engine.add(Generate(0, [1] * 100, Sampling(max_tokens=1), grammar="g"))
    run(engine)
    assert [masks is not None for masks in executor.masks] == [False, True]


def test_a_request_waits_for_its_grammar_and_others_do_not() -> None:
    executor, compiler = Watched(), FakeCompiler({0: FakeMatcher(5)})
    compiler.is_done = False
    engine = new_engine(executor, compiler)
    engine.add(grammared(0))
    assert not engine.has_work
    assert engine.step() is None
    engine.add(Generate(1, [1], Sampling(max_tokens=1)))
    output = engine.step()
    assert output is not None
    assert [delta.rid for delta in output.deltas] == [1]
    assert engine.compiling
    compiler.is_done = True
    assert engine.step() is not None
    assert not engine.compiling


@pytest.mark.parametrize("ahead", [False, True])
def test_a_matcher_that_fails_ends_its_request(ahead: bool) -> None:
    matcher, good = FakeMatcher(5), FakeMatcher(6)
    matcher.fails_at = 3
    engine = new_engine(Watched(), FakeCompiler({0: matcher, 1: good}), ahead=ahead)
    for rid in (0, 1):
        engine.add(grammared(rid, max_tokens=5))
    engine.step()
    deltas = run(engine)
    assert [delta.failure for delta in deltas if delta.rid == 0][-1] == FAILED
    assert [delta.tokens for delta in deltas if delta.rid == 0 and delta.tokens][-1] == [3]
    finishes = [delta.finish for delta in deltas if delta.rid == 1 and delta.finish]
    assert finishes == ["length"]
    assert engine.stats.pages_owned == 0


def test_a_bad_grammar_gives_back_its_pictures() -> None:
    engine = new_engine(Watched(), FakeCompiler({0: GrammarError("is bad")}), tiles=True)
    engine.add_image(Image(3, b"k", [b"t"], num_requests=1))
    engine.add(grammared(0, images=[PlacedImage(3, [0])]))
    output = engine.step()
    assert output is not None
    assert output.deltas == [Delta(0, [], failure="is bad")]
    assert not engine._scheduler._images
    assert not engine.has_work


def test_who_leaves_while_it_compiles_is_never_computed() -> None:
    executor = Watched()
    engine = new_engine(executor, FakeCompiler({0: FakeMatcher(5)}))
    engine.add(grammared(0))
    engine.abort(0)
    engine.step()
    assert executor.plans == []
    assert not engine.has_work
    assert not engine.compiling
