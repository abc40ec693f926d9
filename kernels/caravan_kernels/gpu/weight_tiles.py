"""The step that all matmuls here share: a tile of tokens times a tile of weight rows.

    T tokens of the tile, K inputs, N outputs of the tile, J = PARTS * N weight rows

PARTS is 2 where a weight holds all gate rows and then all up rows: the tile has N rows of each,
and SwiGLU pairs row i with row N + i once the sums are complete. The rows are never repacked.

Orientation  the tensor cores take at least 64 (wgmma) or 16 (mma) rows on their M side but as few
             as 8 columns on their N side. With SWAP the weights are on the M side, so 16 tokens
             cost 16 columns and not 64 padded rows; without it the tokens are.
Reading      by pointers, 16 bytes per thread through cp.async, or by tensor descriptors: one
             thread asks for the whole tile, and what lies beyond the tensor reads as 0
Numerics     fp32 sums; fp32 inputs are multiplied in fp32, not in tf32

The layouts of both tensor-core generations keep row i and row N + i in one thread if N is a
multiple of 8 or 16 times the warps, so pairing gate and up moves no data.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def can_describe(x: Tensor) -> bool:
    """Whether tensor descriptors reach x: rows of whole 16 bytes."""
    return x.shape[-1] * x.itemsize % 16 == 0


def weight_descriptor(
    weight_EJK: Tensor, parts: int, block_n: int, block_k: int
) -> TensorDescriptor:
    """Tiles [1, parts, block_n, block_k] of a weight seen as [E, parts, J / parts, K]."""
    num_experts, rows, width = weight_EJK.shape
    shape = [num_experts, parts, rows // parts, width]
    strides = [rows * width, rows // parts * width, width, 1]
    return TensorDescriptor(weight_EJK, shape, strides, [1, parts, block_n, block_k])


@triton.jit
def weight_rows(w_ptr, expert, first_n, num_outputs, K, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Pointers [J] to the rows of a tile; those beyond the last output are that one again."""
    row = tl.arange(0, PARTS * BLOCK_N)
    n = tl.minimum(first_n + row % BLOCK_N, num_outputs - 1)
    row = expert.to(tl.int64) * (PARTS * num_outputs) + row // BLOCK_N * num_outputs + n
    return w_ptr + row * K


@triton.jit
def tile_product(
    x,
    x_rows,
    kept_T,
    w,
    expert,
    first_n,
    num_outputs,
    K,
    PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWAP: tl.constexpr,
    X_DESCRIBED: tl.constexpr,
    W_DESCRIBED: tl.constexpr,
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """x @ w^T in fp32: [T, J], with SWAP its transpose [J, T].

    x_rows is a pointer to each row, or where x is a descriptor the first row's index; w is a
    pointer or a descriptor. Tokens that are not kept are not read through pointers.
    """
    ROWS: tl.constexpr = PARTS * BLOCK_N
    if not W_DESCRIBED:
        w_rows = weight_rows(w, expert, first_n, num_outputs, K, PARTS, BLOCK_N)
    sums = tl.zeros((ROWS, BLOCK_T) if SWAP else (BLOCK_T, ROWS), tl.float32)
    for first_k in range(0, K, BLOCK_K):
        k = first_k + tl.arange(0, BLOCK_K)
        if X_DESCRIBED:
            x_TK = x.load([x_rows, first_k])
        elif EVEN_K:
            x_TK = tl.load(x_rows[:, None] + k[None, :], mask=kept_T[:, None], other=0.0)
        else:
            seen_TK = kept_T[:, None] & (k < K)[None, :]
            x_TK = tl.load(x_rows[:, None] + k[None, :], mask=seen_TK, other=0.0)
        if W_DESCRIBED:
            w_JK = tl.reshape(w.load([expert, 0, first_n, first_k]), (ROWS, BLOCK_K))
        elif EVEN_K:
            w_JK = tl.load(w_rows[:, None] + k[None, :])
        else:
            w_JK = tl.load(w_rows[:, None] + k[None, :], mask=(k < K)[None, :], other=0.0)
        if SWAP:
            sums = tl.dot(w_JK, tl.trans(x_TK), sums, input_precision=PRECISION)
        else:
            sums = tl.dot(x_TK, tl.trans(w_JK), sums, input_precision=PRECISION)
    return sums


@triton.jit
def swiglu_of_rows(sums_JT, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr):
    """silu(gate) * up of a transposed tile: [2N, T] -> [N, T]."""
    pairs_NTP = tl.permute(tl.reshape(sums_JT, (2, BLOCK_N, BLOCK_T)), (1, 2, 0))
    gate_NT, up_NT = tl.split(pairs_NTP)
    return gate_NT * tl.sigmoid(gate_NT) * up_NT


@triton.jit
def swiglu_of_columns(sums_TJ, BLOCK_N: tl.constexpr, BLOCK_T: tl.constexpr):
    """silu(gate) * up of a tile: [T, 2N] -> [T, N]."""
    pairs_TNP = tl.permute(tl.reshape(sums_TJ, (BLOCK_T, 2, BLOCK_N)), (0, 2, 1))
    gate_TN, up_TN = tl.split(pairs_TNP)
    return gate_TN * tl.sigmoid(gate_TN) * up_TN
