"""Cases of attention for `gpu.py`: decode, prefill and the tiles of pictures.

    S segments, L queries of each, C tokens of context, H query heads, K kv heads, D head dim

Pages are scattered over the cache. The tasks of decode are planned before, as once per step for all
layers of a kind. Bytes: keys and values of every context once, queries and results once. FLOPs:
4 * H * D for each pair of a query and a token that it sees, so of a causal triangle one half.

Peers have keys and values side by side instead of in pages, and no table to read; they are left out
where lengths differ. "SDPA" is what PyTorch chooses by itself, "cuDNN" the kernel of that library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gpu_case import Call, Case, InputSets
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

import caravan_kernels as kernels
from caravan_kernels import PagedSegments
from caravan_kernels.gpu.decode_tasks import plan_decode

BLOCK_LEN = 64  # tokens of a page

Inputs = tuple[Tensor, Tensor, Tensor, PagedSegments, Tensor, Tensor]  # paged, and dense k and v


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Segments over pages; all have as many queries."""

    contexts: Sequence[int]
    queries: int = 1
    heads: int = 40
    kv_heads: int = 8
    head_dim: int = 128
    block_len: int = BLOCK_LEN
    dtype: torch.dtype = torch.bfloat16

    @property
    def num_bytes(self) -> int:
        """That must be moved."""
        cached = 2 * sum(self.contexts) * self.kv_heads
        attended = 2 * len(self.contexts) * self.queries * self.heads
        return (cached + attended) * self.head_dim * self.dtype.itemsize

    @property
    def flops(self) -> int:
        """That must be done."""
        hidden = self.queries * (self.queries - 1) // 2  # pairs behind the causal mask
        seen = sum(self.queries * context - hidden for context in self.contexts)
        return 4 * seen * self.heads * self.head_dim

    @property
    def uniform(self) -> bool:
        """Whether dense tensors can hold the contexts."""
        return len(set(self.contexts)) == 1


