"""Top-1 routing on the GPU: each token's expert and score, and the tokens in order of expert.

    T tokens, E experts, B blocks of tokens

A counting sort: histogram, exclusive sum, and each token's rank among its block's tokens of the
same expert. Ranks follow token order, so the sort is stable and the same on every run: nothing is
counted by atomics.

Shapes    logits [T, E] -> `Routing`
Numerics  the largest logit decides, the lowest expert on ties; a NaN is the largest, as in
          PyTorch, and its score is NaN. The score is a sigmoid in fp32.
Grid      up to about a thousand tokens one program walks the blocks twice: one launch. Beyond, two
          launches of one program per block; the second adds up the histograms of all blocks
          itself (B * E counts from L2), which is cheaper than a launch that does it for all.
Traffic   T * E * itemsize bytes, twice in one program: microseconds, so launches are what counts
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.tuning import Launch, launch_parameters

_BLOCK_B = 32  # histograms added up at once


@dataclass(frozen=True, slots=True)
class Routing:
    """Which expert computes which tokens; all on the GPU."""

    expert_T: Tensor  # int32
    score_T: Tensor  # fp32, the sigmoid of the expert's logit
    order_T: Tensor  # int32: tokens by expert, by number within an expert
    expert_indptr: Tensor  # int32 [E + 1]: expert e has order_T[indptr[e] : indptr[e + 1]]


@triton.jit
def top_1(logits_ptr, num_rows_ptr, t, kept_T, stride, num_experts, BLOCK_E: tl.constexpr):
    """Expert (int32, within [0, E) whatever the logits are) and score of the tokens t.

    Tokens from num_rows on, if it is given, are padding and take the logits of the last before.
    """
    e = tl.arange(0, BLOCK_E)
    if num_rows_ptr is not None:
        t = tl.minimum(t, tl.maximum(tl.load(num_rows_ptr) - 1, 0))
    logits_TE = tl.load(
        logits_ptr + t.to(tl.int64)[:, None] * stride + e[None, :],
        mask=kept_T[:, None] & (e < num_experts)[None, :],
        other=float("-inf"),
    ).to(tl.float32)
    keys_TE = tl.where(logits_TE != logits_TE, float("inf"), logits_TE)
    expert_T = tl.argmax(keys_TE, 1).to(tl.int32)
    best_T = tl.sum(tl.where(e[None, :] == expert_T[:, None], logits_TE, 0.0), 1)
    return expert_T, tl.sigmoid(best_T)


@triton.jit
def _one_hot(expert_T, kept_T, BLOCK_E: tl.constexpr):
    hits_TE = (expert_T[:, None] == tl.arange(0, BLOCK_E)[None, :]) & kept_T[:, None]
    return hits_TE.to(tl.int32)


@triton.jit
def _place(order_ptr, t, hits_TE, kept_T, first_E):
    """Writes a block's tokens into the order; first_E: where each expert's next token goes."""
    places_TE = first_E[None, :] + tl.cumsum(hits_TE, 0) - 1
    tl.store(order_ptr + tl.sum(hits_TE * places_TE, 1), t, mask=kept_T)


@triton.jit
def _write_indptr(indptr_ptr, ends_E, num_experts, BLOCK_E: tl.constexpr):
    e = tl.arange(0, BLOCK_E)
    tl.store(indptr_ptr, 0)
    tl.store(indptr_ptr + 1 + e, ends_E, mask=e < num_experts)


@triton.jit(do_not_specialize=["num_tokens"])
def _route_kernel(
    logits_ptr,
    num_rows_ptr,
    expert_ptr,
    score_ptr,
    order_ptr,
    indptr_ptr,
    stride,
    num_tokens,
    num_experts,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """All of it in one program."""
    counts_E = tl.zeros((BLOCK_E,), tl.int32)
    for first in range(0, num_tokens, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        expert_T, score_T = top_1(
            logits_ptr, num_rows_ptr, t, t < num_tokens, stride, num_experts, BLOCK_E
        )
        tl.store(expert_ptr + t, expert_T, mask=t < num_tokens)
        tl.store(score_ptr + t, score_T, mask=t < num_tokens)
        counts_E += tl.sum(_one_hot(expert_T, t < num_tokens, BLOCK_E), 0)
    ends_E = tl.cumsum(counts_E, 0)
    _write_indptr(indptr_ptr, ends_E, num_experts, BLOCK_E)
    first_E = ends_E - counts_E
    for first in range(0, num_tokens, BLOCK_T):
        t = first + tl.arange(0, BLOCK_T)
        expert_T, _ = top_1(
            logits_ptr, num_rows_ptr, t, t < num_tokens, stride, num_experts, BLOCK_E
        )
        hits_TE = _one_hot(expert_T, t < num_tokens, BLOCK_E)
        _place(order_ptr, t, hits_TE, t < num_tokens, first_E)
        first_E += tl.sum(hits_TE, 0)


@triton.jit(do_not_specialize=["num_tokens"])
def _count_kernel(
    logits_ptr,
    num_rows_ptr,
    expert_ptr,
    score_ptr,
    counts_ptr,
    stride,
    num_tokens,
    num_experts,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Expert, score and histogram [B, BLOCK_E] of one block."""
    block = tl.program_id(0)
    t = block * BLOCK_T + tl.arange(0, BLOCK_T)
    expert_T, score_T = top_1(
        logits_ptr, num_rows_ptr, t, t < num_tokens, stride, num_experts, BLOCK_E
    )
    tl.store(expert_ptr + t, expert_T, mask=t < num_tokens)
    tl.store(score_ptr + t, score_T, mask=t < num_tokens)
    counts_E = tl.sum(_one_hot(expert_T, t < num_tokens, BLOCK_E), 0)
    tl.store(counts_ptr + block * BLOCK_E + tl.arange(0, BLOCK_E), counts_E)


