"""How many pages a request's keys and values take: arithmetic only.

A *block* holds `block_len` tokens' keys and values for all layers of one kind. The layers of both
kinds are cut into *slices* of equally many layers; a *page* holds one block of one slice, so all
pages have the same bytes and one arena serves both kinds.

    kind      layers          a token at position p reads     blocks kept per request
    chunked   RoPE, 3 of 4    [p - p % chunk_len, p]          the current chunk's
    full      NoPE, 1 of 4    [0, p]                          all
"""

from __future__ import annotations

from dataclasses import dataclass


def chunk_start(position: int, chunk_len: int) -> int:
    """First position a chunked layer still reads when it computes `position`.

    >>> [chunk_start(p, chunk_len=8) for p in (0, 7, 8, 13)]
    [0, 0, 8, 8]
    """
    return position - position % chunk_len


@dataclass(frozen=True, kw_only=True, slots=True)
class KVLayout:
    """The cache geometry of one model under one block length."""

    block_len: int  # tokens in a block
    chunk_len: int  # tokens in a chunk; the whole context if the model has no chunks
    full_slices: int  # pages in one full block; 0 if no layer is full
    chunked_slices: int  # pages in one chunked block; 0 if no layer is chunked
    slice_layers: int  # layers in a slice
    page_bytes: int  # on one rank

    def __post_init__(self) -> None:
        assert self.block_len > 0, self
        assert self.chunk_len > 0, self
        assert self.full_slices + self.chunked_slices > 0, self

    @property
    def block_pages(self) -> int:
        """Pages of one full and one chunked block together."""
        return self.full_slices + self.chunked_slices

    def blocks(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_len)

    def chunked_tokens(self, length: int) -> int:
        """Tokens of the current chunk when a request's last computed token is `length - 1`.

        >>> layout = KVLayout(block_len=2, chunk_len=8, full_slices=1, chunked_slices=3,
        ...                   slice_layers=1, page_bytes=1)
        >>> [layout.chunked_tokens(n) for n in (0, 1, 8, 9, 16)]
        [0, 1, 8, 1, 8]
        """
        return (length - 1) % self.chunk_len + 1 if length else 0

    def pages_held(self, length: int) -> int:
        """Pages that a request holds while its token `length - 1` is computed."""
        full = self.blocks(length) * self.full_slices
        return full + self.blocks(self.chunked_tokens(length)) * self.chunked_slices

    def pages_kept(self, length: int) -> tuple[int, int]:
        """Full and chunked pages that hold the first `length` tokens between two steps."""
        full = self.blocks(length) * self.full_slices
        return full, self.blocks(length % self.chunk_len) * self.chunked_slices

    def pages_needed(self, length: int) -> int:
        """Most pages that a request holds on its way to `length` tokens, one token at a time."""
        full = self.blocks(length) * self.full_slices
        return full + self.blocks(min(length, self.chunk_len)) * self.chunked_slices

    def new_pages(self, start: int, length: int) -> tuple[int, int]:
        """Full and chunked pages that tokens [start, start + length) add to those of [0, start).

        All of them lie in one chunk. If they start it, its chunked table starts empty.

        >>> layout = KVLayout(block_len=4, chunk_len=6, full_slices=1, chunked_slices=3,
        ...                   slice_layers=1, page_bytes=1)
        >>> [layout.new_pages(start, 1) for start in (0, 1, 4, 6, 8)]
        [(1, 3), (0, 0), (1, 3), (0, 3), (1, 0)]
        """
        full = self.blocks(start + length) - self.blocks(start)
        offset = start % self.chunk_len
        chunked = self.blocks(offset + length) - self.blocks(offset)
        return full * self.full_slices, chunked * self.chunked_slices

    def open_slots(self, length: int) -> int:
        """Tokens of the current chunk that follow the first `length` without a new page.

        >>> layout = KVLayout(block_len=4, chunk_len=6, full_slices=1, chunked_slices=3,
        ...                   slice_layers=1, page_bytes=1)
        >>> [layout.open_slots(length) for length in (0, 1, 4, 5, 6, 7, 8)]
        [0, 3, 0, 1, 0, 1, 0]
        """
        offset = length % self.chunk_len
        block_len = self.block_len
        return min(-length % block_len, -offset % block_len, self.chunk_len - offset)

    def whole_blocks(self, length: int) -> int:
        """Most of the first `length` tokens that end with a whole block of either kind.

        >>> layout = KVLayout(block_len=4, chunk_len=6, full_slices=1, chunked_slices=3,
        ...                   slice_layers=1, page_bytes=1)
        >>> [layout.whole_blocks(length) for length in (3, 4, 9, 11, 12)]
        [0, 4, 4, 4, 12]
        """
        end = length - length % self.block_len
        while end % self.chunk_len % self.block_len:
            end -= self.block_len
        return end

    def longest_context(self, num_pages: int, limit: int) -> int:
        """Most tokens, up to `limit`, that one request alone can have in `num_pages` pages."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.pages_needed(middle) <= num_pages:
                low = middle
            else:
                high = middle - 1
        return low
