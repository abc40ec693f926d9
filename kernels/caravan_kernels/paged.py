"""What one kind of layer reads and writes in one step: page tables.

    S segments, T tokens (every segment's queries, one after another), L slices,
    N columns of the page tables

The context of a segment begins at the first slot of its first page: at the chunk's start in a
chunked layer, at position 0 in a full one. Chunked attention is therefore ordinary causal attention
with a shorter table, and nothing is split on the host.

A segment of one query may be padding: its context_len is 0, it reads nothing and its result is 0;
its slots are -1, which nothing is written to. Steps of one captured graph have all the same size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class DecodeTasks:
    """How the decode kernel divides the contexts of a step's first `num_decode` segments.

    Contexts are cut into tiles; program p of n takes the tiles [p * t / n, (p + 1) * t / n) of all
    t, whichever segments they belong to. `gpu.decode_tasks` makes it, once per step and kind.
    """

    tile_indptr: Tensor  # [num_decode + 1] int32: tiles before each segment
    first_segment: Tensor  # [n] int32: the segment of a program's first tile
    tile_len: int  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedSegments:
    """The segments of a step as one kind of layer sees them. Built once, shared by its layers."""

    num_decode: int  # so many segments come first and have one query each
    query_indptr: Tensor  # [S + 1] int32: segment s has the rows [s, s + 1) of the queries
    context_len: Tensor  # [S] int32: tokens that the segment's last query sees, itself included
    page_start: Tensor  # [S] int32: the column of pages_LN where segment s's table begins
    pages_LN: Tensor  # [L, N] int32: page ids, slice by slice
    slots_LT: Tensor  # [L, T] int64: page * block_len + offset where a token's K and V go, or -1
    decode_tasks: DecodeTasks | None = None  # GPUs only
    num_rows: Tensor | None = None  # [1] int32: from here on all is padding; None: nothing is

    @property
    def num_segments(self) -> int:
        """S."""
        return len(self.context_len)
