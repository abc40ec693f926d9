"""Matmuls of few tokens, where reading the weights is the cost: dense layers and experts.

    y[t] = w[e] @ x[t]                                   PARTS = 1
    y[t] = swiglu(score[t] * (w[e] @ x[t]))              PARTS = 2: w[e] has gate rows, then up rows

    T tokens, E experts, K inputs, N outputs, J = PARTS * N; a dense layer is one expert, score 1

Each program finds the top-1 experts of the batch itself: T * E logits come from L2 in the time a
routing kernel would take to start. A program's column of the grid is a token j; it computes all
tokens of j's expert if j is the first of them, and ends at once if not. So every expert that was
hit is read once, and none that was not.

Shapes    x [T, K], logits [T, E], w [E, J, K] -> y [T, N] in x's dtype
Numerics  products and sums in fp32; score and SwiGLU on the fp32 sums. The score multiplies what
          the weight makes of x, which is what the weight makes of score * x.
Grid      (blocks of N) x T, or x 1 for a dense layer
Traffic   hit experts * J * K * itemsize bytes; x comes from L2
Design    `_few_tokens_kernel`: weights on the tensor cores' M side, tokens padded to 16 or 32 on
          the N side; the blocks of K are a queue in shared memory (num_stages of cp.async), so few
          large programs keep enough bytes in flight. `_one_token_kernel`: multiply and add on the
          ordinary cores, for blocks of N too small for tensor cores (one token of a narrow shard
          needs them to fill the GPU) and for weights that stay in L2, since each token reads them
          again.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.route import top_1
from caravan_kernels.gpu.tuning import Launch, dot_precision
from caravan_kernels.gpu.weight_tiles import (
    swiglu_of_rows,
    tile_product,
    weight_rows,
)

_LEAST_BLOCK_T = 16  # for fewer, Triton 3.6 does not use wgmma
_MOST_TOKENS = 64  # each program finds the experts of all tokens, and holds all their sums


@triton.jit(do_not_specialize=["num_tokens"])
def _few_tokens_kernel(
    x_ptr,
    logits_ptr,
    num_rows_ptr,
    w_ptr,
    y_ptr,
    x_stride,
    logits_stride,
    num_tokens,
    num_experts,
    num_outputs,
    K,
    ROUTED: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    t = tl.arange(0, BLOCK_T)
    kept_T = t < num_tokens
    expert = tl.program_id(1)  # 0 where there is one
    if ROUTED:
        expert_T, score_T = top_1(
            logits_ptr, num_rows_ptr, t, kept_T, logits_stride, num_experts, BLOCK_E
        )
        j = tl.program_id(1)
        expert = tl.sum(tl.where(t == j, expert_T, 0), 0)
        kept_T = kept_T & (expert_T == expert)
        if tl.min(tl.where(kept_T, t, BLOCK_T), 0) < j:
            return
    first_n = tl.program_id(0) * BLOCK_N
    y_NT = tile_product(
        x_ptr,
        x_ptr + t.to(tl.int64) * x_stride,
        kept_T,
        w_ptr,
        expert,
        first_n,
        num_outputs,
        K,
        PARTS,
        BLOCK_T,
        BLOCK_N,
        BLOCK_K,
        SWAP=True,
        X_DESCRIBED=False,
        W_DESCRIBED=False,
        EVEN_K=EVEN_K,
        PRECISION=PRECISION,
    )
    if PARTS == 2:
        if ROUTED:
            y_NT *= score_T[None, :]
        y_NT = swiglu_of_rows(y_NT, BLOCK_N, BLOCK_T)
    n = first_n + tl.arange(0, BLOCK_N)
    y_ptrs = y_ptr + t.to(tl.int64)[None, :] * num_outputs + n[:, None]
    tl.store(
        y_ptrs, y_NT.to(y_ptr.dtype.element_ty), mask=kept_T[None, :] & (n < num_outputs)[:, None]
    )


@triton.jit
def _one_token_kernel(
    x_ptr,
    logits_ptr,
    num_rows_ptr,
    w_ptr,
    y_ptr,
    x_stride,
    logits_stride,
    num_experts,
    num_outputs,
    K,
    ROUTED: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_E: tl.constexpr,
    EVEN_K: tl.constexpr,
    num_stages: tl.constexpr,
):
    """Every program computes one token, whoever shares its expert."""
    t = tl.program_id(1) + tl.arange(0, 1)
    expert = tl.program_id(1) * 0
    if ROUTED:
        expert_T, score_T = top_1(
            logits_ptr, num_rows_ptr, t, t >= 0, logits_stride, num_experts, BLOCK_E
        )
        expert = tl.sum(expert_T, 0)
    first_n = tl.program_id(0) * BLOCK_N
    w_rows = weight_rows(w_ptr, expert, first_n, num_outputs, K, PARTS, BLOCK_N)
    x_row = x_ptr + tl.program_id(1).to(tl.int64) * x_stride
    sums_JK = tl.zeros((PARTS * BLOCK_N, BLOCK_K), tl.float32)
    for first_k in tl.range(0, K, BLOCK_K, num_stages=num_stages):
        k = first_k + tl.arange(0, BLOCK_K)
        if EVEN_K:
            x_K = tl.load(x_row + k)
            w_JK = tl.load(w_rows[:, None] + k[None, :])
        else:
            x_K = tl.load(x_row + k, mask=k < K, other=0.0)
            w_JK = tl.load(w_rows[:, None] + k[None, :], mask=(k < K)[None, :], other=0.0)
        sums_JK += w_JK.to(tl.float32) * x_K.to(tl.float32)[None, :]
    y_NT = tl.sum(sums_JK, 1)[:, None]
    if PARTS == 2:
        if ROUTED:
            y_NT *= score_T[None, :]
        y_NT = swiglu_of_rows(y_NT, BLOCK_N, 1)
    n = first_n + tl.arange(0, BLOCK_N)
    y_ptrs = y_ptr + t.to(tl.int64)[None, :] * num_outputs + n[:, None]
    tl.store(y_ptrs, y_NT.to(y_ptr.dtype.element_ty), mask=(n < num_outputs)[:, None])


def few_tokens(
    x: Tensor,
    weight_EJK: Tensor,
    launch: Launch,
    *,
    parts: int,
    logits_TE: Tensor | None = None,
    num_rows: Tensor | None = None,
) -> Tensor:
    """y [T, J / parts] of the module's formula; without logits the one expert has every token.

    Rows from `num_rows` on are padding: see `reference.moe_experts`.

    `launch["kernel"]` is "one_token" or "few_tokens".
    """
    (num_tokens, width), (num_experts, rows, _) = x.shape, weight_EJK.shape
    assert num_tokens <= _MOST_TOKENS, num_tokens
    assert x.dtype == weight_EJK.dtype, (x.dtype, weight_EJK.dtype)
    assert x.stride(1) == 1
    assert weight_EJK.is_contiguous()
    assert logits_TE is None or logits_TE.stride(1) == 1
    num_outputs = rows // parts
    y = x.new_empty(num_tokens, num_outputs)
    logits_stride = 0 if logits_TE is None else logits_TE.stride(0)
    tensors = (x, logits_TE, num_rows, weight_EJK, y, x.stride(0), logits_stride)
    blocks = triton.cdiv(num_outputs, launch["BLOCK_N"])
    chosen: dict[str, Any] = {
        "ROUTED": logits_TE is not None,
        "PARTS": parts,
        "BLOCK_E": triton.next_power_of_2(num_experts),
        "EVEN_K": width % launch["BLOCK_K"] == 0,
        **launch,
    }
    if chosen.pop("kernel") == "one_token":
        _one_token_kernel[(blocks, num_tokens)](*tensors, num_experts, num_outputs, width, **chosen)
        return y
    _few_tokens_kernel[(blocks, 1 if logits_TE is None else num_tokens)](
        *tensors,
        num_tokens,
        num_experts,
        num_outputs,
        width,
        BLOCK_T=max(_LEAST_BLOCK_T, triton.next_power_of_2(num_tokens)),
        PRECISION=dot_precision(x.dtype),
        **chosen,
    )
    return y
