"""A scheduler with small numbers, and one step of it with every sampled token given."""

from __future__ import annotations

from collections.abc import Sequence

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Generate, Sampled, Sampling, StepPlan, StepResult
from caravan.scheduling.scheduler import Scheduler


def layout(*, block_len: int = 4, chunk_len: int = 8, full: int = 1, chunked: int = 1) -> KVLayout:
    return KVLayout(
        block_len=block_len,
        chunk_len=chunk_len,
        full_slices=full,
        chunked_slices=chunked,
        slice_layers=1,
        page_bytes=1,
    )


def scheduler(
    *, pages: int = 1000, seats: int = 8, budget: int = 64, geometry: KVLayout | None = None
) -> Scheduler:
    config = SchedulerConfig(max_num_seqs=seats, max_num_batched_tokens=budget)
    return Scheduler(geometry or layout(), pages, config)


def generate(
    rid: int, num_prompt: int, max_tokens: int = 4, stop: tuple[int, ...] = ()
) -> Generate:
    return Generate(rid, [1] * num_prompt, Sampling(max_tokens=max_tokens, stop_token_ids=stop))


def planned(scheduler: Scheduler) -> StepPlan:
    plan = scheduler.schedule()
    assert plan is not None
    scheduler.check_invariants()
    return plan


def draw(plan: StepPlan, token: int = 7) -> StepResult:
    return StepResult([Sampled(entry.rid, token) for entry in plan.segments if entry.samples])


def step(scheduler: Scheduler, token: int = 7) -> StepPlan:
    """One step in which every sampled token is `token`."""
    plan = planned(scheduler)
    scheduler.update(plan, draw(plan, token))
    scheduler.check_invariants()
    return plan


def spans(plan: StepPlan) -> list[tuple[int, int, int]]:
    """(rid, start, length) of every segment."""
    return [(segment.rid, segment.start, segment.length) for segment in plan.segments]


def rids(admitted: Sequence[Admission]) -> list[int]:
    return [admission.rid for admission in admitted]
