"""Device memory of keys and values: one arena of equal pages for both kinds of layer.

    G layers of a slice, P pages, B block_len, K key heads, D head dim

A layer's place is (kind, slice, index in the slice). It owns `arena[index]` of whatever pages its
slice's table names, so chunked and full layers draw from the same pages.
"""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor

from caravan.kv_layout import KVLayout
from caravan.model.architecture import Architecture
from caravan.model.step import LayerCache


def allocate_arena(
    heads: tuple[int, int],
    layout: KVLayout,
    num_pages: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """[G, 2, P, B, K, D]: keys and values of every page; `heads` are a rank's K, and D.

    Not cleared: no slot is read before its token is written, and on the CPU memory that no request
    has used yet is never touched.
    """
    shape = (layout.slice_layers, 2, num_pages, layout.block_len, *heads)
    return torch.empty(shape, dtype=dtype, device=device)


def layer_caches(architecture: Architecture, layout: KVLayout, arena: Tensor) -> list[LayerCache]:
    """Where each layer's keys and values are, layer by layer."""
    places = {kind: count() for kind in (True, False)}
    caches = []
    for chunked in architecture.chunked:
        slice_index, index = divmod(next(places[chunked]), layout.slice_layers)
        caches.append(LayerCache(arena[index, 0], arena[index, 1], slice_index))
    return caches
