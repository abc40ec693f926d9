"""From the qkv projection to attention: RoPE, norm, temperature, K and V into pages, in one launch.

    1. rope         each pair (x[2i], x[2i + 1]) of q and k, as a complex number, times rope[t, i]
    2. norm         each head of q and k divided by its root mean square
    3. temperature  q times temperature[t]
    4. store        q to [T, H, D]; k and v to page slot // B, place slot % B, unless slot is -1

Shapes    T tokens, X = H + 2K heads of q, k and v side by side, D head dim, P pages of B tokens
Numerics  fp32 from the load to the store: one rounding where the reference has up to three
Grid      (T, X / HEADS): a program takes HEADS neighbouring heads of a token, of whatever kind
Traffic   2 * T * X * D elements and 4 * T * D bytes of rope: 14 KB in and out per token of Scout in
          bf16. 8192 tokens: 239 MB, 56 us at 4.3 TB/s; one token is the latency of one read

Pairs are neighbours in memory, and so in a thread's 16 bytes: splitting a head into even and odd
elements moves nothing between threads. A block that mixes q, k and v heads (5 + 1 + 1 of a tensor
parallel rank) stores three times under three masks, which costs instructions and no traffic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from caravan_kernels.gpu.tuning import launch_parameters


@triton.jit
def _qkv_epilogue(
    qkv_ptr,
    k_ptr,
    v_ptr,
    slot_ptr,
    rope_ptr,  # fp32, cosine and sine in turn; None: no RoPE
    temperature_ptr,  # None: 1
    q_ptr,
    qkv_stride_t,
    qkv_stride_x,
    k_stride_p,
    k_stride_b,
    k_stride_k,
    v_stride_p,
    v_stride_b,
    v_stride_k,
    rope_stride_t,
    block_len,
    norm_eps,
    H: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    NORM: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,  # D, padded to a power of two
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    dim = tl.arange(0, DIM)
    inside = (head < H + 2 * K)[:, None] & (dim < D)[None, :]
    place = head[:, None] * qkv_stride_x + dim[None, :]
    x = tl.load(qkv_ptr + token * qkv_stride_t + place, mask=inside, other=0.0)
    slot = tl.load(slot_ptr + token)
    wide = x.to(tl.float32)
    if rope_ptr is not None:
        turn = tl.load(rope_ptr + token * rope_stride_t + dim, mask=dim < D, other=0.0)
        cosine, sine = tl.split(tl.reshape(turn, (1, DIM // 2, 2)))
        even, odd = tl.split(tl.reshape(wide, (HEADS, DIM // 2, 2)))
        turned = tl.join(even * cosine - odd * sine, even * sine + odd * cosine)
        wide = tl.reshape(turned, (HEADS, DIM))
    if NORM:
        mean = tl.sum(wide * wide, 1) / D
        wide *= tl.rsqrt(mean + norm_eps)[:, None]
    if temperature_ptr is not None:
        temperature = tl.load(temperature_ptr + token)
        wide *= tl.where(head < H, temperature, 1.0)[:, None]

    is_q = inside & (head < H)[:, None]
    q_place = (token * H + head)[:, None] * D + dim[None, :]
    tl.store(q_ptr + q_place, wide.to(q_ptr.dtype.element_ty), mask=is_q)

    page, offset = slot // block_len, slot % block_len
    end = tl.where(slot >= 0, H + 2 * K, 0)  # of the heads that are kept: a slot of -1 takes none
    is_k = inside & ((head >= H) & (head < H + K) & (head < end))[:, None]
    k_place = page * k_stride_p + offset * k_stride_b + (head - H)[:, None] * k_stride_k
    tl.store(k_ptr + k_place + dim[None, :], wide.to(k_ptr.dtype.element_ty), mask=is_k)
    is_v = inside & ((head >= H + K) & (head < end))[:, None]
    v_place = page * v_stride_p + offset * v_stride_b + (head - H - K)[:, None] * v_stride_k
    tl.store(v_ptr + v_place + dim[None, :], x.to(v_ptr.dtype.element_ty), mask=is_v)


def qkv_epilogue(
    qkv_TXD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    slots_T: Tensor,
    *,
    rope_TF: Tensor | None,
    norm_eps: float | None,
    temperature_T: Tensor | None,
) -> Tensor:
    """As `reference.qkv_epilogue`; the pages may lie in their arena by any strides."""
    tokens, heads, head_dim = qkv_TXD.shape
    num_kv_heads = k_PBKD.shape[2]
    num_heads = heads - 2 * num_kv_heads
    for x in (qkv_TXD, k_PBKD, v_PBKD):
        assert x.stride(-1) == 1, x.stride()
    q_THD = qkv_TXD.new_empty(tokens, num_heads, head_dim)
    turns = torch.view_as_real(rope_TF) if rope_TF is not None else None
    assert turns is None or turns.stride()[1:] == (2, 1), turns.stride()
    launch = launch_parameters("qkv_epilogue", tokens=tokens, heads=heads)
    _qkv_epilogue[(tokens, triton.cdiv(heads, launch["HEADS"]))](
        qkv_TXD,
        k_PBKD,
        v_PBKD,
        slots_T,
        turns,
        temperature_T,
        q_THD,
        *qkv_TXD.stride()[:2],
        *k_PBKD.stride()[:3],
        *v_PBKD.stride()[:3],
        turns.stride(0) if turns is not None else 0,
        k_PBKD.shape[1],
        norm_eps or 0.0,
        H=num_heads,
        K=num_kv_heads,
        D=head_dim,
        NORM=norm_eps is not None,
        DIM=triton.next_power_of_2(head_dim),
        **launch,
    )
    return q_THD
