"""Where the tokens of a step go in the pages: once per step and kind of layer.

    T tokens, S segments, L slices, N columns of the page tables

Grid      tiles of tokens x slices
Traffic   T * (8 + 4) + L * T * (4 + 8) bytes: nothing beside the layers' own, and one launch in
          place of a dozen
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_T = 256


@triton.jit(do_not_specialize=["num_tokens"])
def _token_slots(
    positions_ptr,
    segment_ptr,
    page_start_ptr,
    pages_ptr,
    slots_ptr,
    num_tokens,
    pages_stride,
    BLOCK_LEN: tl.constexpr,
    CHUNK_LEN: tl.constexpr,  # 0: no chunks
    BLOCK_T: tl.constexpr,
):
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    slice_index = tl.program_id(1).to(tl.int64)
    there = t < num_tokens
    position = tl.load(positions_ptr + t, mask=there, other=-1)
    shown = position >= 0
    inside = tl.maximum(position, 0)
    if CHUNK_LEN:
        inside = inside % CHUNK_LEN
    segment = tl.load(segment_ptr + t, mask=shown, other=0)
    start = tl.load(page_start_ptr + segment, mask=shown, other=0)
    column = start + inside // BLOCK_LEN
    page = tl.load(pages_ptr + slice_index * pages_stride + column, mask=shown, other=0)
    slot = page.to(tl.int64) * BLOCK_LEN + inside % BLOCK_LEN
    slot = tl.where(shown, slot, -1)
    tl.store(slots_ptr + slice_index * num_tokens + t, slot, mask=there)


def token_slots(
    positions_T: Tensor,
    segment_T: Tensor,
    page_start_S: Tensor,
    pages_LN: Tensor,
    *,
    block_len: int,
    chunk_len: int | None,
) -> Tensor:
    """As `reference.token_slots`."""
    num_slices, num_tokens = len(pages_LN), len(positions_T)
    slots_LT = torch.empty(num_slices, num_tokens, dtype=torch.int64, device=pages_LN.device)
    _token_slots[(triton.cdiv(num_tokens, BLOCK_T), num_slices)](
        positions_T,
        segment_T,
        page_start_S,
        pages_LN,
        slots_LT,
        num_tokens,
        pages_LN.stride(0),
        BLOCK_LEN=block_len,
        CHUNK_LEN=chunk_len or 0,
        BLOCK_T=BLOCK_T,
        num_warps=4,
    )
    return slots_LT
