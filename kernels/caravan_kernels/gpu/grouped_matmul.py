"""The two matmuls of routed experts for many tokens, over tokens in order of their expert.

    hidden[i] = swiglu(score[t] * (gate_up[e] @ x[t])),  t = order[i]      gate_up, PARTS = 2
    out[t]    = down[e] @ hidden[i]                                        down,    PARTS = 1

    T tokens, E experts, H hidden, I expert width, K inputs, N outputs

Gathering is part of reading x, scattering part of writing out: with one expert per token nothing
is left to combine, and no permuted copy of x exists.

Numerics  products and sums in fp32; score and SwiGLU on the fp32 sums, hidden rounded once
Grid      persistent: programs_per_sm programs on every SM, each takes every so-manieth tile. How
          many tiles an expert has depends on expert_indptr, which only the GPU knows, so every
          program finds tile -> (expert, tokens, outputs) itself: a sum over E numbers per tile.
Order     expert after expert; inside one, GROUP_M blocks of tokens share each block of outputs.
          A wave of programs so works on few weights (each leaves DRAM once per group) and on the
          same tokens, which stay in L2.
FLOPs     2 * T * K * J per matmul; tiles are padded to BLOCK_M tokens
Traffic   hit experts * J * K * itemsize. Below about 50 tokens per expert (bf16, H200) that is
          what takes the time, and the tile is narrow (SWAP, see weight_tiles); above, the tensor
          cores are, and a tile of 128 tokens by 256 weight rows feeds them best.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from caravan_kernels.gpu.route import Routing
from caravan_kernels.gpu.tuning import dot_precision, launch_parameters, num_sms
from caravan_kernels.gpu.weight_tiles import (
    can_describe,
    swiglu_of_columns,
    swiglu_of_rows,
    tile_product,
    weight_descriptor,
)


@triton.jit
def _tile_ends(indptr_ptr, num_experts, blocks_n, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr):
    """For every expert, the number of tiles up to and with its own."""
    e = tl.arange(0, BLOCK_E)
    begin_E = tl.load(indptr_ptr + e, mask=e < num_experts, other=0)
    end_E = tl.load(indptr_ptr + 1 + e, mask=e < num_experts, other=0)
    return tl.cumsum(tl.cdiv(end_E - begin_E, BLOCK_M) * blocks_n, 0)


@triton.jit
def _locate(tile, ends_E, indptr_ptr, blocks_n, BLOCK_M: tl.constexpr, GROUP_M: tl.constexpr):
    """Expert of a tile, its first place in the order, the number of tokens, the block of outputs.

    ends_E <= tile holds for the experts before the tile's own, empty ones among them.
    """
    before_E = ends_E <= tile
    expert = tl.sum(before_E.to(tl.int32), 0)
    tile -= tl.max(tl.where(before_E, ends_E, 0), 0)
    begin = tl.load(indptr_ptr + expert)
    num_tokens = tl.load(indptr_ptr + expert + 1) - begin
    group = tile // (GROUP_M * blocks_n)
    height = tl.minimum(tl.cdiv(num_tokens, BLOCK_M) - group * GROUP_M, GROUP_M)
    tile -= group * GROUP_M * blocks_n
    m = (group * GROUP_M + tile % height) * BLOCK_M
    return expert, begin + m, tl.minimum(num_tokens - m, BLOCK_M), tile // height


@triton.jit
def _grouped_kernel(
    x,
    w,
    y_ptr,
    order_ptr,
    score_ptr,
    indptr_ptr,
    x_stride,
    num_experts,
    num_outputs,
    K,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    SWAP: tl.constexpr,
    X_DESCRIBED: tl.constexpr,
    W_DESCRIBED: tl.constexpr,
    BLOCK_E: tl.constexpr,
    EVEN_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    blocks_n = tl.cdiv(num_outputs, BLOCK_N)
    ends_E = _tile_ends(indptr_ptr, num_experts, blocks_n, BLOCK_M, BLOCK_E)
    for tile in range(tl.program_id(0), tl.max(ends_E, 0), tl.num_programs(0)):
        expert, begin, height, block_n = _locate(
            tile, ends_E, indptr_ptr, blocks_n, BLOCK_M, GROUP_M
        )
        m = tl.arange(0, BLOCK_M)
        kept_M = m < height
        place_M = (begin + m).to(tl.int64)
        token_M = tl.load(order_ptr + place_M, mask=kept_M, other=0).to(tl.int64)
        if X_DESCRIBED:
            x_rows = begin
        elif PARTS == 2:
            x_rows = x + token_M * x_stride
        else:
            x_rows = x + place_M * x_stride
        sums = tile_product(
            x,
            x_rows,
            kept_M,
            w,
            expert,
            block_n * BLOCK_N,
            num_outputs,
            K,
            PARTS,
            BLOCK_M,
            BLOCK_N,
            BLOCK_K,
            SWAP,
            X_DESCRIBED,
            W_DESCRIBED,
            EVEN_K,
            PRECISION,
        )
        n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
        if PARTS == 2:
            row_M = place_M
            score_M = tl.load(score_ptr + token_M, mask=kept_M, other=0.0)
            if SWAP:
                sums = swiglu_of_rows(sums * score_M[None, :], BLOCK_N, BLOCK_M)
            else:
                sums = swiglu_of_columns(sums * score_M[:, None], BLOCK_N, BLOCK_M)
        else:
            row_M = token_M
        y = sums.to(y_ptr.dtype.element_ty)
        y_rows = y_ptr + row_M * num_outputs
        if SWAP:
            stored_NM = (n < num_outputs)[:, None] & kept_M[None, :]
            tl.store(y_rows[None, :] + n[:, None], y, mask=stored_NM)
        else:
            stored_MN = kept_M[:, None] & (n < num_outputs)[None, :]
            tl.store(y_rows[:, None] + n[None, :], y, mask=stored_MN)


def grouped_gate_up(x: Tensor, gate_up_EJH: Tensor, routing: Routing) -> Tensor:
    """hidden [T, I] in order of expert: gather, matmul, score and SwiGLU in one kernel.

    x [T, H], gate_up [E, 2I, H].
    """
    return _grouped(x, gate_up_EJH, routing, "grouped_gate_up", parts=2)


def grouped_down(hidden_TI: Tensor, down_EHI: Tensor, routing: Routing) -> Tensor:
    """out [T, H] in order of token, of hidden in order of expert; down [E, H, I]."""
    return _grouped(hidden_TI, down_EHI, routing, "grouped_down", parts=1)


def _grouped(x: Tensor, weight_EJK: Tensor, routing: Routing, name: str, *, parts: int) -> Tensor:
    (num_tokens, width), (num_experts, rows, _) = x.shape, weight_EJK.shape
    assert x.dtype == weight_EJK.dtype, (x.dtype, weight_EJK.dtype)
    assert x.stride(1) == 1
    assert weight_EJK.is_contiguous()
    num_outputs = rows // parts
    launch: dict[str, Any] = dict(
        launch_parameters(
            name,
            tokens_per_expert=triton.cdiv(num_tokens, num_experts),
            outputs=num_outputs,
            itemsize=x.itemsize,
        )
    )
    block_m, block_n, block_k = (launch[key] for key in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))
    described = launch.pop("descriptors") and can_describe(x)
    operands: tuple[Tensor | TensorDescriptor, Tensor | TensorDescriptor] = (x, weight_EJK)
    if described:
        weights = weight_descriptor(weight_EJK, parts, block_n, block_k)
        in_order = x if parts == 2 else TensorDescriptor.from_tensor(x, [block_m, block_k])
        operands = (in_order, weights)
    y = x.new_empty(num_tokens, num_outputs)
    # an expert's last block of tokens is not full: at most one more for each expert that is hit
    blocks_m = num_tokens // block_m + min(num_tokens, num_experts)
    tiles = blocks_m * triton.cdiv(num_outputs, block_n)
    programs = min(tiles, launch.pop("programs_per_sm") * num_sms())
    _grouped_kernel[(programs,)](
        *operands,
        y,
        routing.order_T,
        routing.score_T,
        routing.expert_indptr,
        x.stride(0),
        num_experts,
        num_outputs,
        width,
        PARTS=parts,
        X_DESCRIBED=described and parts == 1,
        W_DESCRIBED=described,
        BLOCK_E=triton.next_power_of_2(num_experts),
        EVEN_K=width % block_k == 0,
        PRECISION=dot_precision(x.dtype),
        **launch,
    )
    return y
