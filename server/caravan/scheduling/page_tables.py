"""One request's pages: the full table, the current chunk's table, and what leaves after the step.

With block_len 4 and chunk_len 8, one full and one chunked slice, a step that computes tokens
[6, 18) of a request touches three chunks; every number is a token's position:

    tokens    | 0 1 2 3   4 5 6 7 | 8 9 10 11  12 13 14 15 | 16 17
    full      | page      page    | page       page        | page       kept
    chunked   | page      page    | page       page        |            ended: free after the step
                                                           | page       current chunk

A request can share the pages of another's first tokens if both have the same there: whole blocks,
which neither of them will write again.

Inside a step all of these pages are live: the keys and values of all its segments are written
before attention reads. The steps run in order, so a page that is free after a step was planned can
be written by the next one, whether or not the first has run.
"""

from __future__ import annotations

from bisect import bisect_right

from caravan.kv_layout import KVLayout, chunk_start
from caravan.scheduling.page_pool import PagePool


class PageTables:
    """The pages that hold a request's first `num_tokens` tokens."""

    __slots__ = (
        "_adopted",
        "_chunked",
        "_ended",
        "_full",
        "_layout",
        "_open",
        "_pool",
        "num_tokens",
    )

    def __init__(self, layout: KVLayout, pool: PagePool) -> None:
        self._layout = layout
        self._pool = pool
        self._full: list[int] = []
        self._chunked: list[int] = []
        self._ended: list[int] = []
        self._open = 0  # tokens that follow without a new page, inside the chunk
        self._adopted: tuple[list[int], list[int]] = [], []  # full and chunked, not planned yet
        self.num_tokens = 0

    @property
    def chunk_ended(self) -> bool:
        """Whether the step being planned computes a chunk's last token."""
        return bool(self._ended)

    def shareable(self, limit: int) -> int:
        """How many of the first `limit` tokens another request can share.

        Pages of an ended chunk are gone, so if the last block lies in one, sharing ends where that
        chunk begins: there no chunked page is needed.
        """
        layout = self._layout
        length = layout.whole_blocks(min(limit, self.num_tokens))
        start = chunk_start(length, layout.chunk_len)
        if length == start or start == chunk_start(self.num_tokens, layout.chunk_len):
            return length
        return start if start % layout.block_len == 0 else 0

    def adopt(self, other: PageTables, length: int) -> None:
        """Begins with the pages of another's first `length` tokens, which it finds shareable."""
        assert not self.num_tokens, self.num_tokens
        num_full, num_chunked = self._layout.pages_kept(length)
        self._full = other._full[:num_full]
        self._chunked = other._chunked[:num_chunked]
        self._pool.share(self._full + self._chunked)
        self._adopted = list(self._full), list(self._chunked)
        self.num_tokens = length

    def room(self, wanted: int) -> int:
        """How many of the next `wanted` tokens the current chunk and the free pages take."""
        if wanted <= self._open:
            return wanted
        layout = self._layout
        wanted = min(wanted, layout.chunk_len - self.num_tokens % layout.chunk_len)
        free = self._pool.num_free
        if self._new_pages(wanted) <= free:
            return wanted
        return bisect_right(range(1, wanted + 1), free, key=self._new_pages)

    def grow(self, length: int) -> tuple[list[int], list[int]]:
        """Takes the new full and chunked pages of the next `length` tokens, which `room` allows.

        After `adopt`, adopted pages are new, too: whoever computes has not heard of them.
        """
        if length < self._open:
            self._open -= length
            self.num_tokens += length
            return [], []
        num_full, num_chunked = self._layout.new_pages(self.num_tokens, length)
        full = self._pool.allocate(num_full) if num_full else []
        chunked = self._pool.allocate(num_chunked) if num_chunked else []
        self._full += full
        self._chunked += chunked
        self.num_tokens += length
        if self.num_tokens % self._layout.chunk_len == 0:
            self._ended += self._chunked
            self._chunked = []
        self._open = self._layout.open_slots(self.num_tokens)
        adopted_full, adopted_chunked = self._adopted
        self._adopted = [], []
        return adopted_full + full, adopted_chunked + chunked

    def free_ended(self) -> None:
        """Gives back the pages of the chunks that ended in the step."""
        self._pool.free(self._ended)
        self._ended = []

    def clear(self) -> None:
        """Gives back all pages; no token is held any more."""
        self._pool.free(self._full + self._chunked + self._ended)
        self._full, self._chunked, self._ended = [], [], []
        self._adopted = [], []
        self._open = 0
        self.num_tokens = 0

    def pages(self) -> list[int]:
        """All pages, between two steps; asserts that there are as many as the tokens need."""
        expected = self._layout.pages_kept(self.num_tokens)
        assert (len(self._full), len(self._chunked)) == expected, (self.num_tokens, self)
        assert not self._ended, (self.num_tokens, self._ended)
        return self._full + self._chunked

    def _new_pages(self, length: int) -> int:
        """Pages that `grow(length)` takes."""
        return sum(self._layout.new_pages(self.num_tokens, length))
