"""Random segments over scattered pages, for tests of attention on any device.

Every slot that no segment owns holds NaN: reading one shows in the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from accuracy import assert_as_exact
from caravan_kernels import PagedSegments, reference

Lengths = list[tuple[int, int]]  # (queries, context) of each segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The sizes that a model and its cache fix."""

    heads: int
    kv_heads: int
    head_dim: int
    block_len: int


@dataclass(frozen=True, slots=True)
class PagedCase:
    """The arguments of `paged_attention`."""

    q_THD: Tensor
    k_PBKD: Tensor
    v_PBKD: Tensor
    segments: PagedSegments
    slice_index: int

    def check(self, out: Tensor) -> None:
        """Judges the attention of all segments, or of the last ones if there are fewer rows."""
        caches = (self.k_PBKD, self.v_PBKD, self.segments, self.slice_index)
        same = reference.paged_attention(self.q_THD, *caches)
        exact = reference.paged_attention(self.q_THD.double(), *caches)
        assert_as_exact(out, same[-len(out) :], exact[-len(out) :])


def paged_case(
    lengths: Lengths, model: Model, dtype: torch.dtype, device: torch.device, *, num_decode: int = 0
) -> PagedCase:
    """The first `num_decode` segments have one query each, as the kernels demand."""
    generator = torch.Generator().manual_seed(sum(context for _, context in lengths))
    block_len = model.block_len
    owned = [-(-context // block_len) for _, context in lengths]
    spare = 3  # pages of nobody, and table entries before the first segment's and after the last's
    table = torch.randperm(sum(owned) + spare, generator=generator).to(torch.int32)
    starts = list(accumulate(owned, initial=1))
    shape = (len(table), block_len, model.kv_heads, model.head_dim)
    caches = []
    for _ in range(2):
        cache = torch.full(shape, float("nan"))
        for (_, context), start, count in zip(lengths, starts, owned, strict=False):
            slots = torch.full((count * block_len, *shape[2:]), float("nan"))
            slots[:context] = torch.randn(context, *shape[2:], generator=generator)
            cache[table[start : start + count].long()] = slots.view(count, *shape[1:])
        caches.append(cache.to(device, dtype))
    queries = [count for count, _ in lengths]
    foreign = table.flip(0)  # another slice's table
    segments = PagedSegments(
        num_decode=num_decode,
        query_indptr=_ints(list(accumulate(queries, initial=0)), device),
        context_len=_ints([context for _, context in lengths], device),
        page_start=_ints(starts[:-1], device),
        pages_LN=torch.stack([foreign, table]).to(device),
        slots_LT=torch.empty(2, 0, dtype=torch.int64, device=device),
    )
    q = torch.randn(sum(queries), model.heads, model.head_dim, generator=generator)
    return PagedCase(q.to(device, dtype), caches[0], caches[1], segments, 1)


def unaligned(segments: PagedSegments) -> PagedSegments:
    """The same segments, their tensors at odd addresses as views of a larger one may be."""
    return replace(
        segments,
        query_indptr=_shifted(segments.query_indptr),
        context_len=_shifted(segments.context_len),
        page_start=_shifted(segments.page_start),
        pages_LN=_shifted(segments.pages_LN),
    )


def _shifted(x: Tensor) -> Tensor:
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)


def _ints(values: list[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)
