"""Attention of the vision encoder: every position of a tile sees the whole tile.

    out = softmax(q k^T / sqrt(D)) v for each tile and head

    N tiles, P positions of a tile, H heads, D head dim

Shapes    q, k, v [N, P, H, D], any strides but the last -> out [N, P, H, D], contiguous
Numerics  scores, softmax (base 2) and sums in fp32, weights rounded to v's dtype for the product
Grid      (P / BLOCK_M, H, N)
Traffic   4 * N * P * H * D * itemsize bytes
FLOPs     4 * N * H * P^2 * D

Sizes are odd: 577 positions of 88. The head is two parts, the largest power of two below D and the
rest, each padded in registers to a power of two: 64 + 32 columns instead of 128. Keys are whole
blocks and a rest, too: nine blocks of 64 and one of 16 instead of ten of 64. Strides are constants
of the kernel: only so is it known that heads 176 bytes apart can be loaded in pieces of 16 bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu import tuning
from caravan_kernels.gpu.online_softmax import base2_scale, fold_scores

_MIN_BLOCK = 16  # of a tensor core's product


@triton.jit
def _load(ptr, row_R, d, ROW_STRIDE: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Some rows and columns of one head, 0 outside of it."""
    mask = (row_R < ROWS)[:, None] & (d < HEAD_DIM)[None, :]
    return tl.load(ptr + row_R[:, None] * ROW_STRIDE + d[None, :], mask=mask, other=0.0)


@triton.jit
def _vision_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    scale,
    Q_STRIDE_N: tl.constexpr,
    Q_STRIDE_P: tl.constexpr,
    Q_STRIDE_H: tl.constexpr,
    K_STRIDE_N: tl.constexpr,
    K_STRIDE_P: tl.constexpr,
    K_STRIDE_H: tl.constexpr,
    V_STRIDE_N: tl.constexpr,
    V_STRIDE_P: tl.constexpr,
    V_STRIDE_H: tl.constexpr,
    POSITIONS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,  # columns of the first part
    REST_D: tl.constexpr,  # and of the second
    REST_N: tl.constexpr,  # keys of the last block, 0 if all are whole
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    q_ptr += n * Q_STRIDE_N + head * Q_STRIDE_H
    k_ptr += n * K_STRIDE_N + head * K_STRIDE_H
    v_ptr += n * V_STRIDE_N + head * V_STRIDE_H
    out_ptr += (n * POSITIONS * HEADS + head) * HEAD_DIM
    row_M = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d, e = tl.arange(0, BLOCK_D), BLOCK_D + tl.arange(0, REST_D)
    q_MD = _load(q_ptr, row_M, d, Q_STRIDE_P, POSITIONS, HEAD_DIM)
    q_ME = _load(q_ptr, row_M, e, Q_STRIDE_P, POSITIONS, HEAD_DIM)

    out_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    out_ME = tl.zeros([BLOCK_M, REST_D], tl.float32)
    best_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total_M = tl.zeros([BLOCK_M], tl.float32)
    for start in tl.range(0, POSITIONS // BLOCK_N * BLOCK_N, BLOCK_N):
        key_N = start + tl.arange(0, BLOCK_N)
        k_ND = _load(k_ptr, key_N, d, K_STRIDE_P, POSITIONS, HEAD_DIM)
        k_NE = _load(k_ptr, key_N, e, K_STRIDE_P, POSITIONS, HEAD_DIM)
        v_ND = _load(v_ptr, key_N, d, V_STRIDE_P, POSITIONS, HEAD_DIM)
        v_NE = _load(v_ptr, key_N, e, V_STRIDE_P, POSITIONS, HEAD_DIM)
        dots_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision=PRECISION)
        dots_MN = tl.dot(q_ME, tl.trans(k_NE), dots_MN, input_precision=PRECISION)
        weights_MN, kept_M, best_M, total_M = fold_scores(dots_MN, best_M, total_M, scale)
        weights_MN = weights_MN.to(v_ND.dtype)
        out_MD, out_ME = out_MD * kept_M[:, None], out_ME * kept_M[:, None]
        out_MD = tl.dot(weights_MN, v_ND, out_MD, input_precision=PRECISION)
        out_ME = tl.dot(weights_MN, v_NE, out_ME, input_precision=PRECISION)
    if REST_N > 0:
        key_R = POSITIONS // BLOCK_N * BLOCK_N + tl.arange(0, REST_N)
        k_RD = _load(k_ptr, key_R, d, K_STRIDE_P, POSITIONS, HEAD_DIM)
        k_RE = _load(k_ptr, key_R, e, K_STRIDE_P, POSITIONS, HEAD_DIM)
        v_RD = _load(v_ptr, key_R, d, V_STRIDE_P, POSITIONS, HEAD_DIM)
        v_RE = _load(v_ptr, key_R, e, V_STRIDE_P, POSITIONS, HEAD_DIM)
        dots_MR = tl.dot(q_MD, tl.trans(k_RD), input_precision=PRECISION)
        dots_MR = tl.dot(q_ME, tl.trans(k_RE), dots_MR, input_precision=PRECISION)
        dots_MR = tl.where((key_R < POSITIONS)[None, :], dots_MR, float("-inf"))
        weights_MR, kept_M, best_M, total_M = fold_scores(dots_MR, best_M, total_M, scale)
        weights_MR = weights_MR.to(v_RD.dtype)
        out_MD, out_ME = out_MD * kept_M[:, None], out_ME * kept_M[:, None]
        out_MD = tl.dot(weights_MR, v_RD, out_MD, input_precision=PRECISION)
        out_ME = tl.dot(weights_MR, v_RE, out_ME, input_precision=PRECISION)
    out_MD, out_ME = out_MD / total_M[:, None], out_ME / total_M[:, None]
    out_M = out_ptr + row_M[:, None] * (HEADS * HEAD_DIM)
    in_tile = (row_M < POSITIONS)[:, None]
    out_type = out_ptr.dtype.element_ty
    tl.store(out_M + d[None, :], out_MD.to(out_type), mask=in_tile & (d < HEAD_DIM)[None, :])
    tl.store(out_M + e[None, :], out_ME.to(out_type), mask=in_tile & (e < HEAD_DIM)[None, :])


