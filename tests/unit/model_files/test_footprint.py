"""Sizes against the figures in llama4.md 1.6 and 5.1."""

from __future__ import annotations

import pytest

from caravan.errors import ConfigError
from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint

SCOUT = Architecture.from_config({"model_type": "llama4_text", "max_position_embeddings": 10485760})
MAVERICK = Architecture.from_config(
    {"model_type": "llama4_text", "num_local_experts": 128, "interleave_moe_layer_step": 2}
)


def test_scout_by_part() -> None:
    size = footprint(SCOUT, dtype="bfloat16", block_len=16)
    assert size.num_parameters["embeddings"] == 202048 * 5120
    assert size.num_parameters["head"] == 202048 * 5120 + 5120
    assert size.num_parameters["attention"] == 48 * (2 * 5120 * 5120 + 2 * 1024 * 5120 + 5120)
    assert size.num_parameters["experts"] == pytest.approx(96.6e9, rel=1e-3)
    assert size.num_parameters["shared"] == 48 * (3 * 5120 * 8192 + 5120)
    assert "dense" not in size.num_parameters
    assert size.total_parameters == pytest.approx(108.64e9 - 0.87e9, rel=1e-3)
    assert size.total_weight_bytes == 2 * size.total_parameters


def test_maverick_total() -> None:
    size = footprint(MAVERICK, dtype="bfloat16", block_len=16)
    assert size.num_parameters["experts"] == pytest.approx(386.5e9, rel=1e-3)
    assert size.num_parameters["dense"] == 24 * (3 * 5120 * 16384 + 5120)
    assert size.total_parameters == pytest.approx(401.58e9 - 0.87e9, rel=1e-3)


def test_bytes_follow_the_dtype() -> None:
    half = footprint(SCOUT, dtype="float16", block_len=16)
    single = footprint(SCOUT, dtype="float32", block_len=16)
    assert single.total_weight_bytes == 2 * half.total_weight_bytes
    assert single.full_bytes_per_token == 2 * half.full_bytes_per_token


def test_ranks_share_all_but_norms_and_routers() -> None:
    one = footprint(SCOUT, dtype="bfloat16", block_len=16)
    eight = footprint(SCOUT, dtype="bfloat16", block_len=16, tp_size=8)
    every_rank = 2 * (97 * 5120 + 48 * 16 * 5120)
    assert 8 * (eight.total_weight_bytes - every_rank) == one.total_weight_bytes - every_rank
    assert eight.num_parameters == one.num_parameters
    assert eight.full_bytes_per_token * 8 == one.full_bytes_per_token
    with pytest.raises(ConfigError, match="--tensor-parallel-size is 3"):
        footprint(SCOUT, dtype="bfloat16", block_len=16, tp_size=3)


@pytest.mark.parametrize(
    ("context", "gib"), [(8192, 1.5), (32768, 2.625), (131072, 7.125), (1 << 20, 49.125)]
)
def test_cache_of_one_request(context: int, gib: float) -> None:
    size = footprint(SCOUT, dtype="bfloat16", block_len=16)
    assert size.full_bytes_per_token == 48 * 1024
    assert size.chunked_bytes_per_token == 144 * 1024
    cache_bytes = int(gib * 2**30)
    assert size.num_pages(cache_bytes) * size.layout.page_bytes == cache_bytes
    assert size.longest_context(cache_bytes) == context
    assert size.longest_context(cache_bytes - 1) == context - 16


def test_context_ends_at_the_models_own() -> None:
    size = footprint(SCOUT, dtype="bfloat16", block_len=16)
    assert size.longest_context(1 << 60) == 10485760
    assert size.longest_context(size.layout.page_bytes) == 0


def test_the_real_vision_encoder() -> None:
    vision = {"hidden_size": 1408, "image_size": 336, "vision_output_dim": 4096}
    config = {"model_type": "llama4", "text_config": {}, "vision_config": vision}
    size = footprint(Architecture.from_config(config), dtype="bfloat16", block_len=16)
    # llama4.md 1.6: 0.87 billion, of 108.64 in all
    assert size.num_parameters["vision"] == pytest.approx(0.87e9, rel=1e-2)
    assert size.total_parameters == pytest.approx(108.64e9, rel=1e-3)
    assert (size.tile_tokens, size.tile_bytes) == (144, 144 * 5120 * 2)
    eight = footprint(Architecture.from_config(config), dtype="bfloat16", block_len=16, tp_size=8)
    assert eight.weight_bytes["vision"] == size.weight_bytes["vision"]
    assert eight.tile_bytes == size.tile_bytes


def test_text_only_models_have_no_tiles() -> None:
    size = footprint(SCOUT, dtype="bfloat16", block_len=16)
    assert (size.tile_tokens, size.tile_bytes) == (0, 0)
    assert "vision" not in size.num_parameters