def paged_inputs(shape: Shape, device: torch.device) -> Inputs:
    """Random queries, keys and values; dense copies of k and v [S, K, C, D], or empty tensors."""
    num_segments = len(shape.contexts)
    owned = torch.tensor([-(-context // shape.block_len) for context in shape.contexts])
    num_pages = int(owned.sum())
    cache_shape = (num_pages, shape.block_len, shape.kv_heads, shape.head_dim)
    k, v = (torch.randn(cache_shape, device=device, dtype=shape.dtype) for _ in range(2))
    rows = num_segments * shape.queries
    q = torch.randn(rows, shape.heads, shape.head_dim, device=device, dtype=shape.dtype)
    context_len = torch.tensor(shape.contexts, dtype=torch.int32, device=device)
    pages = torch.randperm(num_pages, device=device)
    decode = shape.queries == 1
    segments = PagedSegments(
        num_decode=num_segments if decode else 0,
        query_indptr=torch.arange(0, rows + 1, shape.queries, dtype=torch.int32, device=device),
        context_len=context_len,
        page_start=(owned.cumsum(0) - owned).to(device, torch.int32),
        pages_LN=pages[None].to(torch.int32),
        slots_LT=torch.empty(1, 0, dtype=torch.int64, device=device),
        decode_tasks=plan_decode(context_len, shape.kv_heads) if decode else None,
    )
    dense = [q.new_empty(0)] * 2
    if shape.uniform:
        dense = [
            x[pages].unflatten(0, (num_segments, -1)).flatten(1, 2)[:, : shape.contexts[0]]
            for x in (k, v)
        ]
        dense = [x.transpose(1, 2).contiguous() for x in dense]
    return q, k, v, segments, dense[0], dense[1]


def attend(
    q: Tensor, k: Tensor, v: Tensor, segments: PagedSegments, dense_k: Tensor, dense_v: Tensor
) -> Tensor:
    """Ours, on the paged inputs."""
    return kernels.paged_attention(q, k, v, segments, 0)


def attend_dense(
    q: Tensor, k: Tensor, v: Tensor, segments: PagedSegments, dense_k: Tensor, dense_v: Tensor
) -> Tensor:
    """PyTorch's, on the dense copies."""
    queries = q.unflatten(0, (len(dense_k), -1)).transpose(1, 2)
    length, context = queries.shape[2], dense_k.shape[2]
    mask = causal_lower_right(length, context) if length > 1 else None
    out = F.scaled_dot_product_attention(queries, dense_k, dense_v, attn_mask=mask, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)


def with_cudnn(function: Callable[..., object]) -> Callable[..., object]:
    """The same call by cuDNN, or an error if it cannot."""

    def call(*arguments: object) -> object:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return function(*arguments)

    return call


def peers(
    function: Callable[..., object], sets: InputSets, device: torch.device
) -> dict[str, Call]:
    """PyTorch's kernels that compute the same."""
    found: dict[str, Call] = {"SDPA": sets.bind(function)}
    if device.type == "cuda":
        found["cuDNN"] = sets.bind(with_cudnn(function))
    return found


def paged_case(name: str, shape: Shape, device: torch.device) -> Case:
    """One shape, with peers if its lengths are equal."""
    sets = InputSets(lambda: paged_inputs(shape, device), shape.num_bytes, device)
    return Case(
        name=name,
        run=sets.bind(attend),
        peers=peers(attend_dense, sets, device) if shape.uniform else {},
        bytes=shape.num_bytes,
        flops=shape.flops,
        dtype=shape.dtype,
    )


def attend_tiles(q_NPHD: Tensor, k_NPHD: Tensor, v_NPHD: Tensor) -> Tensor:
    """PyTorch's, on the same tensors."""
    q, k, v = (x.transpose(1, 2) for x in (q_NPHD, k_NPHD, v_NPHD))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def vision_case(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Case:
    """Tiles, positions, heads and head dim, as the encoder has them: q and k apart from v."""
    tiles, positions, heads, head_dim = shape

    def make() -> tuple[Tensor, Tensor, Tensor]:
        qk, qkv = (
            torch.randn(tiles, positions, parts, heads, head_dim, device=device, dtype=dtype)
            for parts in (2, 3)
        )
        return qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]

    elements = tiles * positions * heads * head_dim
    num_bytes = 4 * elements * dtype.itemsize
    sets = InputSets(make, num_bytes, device)
    return Case(
        name=f"{tiles} tiles of {positions}, {heads} heads of {head_dim}",
        run=sets.bind(kernels.vision_attention),
        peers=peers(attend_tiles, sets, device),
        bytes=num_bytes,
        flops=4 * elements * positions,
        dtype=dtype,
    )


def scout_shapes() -> Iterator[tuple[str, Shape]]:
    """Scout's heads, on one GPU and on one of eight."""
    for batch, context in ((1, 1), (1, 8), (1, 128), (8, 8), (64, 1), (64, 4), (256, 1)):
        yield f"decode {batch} x {context}K", Shape(contexts=[1024 * context] * batch)
    yield "decode 1 x 128K and 31 x 4K", Shape(contexts=[131072, *[4096] * 31])
    yield "decode 64 x 4K, pages of 16", Shape(contexts=[4096] * 64, block_len=16)
    for batch, context in ((1, 1), (1, 128), (64, 4)):
        contexts = [1024 * context] * batch
        yield f"decode {batch} x {context}K, a shard", Shape(contexts=contexts, heads=5, kv_heads=1)
    for context in (1, 2, 4, 8, 16):
        length = 1024 * context
        yield f"prefill {context}K", Shape(contexts=[length], queries=length)
    for block_len in (16, 128):
        name = f"prefill 8K, pages of {block_len}"
        yield name, Shape(contexts=[8192], queries=8192, block_len=block_len)
    yield "prefill 2 chunks of 8K", Shape(contexts=[8192] * 2, queries=8192)
    yield "prefill 2K on 128K", Shape(contexts=[131072], queries=2048)
    yield "prefill 8K, a shard", Shape(contexts=[8192], queries=8192, heads=5, kv_heads=1)


def small_shapes() -> Iterator[tuple[str, Shape]]:
    """As many kinds, for the interpreter, which computes tl.dot wrongly in bfloat16."""
    heads = {"heads": 5, "kv_heads": 1, "head_dim": 16}
    half = torch.float16
    yield "decode 2 x 100", Shape(contexts=[100] * 2, dtype=half, **heads)
    yield "decode 1 x 150 and 2 x 20", Shape(contexts=[150, 20, 20], dtype=half, **heads)
    yield "prefill 100", Shape(contexts=[100], queries=100, dtype=half, **heads)
    yield "prefill 2 x 30 on 70", Shape(contexts=[70] * 2, queries=30, dtype=half, **heads)


def cases(device: torch.device, *, small: bool) -> list[Case]:
    """Attention of both kinds."""
    found = [
        paged_case(name, shape, device)
        for name, shape in (small_shapes() if small else scout_shapes())
    ]
    tiles = (1, 37, 2, 24) if small else (17, 577, 16, 88)
    found.append(vision_case(tiles, torch.float16 if small else torch.bfloat16, device))
    return found
