"""How many pages the cache gets, decided before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from caravan.config import EngineConfig
from caravan.errors import ConfigError
from caravan.model.footprint import Footprint
from caravan.tiles import TileSlots

HOST_SHARE = 0.5  # of the free host memory, after the weights: the rest is for everything else
MIN_CONTEXT = 2  # tokens: one of prompt, one of completion


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The cache that fits."""

    num_pages: int
    max_model_len: int  # tokens
    tile_slots: TileSlots | None  # None: the model sees no pictures


def plan_cache(config: EngineConfig, footprint: Footprint, free_bytes: int) -> CachePlan:
    """Pages, tile slots and longest context within `free_bytes` of memory, weights included.

    Raises ConfigError if the weights, a tile, or the context asked for, do not fit.
    """
    limit = _context_limit(config, footprint)
    tile_slots = _tile_slots(config, footprint)
    tile_bytes = tile_slots.num_slots * footprint.tile_bytes if tile_slots else 0
    layout = footprint.layout
    cache_bytes = config.cache.kv_cache_memory_bytes
    if cache_bytes is None:
        left = free_bytes - footprint.total_weight_bytes - tile_bytes
        if left <= 0:
            raise ConfigError(
                f"the weights take {_size(footprint.total_weight_bytes)}, encoded pictures "
                f"{_size(tile_bytes)} (--image-cache-memory-bytes), and {_size(free_bytes)} are "
                "free; free some memory, or choose a smaller --dtype"
            )
        most = config.scheduler.max_num_seqs * layout.pages_needed(limit)
        num_pages = min(footprint.num_pages(left), most)
    else:
        num_pages = footprint.num_pages(cache_bytes)
    longest = layout.longest_context(num_pages, limit)
    wanted = config.model.max_model_len or MIN_CONTEXT
    if longest < wanted:
        needed = layout.pages_needed(wanted) * layout.page_bytes
        raise ConfigError(
            f"a context of {wanted} tokens takes {_size(needed)} of cache and there are "
            f"{_size(num_pages * layout.page_bytes)}; lower --max-model-len to {longest} or raise "
            "--kv-cache-memory-bytes"
        )
    return CachePlan(num_pages, longest, tile_slots)


def _tile_slots(config: EngineConfig, footprint: Footprint) -> TileSlots | None:
    if not footprint.tile_bytes:
        return None
    num_slots = config.cache.image_cache_memory_bytes // footprint.tile_bytes
    if not num_slots:
        raise ConfigError(
            f"--image-cache-memory-bytes is {config.cache.image_cache_memory_bytes}; one encoded "
            f"tile of a picture takes {footprint.tile_bytes}"
        )
    return TileSlots(num_slots, footprint.tile_tokens)


def _context_limit(config: EngineConfig, footprint: Footprint) -> int:
    limit, wanted = footprint.max_position_embeddings, config.model.max_model_len
    if wanted is not None and wanted > limit:
        raise ConfigError(f"--max-model-len is {wanted}; the model was made for at most {limit}")
    return wanted or limit


def free_memory(config: EngineConfig, device: torch.device, local_size: int = 1) -> int:
    """Bytes that weights and cache may take on the device, one of `local_size` on this machine."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free - (1 - config.cache.gpu_memory_utilization) * total)
    return int(HOST_SHARE * host_memory() / local_size)


def host_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes this process can still take: the machine's, or its container's if that is less."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024  # the file counts KiB
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB ({num_bytes} bytes)"
