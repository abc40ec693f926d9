"""Requests with one prompt, requests with priorities, and what is told about prompts."""

from __future__ import annotations

import msgspec
import pytest

from caravan.messages import Generate, Scored, StepResult, TokenLogprobs
from caravan.scheduling.scheduler import Scheduler
from unit.scheduling.stepping import draw, generate, layout, planned, rids, scheduler, spans, step


def grouped(rid: int, num_prompt: int, group: int = 1, max_tokens: int = 4) -> Generate:
    return msgspec.structs.replace(generate(rid, num_prompt, max_tokens), group=group)


def ranked(rid: int, priority: int, num_prompt: int = 4) -> Generate:
    return msgspec.structs.replace(generate(rid, num_prompt), priority=priority)


class TestGroups:
    """Blocks of 4, chunks of 8."""

    def test_a_prompt_is_computed_once_up_to_its_last_whole_block(self) -> None:
        it = scheduler()
        for rid in (1, 2, 3):
            it.add(grouped(rid, num_prompt=7))
        plan = step(it)
        assert spans(plan) == [(1, 0, 7), (2, 4, 3), (3, 4, 3)]
        first, second, third = plan.segments
        assert second.full_pages[0] == third.full_pages[0] == first.full_pages[0]
        assert second.chunked_pages[0] == third.chunked_pages[0] == first.chunked_pages[0]
        own = {first.full_pages[1], second.full_pages[1], third.full_pages[1]}
        assert len(own) == 3
        assert it.stats().pages_owned == 2 + 2 * 3

    def test_the_last_token_of_a_prompt_is_always_computed(self) -> None:
        it = scheduler()
        for rid in (1, 2):
            it.add(grouped(rid, num_prompt=12))
        assert spans(step(it)) == [(1, 0, 8), (1, 8, 4), (2, 8, 4)]

    def test_a_chunk_that_ended_is_not_shared(self) -> None:
        """The first prompt ends with its chunk, whose pages go back: the second starts with it."""
        it = scheduler()
        for rid in (1, 2):
            it.add(grouped(rid, num_prompt=16))
        assert spans(step(it)) == [(1, 0, 8), (1, 8, 8), (2, 8, 8)]

    def test_pages_stay_while_somebody_shares_them(self) -> None:
        it = scheduler()
        for rid in (1, 2):
            it.add(grouped(rid, num_prompt=6))
        step(it)
        it.abort(1)
        it.check_invariants()
        assert it.stats().pages_owned == 2 + 2
        it.abort(2)
        assert it.stats().pages_owned == 0

    def test_who_is_told_how_many_tokens_were_there(self) -> None:
        it = scheduler()
        for rid in (1, 2):
            it.add(grouped(rid, num_prompt=6))
        plan = planned(it)
        assert [delta.cached_tokens for delta in it.update(plan, draw(plan))] == [0, 4]

    @pytest.mark.parametrize("group", [2, None])
    def test_strangers_share_nothing(self, group: int | None) -> None:
        it = scheduler()
        it.add(grouped(1, num_prompt=6))
        it.add(msgspec.structs.replace(generate(2, num_prompt=6), group=group))
        assert spans(step(it)) == [(1, 0, 6), (2, 0, 6)]

    def test_an_admission_counts_the_pages_that_it_needs_itself(self) -> None:
        """Full layers only: 5 blocks each, 4 of them shared, and 2 of headroom."""
        geometry = layout(block_len=2, chunk_len=100, chunked=0)
        it = scheduler(pages=5 + 1 + 1 + 2, geometry=geometry)
        for rid in (1, 2):
            it.add(grouped(rid, num_prompt=9, max_tokens=1))
        assert rids(step(it).admitted) == [1, 2]


class TestPriority:
    def test_lower_numbers_are_admitted_first_and_equals_by_age(self) -> None:
        it = scheduler(seats=1)
        for rid, priority in ((1, 0), (2, 2), (3, 1), (4, 0), (5, 1)):
            it.add(ranked(rid, priority))
        order = []
        while it.has_work:
            order += rids(step(it).admitted)
        assert order == [1, 4, 3, 5, 2]

    def test_the_last_in_the_order_is_preempted_whenever_it_came(self) -> None:
        """Full layers only, blocks of 2."""
        it = scheduler(pages=6, geometry=layout(block_len=2, chunk_len=100, chunked=0))
        it.add(msgspec.structs.replace(generate(1, 2, max_tokens=9), priority=1))
        step(it)
        it.add(msgspec.structs.replace(generate(2, 2, max_tokens=9), priority=0))
        released: list[int] = []
        while it.has_work and not released:
            released = step(it).released
        assert released == [1]
        it.check_invariants()


class TestPromptLogprobs:
    def entries(self, count: int, value: float = -1.0) -> list[TokenLogprobs]:
        return [TokenLogprobs(value, [])] * count

    def scored(self, it: Scheduler, rid: int, start: int, count: int) -> list[int]:
        """How many entries each delta of a step tells, of those that the worker sends."""
        plan = planned(it)
        result = StepResult(draw(plan).sampled, [Scored(rid, start, self.entries(count))])
        return [len(delta.prompt_logprobs or []) for delta in it.update(plan, result)]

    def test_they_come_with_the_step_that_computes_them(self) -> None:
        it = scheduler(budget=4)
        it.add(generate(1, num_prompt=6))
        assert self.scored(it, 1, start=1, count=4) == [4]
        assert self.scored(it, 1, start=5, count=1) == [1, 0]  # and the first token

    def test_after_a_preemption_only_news_are_told(self) -> None:
        it = scheduler(budget=4)
        it.add(generate(1, num_prompt=6))
        assert self.scored(it, 1, start=1, count=4) == [4]
        assert self.scored(it, 1, start=1, count=4) == [0]
        assert self.scored(it, 1, start=3, count=3) == [1, 0]

    def test_of_a_request_that_left_nothing_is_told(self) -> None:
        it = scheduler(budget=4)
        it.add(generate(1, num_prompt=6))
        plan = planned(it)
        it.abort(1)
        assert it.update(plan, StepResult([], [Scored(1, 1, self.entries(4))])) == []
