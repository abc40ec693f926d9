"""Every kernel in plain PyTorch: the specification, the oracle of tests, and the path of devices
that have no kernels of their own yet.

    T tokens, H query heads, K key and value heads, D head dim, G = H / K, P pages, B block_len,
    E experts, I expert width, X = H + 2K heads of q, k and v side by side

In `vision_attention`: N tiles, P positions of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from caravan_kernels.paged import PagedSegments


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps), rounded to x's dtype, times weight.

    x [T, hidden], weight [hidden] -> [T, hidden] in x's dtype; fp32 inside.
    """
    return F.rms_norm(x, x.shape[-1:], eps=eps) * weight.type_as(x)


def add_rms_norm(
    x: Tensor, additions: Sequence[Tensor], weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """s = x + additions, rounded once to x's dtype, and the RMS norm of s; both [T, hidden].

    Up to 8 additions, of x's shape and dtype; without any, s is x itself. fp32 inside.
    """
    if not additions:
        return x, rms_norm(x, weight, eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    total = sum((a.to(wide) for a in additions), start=x.to(wide)).type_as(x)
    return total, rms_norm(total, weight, eps)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """y = x @ weight^T: x [T, in], weight [out, in] -> [T, out] in x's dtype."""
    return F.linear(x, weight.type_as(x))


def swiglu(gate_up: Tensor) -> Tensor:
    """y = silu(gate) * up: gate_up [T, 2I], gate in the first half -> [T, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def swiglu_linear(x: Tensor, gate_up: Tensor) -> Tensor:
    """y = swiglu(x @ gate_up^T): x [T, in], gate_up [2I, in], gate in the first half -> [T, I]."""
    return swiglu(linear(x, gate_up))


def rotate_pairs(x: Tensor, turns: Tensor) -> Tensor:
    """Each pair (x[2i], x[2i + 1]) as a complex number, times turns[i]: x's shape and dtype.

    x [..., D], turns complex64 [..., D / 2], broadcast; fp32 inside.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


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
    """What happens between the qkv projection and attention; returns q_THD, writes K and V.

    1. rope_TF (complex64, F = D / 2): rotates each pair (x[2i], x[2i + 1]) of q and k, in fp32.
    2. norm_eps: RMS norm without weight of each head of q and k.
    3. temperature_T (fp32): scales q.
    4. k and v go to the slots, in the cache's dtype; a slot of -1 takes none.
    """
    num_kv_heads = k_PBKD.shape[2]
    num_rotated = qkv_TXD.shape[1] - num_kv_heads
    qk = qkv_TXD[:, :num_rotated]
    if rope_TF is not None:
        qk = rotate_pairs(qk, rope_TF[:, None])
    if norm_eps is not None:
        wide = qk.float()
        qk = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm_eps)).type_as(qk)
    q_THD, k_TKD = qk[:, :-num_kv_heads], qk[:, -num_kv_heads:]
    if temperature_T is not None:
        q_THD = (q_THD * temperature_T[:, None, None]).type_as(q_THD)
    kept = slots_T >= 0
    for cache, new in ((k_PBKD, k_TKD), (v_PBKD, qkv_TXD[:, num_rotated:])):
        cache.flatten(0, 1).index_copy_(0, slots_T[kept], new[kept].to(cache.dtype))
    return q_THD


def token_slots(
    positions_T: Tensor,
    segment_T: Tensor,
    page_start_S: Tensor,
    pages_LN: Tensor,
    *,
    block_len: int,
    chunk_len: int | None,
) -> Tensor:
    """Where each token's K and V go in each slice: page * block_len + offset, int64 [L, T].

    positions int64, -1 for padding, whose slots are -1 too; segment int32 [T] of each token, and
    the column where its segment's table begins int32 [S]. Tables begin at position 0, or at the
    chunk with a chunk_len.
    """
    inside_T = positions_T.clamp(min=0)
    if chunk_len is not None:
        inside_T = inside_T % chunk_len
    columns_T = page_start_S[segment_T].long() + inside_T // block_len
    slots_LT = pages_LN[:, columns_T].long() * block_len + inside_T % block_len
    return slots_LT.where(positions_T >= 0, -1)


