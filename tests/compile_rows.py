"""The row kernels at the real models' shapes, for `compile_only.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from caravan_kernels.gpu import epilogue, logprobs, norm, sampling

HIDDEN, HEAD_DIM, VOCAB = 5120, 128, 202048
BLOCK_LEN, PAGES = 16, 64
HEADS = {"whole": (40, 8), "tp8": (5, 1)}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def compile_norm(dtype: torch.dtype, rows: int, additions: int) -> None:
    x, weight = meta(rows, HIDDEN, dtype=dtype), meta(HIDDEN, dtype=dtype)
    norm.add_rms_norm(x, [x] * additions, weight, 1e-5)
    norm.add_rms_norm(x, (), weight, 1e-5)


def compile_epilogue(dtype: torch.dtype, tokens: int, heads: tuple[int, int], kind: str) -> None:
    num_heads, num_kv_heads = heads
    pages = meta(PAGES, 2, BLOCK_LEN, num_kv_heads, HEAD_DIM, dtype=dtype)
    chunked = kind == "chunked"
    epilogue.qkv_epilogue(
        meta(tokens, num_heads + 2 * num_kv_heads, HEAD_DIM, dtype=dtype),
        pages[:, 0],
        pages[:, 1],
        meta(tokens, dtype=torch.int64),
        rope_TF=meta(tokens, HEAD_DIM // 2, dtype=torch.complex64) if chunked else None,
        norm_eps=1e-5 if chunked else None,
        temperature_T=None if chunked else meta(tokens),
    )


def compile_sampler(rows: int, filtered: bool) -> None:
    sampling.sample(
        meta(rows, VOCAB),
        meta(rows),
        meta(rows, dtype=torch.int64),
        meta(rows, dtype=torch.float64),
        meta(rows),
        meta(rows, dtype=torch.int64),
        meta(rows, dtype=torch.int64),
        filtered=filtered,
    )


def compile_changes(rows: int, entries: int) -> None:
    logits, counts = meta(rows, VOCAB), meta(rows, VOCAB, dtype=torch.int32)
    row, ids = meta(entries, dtype=torch.int64), meta(entries, dtype=torch.int64)
    sampling.apply_bias(logits, row, ids, meta(entries))
    words = meta(rows, -(-VOCAB // 32), dtype=torch.int32)
    sampling.apply_masks(logits, meta(rows, dtype=torch.int64), words)
    per_row = meta(rows, dtype=torch.int64)
    sampling.apply_penalties(logits, per_row, counts, meta(rows), meta(rows), meta(rows))
    sampling.count_tokens(counts, per_row, per_row)


def compile_logprobs(rows: int, num_top: int) -> None:
    logprobs.logprobs(meta(rows, VOCAB), meta(rows, dtype=torch.int64), num_top)


CALLS: dict[str, Callable[[], None]] = {
    **{
        f"norm {name} {rows} rows {additions} additions": partial(
            compile_norm, dtype, rows, additions
        )
        for name, dtype in DTYPES.items()
        for rows in (1, 64, 8192)
        for additions in (0, 1, 2, 8)
    },
    **{
        f"epilogue {kind} {name} {tokens} tokens {shard}": partial(
            compile_epilogue, dtype, tokens, heads, kind
        )
        for name, dtype in DTYPES.items()
        for tokens in (1, 64, 8192)
        for shard, heads in HEADS.items()
        for kind in ("chunked", "full")
    },
    **{
        f"sampler {rows} rows, filtered: {filtered}": partial(compile_sampler, rows, filtered)
        for rows in (1, 64)
        for filtered in (False, True)
    },
    "changes": partial(compile_changes, 64, 300),
    "logprobs": partial(compile_logprobs, 64, 20),
}
