"""Attention as `compile_only` compiles it: Scout's and Maverick's shapes, whole and sharded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from caravan_kernels.gpu.decode_tasks import plan_decode
from caravan_kernels.gpu.paged_attention import paged_attention
from caravan_kernels.gpu.vision_attention import vision_attention
from caravan_kernels.paged import PagedSegments

META = torch.device("meta")
TEXT_HEADS = {"TP 1": (40, 8), "TP 8": (5, 1)}  # query heads, key heads
HALF_TYPES = (torch.bfloat16, torch.float16)


def attend(
    heads: tuple[int, int], block_len: int, dtype: torch.dtype, *, decode: int, prefill: int
) -> None:
    """`decode` segments of one query and `prefill` of 1000."""
    tokens, num_segments = decode + 1000 * prefill, decode + prefill
    context_len = integers(num_segments)
    segments = PagedSegments(
        num_decode=decode,
        query_indptr=integers(num_segments + 1),
        context_len=context_len,
        page_start=integers(num_segments),
        pages_LN=integers(3, 4096),
        slots_LT=torch.empty(3, tokens, dtype=torch.int64, device=META),
        decode_tasks=plan_decode(context_len[:decode], heads[1]) if decode else None,
    )
    q = torch.empty(tokens, heads[0], 128, dtype=dtype, device=META)
    cache = torch.empty(4096, block_len, heads[1], 128, dtype=dtype, device=META)
    paged_attention(q, cache, cache, segments, 1)


def attend_tiles(heads: int, dtype: torch.dtype) -> None:
    """17 tiles, as the encoder has them: q and k turned by RoPE, v in its place beside them."""
    qk = torch.empty(17, 577, 2, heads, 88, dtype=dtype, device=META)
    qkv = torch.empty(17, 577, 3, heads, 88, dtype=dtype, device=META)
    vision_attention(qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2])


def integers(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int32, device=META)


def calls() -> Iterator[tuple[str, Callable[[], None]]]:
    for dtype in (*HALF_TYPES, torch.float32):
        for name, heads in TEXT_HEADS.items():
            for block_len in (16, 64, 128):
                prefill = partial(attend, heads, block_len, dtype, decode=0, prefill=3)
                yield f"prefill, {name}, pages of {block_len}, {dtype}", prefill
            for batch in (1, 64, 512):
                decode = partial(attend, heads, 64, dtype, decode=batch, prefill=0)
                yield f"decode, {name}, batch of {batch}, {dtype}", decode
            decode = partial(attend, heads, 1, dtype, decode=64, prefill=0)
            yield f"decode, {name}, pages of 1, {dtype}", decode
        for vision_heads in (16, 2):
            tiles = partial(attend_tiles, vision_heads, dtype)
            yield f"vision, {vision_heads} heads, {dtype}", tiles


CALLS = dict(calls())
