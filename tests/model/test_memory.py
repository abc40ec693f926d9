"""How many pages the cache gets, and what is said when something does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from caravan.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig
from caravan.errors import ConfigError
from caravan.model.architecture import Architecture
from caravan.model.footprint import Footprint, footprint
from caravan.tiles import TileSlots
from caravan.worker.kv_cache import allocate_arena, layer_caches
from caravan.worker.memory import host_memory, plan_cache

ARCHITECTURE = Architecture.from_config(
    {
        "model_type": "llama4_text",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_hidden_layers": 8,
        "vocab_size": 100,
        "intermediate_size": 32,
        "intermediate_size_mlp": 32,
        "num_local_experts": 2,
        "attention_chunk_size": 32,
        "max_position_embeddings": 1024,
    }
)


def size() -> Footprint:
    return footprint(ARCHITECTURE, dtype="float32", block_len=4)


def config(*, num_seqs: int = 256, cache_bytes: int | None = None, **model: Any) -> EngineConfig:
    return EngineConfig(
        model=ModelConfig(**model),
        cache=CacheConfig(kv_cache_memory_bytes=cache_bytes),
        scheduler=SchedulerConfig(max_num_seqs=num_seqs),
    )


def test_the_cache_takes_what_the_weights_leave() -> None:
    page = size().layout.page_bytes
    free = size().total_weight_bytes + 400 * page + page // 2
    assert plan_cache(config(), size(), free).num_pages == 400


def test_but_no_more_than_the_requests_can_use() -> None:
    plan = plan_cache(config(num_seqs=2), size(), 1 << 40)
    assert plan.num_pages == 2 * size().layout.pages_needed(1024)
    assert plan.max_model_len == 1024


def test_the_longest_context_follows_from_the_pages() -> None:
    layout = size().layout
    plan = plan_cache(config(cache_bytes=100 * layout.page_bytes), size(), 0)
    assert plan.num_pages == 100
    assert layout.pages_needed(plan.max_model_len) <= 100
    assert layout.pages_needed(plan.max_model_len + 1) > 100


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"the weights take .* and .* are free"):
        plan_cache(config(), size(), size().total_weight_bytes)


def test_a_context_longer_than_the_model() -> None:
    with pytest.raises(ConfigError, match="--max-model-len is 1025; the model was made for at mos"):
        plan_cache(config(max_model_len=1025), size(), 1 << 40)


def test_a_context_that_does_not_fit_says_what_would() -> None:
    layout = size().layout
    cache_bytes = 100 * layout.page_bytes
    with pytest.raises(ConfigError, match="lower --max-model-len to ") as caught:
        plan_cache(config(max_model_len=1000, cache_bytes=cache_bytes), size(), 0)
    fits = int(str(caught.value).split("lower --max-model-len to ")[1].split()[0])
    plan = plan_cache(config(max_model_len=fits, cache_bytes=cache_bytes), size(), 0)
    assert plan.max_model_len == fits


def test_a_cache_smaller_than_one_block() -> None:
    with pytest.raises(ConfigError, match="a context of 2 tokens takes"):
        plan_cache(config(cache_bytes=1), size(), 0)


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", 0, 800 * 1024), ("700000", 500, 699500), ("9999999", 0, 800 * 1024)],
)
def test_a_container_may_have_less_than_the_machine(
    limit: str, used: int, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    800 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    assert host_memory(proc=tmp_path, cgroup=tmp_path) == expected


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable: 800 kB\n")
    assert host_memory(proc=tmp_path, cgroup=tmp_path / "none") == 800 * 1024


def test_every_layer_has_memory_of_its_own_and_a_page_has_its_bytes() -> None:
    layout = size().layout
    arena = allocate_arena(
        (ARCHITECTURE.num_kv_heads, ARCHITECTURE.head_dim),
        layout,
        5,
        torch.float32,
        torch.device("cpu"),
    )
    assert arena.numel() * 4 == 5 * layout.page_bytes
    caches = layer_caches(ARCHITECTURE, layout, arena)
    places = {
        (chunked, cache.slice_index, cache.k_PBKD.data_ptr())
        for chunked, cache in zip(ARCHITECTURE.chunked, caches, strict=True)
    }
    assert len(places) == 8
    assert {(c, s) for c, s, _ in places} == {(True, 0), (True, 1), (True, 2), (False, 0)}


def seeing(tile_tokens: int = 9, tile_bytes: int = 1000) -> Footprint:
    return dataclasses.replace(size(), tile_tokens=tile_tokens, tile_bytes=tile_bytes)


def test_encoded_tiles_get_their_share_first() -> None:
    page = size().layout.page_bytes
    settings = dataclasses.replace(config(), cache=CacheConfig(image_cache_memory_bytes=50 * page))
    free = size().total_weight_bytes + 400 * page
    assert plan_cache(settings, size(), free).tile_slots is None
    assert plan_cache(settings, size(), free).num_pages == 400
    plan = plan_cache(settings, seeing(tile_bytes=page), free)
    assert plan.tile_slots == TileSlots(num_slots=50, tile_tokens=9)
    assert plan.num_pages == 350


def test_a_cache_that_holds_no_tile_is_refused() -> None:
    settings = dataclasses.replace(config(), cache=CacheConfig(image_cache_memory_bytes=999))
    with pytest.raises(ConfigError, match=r"--image-cache-memory-bytes is 999; .* takes 1000"):
        plan_cache(settings, seeing(), 1 << 40)


def test_tiles_that_leave_no_room_are_named() -> None:
    free = size().total_weight_bytes + (1 << 20)
    with pytest.raises(ConfigError, match="--image-cache-memory-bytes"):
        plan_cache(config(), seeing(), free)
