"""Compile list of `gpu.token_slots`: see compile_only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from caravan_kernels.gpu.token_slots import token_slots


def call(num_tokens: int, num_slices: int, chunk_len: int | None) -> None:
    columns = torch.empty(num_slices, 100_000, dtype=torch.int32, device="meta")
    positions = torch.empty(num_tokens, dtype=torch.int64, device="meta")
    segment = torch.empty(num_tokens, dtype=torch.int32, device="meta")
    start = torch.empty(min(num_tokens, 256), dtype=torch.int32, device="meta")
    token_slots(positions, segment, start, columns, block_len=16, chunk_len=chunk_len)


CALLS: dict[str, Callable[[], None]] = {
    "full, 256 tokens": partial(call, 256, 1, None),
    "chunked, 8192 tokens": partial(call, 8192, 3, 8192),
}
