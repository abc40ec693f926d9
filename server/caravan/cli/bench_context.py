"""Requests that stand at a given context, without the prefill that would have brought them there.

The scheduler plans the prompts as always, and draws of its own plans are made up, until every
request decodes. None of these plans reaches the worker. It is then told of the requests as after a
preemption, with the tokens that they have, and the first decode step brings the pages of all tokens
before it. Their keys and values are what the pages hold: `fill_pages` makes that random.

From there on an engine decodes as ever, and what it reads and computes is what it would be after
real prompts, save for the values.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from caravan.errors import ConfigError
from caravan.kv_layout import KVLayout
from caravan.messages import (
    Admission,
    Generate,
    Sampled,
    Sampling,
    Segment,
    StepPlan,
    StepResult,
)
from caravan.scheduling.scheduler import HEADROOM_BLOCKS, Scheduler

if TYPE_CHECKING:
    from caravan.worker.runner import Runner  # loads torch

FILL_STEPS = 256  # plans that bring all requests to their contexts; one is enough inside a chunk


class HeldPages:
    """The pages of requests that the worker has not been told of."""

    def __init__(self, layout: KVLayout) -> None:
        self._layout = layout
        self._full: dict[int, list[int]] = {}
        self._chunked: dict[int, list[int]] = {}

    def take(self, segment: Segment) -> None:
        """Remembers a segment's new pages; those of a chunk that has ended are forgotten."""
        if segment.start % self._layout.chunk_len == 0:
            self._chunked[segment.rid] = []
        self._full.setdefault(segment.rid, []).extend(segment.full_pages)
        self._chunked.setdefault(segment.rid, []).extend(segment.chunked_pages)

    def hand_over(self, segment: Segment) -> Segment:
        """The same segment with all pages up to its end as new ones."""
        self.take(segment)
        return msgspec.structs.replace(
            segment,
            full_pages=self._full.pop(segment.rid),
            chunked_pages=self._chunked.pop(segment.rid),
        )

    def most_page(self) -> int:
        """The highest page id that is held; -1: none."""
        held = (*self._full.values(), *self._chunked.values())
        return max((max(pages, default=-1) for pages in held), default=-1)


class Standing:
    """Requests that an idle scheduler has brought to their contexts."""

    def __init__(self, scheduler: Scheduler, layout: KVLayout, vocab_size: int) -> None:
        self.pages = HeldPages(layout)
        self._scheduler = scheduler
        self._source = random.Random(0)
        self._words = range(vocab_size)
        self._tokens: dict[int, list[int]] = {}
        self._admissions: list[Admission] = []
        self._released: list[int] = []  # earlier requests that the worker still knows

    @property
    def tokens(self) -> Mapping[int, list[int]]:
        """Of each request; the last one is drawn, and not computed."""
        return self._tokens

    def fill(self, contexts: Sequence[int], max_tokens: int) -> None:
        """Brings a request to each context, of which the last token is drawn, or a bit further.

        Beyond a chunk requests take several plans, and the first to arrive draw on meanwhile.
        """
        sampling = Sampling(max_tokens=max_tokens + FILL_STEPS, temperature=0.0)
        base = time.monotonic_ns()  # rids never repeat in the life of a runner
        for i, context in enumerate(contexts):
            prompt = self._source.choices(self._words, k=context - 1)
            self._scheduler.add(Generate(base + i, prompt, sampling))
        preemptions = self._scheduler.stats().preemptions
        steps = 0
        while len(self._tokens) < len(contexts) or any(
            len(self._tokens[each.rid]) == each.num_prompt for each in self._admissions
        ):
            plan = self._scheduler.schedule()
            assert plan is not None, contexts
            self._note(plan)
            sampled = [Sampled(s.rid, self._draw(s.rid)) for s in plan.segments if s.samples]
            self._scheduler.update(plan, StepResult(sampled))
            steps += 1
            assert steps < FILL_STEPS, contexts
        assert self._scheduler.stats().preemptions == preemptions, contexts

    def first_plan(self) -> tuple[StepPlan, StepPlan]:
        """The scheduler's next plan, and what the worker is to run in its place."""
        plan = self._scheduler.schedule()
        assert plan is not None
        assert not plan.admitted, plan.admitted
        assert {segment.rid for segment in plan.segments} == set(self._tokens), plan.segments
        changed = msgspec.structs.replace(
            plan,
            released=self._released + plan.released,
            admitted=[
                msgspec.structs.replace(admission, tokens=self._tokens[admission.rid])
                for admission in self._admissions
            ],
            segments=[self.pages.hand_over(segment) for segment in plan.segments],
        )
        return plan, changed

    def _note(self, plan: StepPlan) -> None:
        self._released += plan.released
        self._admissions += plan.admitted
        for admission in plan.admitted:
            self._tokens[admission.rid] = list(admission.tokens)
        # a plan has segments of one token first, so those of one request may be out of order
        for segment in sorted(plan.segments, key=lambda segment: segment.start):
            self.pages.take(segment)

    def _draw(self, rid: int) -> int:
        token = self._source.choice(self._words)
        self._tokens[rid].append(token)
        return token


def spread(context: int, num_requests: int, chunk_len: int) -> list[int]:
    """Where requests stand so that together they read what requests at `context` do on average.

    Beyond a chunk the chunked layers see from one token to a whole chunk, so the requests are
    spread evenly over the chunk that ends at `context`.

    >>> spread(1024, 2, 8192), spread(16384, 2, 8192)
    ([1024, 1024], [10240, 14336])
    """
    if context <= chunk_len:
        return [context] * num_requests
    first = context - chunk_len
    return [first + chunk_len * (2 * i + 1) // (2 * num_requests) for i in range(num_requests)]


def missing_pages(layout: KVLayout, num_pages: int, ends: Sequence[int]) -> int:
    """Pages that requests of so many tokens would lack; at most 0 if there are enough."""
    room = max(layout.pages_needed(end + FILL_STEPS) - layout.pages_needed(end) for end in ends)
    headroom = len(ends) * HEADROOM_BLOCKS * layout.block_pages
    return sum(map(layout.pages_needed, ends)) + room + headroom - num_pages


def fill_pages(runner: Runner, num_pages: int) -> None:
    """Random keys and values in the first pages: what is read is neither NaN nor all zeros."""
    for cache in runner.caches:
        cache.k_PBKD[:num_pages].normal_()
        cache.v_PBKD[:num_pages].normal_()


def parse_context(text: str) -> int:
    """Tokens: 4096, 4K, 1M. Raises ConfigError.

    >>> [parse_context(text) for text in ("100", "8K", "1M")]
    [100, 8192, 1048576]
    """
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    factors = {"": 1, "K": 1 << 10, "M": 1 << 20}
    if not digits.isdigit() or unit not in factors:
        raise ConfigError(f"--context is {text}; it must be a number of tokens, as 4096, 4K or 1M")
    return int(digits) * factors[unit]