def _block(size: int) -> int:
    """The smallest block that a product takes and `size` fits in."""
    return max(_MIN_BLOCK, int(triton.next_power_of_2(size)))


def vision_attention(q_NPHD: Tensor, k_NPHD: Tensor, v_NPHD: Tensor) -> Tensor:
    """See `reference.vision_attention`."""
    num_tiles, positions, heads, head_dim = q_NPHD.shape
    assert q_NPHD.dtype == k_NPHD.dtype == v_NPHD.dtype
    assert q_NPHD.stride(3) == k_NPHD.stride(3) == v_NPHD.stride(3) == 1
    out = q_NPHD.new_empty(q_NPHD.shape)
    if not num_tiles:
        return out
    launch = tuning.launch_parameters("vision_attention", itemsize=q_NPHD.itemsize)
    block_d = max(_MIN_BLOCK, triton.next_power_of_2(head_dim) // 2)
    q_strides, k_strides, v_strides = (x.stride() for x in (q_NPHD, k_NPHD, v_NPHD))
    rest = positions % launch["BLOCK_N"]
    _vision_kernel[(triton.cdiv(positions, launch["BLOCK_M"]), heads, num_tiles)](
        q_NPHD,
        k_NPHD,
        v_NPHD,
        out,
        base2_scale(head_dim),
        *q_strides[:3],
        *k_strides[:3],
        *v_strides[:3],
        POSITIONS=positions,
        HEADS=heads,
        HEAD_DIM=head_dim,
        BLOCK_D=block_d,
        REST_D=_block(head_dim - block_d),
        REST_N=_block(rest) if rest else 0,
        PRECISION=tuning.dot_precision(q_NPHD.dtype),
        **launch,
    )
    return out
