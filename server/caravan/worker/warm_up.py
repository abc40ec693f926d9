"""Steps for nobody, so that no user waits for what is compiled on first use."""

from __future__ import annotations

from itertools import count

from caravan.kv_layout import KVLayout, chunk_start
from caravan.messages import Admission, Sampling, Segment, StepPlan

_RID = -1  # requests of users count from 0


def warm_up_plans(layout: KVLayout, num_pages: int, longest: int) -> list[StepPlan]:
    """Prompts of rising length, up to `longest` tokens and the pages there are.

    The lengths are odd and even, between all powers of two: kernels are compiled for ranges of
    lengths and for multiples of 16.
    """
    lengths = [1, 2]
    while lengths[-1] < longest:
        lengths += [2 * lengths[-1] - 1, 2 * lengths[-1]]
    plans: list[StepPlan] = []
    for length in lengths:
        if length > longest:
            break
        segments = _segments(layout, length)
        used = sum(len(part.full_pages) + len(part.chunked_pages) for part in segments)
        if used > num_pages:
            break
        request = Admission(_RID, [0] * length, length, Sampling(max_tokens=1, temperature=0.0))
        plans.append(StepPlan(0, [_RID] if plans else [], [request], segments))
    return [*plans, StepPlan(0, [_RID], [], [])]


def _segments(layout: KVLayout, length: int) -> list[Segment]:
    """A prompt in one step, on the first pages of the arena."""
    pages, start = count(), 0
    segments = []
    while start < length:
        end = min(length, chunk_start(start, layout.chunk_len) + layout.chunk_len)
        full, chunked = (
            [next(pages) for _ in range(number)] for number in layout.new_pages(start, end - start)
        )
        segments.append(Segment(_RID, start, end - start, full, chunked, samples=end == length))
        start = end
    return sorted(segments, key=lambda segment: segment.length != 1)
