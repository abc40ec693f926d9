"""Architecture.from_config against transformers' own configuration classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Llama4Config, Llama4TextConfig

from caravan.model.architecture import Architecture
from caravan.model.vision_architecture import VisionArchitecture

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def assert_same(found: Architecture, oracle: Any) -> None:
    """Every field of ours against what transformers resolved."""
    num_layers = oracle.num_hidden_layers
    assert found.num_layers == num_layers
    assert found.hidden_size == oracle.hidden_size
    assert found.num_heads == oracle.num_attention_heads
    assert found.num_kv_heads == oracle.num_key_value_heads
    assert found.head_dim == oracle.head_dim
    assert found.vocab_size == oracle.vocab_size
    assert found.rms_norm_eps == oracle.rms_norm_eps
    assert found.max_position_embeddings == oracle.max_position_embeddings
    assert found.chunked == tuple(bool(rope) for rope in oracle.no_rope_layers)
    if oracle.attention_chunk_size is not None:
        names = {True: "chunked_attention", False: "full_attention"}
        assert [names[chunked] for chunked in found.chunked] == oracle.layer_types
    assert found.chunk_len == (oracle.attention_chunk_size or oracle.max_position_embeddings)
    assert found.moe == tuple(i in oracle.moe_layers for i in range(num_layers))
    assert found.num_experts == (oracle.num_local_experts if any(found.moe) else 0)
    assert found.expert_intermediate_size == oracle.intermediate_size
    assert found.dense_intermediate_size == oracle.intermediate_size_mlp
    assert found.use_qk_norm == oracle.use_qk_norm
    assert found.tie_word_embeddings == oracle.tie_word_embeddings
    rope = oracle.rope_parameters
    assert found.rope_theta == rope["rope_theta"]
    assert (found.rope_scaling is None) == (rope["rope_type"] == "default")
    if found.rope_scaling is not None:
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            assert getattr(found.rope_scaling, name) == rope[name]
        assert (
            found.rope_scaling.original_max_position_embeddings
            == rope["original_max_position_embeddings"]
        )
    assert (found.temperature_tuning is None) == (not oracle.attn_temperature_tuning)
    if found.temperature_tuning is not None:
        assert found.temperature_tuning.floor_scale == oracle.floor_scale
        assert found.temperature_tuning.attn_scale == oracle.attn_scale


VISION: dict[str, Any] = {
    "hidden_size": 1408,
    "image_size": 336,
    "vision_output_dim": 4096,
    "rope_theta": 1234.0,
}


def assert_same_vision(found: VisionArchitecture, oracle: Any) -> None:
    assert found.hidden_size == oracle.hidden_size
    assert found.num_layers == oracle.num_hidden_layers
    assert found.num_heads == oracle.num_attention_heads
    assert found.intermediate_size == oracle.intermediate_size
    assert found.tile_size == oracle.image_size
    assert found.patch_size == oracle.patch_size
    assert 1 / found.shuffle == oracle.pixel_shuffle_ratio
    assert found.adapter_size == oracle.projector_input_dim == oracle.vision_output_dim
    assert found.rope_theta == oracle.rope_parameters["rope_theta"]


FORMS: list[dict[str, Any]] = [
    {},
    {"num_hidden_layers": 5},
    {"num_hidden_layers": 5, "no_rope_layers": [1, 0, 0, 1, 1]},
    {"num_hidden_layers": 6, "no_rope_layers": [], "no_rope_layer_interval": 3},
    {"num_hidden_layers": 6, "moe_layers": [1, 5], "interleave_moe_layer_step": 3},
    {"num_hidden_layers": 7, "interleave_moe_layer_step": 3},
    {"num_hidden_layers": 4, "moe_layers": [], "num_local_experts": 0},
    {"num_hidden_layers": 4, "layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
    {"attention_chunk_size": None},
    {"rope_theta": 10000.0},
    {"rope_theta": 10000.0, "rope_scaling": LLAMA3},
    {"rope_scaling": {**LLAMA3, "rope_theta": 123.0}, "rope_theta": 10000.0},
    {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_type"} | {"type": "llama3"}},
    {"rope_scaling": {k: v for k, v in LLAMA3.items() if not k.startswith("original")}},
    {"rope_parameters": {**LLAMA3, "rope_theta": 7.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    {"rope_parameters": {"rope_theta": 7.0}},
    {"rope_parameters": None, "rope_scaling": None},
    {"attn_temperature_tuning": False},
    {"floor_scale": 16, "attn_scale": 0.5},
    {"tie_word_embeddings": True},
]


@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_forms_that_transformers_reads(fields: dict[str, Any]) -> None:
    ours = Architecture.from_config({"model_type": "llama4_text", **json.loads(json.dumps(fields))})
    assert_same(ours, Llama4TextConfig(**fields))


@pytest.mark.parametrize("multimodal", [False, True])
@pytest.mark.parametrize("fields", FORMS, ids=str)
def test_files_that_transformers_writes(
    fields: dict[str, Any], multimodal: bool, tmp_path: Path
) -> None:
    text = Llama4TextConfig(**json.loads(json.dumps(fields)))
    config = Llama4Config(text_config=text, vision_config=VISION) if multimodal else text
    config.save_pretrained(tmp_path)
    ours = Architecture.from_directory(tmp_path)
    assert_same(ours, text)
    if not multimodal:
        assert ours.vision is None
        return
    assert ours.vision is not None
    assert_same_vision(ours.vision, config.vision_config)


@st.composite
def text_fields(draw: st.DrawFn) -> dict[str, Any]:
    num_layers = draw(st.integers(1, 12))
    flags = st.lists(st.integers(0, 1), min_size=num_layers, max_size=num_layers)
    layers = st.lists(st.integers(0, num_layers - 1), unique=True)
    num_kv_heads = draw(st.integers(1, 4))
    return {"num_hidden_layers": num_layers, "num_key_value_heads": num_kv_heads} | draw(
        st.fixed_dictionaries(
            {"num_attention_heads": st.sampled_from([num_kv_heads, num_kv_heads * 5])},
            optional={
                "no_rope_layers": st.one_of(st.none(), st.just([]), flags),
                "no_rope_layer_interval": st.integers(1, 14),
                "moe_layers": st.one_of(st.none(), layers),
                "interleave_moe_layer_step": st.integers(1, 14),
                "attention_chunk_size": st.one_of(st.none(), st.integers(1, 10**6)),
                "attn_temperature_tuning": st.booleans(),
                "use_qk_norm": st.booleans(),
                "head_dim": st.integers(3, 64).map(lambda half: 2 * half),
                "rope_theta": st.floats(1, 1e6),
                "rope_scaling": st.one_of(st.none(), st.just(LLAMA3)),
            },
        )
    )


@settings(max_examples=60, deadline=None)
@given(text_fields())
def test_any_combination(fields: dict[str, Any]) -> None:
    ours = Architecture.from_config({"model_type": "llama4_text", **json.loads(json.dumps(fields))})
    assert_same(ours, Llama4TextConfig(**json.loads(json.dumps(fields))))
