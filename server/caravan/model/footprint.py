"""What a model takes on each device, from its config.json alone: what `caravan check` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from caravan.kv_layout import KVLayout
from caravan.model.architecture import ITEMSIZES, Architecture, WeightDtype
from caravan.model.manifest import parameters
from caravan.model.parameters import Part


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Sizes of the model, and of the cache per request, on one rank."""

    num_parameters: Mapping[Part, int]  # of the whole model
    weight_bytes: Mapping[Part, int]  # on one rank
    layout: KVLayout  # on one rank
    itemsize: int  # bytes of an element of weights, activations and cache
    max_position_embeddings: int  # tokens
    tile_tokens: int  # rows that a tile of a picture becomes; 0 if the model reads text only
    tile_bytes: int  # of one encoded tile in the image cache

    @property
    def total_parameters(self) -> int:
        """Of the whole model."""
        return sum(self.num_parameters.values())

    @property
    def total_weight_bytes(self) -> int:
        """On one rank."""
        return sum(self.weight_bytes.values())

    @property
    def full_bytes_per_token(self) -> int:
        """Keys and values that one token adds to the full layers, on one rank."""
        return self.layout.full_slices * self.layout.page_bytes // self.layout.block_len

    @property
    def chunked_bytes_per_token(self) -> int:
        """The same in the chunked layers; a request keeps `layout.chunk_len` tokens at most."""
        return self.layout.chunked_slices * self.layout.page_bytes // self.layout.block_len

    def num_pages(self, cache_bytes: int) -> int:
        """Pages that fit into `cache_bytes` of one rank's memory."""
        return cache_bytes // self.layout.page_bytes

    def longest_context(self, cache_bytes: int) -> int:
        """Most tokens of one request alone, if each rank has `cache_bytes` for the cache."""
        return self.layout.longest_context(
            self.num_pages(cache_bytes), self.max_position_embeddings
        )


def footprint(
    architecture: Architecture, *, dtype: WeightDtype, block_len: int, tp_size: int = 1
) -> Footprint:
    """Sizes if weights and cache have type `dtype` and a cache block has `block_len` tokens.

    Raises ConfigError if the model cannot be split over `tp_size` ranks.
    """
    itemsize = ITEMSIZES[dtype]
    vision = architecture.vision
    tile_tokens = 0 if vision is None else vision.tile_tokens
    num_parameters: dict[Part, int] = {}
    weight_bytes: dict[Part, int] = {}
    for parameter in parameters(architecture):
        part = parameter.part
        num_parameters[part] = num_parameters.get(part, 0) + parameter.num_elements()
        on_rank = parameter.num_elements(tp_size) * itemsize
        weight_bytes[part] = weight_bytes.get(part, 0) + on_rank
    return Footprint(
        num_parameters=num_parameters,
        weight_bytes=weight_bytes,
        layout=architecture.kv_layout(block_len, itemsize, tp_size),
        itemsize=itemsize,
        max_position_embeddings=architecture.max_position_embeddings,
        tile_tokens=tile_tokens,
        tile_bytes=tile_tokens * architecture.hidden_size * itemsize,
    )
