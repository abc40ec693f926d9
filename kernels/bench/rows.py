"""Cases of the kernels that work row by row: norms, the qkv epilogue, and the sampler.

The logits are `peaked` as a trained model's (the r-th probability falls as r^-1.5: top_p = 0.9
keeps some 60 tokens), or `flat`: normal noise, of which it keeps tens of thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from gpu_case import Case, InputSets
from torch import Tensor
from transformers.models.llama4.modeling_llama4 import Llama4TextRMSNorm

import caravan_kernels as kernels
from caravan_kernels import reference, sampling

HIDDEN, VOCAB, NUM_TOP = 5120, 202048, 20
HEADS, KV_HEADS, HEAD_DIM, BLOCK_LEN = 40, 8, 128, 16
EPS = 1e-5
FILTERS = {  # temperature, top_k, top_p
    "greedy": (0.0, 0, 1.0),
    "plain": (0.7, 0, 1.0),
    "top_p 0.9": (0.7, 0, 0.9),
    "top_k 50, top_p 0.9": (0.7, 50, 0.9),
}


def cases(device: torch.device, *, small: bool) -> list[Case]:
    """All of them; `small` for the interpreter."""
    rows = (2,) if small else (1, 64, 8192)
    draws = (2,) if small else (1, 64, 256)
    found = [case for count in rows for case in _norms(device, count, small)]
    found += [_epilogue(device, count, chunked, small) for count in rows for chunked in (1, 0)]
    found += [
        _sampler(device, count, name, shape, small)
        for shape in ("peaked", "flat")
        for name in FILTERS
        for count in draws
        if shape == "peaked" or "top_p" in name
    ]
    return [*found, *(case for count in draws for case in _beside(device, count, small))]


def _dtype(small: bool) -> torch.dtype:
    return torch.float16 if small else torch.bfloat16


def _norms(device: torch.device, rows: int, small: bool) -> Iterator[Case]:
    """The norm alone, and with the sum of the residual stream and a block's output."""
    hidden, dtype = 200 if small else HIDDEN, _dtype(small)

    def make() -> tuple[object, ...]:
        norm = Llama4TextRMSNorm(hidden, EPS).to(device, dtype).requires_grad_(False)
        return *(torch.randn(2, rows, hidden, device=device, dtype=dtype)), norm

    def torchs(x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight, EPS)

    one = rows * hidden * dtype.itemsize
    sets = InputSets(make, num_bytes=2 * one, device=device)
    yield Case(
        name=f"rms_norm {rows} x {hidden}",
        run=sets.bind(lambda x, y, norm: kernels.add_rms_norm(x, (), norm.weight, EPS)[1]),
        peers={
            "torch": sets.bind(lambda x, y, norm: torchs(x, norm.weight)),
            "transformers": sets.bind(lambda x, y, norm: norm(x)),
        },
        bytes=2 * one + hidden * dtype.itemsize,
        dtype=dtype,
    )
    yield Case(
        name=f"add_rms_norm {rows} x {hidden}",
        run=sets.bind(lambda x, y, norm: kernels.add_rms_norm(x, [y], norm.weight, EPS)[1]),
        peers={
            "torch": sets.bind(lambda x, y, norm: torchs(x + y, norm.weight)),
            "transformers": sets.bind(lambda x, y, norm: norm(x + y)),
        },
        bytes=4 * one + hidden * dtype.itemsize,
        dtype=dtype,
    )


