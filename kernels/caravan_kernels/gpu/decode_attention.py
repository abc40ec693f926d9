"""Attention of segments with one query each over paged keys and values.

    out = softmax(q k^T / sqrt(D)) v over the first context_len tokens of a segment's pages;
    padding, with a context of 0, becomes 0

    S segments, H query heads, K kv heads, G = H / K, D head dim, P pages, B block_len,
    n programs per kv head, L slices, N page table entries

Shapes    q [S, H, D], k and v [P, B, K, D] -> out [S, H, D]
Numerics  scores, softmax (base 2) and sums in fp32, weights rounded to v's dtype for the product
Grid      attend: (K, n), the partition of `decode_tasks`; reduce: (S, H, D / BLOCK_D)
Traffic   2 * sum of contexts * K * D * itemsize bytes; FLOPs are below a tenth of what the tensor
          cores do meanwhile, padding of the group to 16 rows included

A program walks its tiles, segment by segment. A segment that lies in one program is finished
there. Of any other, each program leaves an unnormalised partial result with its maximum and sum in
a slot, and the second kernel adds them up. Program p's slot of segment s is p + s: from one
(program, segment) to the next at least one of the two grows and none shrinks, so slots are never
shared, those of a segment lie side by side, and n + S - 1 of them are enough.

The G query heads of a kv head are the rows of one product, so keys and values are read once. Page
ids are loaded one tile ahead: a tile's loads can be issued without waiting for a table. Kv heads
are the fast axis of the grid: of few tiles, each begins on an SM of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu import tuning
from caravan_kernels.gpu.decode_tasks import active_programs, first_tile, tile_program
from caravan_kernels.gpu.online_softmax import base2_scale, fold_scores
from caravan_kernels.paged import DecodeTasks, PagedSegments

_MIN_ROWS = 16  # of a tensor core's product


@triton.jit(
    do_not_specialize=["first_page", "num_segments"],
    do_not_specialize_on_alignment=["pages_ptr", "context_len_ptr", "page_start_ptr"],
)
def _attend_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    pages_ptr,
    context_len_ptr,
    page_start_ptr,
    tile_indptr_ptr,
    first_segment_ptr,
    out_ptr,
    partial_out_ptr,
    partial_max_sum_ptr,
    q_stride_s,
    q_stride_h,
    out_stride_s,
    out_stride_h,
    page_stride,
    token_stride,
    head_stride,
    first_page,
    num_segments,
    num_programs,
    scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    kv_head, p = tl.program_id(0), tl.program_id(1)
    s = tl.load(first_segment_ptr + p)
    num_tiles = tl.load(tile_indptr_ptr + num_segments)
    active = active_programs(num_programs, num_tiles)
    if p >= active:
        return
    begin, end = first_tile(p, active, num_tiles), first_tile(p + 1, active, num_tiles)

    g, d = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    head_G = kv_head * GROUP + g
    in_group = g < GROUP
    in_head = (d < HEAD_DIM)[None, :]
    k_D = k_ptr + kv_head * head_stride + d
    v_D = v_ptr + kv_head * head_stride + d
    tile = begin
    while tile < end:
        segment_begin = tl.load(tile_indptr_ptr + s)
        segment_end = tl.load(tile_indptr_ptr + s + 1)
        context_len = tl.load(context_len_ptr + s)
        table_ptr = pages_ptr + first_page + tl.load(page_start_ptr + s)
        stop = tl.minimum(segment_end, end)
        if tile < stop:  # not padding
            q_GD = tl.load(
                q_ptr + s.to(tl.int64) * q_stride_s + head_G[:, None] * q_stride_h + d[None, :],
                mask=in_group[:, None] & in_head,
                other=0.0,
            )
            out_GD = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
            best_G = tl.full([BLOCK_G], float("-inf"), tl.float32)
            total_G = tl.zeros([BLOCK_G], tl.float32)
            keys = (tile - segment_begin) * TILE + tl.arange(0, TILE)
            page = tl.load(table_ptr + keys // BLOCK_LEN, mask=keys < context_len, other=0)
            for _ in tl.range(tile, stop):
                in_context = keys < context_len
                slot = page.to(tl.int64) * page_stride + (keys % BLOCK_LEN) * token_stride
                mask = in_context[:, None] & in_head  # what lies past the context may be NaN
                k_ND = tl.load(k_D[None, :] + slot[:, None], mask=mask, other=0.0)
                v_ND = tl.load(v_D[None, :] + slot[:, None], mask=mask, other=0.0)
                keys += TILE
                page = tl.load(table_ptr + keys // BLOCK_LEN, mask=keys < context_len, other=0)
                dots_GN = tl.dot(q_GD, tl.trans(k_ND), input_precision=PRECISION)
                dots_GN = tl.where(in_context[None, :], dots_GN, float("-inf"))
                weights_GN, kept_G, best_G, total_G = fold_scores(dots_GN, best_G, total_G, scale)
                out_GD = out_GD * kept_G[:, None]
                weights_GN = weights_GN.to(v_ND.dtype)
                out_GD = tl.dot(weights_GN, v_ND, out_GD, input_precision=PRECISION)
            if (segment_begin >= begin) & (segment_end <= end):
                tl.store(
                    out_ptr
                    + s.to(tl.int64) * out_stride_s
                    + head_G[:, None] * out_stride_h
                    + d[None, :],
                    (out_GD / total_G[:, None]).to(out_ptr.dtype.element_ty),
                    mask=in_group[:, None] & in_head,
                )
            else:
                row_G = (p + s) * (tl.num_programs(0) * GROUP) + head_G
                tl.store(partial_max_sum_ptr + 2 * row_G, best_G, mask=in_group)
                tl.store(partial_max_sum_ptr + 2 * row_G + 1, total_G, mask=in_group)
                tl.store(
                    partial_out_ptr + row_G[:, None] * HEAD_DIM + d[None, :],
                    out_GD,
                    mask=in_group[:, None] & in_head,
                )
        tile = stop
        s += 1


@triton.jit(do_not_specialize=["num_segments"])
def _reduce_kernel(
    partial_out_ptr,
    partial_max_sum_ptr,
    tile_indptr_ptr,
    out_ptr,
    out_stride_s,
    out_stride_h,
    num_segments,
    num_programs,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    s, head = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    in_head = d < HEAD_DIM
    out_D = out_ptr + s.to(tl.int64) * out_stride_s + head * out_stride_h + d
    begin, end = tl.load(tile_indptr_ptr + s), tl.load(tile_indptr_ptr + s + 1)
    num_tiles = tl.load(tile_indptr_ptr + num_segments)
    if begin == end:  # padding
        tl.store(out_D, tl.zeros([BLOCK_D], out_ptr.dtype.element_ty), mask=in_head)
        return
    active = active_programs(num_programs, num_tiles)
    first = tile_program(begin, active, num_tiles)
    last = tile_program(end - 1, active, num_tiles)
    if first == last:  # finished where it was computed
        return
    out = tl.zeros([BLOCK_D], tl.float32)
    best, total = float("-inf"), 0.0
    for start in tl.range(first, last + 1, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        is_part = p <= last
        row_P = (p + s) * tl.num_programs(1) + head
        best_P = tl.load(partial_max_sum_ptr + 2 * row_P, mask=is_part, other=float("-inf"))
        total_P = tl.load(partial_max_sum_ptr + 2 * row_P + 1, mask=is_part, other=0.0)
        part_PD = tl.load(
            partial_out_ptr + row_P[:, None] * HEAD_DIM + d[None, :],
            mask=is_part[:, None] & in_head[None, :],
            other=0.0,
        )
        new = tl.maximum(best, tl.max(best_P, 0))
        weight_P = tl.math.exp2(best_P - new)
        kept = tl.math.exp2(best - new)
        out = out * kept + tl.sum(part_PD * weight_P[:, None], 0)
        total = total * kept + tl.sum(total_P * weight_P, 0)
        best = new
    tl.store(out_D, (out / total).to(out_ptr.dtype.element_ty), mask=in_head)


def decode_attention(
    q_SHD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    segments: PagedSegments,
    slice_index: int,
    out_SHD: Tensor,
) -> None:
    """Attention of the first `num_decode` segments, into out_SHD; `decode_tasks` must be there."""
    tasks = segments.decode_tasks
    assert tasks is not None
    num_segments, num_heads, head_dim = q_SHD.shape
    num_kv_heads = k_PBKD.shape[2]
    assert num_segments == segments.num_decode == len(tasks.tile_indptr) - 1
    assert k_PBKD.dtype == v_PBKD.dtype == q_SHD.dtype, (k_PBKD.dtype, v_PBKD.dtype, q_SHD.dtype)
    assert k_PBKD.stride() == v_PBKD.stride()
    assert k_PBKD.stride(3) == q_SHD.stride(2) == out_SHD.stride(2) == 1
    if not num_segments:
        return
    programs = len(tasks.first_segment)
    slots = programs + num_segments - 1
    partial_out = q_SHD.new_empty((slots, num_heads, head_dim), dtype=torch.float32)
    partial_max_sum = q_SHD.new_empty((slots, num_heads, 2), dtype=torch.float32)
    launch = tuning.launch_parameters("decode_attention", itemsize=q_SHD.itemsize)
    _attend_kernel[(num_kv_heads, programs)](
        q_SHD,
        k_PBKD,
        v_PBKD,
        segments.pages_LN,
        segments.context_len,
        segments.page_start,
        tasks.tile_indptr,
        tasks.first_segment,
        out_SHD,
        partial_out,
        partial_max_sum,
        q_SHD.stride(0),
        q_SHD.stride(1),
        out_SHD.stride(0),
        out_SHD.stride(1),
        *k_PBKD.stride()[:3],
        slice_index * segments.pages_LN.stride(0),
        num_segments,
        programs,
        base2_scale(head_dim),
        GROUP=num_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_LEN=k_PBKD.shape[1],
        TILE=tasks.tile_len,
        BLOCK_G=max(_MIN_ROWS, triton.next_power_of_2(num_heads // num_kv_heads)),
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        PRECISION=tuning.dot_precision(q_SHD.dtype),
        **launch,
    )
    _reduce(partial_out, partial_max_sum, tasks, out_SHD)


def _reduce(
    partial_out: Tensor, partial_max_sum: Tensor, tasks: DecodeTasks, out_SHD: Tensor
) -> None:
    """Adds up the parts of segments that several programs share."""
    num_segments, num_heads, head_dim = out_SHD.shape
    launch = tuning.launch_parameters("decode_reduce", segments=num_segments)
    blocks = triton.cdiv(head_dim, launch["BLOCK_D"])
    _reduce_kernel[(num_segments, num_heads, blocks)](
        partial_out,
        partial_max_sum,
        tasks.tile_indptr,
        out_SHD,
        out_SHD.stride(0),
        out_SHD.stride(1),
        num_segments,
        len(tasks.first_segment),
        HEAD_DIM=head_dim,
        **launch,
    )
