"""Each rule of the scheduler on its own, with numbers that can be followed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import (
    Admission,
    Delta,
    Generate,
    Sampled,
    Sampling,
    Stats,
    StepPlan,
    StepResult,
    TokenLogprobs,
)
from caravan.scheduling.scheduler import HEADROOM_BLOCKS, Scheduler


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


class TestSegments:
    def test_a_prompt_is_cut_by_the_budget_and_sampled_at_its_end(self) -> None:
        it = scheduler(budget=3)
        it.add(generate(1, num_prompt=8))
        plans = [step(it) for _ in range(4)]
        assert [spans(plan) for plan in plans] == [
            [(1, 0, 3)],
            [(1, 3, 3)],
            [(1, 6, 2)],
            [(1, 8, 1)],
        ]
        assert [plan.segments[0].samples for plan in plans] == [False, False, True, True]
        assert [plan.step for plan in plans] == [0, 1, 2, 3]

    def test_a_segment_never_crosses_a_chunk_boundary(self) -> None:
        it = scheduler(budget=20)
        it.add(generate(1, num_prompt=30))
        assert spans(step(it)) == [(1, 0, 8), (1, 8, 8), (1, 16, 4)]
        plan = step(it)
        assert spans(plan) == [(1, 20, 4), (1, 24, 6)]
        assert [segment.samples for segment in plan.segments] == [False, True]

    def test_segments_of_one_token_come_first(self) -> None:
        it = scheduler(budget=10)
        it.add(generate(1, num_prompt=2))
        step(it)
        it.add(generate(2, num_prompt=9))
        assert spans(step(it)) == [(1, 2, 1), (2, 8, 1), (2, 0, 8)]

    def test_new_pages_come_flat_and_only_where_a_block_begins(self) -> None:
        it = scheduler(budget=5, geometry=layout(full=2, chunked=3))
        it.add(generate(1, num_prompt=10))
        counts = [
            [(len(entry.full_pages), len(entry.chunked_pages)) for entry in step(it).segments]
            for _ in range(3)
        ]
        assert counts == [[(4, 6)], [(0, 0), (2, 3)], [(0, 0)]]  # [0, 5); [5, 8), [8, 10); [10, 11)

    @pytest.mark.parametrize(("full", "chunked"), [(2, 0), (0, 3)])
    def test_a_model_may_lack_full_or_chunked_layers(self, full: int, chunked: int) -> None:
        it = scheduler(geometry=layout(full=full, chunked=chunked))
        it.add(generate(1, num_prompt=6))
        (segment,) = step(it).segments
        assert (len(segment.full_pages), len(segment.chunked_pages)) == (2 * full, 2 * chunked)


class TestChunkedPages:
    def test_they_are_free_once_the_last_token_of_their_chunk_is_planned(self) -> None:
        it = scheduler(pages=8, budget=7)
        it.add(generate(1, num_prompt=10))
        step(it)
        assert it.stats().pages_owned == 2 + 2
        assert spans(step(it)) == [(1, 7, 1), (1, 8, 2)]
        assert it.stats().pages_owned == 3 + 1

    def test_both_chunks_of_one_step_have_pages_of_their_own(self) -> None:
        it = scheduler(pages=8)
        it.add(generate(1, num_prompt=16, max_tokens=1))
        first, second = planned(it).segments
        pages = [*first.full_pages, *first.chunked_pages]
        pages += [*second.full_pages, *second.chunked_pages]
        assert sorted(pages) == list(range(8))
        assert it.stats().pages_owned == 4  # full pages only: both chunks have ended

    def test_segments_shrink_to_the_pages_there_are(self) -> None:
        it = scheduler(pages=layout().pages_needed(33))  # 9 full pages, 2 chunked ones
        it.add(generate(1, num_prompt=32, max_tokens=1))
        # Each block takes 2 pages while ended chunks give theirs back only after the step.
        assert spans(step(it)) == [(1, 0, 8), (1, 8, 8), (1, 16, 4)]
        assert spans(step(it)) == [(1, 20, 4), (1, 24, 4)]
        assert spans(step(it)) == [(1, 28, 4)]
        assert not it.has_work


class TestOrder:
    def test_a_decoding_request_comes_before_a_prompt(self) -> None:
        it = scheduler(budget=5)
        it.add(generate(1, num_prompt=4))
        it.add(generate(2, num_prompt=30))
        assert spans(step(it)) == [(2, 0, 1), (1, 0, 4)]
        assert spans(step(it)) == [(1, 4, 1), (2, 1, 4)]

    def test_the_oldest_comes_first_when_the_budget_is_short(self) -> None:
        it = scheduler(budget=3)
        for rid in (9, 5, 7):
            it.add(generate(rid, num_prompt=1, max_tokens=2))
        assert spans(step(it)) == [(9, 0, 1), (5, 0, 1), (7, 0, 1)]
        it = scheduler(budget=1)
        for rid in (9, 5):
            it.add(generate(rid, num_prompt=1, max_tokens=2))
        assert [spans(step(it)) for _ in range(4)] == [
            [(9, 0, 1)], [(9, 1, 1)], [(5, 0, 1)], [(5, 1, 1)]
        ]  # fmt: skip


class TestAdmission:
    def test_seats_are_limited(self) -> None:
        it = scheduler(seats=2)
        for rid in (1, 2, 3):
            it.add(generate(rid, num_prompt=1, max_tokens=1 if rid == 1 else 5))
        assert rids(step(it).admitted) == [1, 2]
        assert rids(step(it).admitted) == [3]

    def test_it_carries_the_prompt_and_the_sampling(self) -> None:
        it = scheduler()
        request = Generate(3, [4, 5, 6], Sampling(max_tokens=2, seed=9))
        it.add(request)
        assert planned(it).admitted == [Admission(3, [4, 5, 6], 3, request.sampling)]

    def test_one_request_alone_gets_in_when_it_just_fits(self) -> None:
        it = scheduler(pages=layout().pages_needed(20))
        it.add(generate(1, num_prompt=19, max_tokens=1))
        spans_by_step = [spans(step(it)) for _ in range(3)]
        assert spans_by_step == [[(1, 0, 8), (1, 8, 4)], [(1, 12, 4)], [(1, 16, 3)]]
        assert not it.has_work

    @pytest.mark.parametrize(
        ("pages", "num_prompt", "admitted"),
        [(6, 4, [1, 2]), (5, 4, [1]), (5, 3, [1, 2]), (4, 3, [1])],
    )
    def test_pages_for_all_tokens_the_next_and_the_headroom_must_be_free(
        self, pages: int, num_prompt: int, admitted: list[int]
    ) -> None:
        assert HEADROOM_BLOCKS == 2
        it = scheduler(pages=pages, geometry=layout(chunked=0))
        it.add(generate(1, num_prompt=7, max_tokens=1))  # takes 2 pages
        it.add(generate(2, num_prompt=num_prompt, max_tokens=1))  # needs 2 or 1, and 2 to spare
        assert rids(step(it).admitted) == admitted

    def test_nobody_overtakes_the_head_of_the_line(self) -> None:
        it = scheduler(pages=6, geometry=layout(chunked=0))
        it.add(generate(1, num_prompt=4, max_tokens=3))
        it.add(generate(2, num_prompt=20, max_tokens=2))  # needs all 6 pages
        it.add(generate(3, num_prompt=1, max_tokens=1))
        assert [rids(step(it).admitted) for _ in range(6)] == [[1], [], [], [2], [], [3]]

    def test_a_request_that_can_never_fit_is_a_bug_of_the_caller(self) -> None:
        it = scheduler(pages=4)
        it.add(generate(1, num_prompt=6, max_tokens=2))
        with pytest.raises(AssertionError, match=r"2, 9"):
            it.add(generate(2, num_prompt=6, max_tokens=3))

    def test_a_rid_in_use_and_an_empty_prompt_are_bugs_of_the_caller(self) -> None:
        it = scheduler(seats=1)
        it.add(generate(1, num_prompt=1))
        step(it)
        it.add(generate(2, num_prompt=1))
        for rid in (1, 2):
            with pytest.raises(AssertionError):
                it.add(generate(rid, num_prompt=1))
        with pytest.raises(AssertionError):
            it.add(generate(3, num_prompt=0))


class TestPreemption:
    """Full layers only, blocks of 2: a request with n computed tokens holds ceil(n / 2) pages."""

    GEOMETRY = layout(block_len=2, chunk_len=100, chunked=0)

    def two_running(self, max_tokens: int = 10) -> Scheduler:
        """Requests 1 and 2 with 3 computed tokens, 2 pages each, and 2 free pages."""
        it = scheduler(pages=6, geometry=self.GEOMETRY)
        for rid in (1, 2):
            it.add(generate(rid, num_prompt=2, max_tokens=max_tokens))
        assert rids(step(it).admitted) == [1, 2]
        step(it)
        assert it.stats().pages_free == 2
        return it

    def test_the_youngest_gives_way_and_starts_over_with_its_tokens(self) -> None:
        it = self.two_running()
        step(it, token=8)
        step(it)  # 5 computed tokens, 3 pages each
        step(it)
        assert it.stats() == Stats(running=2, pages_owned=6, steps=5, computed_tokens=2 * 6)
        plan = step(it)
        assert spans(plan) == [(1, 6, 1)]
        assert plan.released == [2]
        assert it.stats() == Stats(
            running=1, waiting=1, pages_free=2, pages_owned=4, steps=6, preemptions=1,
            computed_tokens=13,
        )  # fmt: skip
        it.abort(1)
        plan = step(it)
        assert plan.released == [1]
        (admission,) = plan.admitted
        assert (admission.rid, admission.num_prompt) == (2, 2)
        assert admission.tokens == [1, 1, 7, 7, 8, 7, 7]
        assert spans(plan) == [(2, 0, 7)]
        assert it.stats().computed_tokens == 20

    def test_the_preempted_request_is_first_in_line(self) -> None:
        it = self.two_running()
        it.add(generate(3, num_prompt=1, max_tokens=1))
        while not it.stats().preemptions:
            step(it)
        it.abort(1)
        assert rids(step(it).admitted)[0] == 2

    def test_the_youngest_waits_with_its_pages(self) -> None:
        it = scheduler(pages=6, geometry=layout(block_len=4, chunk_len=100, chunked=0))
        it.add(generate(1, num_prompt=2, max_tokens=11))
        it.add(generate(2, num_prompt=4, max_tokens=20))
        for _ in range(9):
            step(it)  # then they hold 3 pages each, and only the second is at a block's end
        assert [spans(step(it)) for _ in range(3)] == [[(1, 10, 1)], [(1, 11, 1)], [(2, 12, 1)]]
        assert it.stats().preemptions == 0

    def test_pages_that_come_back_after_the_step_are_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("caravan.scheduling.scheduler.HEADROOM_BLOCKS", 0)
        it = scheduler(pages=4, geometry=layout(block_len=2, chunk_len=4, full=0))
        it.add(generate(1, num_prompt=3))
        it.add(generate(2, num_prompt=2))
        it.add(generate(3, num_prompt=1))
        assert rids(step(it).admitted) == [1, 2, 3]
        assert it.stats().pages_free == 0
        assert spans(step(it)) == [(1, 3, 1), (3, 1, 1)]  # the first one's chunk ends
        assert spans(step(it)) == [(1, 4, 1), (2, 2, 1)]
        assert it.stats().preemptions == 0

    def test_a_request_that_was_preempted_in_the_step_is_not_admitted_in_it(self) -> None:
        it = self.two_running()
        while not it.stats().preemptions:
            plan = step(it)
            assert not plan.admitted
        assert it.stats().waiting == 1

    def test_the_oldest_is_never_preempted_and_all_end(self) -> None:
        it = self.two_running(max_tokens=10)
        order = []
        while it.has_work:
            plan = planned(it)
            assert 1 in order or 1 not in plan.released
            deltas = it.update(plan, draw(plan))
            order += [delta.rid for delta in deltas if delta.finish]
        assert order == [1, 2]
        assert it.stats().pages_owned == 0


class TestUpdate:
    def test_one_delta_per_sampled_token(self) -> None:
        it = scheduler(budget=8)
        it.add(generate(1, num_prompt=2, max_tokens=2))
        it.add(generate(2, num_prompt=2, max_tokens=2, stop=(5,)))
        it.add(generate(3, num_prompt=9, max_tokens=2))
        plan = planned(it)
        logprobs = TokenLogprobs(-0.5, [(6, -0.5)])
        result = StepResult([Sampled(1, 6, logprobs), Sampled(2, 5)])
        assert it.update(plan, result) == [
            Delta(1, [6], [logprobs]),
            Delta(2, [5], finish="stop"),
        ]
        plan = planned(it)
        assert plan.released == [2]
        assert it.update(plan, draw(plan)) == [Delta(1, [7], finish="length"), Delta(3, [7])]

    def test_the_pages_of_a_finished_request_are_free_at_once(self) -> None:
        it = scheduler(pages=6)
        it.add(generate(1, num_prompt=5, max_tokens=1))
        step(it)
        assert it.stats() == Stats(pages_free=6, steps=1, computed_tokens=5)
        assert not it.has_work

    def test_released_ids_wait_for_the_next_plan(self) -> None:
        it = scheduler()
        it.add(generate(1, num_prompt=5, max_tokens=1))
        step(it)
        assert it.schedule() is None
        it.add(generate(2, num_prompt=1))
        assert step(it).released == [1]
        assert step(it).released == []

    def test_a_result_that_does_not_match_its_plan_is_a_bug(self) -> None:
        it = scheduler()
        it.add(generate(1, num_prompt=1))
        it.add(generate(2, num_prompt=1))
        plan = planned(it)
        for wrong in ([], [Sampled(1, 7)], [Sampled(2, 7), Sampled(1, 7)]):
            with pytest.raises(AssertionError):
                it.update(plan, StepResult(wrong))

    def test_a_plan_can_be_made_before_the_last_ones_update(self) -> None:
        it = scheduler(budget=6)
        it.add(generate(1, num_prompt=4))
        it.add(generate(2, num_prompt=8))
        first, second = planned(it), planned(it)
        assert spans(first) == [(1, 0, 4), (2, 0, 2)]
        assert spans(second) == [(2, 2, 6)]
        assert it.schedule() is None
        assert it.has_work
        assert it.update(first, draw(first, 3)) == [Delta(1, [3])]
        third = planned(it)
        assert spans(third) == [(1, 4, 1)]
        assert it.update(second, draw(second, 4)) == [Delta(2, [4])]


class TestAbort:
    def test_a_waiting_request_is_forgotten_and_the_worker_never_hears_of_it(self) -> None:
        it = scheduler(seats=1)
        for rid in (1, 2, 3):
            it.add(generate(rid, num_prompt=1, max_tokens=1))
        step(it)
        it.abort(2)
        plan = step(it)
        assert (rids(plan.admitted), plan.released) == ([3], [1])

    def test_the_pages_of_a_running_request_are_free_at_once(self) -> None:
        it = scheduler(pages=12)
        for rid in (1, 2):
            it.add(generate(rid, num_prompt=1))
        step(it)
        it.abort(1)
        it.check_invariants()
        assert (it.stats().running, it.stats().pages_owned) == (1, 2)
        assert step(it).released == [1]

    def test_a_result_that_comes_after_the_abort_is_ignored(self) -> None:
        it = scheduler()
        for rid in (1, 2):
            it.add(generate(rid, num_prompt=1))
        plan = planned(it)
        it.abort(1)
        assert it.update(plan, draw(plan)) == [Delta(2, [7])]
        plan = planned(it)
        assert (plan.released, spans(plan)) == ([1], [(2, 1, 1)])

    def test_a_preempted_request_can_be_aborted_and_is_released_once(self) -> None:
        geometry = layout(block_len=2, chunk_len=100, chunked=0)
        it = scheduler(pages=6, geometry=geometry)
        for rid in (1, 2):
            it.add(generate(rid, num_prompt=2, max_tokens=10))
        while not it.stats().preemptions:
            plan = step(it)
        assert plan.released == [2]
        it.abort(2)
        assert step(it).released == []
        assert it.stats().waiting == 0

    def test_unknown_and_ended_ids_are_ignored(self) -> None:
        it = scheduler()
        it.add(generate(1, num_prompt=1, max_tokens=1))
        step(it)
        it.abort(1)
        it.abort(1)
        it.abort(77)
        it.add(generate(2, num_prompt=1))
        assert step(it).released == [1]


def test_nothing_to_do_is_no_plan() -> None:
    it = scheduler(pages=3)
    assert not it.has_work
    assert it.schedule() is None
    assert it.stats() == Stats(pages_free=3)
    it.check_invariants()
