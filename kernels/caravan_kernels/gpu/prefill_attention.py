"""Causal attention of segments with many queries over paged keys and values.

    out = softmax(q k^T / sqrt(D)) v, where the i-th of a segment's L queries sees the first
    context_len - L + i + 1 tokens of the segment's pages

    S segments, T queries of all of them, H query heads, K kv heads, G = H / K, D head dim, P pages,
    B block_len, L slices, N page table entries

Shapes    q [T, H, D], k and v [P, B, K, D] -> out [T, H, D]
Numerics  scores, softmax (base 2) and sums in fp32, weights rounded to v's dtype for the product
Grid      (K, T * G // BLOCK_M + S): a tile of BLOCK_M rows of one kv head, a row being a token
          and a head of the group: token m // G, head m % G. No row is wasted at any G
Traffic   q and out once, k and v of a segment once per tile of rows (out of the L2, mostly)
FLOPs     4 * H * D * sum over queries of the tokens seen

The number of tiles comes from T and S alone. Segment s, whose queries begin at row r, has the
tiles from r * G // BLOCK_M + s on, which leaves room for a partial last tile of every segment; a
search in query_indptr finds a tile's segment. A tile's work grows with its position, so tiles are
taken from the end: the last ones to run are short.

Keys that every row of a tile sees need no masks; the rest, about BLOCK_M / G tokens before the
diagonal, are a second loop with masks. Where a page holds whole tiles of keys, the first loop loads
them by tensor descriptors (one instruction of one thread, on Hopper and later); the second gathers
by pointers always, because only they stop at the context's end, past which a page may hold NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from caravan_kernels.gpu import tuning
from caravan_kernels.gpu.online_softmax import base2_scale, fold_scores
from caravan_kernels.paged import PagedSegments


@triton.jit
def _segment_of(tile, query_indptr_ptr, first, num_segments, GROUP, BLOCK_M):
    """The last segment whose tiles begin at `tile` or before it, and where they begin."""
    low, high = first, num_segments - 1
    while low < high:
        middle = (low + high + 1) // 2
        row = tl.load(query_indptr_ptr + middle) - first
        if row * GROUP // BLOCK_M + middle - first <= tile:
            low = middle
        else:
            high = middle - 1
    row = tl.load(query_indptr_ptr + low) - first
    return low, row * GROUP // BLOCK_M + low - first


@triton.jit(
    do_not_specialize=["first_page", "num_decode", "num_segments"],
    do_not_specialize_on_alignment=[
        "pages_ptr",
        "query_indptr_ptr",
        "context_len_ptr",
        "page_start_ptr",
    ],
)
def _prefill_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    k_tiles,  # descriptors of k and v as [P * B, K * D]
    v_tiles,
    pages_ptr,
    query_indptr_ptr,
    context_len_ptr,
    page_start_ptr,
    out_ptr,
    q_stride_t,
    q_stride_h,
    out_stride_t,
    out_stride_h,
    page_stride,
    token_stride,
    head_stride,
    first_page,
    num_decode,
    num_segments,
    scale,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_LEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    kv_head = tl.program_id(0)
    tile = tl.num_programs(1) - 1 - tl.program_id(1)
    s, first_tile = _segment_of(tile, query_indptr_ptr, num_decode, num_segments, GROUP, BLOCK_M)
    query_begin = tl.load(query_indptr_ptr + s) - num_decode
    num_queries = tl.load(query_indptr_ptr + s + 1) - num_decode - query_begin
    first_row = (tile - first_tile) * BLOCK_M
    if first_row >= num_queries * GROUP:
        return
    context_len = tl.load(context_len_ptr + s)
    table_ptr = pages_ptr + first_page + tl.load(page_start_ptr + s)

    m, n, d = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    token_M = (first_row + m) // GROUP
    row_M = (query_begin + token_M).to(tl.int64)
    head_M = kv_head * GROUP + (first_row + m) % GROUP
    in_head = (d < HEAD_DIM)[None, :]
    in_tile = (token_M < num_queries)[:, None] & in_head
    q_MD = tl.load(
        q_ptr + (row_M * q_stride_t + head_M * q_stride_h)[:, None] + d[None, :],
        mask=in_tile,
        other=0.0,
    )
    seen_M = context_len - num_queries + 1 + token_M  # tokens that a row sees
    last_token = tl.minimum((first_row + BLOCK_M - 1) // GROUP, num_queries - 1)
    seen_by_all = context_len - num_queries + 1 + first_row // GROUP
    seen_by_any = context_len - num_queries + 1 + last_token
    open_end = seen_by_all // BLOCK_N * BLOCK_N

    k_D = k_ptr + kv_head * head_stride + d
    v_D = v_ptr + kv_head * head_stride + d
    out_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    best_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total_M = tl.zeros([BLOCK_M], tl.float32)
    ahead = 0 if DESCRIPTORS else n  # of a tile's start: the keys whose page ids are loaded
    page = tl.load(table_ptr + ahead // BLOCK_LEN, mask=ahead < open_end, other=0)
    for _ in tl.range(0, open_end, BLOCK_N):
        if DESCRIPTORS:
            slot = page * BLOCK_LEN + ahead % BLOCK_LEN
            k_ND = k_tiles.load([slot, kv_head * HEAD_DIM])
            v_ND = v_tiles.load([slot, kv_head * HEAD_DIM])
        else:
            slot_N = page.to(tl.int64) * page_stride + ahead % BLOCK_LEN * token_stride
            k_ND = tl.load(k_D[None, :] + slot_N[:, None], mask=in_head, other=0.0)
            v_ND = tl.load(v_D[None, :] + slot_N[:, None], mask=in_head, other=0.0)
        ahead += BLOCK_N
        page = tl.load(table_ptr + ahead // BLOCK_LEN, mask=ahead < open_end, other=0)
        dots_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision=PRECISION)
        weights_MN, kept_M, best_M, total_M = fold_scores(dots_MN, best_M, total_M, scale)
        out_MD = out_MD * kept_M[:, None]
        out_MD = tl.dot(weights_MN.to(v_ND.dtype), v_ND, out_MD, input_precision=PRECISION)
    for start in tl.range(open_end, seen_by_any, BLOCK_N):
        key_N = start + n
        in_context = key_N < seen_by_any
        page_N = tl.load(table_ptr + key_N // BLOCK_LEN, mask=in_context, other=0)
        slot_N = page_N.to(tl.int64) * page_stride + key_N % BLOCK_LEN * token_stride
        mask = in_context[:, None] & in_head
        k_ND = tl.load(k_D[None, :] + slot_N[:, None], mask=mask, other=0.0)
        v_ND = tl.load(v_D[None, :] + slot_N[:, None], mask=mask, other=0.0)
        dots_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision=PRECISION)
        dots_MN = tl.where(key_N[None, :] < seen_M[:, None], dots_MN, float("-inf"))
        weights_MN, kept_M, best_M, total_M = fold_scores(dots_MN, best_M, total_M, scale)
        out_MD = out_MD * kept_M[:, None]
        out_MD = tl.dot(weights_MN.to(v_ND.dtype), v_ND, out_MD, input_precision=PRECISION)
    total_M = tl.where(total_M > 0, total_M, 1.0)  # padding sees nothing and becomes 0
    tl.store(
        out_ptr + (row_M * out_stride_t + head_M * out_stride_h)[:, None] + d[None, :],
        (out_MD / total_M[:, None]).to(out_ptr.dtype.element_ty),
        mask=in_tile,
    )


def prefill_attention(
    q_THD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    segments: PagedSegments,
    slice_index: int,
    out_THD: Tensor,
) -> None:
    """Attention of the segments after the first `num_decode`, whose queries are q_THD."""
    num_tokens, num_heads, head_dim = q_THD.shape
    block_len, num_kv_heads = k_PBKD.shape[1:3]
    group = num_heads // num_kv_heads
    assert k_PBKD.dtype == v_PBKD.dtype == q_THD.dtype, (k_PBKD.dtype, v_PBKD.dtype, q_THD.dtype)
    assert k_PBKD.stride() == v_PBKD.stride()
    assert k_PBKD.stride(3) == q_THD.stride(2) == out_THD.stride(2) == 1
    block_d = max(16, triton.next_power_of_2(head_dim))
    num_segments = segments.num_segments - segments.num_decode
    if not num_segments:
        return
    launch = tuning.launch_parameters(
        "prefill_attention",
        itemsize=q_THD.itemsize,
        rows=num_tokens * group,
        padding=block_d - head_dim,
        past_64=block_len % 64,  # 0: a page holds whole tiles of 64 keys
        past_128=block_len % 128,
    )
    tiles = num_tokens * group // launch["BLOCK_M"] + num_segments
    _prefill_kernel[(num_kv_heads, tiles)](
        q_THD,
        k_PBKD,
        v_PBKD,
        *_descriptors(k_PBKD, v_PBKD, launch),
        segments.pages_LN,
        segments.query_indptr,
        segments.context_len,
        segments.page_start,
        out_THD,
        q_THD.stride(0),
        q_THD.stride(1),
        out_THD.stride(0),
        out_THD.stride(1),
        *k_PBKD.stride()[:3],
        slice_index * segments.pages_LN.stride(0),
        segments.num_decode,
        segments.num_segments,
        base2_scale(head_dim),
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_LEN=block_len,
        BLOCK_D=block_d,
        PRECISION=tuning.dot_precision(q_THD.dtype),
        **launch,
    )


def _descriptors(
    k_PBKD: Tensor, v_PBKD: Tensor, launch: tuning.Launch
) -> tuple[TensorDescriptor | None, TensorDescriptor | None]:
    """Tiles of [BLOCK_N, D] of the caches as [P * B, K * D]; None where pointers are used."""
    if not launch["DESCRIPTORS"]:
        return None, None
    block_len, _, head_dim = k_PBKD.shape[1:]
    assert block_len % launch["BLOCK_N"] == 0, (block_len, launch["BLOCK_N"])
    block = [launch["BLOCK_N"], head_dim]
    k, v = (x.view(-1, k_PBKD.stride(1)) for x in (k_PBKD, v_PBKD))
    return TensorDescriptor.from_tensor(k, block), TensorDescriptor.from_tensor(v, block)
