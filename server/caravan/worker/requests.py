"""What a worker keeps of each request: its seat, its prompt's tokens, its page tables.

Plans carry changes only, so the tables grow in place. Tokens that were drawn since the admission
are on the device, the last one of each seat.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Segment
from caravan.worker.staging import Staging
from caravan.worker.table_store import Extent, TableStore

DRAWN = -1  # in place of a token id: the last token of the request's seat
_DRAWN_ONLY = np.array([DRAWN])


class RequestState:
    """One admitted request."""

    def __init__(self, admission: Admission, seat: int, full: Extent, chunked: Extent) -> None:
        self.seat = seat
        self.full = full
        self.chunked = chunked
        self.prompt_logprobs = admission.sampling.prompt_logprobs
        self._num_prompt = admission.num_prompt
        self._tokens = np.array(admission.tokens, np.int64)

    def tokens(self, segment: Segment) -> NDArray[np.int64]:
        """The segment's token ids [length]; DRAWN behind those it was admitted with."""
        if segment.start >= len(self._tokens):
            assert segment.length == 1, segment
            return _DRAWN_ONLY
        return self._tokens[segment.start : segment.start + segment.length]

    def prompt_tokens(self, start: int, end: int) -> NDArray[np.int64]:
        """The prompt's token ids at the positions [start, end), as far as it goes."""
        return self._tokens[start : min(end, self._num_prompt)]


class Requests:
    """All admitted requests, and the page tables of both kinds of layer."""

    def __init__(
        self, layout: KVLayout, num_pages: int, num_seats: int, device: torch.device
    ) -> None:
        self._layout = layout
        self._by_rid: dict[int, RequestState] = {}
        self._free_seats = list(reversed(range(num_seats)))
        # A request's chunked table outlives its pages until the next chunk begins.
        chunk_blocks = min(layout.blocks(layout.chunk_len), num_pages)
        full, chunked = (
            num_pages // slices if slices else 0
            for slices in (layout.full_slices, layout.chunked_slices)
        )
        self.full = TableStore(layout.full_slices, full, num_seats, device)
        self.chunked = TableStore(
            layout.chunked_slices, chunked + num_seats * chunk_blocks, num_seats, device
        )

    def __getitem__(self, rid: int) -> RequestState:
        return self._by_rid[rid]

    def admit(self, admission: Admission) -> RequestState:
        """Gives a request a seat and empty tables."""
        assert admission.rid not in self._by_rid, admission.rid
        state = RequestState(
            admission, self._free_seats.pop(), self.full.open(), self.chunked.open()
        )
        self._by_rid[admission.rid] = state
        return state

    def release(self, rid: int) -> int:
        """Forgets a request; the seat that is free now."""
        state = self._by_rid.pop(rid)
        self.full.close(state.full)
        self.chunked.close(state.chunked)
        self._free_seats.append(state.seat)
        return state.seat

    def take_pages(self, segment: Segment) -> None:
        """Extends the request's tables by the segment's new pages.

        A new chunk has a table of its own: the last chunk's may be read in the same step.
        """
        state = self._by_rid[segment.rid]
        if segment.start % self._layout.chunk_len == 0 and state.chunked.length:
            self.chunked.close(state.chunked)
            state.chunked = self.chunked.open()
        self.chunked.append(state.chunked, segment.chunked_pages)
        self.full.append(state.full, segment.full_pages)

    def send_tables(self, staging: Staging) -> None:
        """Brings the device's tables up to date."""
        self.full.send_changes(staging)
        self.chunked.send_changes(staging)
