"""How a step's decode attention is divided: the partition that `decode_attention` walks.

    S segments of one query each, n programs for every kv head

Contexts are cut into tiles of equal length and the tiles of all segments stand in one line. Of t
tiles, program p takes [p * t / n, (p + 1) * t / n), whichever segments they belong to: no program
does more than one tile more than another, at any mix of lengths. With fewer tiles than programs, n
is t: one tile each, and the last programs have nothing to do.

Shapes    context_len [S] int32 -> tile_indptr [S + 1] int32, first_segment [n] int32
Grid      n / 8 programs; each sums the S lengths itself, so none waits for another
Traffic   a few KB: the time is that of a launch. Once per step and kind, shared by its layers

n depends on the GPU and on launch parameters only, so graphs capture it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu import tuning
from caravan_kernels.paged import DecodeTasks

_BLOCK_P = 8  # programs whose first segment one program finds


def tile_len(num_segments: int, num_kv_heads: int) -> int:
    """Tokens of a tile."""
    length: int = _launch(num_segments, num_kv_heads)["TILE"]
    return length


def num_programs(num_segments: int, num_kv_heads: int) -> int:
    """n: together, the programs of all kv heads fill the GPU once."""
    programs_per_sm: int = _launch(num_segments, num_kv_heads)["programs_per_sm"]
    return max(1, programs_per_sm * tuning.num_sms() // num_kv_heads)


def _launch(num_segments: int, num_kv_heads: int) -> tuning.Launch:
    return tuning.launch_parameters("decode_tasks", segments=num_segments, kv_heads=num_kv_heads)


@triton.jit
def active_programs(num_programs, num_tiles):
    """How many programs have tiles: the first so many."""
    return tl.minimum(num_programs, num_tiles)


@triton.jit
def first_tile(p, num_active, num_tiles):
    """Where program p of those active begins and its predecessor ends."""
    # int64: 400 programs times the tiles of 400M tokens pass 2^31
    return (p.to(tl.int64) * num_tiles // num_active).to(tl.int32)


@triton.jit
def tile_program(tile, num_active, num_tiles):
    """The program whose range holds the tile: the largest p with p * t / n <= tile."""
    return (((tile.to(tl.int64) + 1) * num_active - 1) // num_tiles).to(tl.int32)


@triton.jit(do_not_specialize=["num_segments"], do_not_specialize_on_alignment=["context_len_ptr"])
def _plan_kernel(
    context_len_ptr,
    tile_indptr_ptr,
    first_segment_ptr,
    num_segments,
    num_programs,
    TILE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    s = tl.arange(0, BLOCK_S)
    context_len_S = tl.load(context_len_ptr + s, mask=s < num_segments, other=0)
    ends_S = tl.cumsum((context_len_S + TILE - 1) // TILE, 0)
    num_tiles = tl.max(ends_S, 0)
    if tl.program_id(0) == 0:
        tl.store(tile_indptr_ptr, 0)
        tl.store(tile_indptr_ptr + 1 + s, ends_S, mask=s < num_segments)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    active = tl.maximum(active_programs(num_programs, num_tiles), 1)
    begin_P = first_tile(p, active, num_tiles)
    first_P = tl.sum((ends_S[None, :] <= begin_P[:, None]).to(tl.int32), 1)
    tl.store(first_segment_ptr + p, first_P, mask=p < num_programs)


def plan_decode(context_len_S: Tensor, num_kv_heads: int) -> DecodeTasks:
    """The tasks of decode segments with these contexts; padding has a context of 0."""
    num_segments = len(context_len_S)
    programs, tile = num_programs(num_segments, num_kv_heads), tile_len(num_segments, num_kv_heads)
    assert context_len_S.dtype == torch.int32
    assert context_len_S.is_contiguous()
    tile_indptr = context_len_S.new_empty(num_segments + 1)
    first_segment = context_len_S.new_empty(programs)
    _plan_kernel[(triton.cdiv(programs, _BLOCK_P),)](
        context_len_S,
        tile_indptr,
        first_segment,
        num_segments,
        programs,
        TILE=tile,
        BLOCK_S=triton.next_power_of_2(max(num_segments, 1)),
        BLOCK_P=_BLOCK_P,
        num_warps=8,
    )
    return DecodeTasks(tile_indptr, first_segment, tile)