def _epilogue(device: torch.device, tokens: int, chunked: bool | int, small: bool) -> Case:
    """Of a layer with RoPE and norm, or of one with temperature; each token has its own slot."""
    heads, kv_heads, dim = (4, 1, 16) if small else (HEADS, KV_HEADS, HEAD_DIM)
    dtype = _dtype(small)
    pages = -(-tokens // BLOCK_LEN) + 1

    def make() -> tuple[object, ...]:
        qkv = torch.randn(tokens, heads + 2 * kv_heads, dim, device=device, dtype=dtype)
        k, v = torch.zeros(2, pages, BLOCK_LEN, kv_heads, dim, device=device, dtype=dtype)
        angles = torch.rand(tokens, dim // 2, device=device) * 6.3
        slots = torch.randperm(pages * BLOCK_LEN, device=device)[:tokens]
        temperature = torch.rand(tokens, device=device) + 1
        return qkv, k, v, slots, torch.polar(torch.ones_like(angles), angles), temperature

    def ours(qkv: Tensor, k: Tensor, v: Tensor, slots: Tensor, rope: Tensor, t: Tensor) -> Tensor:
        return kernels.qkv_epilogue(
            qkv,
            k,
            v,
            slots,
            rope_TF=rope if chunked else None,
            norm_eps=EPS if chunked else None,
            temperature_T=None if chunked else t,
        )

    def theirs(qkv: Tensor, k: Tensor, v: Tensor, slots: Tensor, rope: Tensor, t: Tensor) -> Tensor:
        qk = qkv[:, :-kv_heads]
        if chunked:
            qk = F.rms_norm(reference.rotate_pairs(qk, rope[:, None]), (dim,), eps=EPS)
        q = qk[:, :-kv_heads] if chunked else (qk[:, :-kv_heads] * t[:, None, None]).type_as(qk)
        k.flatten(0, 1).index_copy_(0, slots, qk[:, -kv_heads:])
        v.flatten(0, 1).index_copy_(0, slots, qkv[:, -kv_heads:])
        return q

    moved = tokens * (heads + 2 * kv_heads) * dim * dtype.itemsize
    beside = tokens * (8 + (dim * 4 if chunked else 4))
    sets = InputSets(make, num_bytes=2 * moved + beside, device=device)
    return Case(
        name=f"qkv_epilogue {'chunked' if chunked else 'full'} {tokens} tokens",
        run=sets.bind(ours),
        peers={"torch": sets.bind(theirs)},
        bytes=2 * moved + beside,
        dtype=dtype,
    )


def _logits(device: torch.device, rows: int, vocab_size: int, shape: str) -> Tensor:
    """`peaked` or `flat`, fp32 [rows, vocab_size]."""
    if shape == "flat":
        return torch.randn(rows, vocab_size, device=device) * 2
    falling = -1.5 * torch.arange(1, vocab_size + 1, device=device).log()
    orders = [torch.randperm(vocab_size, device=device) for _ in range(rows)]
    return torch.stack([falling[order] for order in orders])


def _multinomial(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """What PyTorch has for it: softmax, and for filters a sort of every row."""
    if not temperature:
        return logits.argmax(-1)
    logits = logits / temperature
    if not top_k and top_p == 1:
        return torch.multinomial(logits.softmax(-1), 1)[:, 0]
    values, ids = logits.sort(-1, descending=True)
    if top_k:
        values[:, top_k:] = float("-inf")
    p = values.softmax(-1)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    return ids.gather(1, torch.multinomial(p, 1))[:, 0]


def _sampler(device: torch.device, rows: int, name: str, shape: str, small: bool) -> Case:
    """The draw of one token for each row, all with the same parameters."""
    vocab_size = 300 if small else VOCAB
    temperature, top_k, top_p = FILTERS[name]
    filtered = top_k > 0 or top_p < 1

    def make() -> tuple[Tensor, ...]:
        return (
            _logits(device, rows, vocab_size, shape),
            torch.full((rows,), temperature, device=device),
            torch.full((rows,), top_k, device=device),
            torch.full((rows,), top_p, device=device, dtype=torch.float64),
            torch.zeros(rows, device=device),
            torch.arange(rows, device=device),
            torch.zeros(rows, device=device, dtype=torch.int64),
        )

    num_bytes = rows * vocab_size * 4
    sets = InputSets(make, num_bytes, device)
    return Case(
        name=f"sampler {name} {shape} {rows} rows",
        run=sets.bind(lambda *arguments: sampling.sample(*arguments, filtered=filtered)),
        peers={"torch": sets.bind(lambda logits, *_: _multinomial(logits, *FILTERS[name]))},
        bytes=num_bytes,
        dtype=torch.float32,
    )


def _beside(device: torch.device, rows: int, small: bool) -> Iterator[Case]:
    """What some requests ask for beside the draw: penalties and log-probabilities."""
    vocab_size = 300 if small else VOCAB
    num_bytes = rows * vocab_size * 4

    def make() -> tuple[object, ...]:
        logits = _logits(device, rows, vocab_size, "peaked")
        counts = torch.zeros(rows, vocab_size, dtype=torch.int32, device=device)
        counts[:, :: max(1, vocab_size // 2000)] = 1  # a context of some thousand tokens
        half = torch.full((rows,), 0.5, device=device)
        return logits, counts, torch.arange(rows, device=device), half

    def penalties(logits: Tensor, counts: Tensor, row: Tensor, half: Tensor) -> None:
        sampling.apply_penalties(logits, row, counts, 2 * half, half, half)

    def logprobs(logits: Tensor, counts: Tensor, row: Tensor, half: Tensor) -> Tensor:
        return sampling.logprobs(logits, row, NUM_TOP)[2]

    def top(logits: Tensor, counts: Tensor, row: Tensor, half: Tensor) -> Tensor:
        return logits.log_softmax(-1).topk(NUM_TOP).values

    sets = InputSets(make, num_bytes=2 * num_bytes, device=device)
    yield Case(f"penalties {rows} rows", sets.bind(penalties), bytes=num_bytes, dtype=torch.float32)
    yield Case(
        name=f"logprobs of {NUM_TOP} {rows} rows",
        run=sets.bind(logprobs),
        peers={"torch": sets.bind(top)},
        bytes=num_bytes,
        dtype=torch.float32,
    )
