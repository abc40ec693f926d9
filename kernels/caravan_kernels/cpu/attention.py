"""Attention over pages on the CPU.

Decode    one query per segment: a numba kernel walks the pages in place, no copy of the context
          Grid     segments x key heads
          Traffic  2 * context * K * D * itemsize bytes
Prefill   the context is gathered and widened once, then PyTorch's fused attention runs on blocks
          of queries
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from caravan_kernels.cpu.widen import WIDENED, as_array, widen
from caravan_kernels.paged import PagedSegments
from caravan_kernels.reference import gather_context

QUERY_BLOCK = 512  # queries per call: bounds the mask at 512 x context


@njit(parallel=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True, cache=True)
def _decode(
    q: NDArray[np.float32],  # [R, H, D]
    k: NDArray[np.generic],  # [P, B, K, D]
    v: NDArray[np.generic],
    context_len: NDArray[np.int32],
    page_start: NDArray[np.int32],
    pages: NDArray[np.int32],
    out: NDArray[np.float32],
) -> None:
    block_len, num_kv_heads, head_dim = k.shape[1], k.shape[2], k.shape[3]
    groups = q.shape[1] // num_kv_heads
    scale = np.float32(1.0 / np.sqrt(head_dim))
    for task in prange(q.shape[0] * num_kv_heads):
        row, kv_head = task // num_kv_heads, task % num_kv_heads
        length = context_len[row]
        if length == 0:  # padding
            out[row, kv_head * groups : (kv_head + 1) * groups] = 0
            continue
        table = pages[page_start[row] :]
        queries = q[row, kv_head * groups : (kv_head + 1) * groups]
        scratch = np.empty(head_dim, np.uint32)
        scores = np.empty((groups, length), np.float32)
        for j in range(length):
            key = widen(k[table[j // block_len], j % block_len, kv_head], scratch)
            g = 0
            while g + 4 <= groups:  # four queries share each load of the key
                q0, q1, q2, q3 = queries[g], queries[g + 1], queries[g + 2], queries[g + 3]
                s0 = s1 = s2 = s3 = np.float32(0)
                for d in range(head_dim):
                    s0 += q0[d] * key[d]
                    s1 += q1[d] * key[d]
                    s2 += q2[d] * key[d]
                    s3 += q3[d] * key[d]
                scores[g, j], scores[g + 1, j] = s0 * scale, s1 * scale
                scores[g + 2, j], scores[g + 3, j] = s2 * scale, s3 * scale
                g += 4
            while g < groups:
                query, score = queries[g], np.float32(0)
                for d in range(head_dim):
                    score += query[d] * key[d]
                scores[g, j] = score * scale
                g += 1
        total = np.empty(groups, np.float32)
        for g in range(groups):  # loops: numba compiles array expressions four times as long
            line, best, summed = scores[g], scores[g, 0], np.float32(0)
            for j in range(1, length):
                best = max(best, line[j])
            for j in range(length):
                line[j] = np.exp(line[j] - best)
                summed += line[j]
            total[g] = summed
        result = np.zeros((groups, head_dim), np.float32)
        for j in range(length):
            value = widen(v[table[j // block_len], j % block_len, kv_head], scratch)
            for g in range(groups):
                weight, line = scores[g, j], result[g]
                for d in range(head_dim):
                    line[d] += weight * value[d]
        for g in range(groups):
            for d in range(head_dim):
                out[row, kv_head * groups + g, d] = result[g, d] / total[g]


def _attend(q_LHD: Tensor, k_CKD: Tensor, v_CKD: Tensor, out_LHD: Tensor) -> None:
    """Causal attention of the last L of C tokens, all fp32, into `out_LHD`."""
    length, context = len(q_LHD), len(k_CKD)
    num_kv_heads = k_CKD.shape[1]
    k_KGCD, v_KGCD = (  # a group's query heads read the same keys: expanded, not copied
        x.transpose(0, 1)[:, None].expand(-1, q_LHD.shape[1] // num_kv_heads, -1, -1)
        for x in (k_CKD, v_CKD)
    )
    q_KGLD = q_LHD.unflatten(1, (num_kv_heads, -1)).permute(1, 2, 0, 3)
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        seen = context - length + end
        mask = torch.ones(end - start, seen, dtype=torch.bool).tril_(seen - (end - start))
        block = F.scaled_dot_product_attention(
            q_KGLD[:, :, start:end], k_KGCD[:, :, :seen], v_KGCD[:, :, :seen], attn_mask=mask
        )
        out_LHD[start:end] = block.permute(2, 0, 1, 3).flatten(1, 2)


def paged_attention(
    q_THD: Tensor, k_PBKD: Tensor, v_PBKD: Tensor, segments: PagedSegments, slice_index: int
) -> Tensor:
    """As `reference.paged_attention`; q_THD is fp32."""
    out = torch.empty_like(q_THD)
    pages = segments.pages_LN[slice_index]
    num_decode = segments.num_decode if k_PBKD.dtype in WIDENED else 0
    if num_decode:
        _decode(
            q_THD[:num_decode].numpy(),
            as_array(k_PBKD),
            as_array(v_PBKD),
            segments.context_len[:num_decode].numpy(),
            segments.page_start[:num_decode].numpy(),
            pages.numpy(),
            out[:num_decode].numpy(),
        )
    rows, starts = segments.query_indptr.tolist(), segments.page_start.tolist()
    for s in range(num_decode, segments.num_segments):
        length = int(segments.context_len[s])
        if not length:  # padding
            out[rows[s] : rows[s + 1]] = 0
            continue
        table = pages[starts[s] : starts[s] - (-length // k_PBKD.shape[1])]
        k_CKD = gather_context(k_PBKD, table, length).float()
        v_CKD = gather_context(v_PBKD, table, length).float()
        _attend(q_THD[rows[s] : rows[s + 1]], k_CKD, v_CKD, out[rows[s] : rows[s + 1]])
    return out
