"""What a worker keeps of each request: its tokens and its page tables.

Plans carry changes only, so these grow in place; a request's memory is bounded by what it holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Segment


class Growing:
    """An int32 array [rows, n] that grows along n in amortised constant time."""

    def __init__(self, rows: int, capacity: int = 64) -> None:
        self._memory = np.empty((rows, capacity), np.int32)
        self.length = 0

    @property
    def values(self) -> NDArray[np.int32]:
        """A view [rows, length]: valid until the next `extend`."""
        return self._memory[:, : self.length]

    def extend(self, columns: NDArray[np.int32]) -> None:
        """Appends [rows, m]."""
        end = self.length + columns.shape[1]
        if end > self._memory.shape[1]:
            grown = np.empty((len(self._memory), max(end, 2 * self._memory.shape[1])), np.int32)
            grown[:, : self.length] = self.values
            self._memory = grown
        self._memory[:, self.length : end] = columns
        self.length = end

    def clear(self) -> None:
        """Forgets the values, keeps the memory."""
        self.length = 0


class PageTable:
    """The pages of one request for one kind of layer: [slices, blocks]."""

    def __init__(self, slices: int) -> None:
        self._slices = slices
        self._pages = Growing(slices)

    @property
    def pages_LN(self) -> NDArray[np.int32]:
        """A view: valid until the next change."""
        return self._pages.values

    def append(self, pages: list[int]) -> None:
        """Adds blocks whose pages come block by block, and inside a block slice by slice."""
        if pages:
            self._pages.extend(np.array(pages, np.int32).reshape(-1, self._slices).T)

    def clear(self) -> None:
        """A new chunk: no blocks."""
        self._pages.clear()


class RequestState:
    """One admitted request."""

    def __init__(self, admission: Admission, layout: KVLayout) -> None:
        self._layout = layout
        self._tokens = Growing(1, capacity=len(admission.tokens) + 64)
        self._tokens.extend(np.array([admission.tokens], np.int32))
        self.full = PageTable(layout.full_slices)
        self.chunked = PageTable(layout.chunked_slices)

    def tokens(self, segment: Segment) -> NDArray[np.int32]:
        """The segment's token ids [length]."""
        return self._tokens.values[0, segment.start : segment.start + segment.length]

    def append_token(self, token: int) -> None:
        """The token that was drawn."""
        self._tokens.extend(np.array([[token]], np.int32))

    def take_pages(self, segment: Segment) -> None:
        """Extends the tables by the segment's new pages; a new chunk starts an empty table."""
        if segment.start % self._layout.chunk_len == 0:
            self.chunked.clear()
        self.chunked.append(segment.chunked_pages)
        self.full.append(segment.full_pages)