def gather_context(cache_PBKD: Tensor, pages: Tensor, length: int) -> Tensor:
    """The first `length` tokens that the pages hold: [length, K, D]."""
    return cache_PBKD.index_select(0, pages).flatten(0, 1)[:length]


def paged_attention(
    q_THD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    segments: PagedSegments,
    slice_index: int,
) -> Tensor:
    """Causal attention of every segment over its pages: softmax(q k^T / sqrt(D)) v, [T, H, D].

    The i-th of a segment's L queries sees its first context_len - L + i + 1 tokens; of a padding
    segment the result is 0. Scores and sums in fp32 (fp64 where q is fp64).
    """
    out = torch.empty_like(q_THD)
    groups = q_THD.shape[1] // k_PBKD.shape[2]
    wide = torch.float64 if q_THD.dtype == torch.float64 else torch.float32
    pages = segments.pages_LN[slice_index]
    for s in range(segments.num_segments):
        rows = slice(int(segments.query_indptr[s]), int(segments.query_indptr[s + 1]))
        length = int(segments.context_len[s])
        if not length:
            out[rows] = 0
            continue
        start = int(segments.page_start[s])
        owned = pages[start : start - (-length // k_PBKD.shape[1])]
        q = q_THD[rows].to(wide)
        k = gather_context(k_PBKD, owned, length).to(wide).repeat_interleave(groups, dim=1)
        v = gather_context(v_PBKD, owned, length).to(wide).repeat_interleave(groups, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        seen = torch.arange(length, device=q.device) <= (
            torch.arange(len(q), device=q.device)[:, None] + length - len(q)
        )
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        out[rows] = torch.einsum("hqk,khd->qhd", weights, v).type_as(out)
    return out


def vision_attention(q_NPHD: Tensor, k_NPHD: Tensor, v_NPHD: Tensor) -> Tensor:
    """Attention inside each tile, nothing hidden: softmax(q k^T / sqrt(D)) v, [N, P, H, D].

    Scores and sums in fp32 (fp64 where q is fp64).
    """
    wide = torch.float64 if q_NPHD.dtype == torch.float64 else torch.float32
    q, k, v = (x.to(wide) for x in (q_NPHD, k_NPHD, v_NPHD))
    scores = torch.einsum("nqhd,nkhd->nhqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), v).type_as(q_NPHD)


def moe_route(logits_TE: Tensor) -> tuple[Tensor, Tensor]:
    """Top-1 routing: expert [T] int64, the lowest of equals, and its logit's sigmoid [T].

    fp32 inside (fp64 where the logits are fp64).
    """
    best, expert = logits_TE.to(torch.promote_types(logits_TE.dtype, torch.float32)).max(-1)
    return expert, best.sigmoid()


def route_padding(logits_TE: Tensor, num_rows: Tensor | None) -> Tensor:
    """The logits with which `moe_experts` routes: rows of padding are those of the last row."""
    if num_rows is None:
        return logits_TE
    last = (num_rows - 1).clamp(min=0)
    return logits_TE[torch.arange(len(logits_TE), device=last.device).minimum(last)]


def moe_experts(
    x: Tensor,
    logits_TE: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    num_rows: Tensor | None = None,
) -> Tensor:
    """y[t] = down[e] @ swiglu(gate_up[e] @ (score * x[t])), (e, score) = moe_route(logits[t]).

    x [T, H], logits [T, E], gate_up [E, 2I, H], down [E, H, I] -> [T, H]. The score multiplies the
    input: SwiGLU is not linear, so on the output it would be another model. An implementation may
    multiply what gate_up makes of the input instead.

    Rows from `num_rows` (int32 [1]) on are padding. They take the logits of the last row before
    them, so that no expert's weights are read for their sake.
    """
    logits_TE = route_padding(logits_TE, num_rows)
    expert, score = moe_route(logits_TE)
    out = torch.empty_like(x)
    scaled = (x * score[:, None]).type_as(x)
    for e in expert.unique().tolist():
        rows = (expert == e).nonzero().squeeze(1)
        hidden = swiglu(linear(scaled[rows], gate_up_EJH[e]))
        out[rows] = linear(hidden, down_EHI[e])
    return out
