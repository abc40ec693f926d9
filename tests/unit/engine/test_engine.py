"""The engine in this process: no sockets, no clock."""

from __future__ import annotations

from collections.abc import Callable

from caravan.config import SchedulerConfig
from caravan.engine.engine import Engine
from caravan.messages import Delta, Generate, Sampling, StepPlan, StepResult, TokenMasks
from caravan.scheduling.scheduler import Scheduler
from fake_executor import LAYOUT, Drawn, FakeExecutor


def new_engine(
    executor: FakeExecutor, *, async_scheduling: bool = False, budget: int = 512
) -> Engine:
    config = SchedulerConfig(max_num_batched_tokens=budget)
    scheduler = Scheduler(LAYOUT, executor.num_pages, config)
    return Engine(executor, scheduler, async_scheduling=async_scheduling)


def test_without_requests_a_step_does_nothing() -> None:
    executor = FakeExecutor()
    engine = new_engine(executor)
    assert not engine.has_work
    assert engine.step() is None
    assert executor.plans == []


def test_a_request_gives_one_delta_per_step_and_the_last_one_finishes() -> None:
    engine = new_engine(FakeExecutor())
    engine.add(Generate(7, [1, 2, 3], Sampling(max_tokens=3)))
    deltas: list[Delta] = []
    while engine.has_work:
        output = engine.step()
        assert output is not None
        deltas += output.deltas
    assert [(delta.rid, delta.tokens, delta.finish) for delta in deltas] == [
        (7, [3], None),
        (7, [4], None),
        (7, [5], "length"),
    ]


def test_requests_share_a_step() -> None:
    engine = new_engine(FakeExecutor())
    for rid in range(5):
        engine.add(Generate(rid, [1] * (rid + 1), Sampling(max_tokens=1)))
    output = engine.step()
    assert output is not None
    assert {delta.rid: delta.tokens for delta in output.deltas} == {
        rid: [rid + 1] for rid in range(5)
    }
    assert not engine.has_work


def test_a_step_that_only_computes_a_part_of_a_prompt_still_reports() -> None:
    engine = new_engine(FakeExecutor(), budget=4)
    engine.add(Generate(0, [1] * 10, Sampling(max_tokens=1)))
    outputs = [engine.step() for _ in range(3)]
    assert [len(output.deltas) for output in outputs if output] == [0, 0, 1]
    assert [output.stats.computed_tokens for output in outputs if output] == [4, 8, 10]


def test_an_abort_frees_the_pages_before_the_next_step() -> None:
    executor = FakeExecutor()
    engine = new_engine(executor)
    engine.add(Generate(0, [1] * 30, Sampling(max_tokens=100)))
    engine.step()
    assert engine.stats.pages_owned > 0
    engine.abort(0)
    engine.abort(0)
    engine.abort(99)
    assert engine.stats.pages_owned == 0
    assert engine.stats.pages_free == executor.num_pages
    assert not engine.has_work
    engine.add(Generate(1, [1], Sampling(max_tokens=1)))
    output = engine.step()
    assert executor.plans[-1].released == [0]
    assert output is not None
    assert [delta.rid for delta in output.deltas] == [1]


class Watched(FakeExecutor):
    """Notes when steps are launched and when their tokens are fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> Drawn:
        events = self.events
        events.append(f"launch {plan.step}")

        class Fetched(Drawn):
            def result(self) -> StepResult:
                events.append(f"fetch {plan.step}")
                return super().result()

        super().launch(plan, masks)
        return Fetched(plan)


def test_async_scheduling_launches_a_step_before_it_fetches_the_one_before() -> None:
    executor = Watched()
    engine = new_engine(executor, async_scheduling=True)
    engine.add(Generate(0, [1], Sampling(max_tokens=3)))
    tokens = []
    while engine.has_work:
        output = engine.step()
        assert output is not None
        tokens += [delta.tokens[0] for delta in output.deltas]
    assert executor.events == [
        "launch 0",
        "launch 1",
        "fetch 0",
        "launch 2",
        "fetch 1",
        "fetch 2",
    ]
    assert tokens == [1, 2, 3]
    assert engine.step() is None
    assert engine.stats.pages_owned == 0


def test_without_it_every_step_is_fetched_at_once() -> None:
    executor = Watched()
    engine = new_engine(executor)
    engine.add(Generate(0, [1], Sampling(max_tokens=2)))
    while engine.has_work:
        engine.step()
    assert executor.events == ["launch 0", "fetch 0", "launch 1", "fetch 1"]
