"""One step while it is being planned."""

from __future__ import annotations

from caravan.messages import Admission, Segment
from caravan.scheduling.request import Request


class StepDraft:
    """The segments and admissions of a step, and how many tokens still fit it."""

    __slots__ = ("_segments", "admitted", "budget", "chunk_ends")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.admitted: list[Admission] = []
        self.chunk_ends: list[Request] = []  # their chunked pages come back after the step
        self._segments: list[Segment] = []

    def advance(self, request: Request) -> bool:
        """Plans as many of the request's tokens as the budget and the free pages allow.

        False: the pages ended first.
        """
        while wanted := min(self.budget, request.num_missing):
            length = request.tables.room(wanted)
            if not length:
                return False
            self._add(request, length)
        return True

    def segments(self) -> list[Segment]:
        """All segments: those of one token first, otherwise in the order they were planned."""
        return sorted(self._segments, key=lambda segment: segment.length != 1)

    def _add(self, request: Request, length: int) -> None:
        """Plans one segment, inside a chunk, and takes its pages."""
        start = request.num_computed
        full_pages, chunked_pages = request.tables.grow(length)
        samples = start + length == len(request.tokens)
        segment = Segment(request.rid, start, length, full_pages, chunked_pages, samples)
        self._segments.append(segment)
        self.budget -= length
        if request.tables.chunk_ended:
            self.chunk_ends.append(request)
