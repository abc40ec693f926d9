"""Where a step's tokens go in the pages."""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import devices, reference


def token_slots(
    positions_T: Tensor,
    segment_T: Tensor,
    page_start_S: Tensor,
    pages_LN: Tensor,
    *,
    block_len: int,
    chunk_len: int | None,
) -> Tensor:
    """See `reference.token_slots`."""
    implementation = reference.token_slots
    if devices.on_gpu(positions_T):
        from caravan_kernels.gpu import token_slots as gpu

        implementation = gpu.token_slots
    return implementation(
        positions_T, segment_T, page_start_S, pages_LN, block_len=block_len, chunk_len=chunk_len
    )
