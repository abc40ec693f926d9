"""How a request leaves: finished, aborted or preempted; numbers to follow by hand."""

from __future__ import annotations

import pytest

from caravan.messages import Delta, Sampled, Stats, StepResult, TokenLogprobs
from caravan.scheduling.scheduler import Scheduler
from unit.scheduling.stepping import draw, generate, layout, planned, rids, scheduler, spans, step


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
        first, second, third = planned(it), planned(it), planned(it)
        assert spans(first) == [(1, 0, 4), (2, 0, 2)]
        assert spans(second) == [(1, 4, 1), (2, 2, 5)]
        assert spans(third) == [(1, 5, 1), (2, 7, 1)]
        assert it.update(first, draw(first, 3)) == [Delta(1, [3])]
        assert it.update(second, draw(second, 4)) == [Delta(1, [4])]
        assert it.update(third, draw(third, 5)) == [Delta(1, [5]), Delta(2, [5])]

    def test_nothing_is_planned_ahead_of_a_last_token(self) -> None:
        it = scheduler()
        it.add(generate(1, num_prompt=4, max_tokens=2))
        first, second = planned(it), planned(it)
        assert spans(second) == [(1, 4, 1)]
        assert it.schedule() is None
        assert it.has_work
        assert it.update(first, draw(first)) == [Delta(1, [7])]
        assert it.schedule() is None
        assert it.update(second, draw(second)) == [Delta(1, [7], finish="length")]
        assert not it.has_work

    def test_what_was_planned_behind_a_stop_is_ignored(self) -> None:
        it = scheduler(pages=8)
        it.add(generate(1, num_prompt=4, stop=(5,)))
        first, second = planned(it), planned(it)
        assert it.update(first, draw(first, 5)) == [Delta(1, [5], finish="stop")]
        it.check_invariants()
        assert it.stats().pages_free == 8
        assert it.update(second, draw(second)) == []
        assert not it.has_work

    def test_a_token_drawn_before_a_preemption_is_drawn_again(self) -> None:
        """Request 2 is preempted and admitted again while a step that drew its token is out."""
        it = scheduler(pages=8, geometry=layout(block_len=2, chunk_len=100, chunked=0))
        for rid in (1, 2):
            it.add(generate(rid, num_prompt=2, max_tokens=9))
        plans = [planned(it)]
        while not it.stats().preemptions:
            plans.append(planned(it))
        assert plans[-1].released == [2]
        it.abort(1)
        again = planned(it)
        assert rids(again.admitted) == [2]
        assert again.admitted[0].tokens == [1, 1]
        for plan in plans:
            assert [delta.rid for delta in it.update(plan, draw(plan))] == []
        assert it.update(again, draw(again)) == [Delta(2, [7])]


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
