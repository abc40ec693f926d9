"""Attention of one layer: chunked with RoPE, or full without positions.

T tokens, H query heads, K key and value heads, D head dim, F = D / 2
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.architecture import Architecture
from caravan.model.layers import ColumnParallel, RowParallel
from caravan.model.parallel import TensorParallel
from caravan.model.step import LayerCache
from caravan_kernels import PagedSegments


@dataclass(frozen=True, slots=True)
class KindInput:
    """What all layers of one kind share in a step: computed once, not per layer."""

    segments: PagedSegments
    rope_TF: Tensor | None = None  # chunked layers
    temperature_T: Tensor | None = None  # full layers, where the model tunes it


class Attention(nn.Module):
    """x [T, hidden] -> terms [T, hidden] of a sum, and this step's K and V into the pages."""

    def __init__(self, architecture: Architecture, *, chunked: bool, group: TensorParallel) -> None:
        super().__init__()
        a = architecture
        self.group = group
        self.head_dim = a.head_dim
        # a weightless norm of each head, after RoPE and only where there is RoPE
        self.norm_eps = a.rms_norm_eps if chunked and a.use_qk_norm else None
        heads = a.num_heads + 2 * a.num_kv_heads
        self.qkv = ColumnParallel(a.hidden_size, heads * a.head_dim, group)
        self.out = RowParallel(a.num_heads * a.head_dim, a.hidden_size, group)

    def forward(self, x: Tensor, kind: KindInput, cache: LayerCache) -> tuple[Tensor, ...]:
        qkv_TXD = self.qkv(x).view(len(x), -1, self.head_dim)
        q_THD = kernels.qkv_epilogue(
            qkv_TXD,
            cache.k_PBKD,
            cache.v_PBKD,
            kind.segments.slots_LT[cache.slice_index],
            rope_TF=kind.rope_TF,
            norm_eps=self.norm_eps,
            temperature_T=kind.temperature_T,
        )
        attended_THD = kernels.paged_attention(
            q_THD, cache.k_PBKD, cache.v_PBKD, kind.segments, cache.slice_index
        )
        return self.group.all_reduce_terms(self.out(attended_THD.flatten(1)))
