"""Causal attention of a step: the segments of one query by `decode_attention`, then the others.

One kernel for both would take the registers and shared memory of the larger one, and lose more
than a launch costs.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from caravan_kernels.gpu.decode_attention import decode_attention
from caravan_kernels.gpu.decode_tasks import plan_decode
from caravan_kernels.gpu.prefill_attention import prefill_attention
from caravan_kernels.paged import PagedSegments


def paged_attention(
    q_THD: Tensor, k_PBKD: Tensor, v_PBKD: Tensor, segments: PagedSegments, slice_index: int
) -> Tensor:
    """See `reference.paged_attention`. Plans the decode tasks if the segments bring none."""
    num_decode = segments.num_decode
    out = q_THD.new_empty(q_THD.shape)
    if num_decode:
        if segments.decode_tasks is None:
            tasks = plan_decode(segments.context_len[:num_decode], k_PBKD.shape[2])
            segments = replace(segments, decode_tasks=tasks)
        decode_attention(
            q_THD[:num_decode], k_PBKD, v_PBKD, segments, slice_index, out[:num_decode]
        )
    if num_decode < segments.num_segments:
        prefill_attention(
            q_THD[num_decode:], k_PBKD, v_PBKD, segments, slice_index, out[num_decode:]
        )
    return out