@triton.jit(do_not_specialize=["num_tokens", "num_blocks"])
def _order_kernel(
    expert_ptr,
    counts_ptr,
    order_ptr,
    indptr_ptr,
    num_tokens,
    num_experts,
    num_blocks,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """The places of one block's tokens."""
    block = tl.program_id(0)
    e = tl.arange(0, BLOCK_E)
    totals_E = tl.zeros((BLOCK_E,), tl.int32)
    before_E = tl.zeros((BLOCK_E,), tl.int32)
    for first in range(0, num_blocks, BLOCK_B):
        b = first + tl.arange(0, BLOCK_B)
        counts_BE = tl.load(
            counts_ptr + b[:, None] * BLOCK_E + e[None, :], mask=(b < num_blocks)[:, None], other=0
        )
        totals_E += tl.sum(counts_BE, 0)
        before_E += tl.sum(tl.where((b < block)[:, None], counts_BE, 0), 0)
    ends_E = tl.cumsum(totals_E, 0)
    if block == 0:
        _write_indptr(indptr_ptr, ends_E, num_experts, BLOCK_E)
    t = block * BLOCK_T + tl.arange(0, BLOCK_T)
    expert_T = tl.load(expert_ptr + t, mask=t < num_tokens, other=0)
    hits_TE = _one_hot(expert_T, t < num_tokens, BLOCK_E)
    _place(order_ptr, t, hits_TE, t < num_tokens, ends_E - totals_E + before_E)


def route(logits_TE: Tensor, num_rows: Tensor | None = None) -> Routing:
    """`reference.moe_route` and the stable order of the tokens by expert.

    Rows from `num_rows` (int32 [1]) on are padding: see `reference.moe_experts`.
    """
    num_tokens, num_experts = logits_TE.shape
    assert logits_TE.stride(1) == 1
    expert, order = (logits_TE.new_empty(num_tokens, dtype=torch.int32) for _ in range(2))
    routing = Routing(
        expert,
        logits_TE.new_empty(num_tokens, dtype=torch.float32),
        order,
        logits_TE.new_empty(num_experts + 1, dtype=torch.int32),
    )
    launch = dict(launch_parameters("route", tokens=num_tokens, experts=num_experts))
    launch["BLOCK_E"] = triton.next_power_of_2(num_experts)
    if launch.pop("one_program"):
        _route_kernel[(1,)](
            logits_TE,
            num_rows,
            routing.expert_T,
            routing.score_T,
            routing.order_T,
            routing.expert_indptr,
            logits_TE.stride(0),
            num_tokens,
            num_experts,
            **launch,
        )
    else:
        _route_in_blocks(logits_TE, num_rows, routing, launch)
    return routing


def _route_in_blocks(
    logits_TE: Tensor, num_rows: Tensor | None, routing: Routing, launch: Launch
) -> None:
    num_tokens, num_experts = logits_TE.shape
    num_blocks = triton.cdiv(num_tokens, launch["BLOCK_T"])
    counts = logits_TE.new_empty((num_blocks, launch["BLOCK_E"]), dtype=torch.int32)
    _count_kernel[(num_blocks,)](
        logits_TE,
        num_rows,
        routing.expert_T,
        routing.score_T,
        counts,
        logits_TE.stride(0),
        num_tokens,
        num_experts,
        **launch,
    )
    _order_kernel[(num_blocks,)](
        routing.expert_T,
        counts,
        routing.order_T,
        routing.expert_indptr,
        num_tokens,
        num_experts,
        num_blocks,
        BLOCK_B=_BLOCK_B,
        **launch,
    )
