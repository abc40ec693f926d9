from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import caravan_kernels as kernels
from accuracy import assert_as_exact
from caravan_kernels import PagedSegments, reference
from caravan_kernels.cpu import attention as cpu_attention


@dataclass
class Paged:
    """Random keys and values of several contexts, scattered over shuffled pages."""

    q_THD: Tensor
    k_PBKD: Tensor
    v_PBKD: Tensor
    segments: PagedSegments
    contexts: list[tuple[Tensor, Tensor]]  # the same k, v as [C, K, D]


def scatter(
    lengths: list[tuple[int, int]],  # (queries, context) of each segment
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    block_len: int,
    dtype: torch.dtype,
) -> Paged:
    generator = torch.Generator().manual_seed(len(lengths))
    blocks = [-(-context // block_len) for _, context in lengths]
    num_pages = sum(blocks) + 3
    shape = (num_pages, block_len, kv_heads, head_dim)
    # slots that no segment owns hold NaN: reading one shows
    k, v = (torch.full(shape, float("nan"), dtype=dtype) for _ in range(2))
    order = torch.randperm(num_pages, generator=generator).to(torch.int32)
    contexts, start = [], 0
    for (_, context), count in zip(lengths, blocks, strict=True):
        pages = order[start : start + count]
        start += count
        pair = []
        for cache in (k, v):
            values = torch.randn(context, kv_heads, head_dim, generator=generator).to(dtype)
            for position in range(context):
                cache[pages[position // block_len], position % block_len] = values[position]
            pair.append(values)
        contexts.append((pair[0], pair[1]))
    queries = torch.tensor([0] + [q for q, _ in lengths])
    owned = torch.tensor([0, *blocks])
    segments = PagedSegments(
        num_decode=sum(1 for q, _ in lengths if q == 1),
        query_indptr=queries.cumsum(0).to(torch.int32),
        context_len=torch.tensor([c for _, c in lengths], dtype=torch.int32),
        page_start=owned.cumsum(0)[:-1].to(torch.int32),
        pages_LN=torch.stack([torch.zeros_like(order), order]),
        slots_LT=torch.empty(2, 0, dtype=torch.int64),
    )
    q = torch.randn(int(queries.sum()), heads, head_dim, generator=generator)
    return Paged(q, k, v, segments, contexts)


def dense(q_LHD: Tensor, k_CKD: Tensor, v_CKD: Tensor) -> Tensor:
    """PyTorch's own attention, with the mask written out."""
    length, context = len(q_LHD), len(k_CKD)
    mask = torch.ones(length, context, dtype=torch.bool).tril(context - length)
    q, k, v = (x.double().transpose(0, 1) for x in (q_LHD, k_CKD, v_CKD))
    out: Tensor = torch.nn.functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=mask, enable_gqa=True
    )
    return out[0].transpose(0, 1)


MIXED = [(1, 1), (1, 17), (1, 64), (5, 5), (1 + 6, 40), (33, 34)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "block_len"), [(10, 2, 16, 16), (8, 8, 24, 5), (3, 1, 88, 1)]
)
def test_paged_equals_dense(
    heads: int, kv_heads: int, head_dim: int, block_len: int, dtype: torch.dtype
) -> None:
    p = scatter(
        MIXED,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        block_len=block_len,
        dtype=dtype,
    )
    args = (p.k_PBKD, p.v_PBKD, p.segments, 1)
    exact = reference.paged_attention(p.q_THD.double(), *args)
    same = reference.paged_attention(p.q_THD, *args)
    assert_as_exact(kernels.paged_attention(p.q_THD, *args), same, exact)

    rows = p.segments.query_indptr.tolist()
    for s, (k, v) in enumerate(p.contexts):
        q = p.q_THD[rows[s] : rows[s + 1]]
        torch.testing.assert_close(exact[rows[s] : rows[s + 1]], dense(q, k, v))


def test_long_prefill_runs_in_blocks_of_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "QUERY_BLOCK", 8)
    p = scatter(
        [(30, 30), (21, 50)], heads=4, kv_heads=2, head_dim=8, block_len=4, dtype=torch.float32
    )
    args = (p.k_PBKD, p.v_PBKD, p.segments, 1)
    exact = reference.paged_attention(p.q_THD.double(), *args)
    same = reference.paged_attention(p.q_THD, *args)
    assert_as_exact(kernels.paged_attention(p.q_THD, *args), same, exact)
