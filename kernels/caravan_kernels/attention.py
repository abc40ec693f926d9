"""Causal attention of a step's segments over paged keys and values."""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import reference
from caravan_kernels.cpu import attention as cpu
from caravan_kernels.paged import PagedSegments


def paged_attention(
    q_THD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    segments: PagedSegments,
    slice_index: int,
) -> Tensor:
    """See `reference.paged_attention`."""
    if q_THD.device.type == "cpu":
        return cpu.paged_attention(q_THD, k_PBKD, v_PBKD, segments, slice_index)
    return reference.paged_attention(q_THD, k_PBKD, v_PBKD, segments, slice_index)
