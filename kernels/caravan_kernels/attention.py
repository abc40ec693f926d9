"""Causal attention of a step's segments over paged keys and values."""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import devices
from caravan_kernels.cpu import attention as cpu
from caravan_kernels.paged import DecodeTasks, PagedSegments


def paged_attention(
    q_THD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    segments: PagedSegments,
    slice_index: int,
) -> Tensor:
    """See `reference.paged_attention`."""
    if devices.on_gpu(q_THD):
        from caravan_kernels.gpu import paged_attention as gpu

        return gpu.paged_attention(q_THD, k_PBKD, v_PBKD, segments, slice_index)
    return cpu.paged_attention(q_THD, k_PBKD, v_PBKD, segments, slice_index)


def plan_decode(context_len_S: Tensor, num_kv_heads: int) -> DecodeTasks | None:
    """`PagedSegments.decode_tasks` of the segments with one query each; None on the CPU."""
    if not devices.on_gpu(context_len_S):
        return None
    from caravan_kernels.gpu import decode_tasks as gpu

    return gpu.plan_decode(context_len_S, num_kv_heads)
