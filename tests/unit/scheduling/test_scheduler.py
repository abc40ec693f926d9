"""What a step is made of: segments, pages, order and admission; numbers to follow by hand."""

from __future__ import annotations

import pytest

from caravan.messages import Admission, Generate, Sampling, Stats
from caravan.scheduling.scheduler import HEADROOM_BLOCKS
from unit.scheduling.stepping import generate, layout, planned, rids, scheduler, spans, step


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


def test_nothing_to_do_is_no_plan() -> None:
    it = scheduler(pages=3)
    assert not it.has_work
    assert it.schedule() is None
    assert it.stats() == Stats(pages_free=3)
    it.check_invariants()
