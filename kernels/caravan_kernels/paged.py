"""What one kind of layer reads and writes in one step: ragged page tables.

    S segments, T tokens (every segment's queries, one after another), L slices, N pages

The context of a segment begins at the first slot of its first page: at the chunk's start in a
chunked layer, at position 0 in a full one. Chunked attention is therefore ordinary causal attention
with a shorter table, and nothing is split on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedSegments:
    """The segments of a step as one kind of layer sees them. Built once, shared by its layers."""

    num_decode: int  # so many segments come first and have one query each
    query_indptr: Tensor  # [S + 1] int32: segment s has the rows [s, s + 1) of the queries
    context_len: Tensor  # [S] int32: tokens that the segment's last query sees, itself included
    page_indptr: Tensor  # [S + 1] int32: segment s reads the pages [s, s + 1)
    pages_LN: Tensor  # [L, N] int32: page ids, slice by slice
    slots_LT: Tensor  # [L, T] int64: page * block_len + offset where a token's K and V go

    @property
    def num_segments(self) -> int:
        """S."""
        return len(self.context_len)
