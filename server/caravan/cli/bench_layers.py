"""A model with fewer layers than its configuration has: what fits a device, at its real widths.

Layers come in periods (Scout: three chunked ones and a full one), and a shortened model has whole
periods, so that its time per token is the whole model's times its share of the layers, but for the
embedding and the head.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from caravan.config import EngineConfig
from caravan.errors import ConfigError
from caravan.model.architecture import Architecture
from caravan.model.fields import read_object
from caravan.model.footprint import footprint

FIT = "fit"
CACHE_SHARE = 0.25  # of the memory, where --kv-cache-memory-bytes does not say


def layer_period(architecture: Architecture) -> int:
    """The fewest layers whose pattern the model repeats; all of them if it repeats none."""
    kinds = tuple(zip(architecture.chunked, architecture.moe, strict=True))
    count = len(kinds)
    return next(n for n in range(1, count + 1) if kinds[:n] * (count // n) == kinds)


def shortened(architecture: Architecture, num_layers: int) -> Architecture:
    """The first layers of a model. Raises ConfigError if they are not whole periods of it."""
    period = layer_period(architecture)
    if num_layers % period or not 0 < num_layers <= architecture.num_layers:
        raise ConfigError(
            f"--layers is {num_layers}; it must be a multiple of {period}, after which this "
            f"model's layers repeat, and at most {architecture.num_layers}"
        )
    return replace(
        architecture,
        chunked=architecture.chunked[:num_layers],
        moe=architecture.moe[:num_layers],
    )


def most_layers(
    architecture: Architecture, config: EngineConfig, device: str, free_bytes: int
) -> int:
    """Layers that fit `free_bytes` beside the cache. Raises ConfigError if one period does not.

    The cache is as large as --kv-cache-memory-bytes says, or a quarter of `free_bytes`.
    """
    dtype = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
    cache_bytes = config.cache.kv_cache_memory_bytes or int(CACHE_SHARE * free_bytes)
    left = free_bytes - cache_bytes - config.cache.image_cache_memory_bytes
    period = layer_period(architecture)
    for num_layers in range(architecture.num_layers, 0, -period):
        block_len = config.cache.block_len(device)
        size = footprint(shortened(architecture, num_layers), dtype=dtype, block_len=block_len)
        if size.total_weight_bytes <= left:
            return num_layers
    raise ConfigError(
        f"--layers is {FIT}; {period} layers take {size.total_weight_bytes} bytes of weights, and "
        f"beside the cache {left} are free: lower --kv-cache-memory-bytes"
    )


def write_shortened(source: Path, num_layers: int, target: Path) -> None:
    """Writes the JSON files of a model directory for its first layers. No weights."""
    for file in source.glob("*.json"):
        (target / file.name).write_bytes(file.read_bytes())
    config = read_object(source / "config.json")
    text: dict[str, Any] = config.get("text_config", config)
    text["num_hidden_layers"] = num_layers
    for name in ("no_rope_layers", "layer_types"):
        if text.get(name):
            text[name] = text[name][:num_layers]
    if text.get("moe_layers"):
        text["moe_layers"] = [layer for layer in text["moe_layers"] if layer < num_layers]
    (target / "config.json").write_text(json.dumps(config))
